//! The PKCS#11 module of the process: loaded once, initialised anew when it has to be, never while
//! another call is in it.
//!
//! Two facts, measured with SoftHSM 2.6.1, shape this file: C_Finalize beside any other call crashes
//! the process, and a token or object that was once unreadable stays dead until C_Finalize and
//! C_Initialize. So every worker is *inside* ([`Module::enter`]) for the duration of its C calls, and
//! re-initialising waits until nobody is.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::RawAuthPin;
use parking_lot::Mutex;

use super::Settings;
use super::class::{Class, classify, describe};
use super::keys::Facts;
use super::pin::PinSource;
use super::raw::{CryptoCalls, initialise};
use super::renewed::{InUse, Renewed};
use super::sync::{Instant, pause_for};
use crate::backend::{BackendError, ErrorKind, KeySet};
use crate::random::Random;
use crate::secret::Secret;
use crate::trusted_path::{self, Holds};

/// Which token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSelector {
    /// Label, without the blanks that pad it.
    pub label: Option<String>,
    /// Serial number, without the blanks that pad it.
    pub serial: Option<String>,
}

impl std::fmt::Display for TokenSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.label, &self.serial) {
            (Some(label), Some(serial)) => write!(f, "token {label:?} with serial {serial}"),
            (Some(label), None) => write!(f, "token {label:?}"),
            (None, Some(serial)) => write!(f, "the token with serial {serial}"),
            (None, None) => write!(f, "the only token"),
        }
    }
}

impl TokenSelector {
    /// Whether it is this token.
    pub(super) fn matches(&self, info: &TokenInfo) -> bool {
        let same = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.trim_end() == found.trim_end())
        };
        same(&self.label, info.label()) && same(&self.serial, info.serial_number())
    }
}

/// How often the token is looked for before it is called missing, the first time: with SoftHSM 2.6.1
/// a token can be invisible for a moment while another process logs in.
const FIRST_TRIES: u32 = 5;

/// Longest pause between two of these tries.
const FIRST_TRY_PAUSE: Duration = Duration::from_millis(100);

/// The module and what is shared by all workers.
pub(super) struct Module {
    context: Pkcs11,
    calls: CryptoCalls,
    /// What the module is initialised with.
    parameters: Option<CString>,
    random: Arc<dyn Random>,
    token: Renewed<Token>,
    /// Bumped when an observation found other keys than before: workers then look, too.
    pub(super) keys_version: std::sync::atomic::AtomicU64,
    /// The keys as last observed.
    pub(super) reported: Mutex<Option<KeySet>>,
    /// Since when the current one of these has been gone, with an older one in its place.
    pub(super) current_gone_since: Mutex<Option<Instant>>,
    /// The PIN that each token refused last, by its serial number. It is not tried again: a token locks after a
    /// few times.
    refused_pins: Mutex<BTreeMap<String, RefusedPin>>,
}

/// A PIN that a token has refused.
struct RefusedPin {
    pin: Secret,
    /// When its file was last written: written anew, it is the operator's word that it is right.
    written: Option<SystemTime>,
    /// The token said that it is locked (`CKF_USER_PIN_LOCKED`).
    locked: bool,
}

/// An open token that we are logged in to.
struct Token {
    slot: Slot,
    serial: String,
    facts: Facts,
    /// Never used for anything: with the last session the login would be gone, too. (A [`Session`]
    /// is not `Sync`, hence the mutex.)
    anchor: Mutex<Session>,
}

/// Inside the module: as long as this lives, it is not re-initialised.
pub(super) struct Inside<'a> {
    module: &'a Module,
    token: InUse<'a, Token>,
}

impl Module {
    /// Loads the module, after checking that only trusted users can replace it.
    pub(super) fn load(settings: &Settings, random: Arc<dyn Random>) -> Result<Self, BackendError> {
        let path = &settings.module;
        let fail = |reason: String| {
            BackendError::new(
                ErrorKind::Misconfigured,
                format!("load the PKCS#11 module {}", path.display()),
                reason,
            )
        };
        // What was looked at is what is loaded: no link is followed once more.
        let file = check_file(path).map_err(fail)?;
        let context = Pkcs11::new(&file).map_err(|error| fail(describe(&error)))?;
        let calls = CryptoCalls::load(&file).map_err(|error| fail(describe(&error)))?;
        Ok(Self {
            context,
            calls,
            parameters: settings.module_parameters.clone(),
            random,
            token: Renewed::new(),
            keys_version: std::sync::atomic::AtomicU64::new(0),
            reported: Mutex::new(None),
            current_gone_since: Mutex::new(None),
            refused_pins: Mutex::default(),
        })
    }

    /// Enters the module; `None` if no token is open.
    pub(super) fn enter(&self) -> Option<Inside<'_>> {
        self.token.enter().map(|token| Inside { module: self, token })
    }

    /// Whether it was last initialised, or tried to be, longer than `time` ago.
    pub(super) fn is_older_than(&self, time: Duration) -> bool {
        self.token.is_older_than(time)
    }

    /// The crypto calls.
    pub(super) fn calls(&self) -> &CryptoCalls {
        &self.calls
    }

    /// The functions that need no session. The caller answers for who is inside.
    pub(super) fn context(&self) -> &Pkcs11 {
        &self.context
    }

    /// C_Finalize, while nobody is inside; that it was not initialised is fine.
    pub(super) fn finalise(&self) {
        let _ = self.context.clone().finalize();
    }

    /// Opens the token, again if generation `seen` has turned out to be dead.
    ///
    /// Does nothing if another worker has done so in the meantime. At most once a second: in between
    /// it repeats the last error; after a success, whoever is `patient` waits, and others are told
    /// `false`.
    pub(super) fn open(
        &self,
        seen: u64,
        selector: &TokenSelector,
        pin: &PinSource,
        patient: bool,
    ) -> Result<bool, BackendError> {
        self.token.renew(seen, patient, |first| {
            let tries = if first { FIRST_TRIES } else { 1 };
            let mut outcome = self.open_once(selector, pin);
            for _ in 1..tries {
                match &outcome {
                    Err(error) if error.kind == ErrorKind::Unavailable => {
                        pause_for(self.random.jitter(FIRST_TRY_PAUSE));
                        outcome = self.open_once(selector, pin);
                    }
                    _ => break,
                }
            }
            outcome
        })
    }

    /// Opens the token; nobody is inside.
    fn open_once(&self, selector: &TokenSelector, pin: &PinSource) -> Result<Token, BackendError> {
        // Sessions of the generation before die with this.
        self.finalise();
        self.initialise()?;
        let (slot, info) = find_token(&self.context, selector)?;
        let anchor = open_session(&self.context, slot)
            .map_err(|error| unavailable(format!("open a session on {selector}"), &error))?;
        let serial = info.serial_number().to_owned();
        self.login(&anchor, slot, &serial, pin)?;
        Ok(Token { slot, serial, facts: facts(&info), anchor: Mutex::new(anchor) })
    }

    /// C_Initialize. The caller sees to it that nobody is inside.
    pub(super) fn initialise(&self) -> Result<(), BackendError> {
        match initialise(&self.context, self.parameters.as_ref()) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
            Err(error) => Err(unavailable("initialise the PKCS#11 module".to_owned(), &error)
                .advise(
                    "with SoftHSM, look at the file that SOFTHSM2_CONF names, at directories.tokendir \
                     in it, and at who may read them; SoftHSM tells syslog the cause",
                )),
        }
    }

    /// Logs in, unless the PIN is one that this token has refused.
    fn login(
        &self,
        session: &Session,
        slot: Slot,
        serial: &str,
        source: &PinSource,
    ) -> Result<(), BackendError> {
        let attempted = "log in to the token";
        // In this order: what is written in between is another PIN, or is tried now.
        let pin = source.read()?;
        let written = source.written();
        let mut refused = self.refused_pins.lock();
        if let Some(before) = refused.get(serial)
            && (before.pin == pin && before.written == written)
            && !(before.locked && self.locked(slot) == Some(false))
        {
            return Err(BackendError::new(
                ErrorKind::Credentials,
                attempted,
                format!("the PIN in {source} is the one that the token has refused"),
            )
            .advise(
                "put the right PIN there; it is tried as soon as the file is written, and if it is right \
                 after all, touch the file",
            ));
        }
        let raw = RawAuthPin::new(Box::new(pin.expose().to_vec()));
        match session.login_with_raw(UserType::User, &raw) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                refused.remove(serial);
                Ok(())
            }
            Err(error @ Error::Pkcs11(RvError::UserPinNotInitialized, _)) => {
                // Also seen while another process logs in to the same SoftHSM token.
                Err(unavailable(attempted.to_owned(), &error)
                    .advise("if it stays so, the token has no user PIN yet: kleidi init"))
            }
            Err(error) if classify(&error) == Class::Pin => {
                let locked = self.locked(slot) == Some(true);
                refused.insert(serial.to_owned(), RefusedPin { pin, written, locked });
                let advice = if locked {
                    "have the security officer unlock the token; the PIN is tried again then"
                        .to_owned()
                } else {
                    format!(
                        "put the right PIN into {source}; the refused one is not tried again, because \
                         tokens lock after a few wrong ones"
                    )
                };
                Err(BackendError::new(ErrorKind::Credentials, attempted, describe(&error))
                    .advise(advice))
            }
            Err(error) => Err(unavailable(attempted.to_owned(), &error)),
        }
    }

    /// Whether the token says that the user's PIN is locked, if it says anything.
    fn locked(&self, slot: Slot) -> Option<bool> {
        self.context.get_token_info(slot).ok().map(|info| info.user_pin_locked())
    }
}

impl Inside<'_> {
    /// Which initialisation this is.
    pub(super) fn generation(&self) -> u64 {
        self.token.generation()
    }

    /// What is known of the open token.
    pub(super) fn token_facts(&self) -> Option<&Facts> {
        self.token.value().map(|token| &token.facts)
    }

    /// A new session on the token.
    pub(super) fn open_session(&self) -> Result<Session, Error> {
        let token = self.token.value().ok_or(Error::InvalidValue)?;
        open_session(&self.module.context, token.slot)
    }

    /// Logs in again after the token has logged us out.
    pub(super) fn login_again(&self, pin: &PinSource) -> Result<(), BackendError> {
        match self.token.value() {
            Some(token) => self.module.login(&token.anchor.lock(), token.slot, &token.serial, pin),
            None => Ok(()),
        }
    }
}

/// A session, read-only, or read-write where a module has no read-only ones.
///
/// It does not close itself when dropped: after another C_Initialize its number may be that of
/// somebody else's session.
fn open_session(context: &Pkcs11, slot: Slot) -> Result<Session, Error> {
    match context.open_ro_session_no_drop(slot) {
        Err(Error::Pkcs11(RvError::SessionReadOnly | RvError::FunctionNotSupported, _)) => {
            context.open_rw_session_no_drop(slot)
        }
        outcome => outcome,
    }
}

/// An error that the world has to heal.
pub(super) fn unavailable(attempted: String, error: &Error) -> BackendError {
    BackendError::new(ErrorKind::Unavailable, attempted, describe(error))
}

fn facts(info: &TokenInfo) -> Facts {
    Arc::new([
        ("token", info.label().to_owned()),
        ("serial", info.serial_number().to_owned()),
        ("model", info.model().to_owned()),
        ("manufacturer", info.manufacturer_id().to_owned()),
    ])
}

/// All initialised tokens that are meant.
pub(super) fn matching_tokens(
    context: &Pkcs11,
    selector: &TokenSelector,
) -> Result<Vec<(Slot, TokenInfo)>, BackendError> {
    let slots = context
        .get_slots_with_token()
        .map_err(|error| unavailable(format!("find {selector}"), &error))?;
    // A slot whose token cannot be read is another's trouble, not ours.
    Ok(slots
        .into_iter()
        .filter_map(|slot| Some((slot, context.get_token_info(slot).ok()?)))
        .filter(|(_, info)| info.token_initialized() && selector.matches(info))
        .collect())
}

/// The slot of the one token that is meant.
///
/// A token without a user PIN holds no key of ours; beside one that has a PIN it does not count. (It is
/// what remains when SoftHSM is killed while it makes a token.)
pub(super) fn find_token(
    context: &Pkcs11,
    selector: &TokenSelector,
) -> Result<(Slot, TokenInfo), BackendError> {
    let attempted = || format!("find {selector}");
    let mut found = matching_tokens(context, selector)?;
    if found.iter().any(|(_, info)| info.user_pin_initialized()) {
        found.retain(|(_, info)| info.user_pin_initialized());
    }
    match (found.pop(), found.len()) {
        (Some(token), 0) => Ok(token),
        (None, _) => {
            Err(BackendError::new(ErrorKind::Unavailable, attempted(), "no such token is present")
                .advise(
                    "bring it back: is its directory mounted, and does SOFTHSM2_CONF name it? Where \
                     anything is encrypted already, no other helps; otherwise create it with: kleidi init",
                ))
        }
        (Some((_, info)), _) => {
            let serials = found.iter().map(|(_, info)| info.serial_number());
            let serials: Vec<_> = serials.chain([info.serial_number()]).collect();
            Err(BackendError::new(
                ErrorKind::Misconfigured,
                attempted(),
                format!(
                    "{} tokens match, with the serial numbers {}",
                    serials.len(),
                    serials.join(", ")
                ),
            )
            .advise("name the serial number too (tokenSerial)"))
        }
    }
}

/// Where the path leads to: a regular file that only root and we can change or exchange. Absolute, because
/// `dlopen` would otherwise look around, and run whatever it finds.
fn check_file(path: &Path) -> Result<PathBuf, String> {
    if !path.is_absolute() {
        return Err("the path is not absolute".to_owned());
    }
    let resolved =
        trusted_path::resolve(path, "find the file").map_err(|error| error.to_string())?;
    let metadata = fs::metadata(&resolved).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if trusted_path::others_may_write(&metadata) {
        return Err(format!("others can change it (mode {:04o})", metadata.mode() & 0o7777));
    }
    let owner = metadata.uid();
    if trusted_path::is_strange(owner) {
        return Err(format!("it belongs to uid {owner}; it has to belong to root or to us"));
    }
    let directory = resolved.parent().unwrap_or(Path::new("/"));
    trusted_path::check_directory(directory, Holds::WhatIsThere)
        .map_err(|error| error.to_string())?;
    Ok(resolved)
}
