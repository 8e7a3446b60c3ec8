//! One session on one thread: what it does, and what is done when it cannot.
//!
//! A [`Worker`] lives on one OS thread and owns one session. Each call runs through
//! [`Worker::attempt`] until it succeeds or until nothing that can help is left to try: a new session,
//! a login, looking for the keys again, initialising the module anew; each at most once per call.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cryptoki::error::Error;
use cryptoki::session::Session;
use zeroize::Zeroizing;

use super::Settings;
use super::class::{Class, another_key_may_do, classify};
use super::foreign;
use super::keys::{Facts, Keyring, LoadedKey};
use super::module::{Inside, Module};
use super::sync::Instant;
use super::tools::{Failure, Tools};
use crate::backend::{
    BackendError, ErrorKind, ForeignRequest, Key, KeySet, UnwrapRequest, WrapRequest, Wrapped,
};
use crate::key_id::KeyId;
use crate::random::Random;
use crate::secret::Secret;

/// How long the current key has to be gone before an older one takes its place: until then it may be
/// put back, and what it wrapped be read again. As long as with transit.
const OLDER_AFTER: Duration = Duration::from_secs(60);

/// Shortest time from an initialisation to one for the sake of a key that is not known. It may have been
/// put back, or made by another process, which SoftHSM does not notice by itself; or nobody ever had it.
const AFRESH_AFTER: Duration = Duration::from_secs(60);

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
        // Whatever else comes of this ends that it is gone.
        let gone_since = module.current_gone_since.lock().take();
        let found = self.attempt("find the keys and try the current one", true, |call, keys| {
            let (tools, selector) = (&call.tools, &call.settings.key);
            keys.ring = Keyring::look(tools, selector, Some(&keys.ring), call.reinitialised)?;
            keys.ring.current().map_err(Failure::Final)?.try_both_ways(tools)?;
            let found = keys.ring.key_set(call.token).map_err(Failure::Final)?;
            let lost = reported.as_ref().and_then(|before| before.lost_in(&found).next());
            if let Some(lost) = lost.filter(|_| !call.reinitialised) {
                return Err(Failure::KeyLost(not_there(format!("find the key with {lost}"))));
            }
            if let Some(gone) =
                reported.as_ref().and_then(|before| replaced_by_older(before, &found))
            {
                let since = gone_since.unwrap_or_else(Instant::now);
                if since.elapsed() < OLDER_AFTER {
                    *call.module.current_gone_since.lock() = Some(since);
                    return Err(Failure::Final(current_gone(gone, &found.current)));
                }
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
            let (payload, wrapped_by) = key.apply(|handle| {
                let payload = call.tools.seal(handle, &request.aad, plaintext)?;
                // The one answer that is kept for years: nothing is given out that was not read back.
                let key = key.vouch_for(&call.tools, handle, &request.aad, &payload, plaintext)?;
                Ok::<_, Failure>((payload, key))
            })?;
            Ok(Wrapped { key: wrapped_by, payload })
        })
    }

    /// Unwraps with the key that has that fingerprint.
    pub(super) fn unwrap(&mut self, request: &UnwrapRequest) -> Result<Secret, BackendError> {
        self.attempt("unwrap a seed", false, |call, keys| {
            let (tools, fingerprint) = (&call.tools, request.key.fingerprint());
            let candidates = keys.ring.for_unwrapping(fingerprint);
            let candidates = candidates.map(|key| (key, Some(key)));
            let opened = first_that_opens(tools, &keys.ring, candidates, |key| {
                key.apply(|handle| tools.open(handle, &request.aad, &request.payload))
            })?;
            match opened {
                Some(seed) => Ok(seed),
                None if keys.ring.has(fingerprint) => Err(Failure::Final(not_what_was_written())),
                // It may be the broken one; initialised anew, the module may be able to use it.
                None if keys.ring.has_broken() => Err(Failure::KeyLost(no_such_key(&request.key))),
                None => Err(Failure::KeyUnknown(no_such_key(&request.key))),
            }
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
            let found = format.keys(tools)?;
            let candidates = found.into_iter().map(|key| (key, keys.ring.loaded(key)));
            let opened = first_that_opens(tools, &keys.ring, candidates, |key| {
                tools.open_with(key, foreign::IV_BYTES, format.aad(), ciphertext)
            })?;
            opened.map(Some).ok_or_else(|| Failure::Final(not_what_was_written()))
        })
    }

    /// Runs `operation` inside the module until it succeeds or nothing can help any more.
    ///
    /// A `patient` caller, which is an observation, may wait up to a second for the next
    /// initialisation; a call may not.
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
        self.bring_up(&inside, tried.reinitialise)?;
        let Some(open) = &mut self.open else { return Err(Failure::Final(lost_again())) };
        let tools = Tools::new(module.calls(), &open.session, &*self.random);
        let (settings, reinitialised) = (&*self.settings, tried.reinitialise);
        let token = inside.token_facts().ok_or_else(|| Failure::Final(lost_again()))?;
        let call = Call { module: &module, settings, tools, token, reinitialised };
        operation(&call, &mut open.keys)
    }

    /// Sees to it that there is a session of this generation, with the keys that others know of.
    fn bring_up(&mut self, inside: &Inside<'_>, reinitialised: bool) -> Result<(), Failure> {
        let version = self.module.keys_version.load(Ordering::SeqCst);
        let fits =
            |open: &Open| open.generation == inside.generation() && open.keys.version == version;
        if self.open.as_ref().is_some_and(fits) {
            return Ok(());
        }
        let generation = inside.generation();
        // It has been since this worker looked last, for another's sake.
        let reinitialised = reinitialised || generation > 1 && generation != self.generation;
        self.generation = generation;
        let (session, before) = match self.open.take() {
            Some(open) if open.generation == generation => (open.session, Some(open.keys.ring)),
            _ => (inside.open_session()?, None),
        };
        let tools = Tools::new(self.module.calls(), &session, &*self.random);
        match Keyring::look(&tools, &self.settings.key, before.as_ref(), reinitialised) {
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
            Failure::KeyLost(_) => Class::Reinitialise,
            // It was known before its handle was found to be invalid.
            Failure::KeyUnknown(_) if tried.find => Class::Reinitialise,
            Failure::KeyUnknown(_) if self.module.is_older_than(AFRESH_AFTER) => {
                Class::Reinitialise
            }
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
    ///
    /// The session is of no use afterwards; and of as much as before, if nothing was done.
    fn reinitialise(&self, patient: bool) -> Result<bool, BackendError> {
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

/// The plaintext by the first key that opens the ciphertext; `None` if the data are at fault.
///
/// One that is broken hides none of the others: its error counts when none opens. Modules give the same
/// code for bad data and for a broken key or device. Which it was is told by the canary of the key that
/// refused, or by another's if it has none. Each candidate comes with what the ring knows of it.
fn first_that_opens<'k, K>(
    tools: &Tools<'_>,
    ring: &'k Keyring,
    candidates: impl Iterator<Item = (K, Option<&'k LoadedKey>)>,
    open: impl Fn(K) -> Result<Zeroizing<Vec<u8>>, Error>,
) -> Result<Option<Secret>, Failure> {
    let (mut refused, mut broken) = (Vec::new(), None);
    for (key, loaded) in candidates {
        match open(key) {
            Ok(plaintext) => return Ok(Some(Secret::from(plaintext))),
            Err(error) if classify(&error) == Class::DataOrDevice => refused.push(loaded),
            Err(error) if another_key_may_do(&error) => broken = broken.or(Some(error)),
            Err(error) => return Err(Failure::Code(error)),
        }
    }
    if let Some(error) = broken {
        return Err(Failure::Code(error));
    }
    let with_canary = |key: &&LoadedKey| key.has_canary();
    let mut told = false;
    for key in refused.iter().copied().flatten().filter(with_canary) {
        key.try_canary(tools)?;
        told = true;
    }
    if !told
        && !refused.is_empty()
        && let Some(key) = ring.any_with_canary()
    {
        key.try_canary(tools)?;
    }
    Ok(None)
}

/// The current key of `before`, if it is not on the token any more and an older one stands in its place.
fn replaced_by_older<'k>(before: &'k KeySet, found: &KeySet) -> Option<&'k Key> {
    let gone = &before.current;
    let among = |keys: &KeySet, key: &Key| {
        keys.iter().any(|other| other.id.fingerprint() == key.id.fingerprint())
    };
    let there = among(found, gone) || found.without_id.contains(&gone.name);
    (!there && among(before, &found.current)).then_some(gone)
}

fn not_what_was_written() -> BackendError {
    BackendError::new(
        ErrorKind::BadCiphertext,
        "unwrap a seed",
        "the ciphertext, its key_id or its annotations are not what was written",
    )
    .advise("the object in etcd is damaged or was tampered with: restore it from a backup")
}

fn no_such_key(id: &KeyId) -> BackendError {
    not_there(format!("find the key {id}"))
}

fn not_there(attempted: String) -> BackendError {
    BackendError::new(ErrorKind::KeyNotFound, attempted, "it is not on the token")
}

fn current_gone(key: &Key, older: &Key) -> BackendError {
    let attempted = format!("find the current key, {} (key_id {})", key.name, key.id);
    BackendError::new(ErrorKind::KeyNotFound, attempted, "it is not on the token any more").advise(
        format!(
            "restore it now, or what it wrapped cannot be read; after a minute without it kleidi goes \
             on with {}",
            older.name
        ),
    )
}

fn lost_again() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "use the token", "it was lost again just now")
}
