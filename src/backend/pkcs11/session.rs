//! One session and what it can do; and what is done when it cannot.
//!
//! A [`Worker`] lives on one OS thread and owns one session. Each call runs through
//! [`Worker::attempt`] until it succeeds or until nothing that can help is left to try: a new session,
//! a login, looking for the keys again, initialising the module anew; each at most once per call.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cryptoki::error::Error;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use zeroize::Zeroizing;

use super::Settings;
use super::class::{Class, classify, describe};
use super::foreign;
use super::keys::{Facts, Keyring};
use super::module::{Inside, Module};
use super::raw::{CryptoCalls, Mode};
use crate::backend::{
    BackendError, ErrorKind, ForeignRequest, Key, KeySet, UnwrapRequest, WrapRequest, Wrapped,
};
use crate::key_id::KeyId;
use crate::random::Random;
use crate::secret::Secret;

/// Bytes of the IV: 96 bits, the only length for which GCM is not a special case.
const IV_BYTES: usize = 12;

/// Bytes of the tag.
const TAG_BYTES: usize = 16;

/// Why one attempt failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The module said so; what that means is in [`classify`].
    Code(Error),
    /// No key of ours was found, which is also what a module says that has logged us out.
    NoKeys(BackendError),
    /// The key asked for is not known.
    KeyUnknown(BackendError),
    /// A key that was there is not there now; the module may only have lost sight of it.
    KeyVanished(BackendError),
    /// Nothing can help.
    Final(BackendError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Code(error)
    }
}

impl Failure {
    /// The random number generator failed.
    #[allow(clippy::needless_pass_by_value, reason = "it is an argument of map_err")]
    pub(super) fn random(error: crate::random::RandomError) -> Self {
        let attempted = "draw random bytes";
        Self::Final(BackendError::new(ErrorKind::Unavailable, attempted, error.to_string()))
    }

    /// For the provider, once nothing can help any more.
    pub(super) fn explain(self, attempted: &'static str) -> BackendError {
        let error = match self {
            Self::NoKeys(error)
            | Self::KeyUnknown(error)
            | Self::KeyVanished(error)
            | Self::Final(error) => return error,
            Self::Code(error) => error,
        };
        let kind = match classify(&error) {
            Class::Pin => ErrorKind::Credentials,
            Class::Setup => ErrorKind::Misconfigured,
            _ => ErrorKind::Unavailable,
        };
        BackendError::new(kind, attempted, describe(&error))
    }
}

/// What an operation works with, valid while inside the module.
pub(super) struct Tools<'a> {
    calls: &'a CryptoCalls,
    pub(super) session: &'a Session,
    pub(super) random: &'a dyn Random,
}

impl<'a> Tools<'a> {
    pub(super) fn new(
        calls: &'a CryptoCalls,
        session: &'a Session,
        random: &'a dyn Random,
    ) -> Self {
        Self { calls, session, random }
    }

    /// IV ‖ ciphertext ‖ tag.
    pub(super) fn seal(
        &self,
        key: ObjectHandle,
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let mut iv = [0; IV_BYTES];
        self.random.fill(&mut iv).map_err(Failure::random)?;
        let mut sealed = iv.to_vec();
        sealed.extend(self.seal_with(key, &iv, aad, plaintext)?);
        Ok(sealed)
    }

    /// Ciphertext ‖ tag, under an IV that the caller answers for.
    pub(super) fn seal_with(
        &self,
        key: ObjectHandle,
        iv: &[u8],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.calls.encrypt(self.session, key, &Mode::Gcm { iv, aad }, plaintext)
    }

    /// Undoes [`Tools::seal`]; what is too short for it is not passed on to the module.
    pub(super) fn open(
        &self,
        key: ObjectHandle,
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.open_with(key, IV_BYTES, aad, sealed)
    }

    /// The same for another length of the IV.
    pub(super) fn open_with(
        &self,
        key: ObjectHandle,
        iv_bytes: usize,
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        use cryptoki::context::Function;
        use cryptoki::error::RvError;
        match sealed.split_at_checked(iv_bytes) {
            Some((iv, ciphertext)) if ciphertext.len() >= TAG_BYTES => {
                self.calls.decrypt(self.session, key, &Mode::Gcm { iv, aad }, ciphertext)
            }
            _ => Err(Error::Pkcs11(RvError::EncryptedDataLenRange, Function::Decrypt)),
        }
    }

    /// E_K of one block.
    pub(super) fn encrypt_block(
        &self,
        key: ObjectHandle,
        block: &[u8; 16],
    ) -> Result<Vec<u8>, Error> {
        self.calls.encrypt(self.session, key, &Mode::Ecb, block)
    }
}

/// One session with the keys it has found.
struct Open {
    /// Closed by [`Worker::close`] only: after an initialisation its number may be another's.
    session: Session,
    generation: u64,
    keys: Keys,
}

struct Keys {
    /// [`Module::keys_version`] when they were found.
    version: u64,
    ring: Keyring,
}

/// What an operation has at hand.
struct Call<'a> {
    module: &'a Module,
    settings: &'a Settings,
    tools: Tools<'a>,
    token: &'a Facts,
    /// The module has been initialised anew for this call.
    reinitialised: bool,
}

/// What has been tried for a call.
#[derive(Debug, Default, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent")]
struct Tried {
    session: bool,
    login: bool,
    find: bool,
    reinitialise: bool,
}

/// A session's owner; does not leave its thread.
pub(super) struct Worker {
    module: Arc<Module>,
    settings: Arc<Settings>,
    random: Arc<dyn Random>,
    open: Option<Open>,
    /// The initialisation that was last worked with.
    generation: u64,
}

impl Worker {
    pub(super) fn new(
        module: Arc<Module>,
        settings: Arc<Settings>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self { module, settings, random, open: None, generation: 0 }
    }

    /// Finds the keys as they are now, and tries the current one.
    pub(super) fn observe(&mut self) -> Result<KeySet, BackendError> {
        let module = Arc::clone(&self.module);
        let reported = module.reported.lock().clone();
        let found = self.attempt("find the keys and try the current one", true, |call, keys| {
            keys.ring = Keyring::look(&call.tools, &call.settings.key, Some(&keys.ring))?;
            keys.ring.current().map_err(Failure::Final)?.try_both_ways(&call.tools)?;
            let found = keys.ring.key_set(call.token).map_err(Failure::Final)?;
            let gone = |key: &&Key| found.find(&key.id).is_none();
            match reported.iter().flat_map(KeySet::iter).find(gone) {
                Some(gone) if !call.reinitialised => {
                    return Err(Failure::KeyVanished(no_such_key(&gone.id)));
                }
                _ => {}
            }
            if reported.as_ref() != Some(&found) {
                keys.version = call.module.keys_version.fetch_add(1, Ordering::SeqCst) + 1;
            }
            Ok(found)
        })?;
        *module.reported.lock() = Some(found.clone());
        Ok(found)
    }

    /// Wraps with the key asked for.
    pub(super) fn wrap(&mut self, request: &WrapRequest) -> Result<Wrapped, BackendError> {
        self.attempt("wrap a seed", false, |call, keys| {
            let Some(key) = keys.ring.for_wrapping(&request.key) else {
                return Err(Failure::KeyUnknown(no_such_key(&request.key)));
            };
            let plaintext = request.plaintext.expose();
            let payload = key.apply(|handle| call.tools.seal(handle, &request.aad, plaintext))?;
            if payload.len() != IV_BYTES + plaintext.len() + TAG_BYTES {
                return Err(Failure::Final(BackendError::new(
                    ErrorKind::Misconfigured,
                    "wrap a seed",
                    "AES-GCM does not give the ciphertext and a tag of 16 bytes",
                )));
            }
            Ok(Wrapped { key: request.key.clone(), payload })
        })
    }

    /// Unwraps with the key that has that fingerprint.
    pub(super) fn unwrap(&mut self, request: &UnwrapRequest) -> Result<Secret, BackendError> {
        self.attempt("unwrap a seed", false, |call, keys| {
            let mut candidates = keys.ring.for_unwrapping(request.key.fingerprint()).peekable();
            if candidates.peek().is_none() {
                return Err(Failure::KeyUnknown(no_such_key(&request.key)));
            }
            let tools = &call.tools;
            first_that_opens(tools, keys, candidates, |key| {
                key.apply(|handle| tools.open(handle, &request.aad, &request.payload))
            })
        })
    }

    /// Unwraps what another plugin wrote; `None` if no configured format claims it.
    pub(super) fn unwrap_foreign(
        &mut self,
        request: &ForeignRequest,
    ) -> Result<Option<Secret>, BackendError> {
        let settings = Arc::clone(&self.settings);
        let Some(format) = settings.foreign.iter().find(|format| format.claims(request)) else {
            return Ok(None);
        };
        self.attempt("unwrap a seed of another plugin", false, |call, keys| {
            let (tools, ciphertext) = (&call.tools, &request.ciphertext);
            let candidates = format.keys(tools)?;
            first_that_opens(tools, keys, candidates, |key| {
                tools.open_with(key, foreign::IV_BYTES, format.aad(), ciphertext)
            })
            .map(Some)
        })
    }

    /// Runs `operation` inside the module until it succeeds or nothing can help any more.
    ///
    /// Who is `patient` waits a second where that is what it takes: an observation, but no call.
    fn attempt<T>(
        &mut self,
        attempted: &'static str,
        patient: bool,
        operation: impl Fn(&Call<'_>, &mut Keys) -> Result<T, Failure>,
    ) -> Result<T, BackendError> {
        let mut tried = Tried::default();
        loop {
            let failure = match self.attempt_once(tried, &operation) {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            tracing::debug!(attempted, ?failure, ?tried, "a PKCS#11 operation failed");
            if !self.recover(&failure, &mut tried, patient)? {
                return Err(failure.explain(attempted));
            }
        }
    }

    fn attempt_once<T>(
        &mut self,
        tried: Tried,
        operation: impl Fn(&Call<'_>, &mut Keys) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let module = Arc::clone(&self.module);
        if module.enter().is_none() {
            let (token, pin) = (&self.settings.token, &self.settings.pin);
            module.open(self.generation, token, pin, false).map_err(Failure::Final)?;
        }
        // Another worker may have lost it again in between: then that is the failure.
        let inside = module.enter().ok_or_else(|| Failure::Final(lost_again()))?;
        self.bring_up(&inside)?;
        let Some(open) = &mut self.open else { return Err(Failure::Final(lost_again())) };
        let tools = Tools::new(module.calls(), &open.session, &*self.random);
        let (settings, reinitialised) = (&*self.settings, tried.reinitialise);
        let token = inside.token_facts().ok_or_else(|| Failure::Final(lost_again()))?;
        let call = Call { module: &module, settings, tools, token, reinitialised };
        operation(&call, &mut open.keys)
    }

    /// Sees to it that there is a session of this generation, with the keys that others know of.
    fn bring_up(&mut self, inside: &Inside<'_>) -> Result<(), Failure> {
        let version = self.module.keys_version.load(Ordering::SeqCst);
        let fits =
            |open: &Open| open.generation == inside.generation() && open.keys.version == version;
        if self.open.as_ref().is_some_and(fits) {
            return Ok(());
        }
        let generation = inside.generation();
        self.generation = generation;
        let (session, before) = match self.open.take() {
            Some(open) if open.generation == generation => (open.session, Some(open.keys.ring)),
            _ => (inside.open_session()?, None),
        };
        let tools = Tools::new(self.module.calls(), &session, &*self.random);
        match Keyring::look(&tools, &self.settings.key, before.as_ref()) {
            Ok(ring) => {
                self.open = Some(Open { session, generation, keys: Keys { version, ring } });
                Ok(())
            }
            Err(failure) => {
                // The failure is what matters; a session that cannot be closed is dead anyway.
                let _ = session.close();
                Err(failure)
            }
        }
    }

    /// Does what can help against `failure` and has not been tried; says whether to try again.
    fn recover(
        &mut self,
        failure: &Failure,
        tried: &mut Tried,
        patient: bool,
    ) -> Result<bool, BackendError> {
        let class = match failure {
            Failure::NoKeys(_) => Class::Login,
            Failure::KeyVanished(_) => Class::Reinitialise,
            // Its handle was valid a moment ago.
            Failure::KeyUnknown(_) if tried.find => Class::Reinitialise,
            Failure::KeyUnknown(_) | Failure::Final(_) => return Ok(false),
            Failure::Code(error) => classify(error),
        };
        match class {
            Class::Session if !tried.session => {
                tried.session = true;
                self.close();
            }
            Class::Login if !tried.login => {
                tried.login = true;
                if let Some(inside) = self.module.enter() {
                    inside.login_again(&self.settings.pin)?;
                }
            }
            Class::Handle if !tried.find => {
                tried.find = true;
                self.close();
            }
            Class::Pin | Class::Setup => return Ok(false),
            // Whatever was tried before did not help.
            _ if !tried.reinitialise => {
                tried.reinitialise = true;
                return self.reinitialise(patient);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Initialises the module anew; `false` if that was done a moment ago.
    fn reinitialise(&mut self, patient: bool) -> Result<bool, BackendError> {
        self.close();
        self.module.open(self.generation, &self.settings.token, &self.settings.pin, patient)
    }

    /// Closes the session, if it is of the present initialisation.
    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        if let Some(inside) = self.module.enter()
            && inside.generation() == open.generation
        {
            let _ = open.session.close();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.close();
    }
}

/// The plaintext by the first key that opens the ciphertext.
///
/// Modules give the same code for bad data and for a broken device. Which it was is told by a canary.
fn first_that_opens<K>(
    tools: &Tools<'_>,
    keys: &Keys,
    candidates: impl IntoIterator<Item = K>,
    open: impl Fn(K) -> Result<Zeroizing<Vec<u8>>, Error>,
) -> Result<Secret, Failure> {
    for key in candidates {
        match open(key) {
            Ok(plaintext) => return Ok(Secret::from(plaintext)),
            Err(error) if classify(&error) == Class::DataOrDevice => {}
            Err(error) => return Err(Failure::Code(error)),
        }
    }
    if let Some(key) = keys.ring.any_with_canary() {
        key.try_canary(tools)?;
    }
    Err(Failure::Final(
        BackendError::new(
            ErrorKind::BadCiphertext,
            "unwrap a seed",
            "the ciphertext, its key_id or its annotations are not what was written",
        )
        .advise("the object in etcd is damaged or was tampered with: restore it from a backup"),
    ))
}

fn no_such_key(id: &KeyId) -> BackendError {
    let attempted = format!("find the key {id}");
    BackendError::new(ErrorKind::KeyNotFound, attempted, "it is not on the token")
}

fn lost_again() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "use the token", "it was lost again just now")
}
