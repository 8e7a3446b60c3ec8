//! `kleidi init`: makes the token, its PINs and a key where they are missing.
//!
//! May be run again at any time, killed at any point and run twice at once: each step looks first
//! whether it has been done, PINs are on the disk before the token knows them, and a lock on the PIN
//! file's directory lets one in at a time. Nothing that exists is changed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

mod record;

use super::class::{Class, classify, describe};
use super::keys::{self, Attributes};
use super::module::{Module, find_token, matching_tokens, unavailable};
use super::sync::pause_for;
use super::tools::{Failure, Tools};
use super::{PinSource, Settings};
use crate::backend::{BackendError, ErrorKind};
use crate::random::Random;
use crate::secret::Secret;
use record::Record;

/// `CKA_ID` of a first key, unless another is asked for.
const FIRST_CKA_ID: &[u8] = &[1];

/// Characters of a generated PIN; without those that are read as another.
const PIN_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Length of a generated PIN: 120 bits.
const PIN_LENGTH: usize = 24;

/// How often the token is looked for before it is called missing: with SoftHSM 2.6.1 it can be
/// invisible for a moment while another process logs in, and a second token of the same name would
/// be a mess.
const TRIES: u32 = 5;

/// `CKA_ID`s of keys.
type Ids = Vec<Vec<u8>>;

/// What to create beyond the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where the security officer's PIN is, or is put if a token has to be made.
    pub so_pin_file: PathBuf,
    /// `CKA_ID` of the key to have; without one, any key with the label will do.
    pub cka_id: Option<Vec<u8>>,
}

/// What was there and what was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Label and serial number of the token.
    pub token: String,
    /// The token was made.
    pub token_created: bool,
    /// The PIN was generated, into the file of the settings.
    pub pin_created: bool,
    /// The key was made; `false` if it was there, untouched.
    pub key_created: bool,
}

/// Makes what is missing.
pub fn create(
    settings: &Settings,
    options: &Options,
    random: &Arc<dyn Random>,
) -> Result<Report, BackendError> {
    let PinSource::File(pin_file) = &settings.pin else {
        return Err(BackendError::new(
            ErrorKind::Misconfigured,
            "create a token",
            "the configuration is the Go kleidi's, with the PIN in it",
        )
        .advise("write a configuration of this version first (pinFile)"));
    };
    let _alone = lock_directory(pin_file)?;
    let module = Module::load(settings, Arc::clone(random))?;
    let creation = Creation { settings, options, pin_file, module: &module, random: &**random };
    creation.run()
}

struct Creation<'a> {
    settings: &'a Settings,
    options: &'a Options,
    pin_file: &'a Path,
    module: &'a Module,
    random: &'a dyn Random,
}

impl Creation<'_> {
    fn run(&self) -> Result<Report, BackendError> {
        let had_pin = self.pin_file.exists();
        let mut found = self.look_for_token()?;
        let mut ready = match &found {
            Some((slot, info)) => info.user_pin_initialized() || self.set_pin(*slot)?,
            None => false,
        };
        let token_created = !ready;
        if !ready {
            let (slot, info) = self.create_token()?;
            ready = self.set_pin(slot)?;
            found = Some((slot, info));
        }
        let Some((slot, info)) = found.filter(|_| ready) else {
            let reason = "the token does not take the PIN that it was made with";
            return Err(BackendError::new(ErrorKind::Misconfigured, "log in as SO", reason));
        };
        let session = self.open(slot, UserType::User, &pin(self.pin_file)?)?;
        Record::of(self.pin_file).write(&info)?;
        let key_created = self.create_key(&session)?;
        let token = format!("{:?}, serial {}", info.label(), info.serial_number());
        Ok(Report { token, token_created, pin_created: !had_pin, key_created })
    }

    /// The token, or `None` if it is not in sight.
    fn look_for_token(&self) -> Result<Option<(Slot, TokenInfo)>, BackendError> {
        for tries_left in (0..TRIES).rev() {
            self.module.initialise()?;
            match find_token(self.module.context(), &self.settings.token) {
                Ok(found) => return Ok(Some(found)),
                Err(error) if error.kind == ErrorKind::Unavailable => {}
                Err(error) => return Err(error),
            }
            // What was seen last is what a token is made in.
            if tries_left > 0 {
                self.module.finalise();
                pause_for(self.random.jitter(std::time::Duration::from_millis(50)));
            }
        }
        Ok(None)
    }

    fn create_token(&self) -> Result<(Slot, TokenInfo), BackendError> {
        let selector = &self.settings.token;
        let fail = |kind, reason: &str| {
            BackendError::new(kind, format!("create {selector}"), reason.to_owned())
        };
        let label = match (&selector.label, &selector.serial) {
            (Some(label), None) => label,
            (_, Some(_)) => {
                let why = "it is not there, and a serial number cannot be chosen";
                return Err(fail(ErrorKind::Misconfigured, why)
                    .advise("remove the serial number from the configuration"));
            }
            (None, None) => {
                return Err(fail(ErrorKind::Misconfigured, "the configuration names no label"));
            }
        };
        Record::of(self.pin_file).refuse_another(&self.settings.token)?;
        self.refuse_without_so_pin()?;
        let context = self.module.context();
        let slots = context
            .get_slots_with_token()
            .map_err(|error| unavailable("list the slots".to_owned(), &error))?;
        let blank =
            |slot: &Slot| context.get_token_info(*slot).is_ok_and(|info| !info.token_initialized());
        let Some(slot) = slots.into_iter().find(blank) else {
            let why = "there is no slot with a blank token";
            return Err(fail(ErrorKind::Misconfigured, why)
                .advise("initialise the token with the vendor's tools"));
        };
        let before = self.none_in_use(matching_tokens(context, selector)?)?;
        // Both PINs are on the disk before the token knows them: whoever is killed in between goes
        // on with the same ones.
        self.make_pin(&self.options.so_pin_file)?;
        self.make_pin(self.pin_file)?;
        let so_pin = pin(&self.options.so_pin_file)?;
        context
            .init_token(slot, &so_pin, label)
            .map_err(|error| unavailable(format!("create {selector}"), &error))?;
        // SoftHSM gives the token another slot, which shows after the next initialisation.
        self.module.finalise();
        self.module.initialise()?;
        self.none_in_use(matching_tokens(context, selector)?)?
            .into_iter()
            .find(|(_, info)| {
                !before.iter().any(|(_, b)| b.serial_number() == info.serial_number())
            })
            .ok_or_else(|| fail(ErrorKind::Unavailable, "it was made, and is not there"))
    }

    /// Refuses where there is a user's PIN and no security officer's: that node had a token.
    fn refuse_without_so_pin(&self) -> Result<(), BackendError> {
        let (pin, so_pin) = (self.pin_file, &self.options.so_pin_file);
        if !pin.exists() || so_pin.exists() {
            return Ok(());
        }
        let reason = format!(
            "there is a PIN in {}, and none of a security officer in {}: this node had a token",
            pin.display(),
            so_pin.display()
        );
        let attempted = format!("create {}", self.settings.token);
        Err(BackendError::new(ErrorKind::Misconfigured, attempted, reason).advise(
            "is its directory mounted, and does SOFTHSM2_CONF name it? For a new token with a PIN of \
             your own, put a security officer's beside it",
        ))
    }

    /// The same tokens, if none has a user: that one was out of sight when it was looked for.
    fn none_in_use(
        &self,
        tokens: Vec<(Slot, TokenInfo)>,
    ) -> Result<Vec<(Slot, TokenInfo)>, BackendError> {
        match tokens.iter().find(|(_, info)| info.user_pin_initialized()) {
            None => Ok(tokens),
            Some((_, info)) => {
                let attempted = format!("create {}", self.settings.token);
                let reason =
                    format!("one has come into sight, with serial {}", info.serial_number());
                Err(BackendError::new(ErrorKind::Unavailable, attempted, reason)
                    .advise("run kleidi init again"))
            }
        }
    }

    /// Gives the user a PIN, as security officer.
    ///
    /// `false` if the token does not know the security officer's PIN: where we made the token, SoftHSM
    /// was killed before it had set it. Such a token never had a user, and no key.
    fn set_pin(&self, slot: Slot) -> Result<bool, BackendError> {
        Record::of(self.pin_file).refuse_another(&self.settings.token)?;
        let so_pin = pin(&self.options.so_pin_file).map_err(|error| {
            error.advise("the token has no user PIN yet, and only the security officer can set it")
        })?;
        let session = match self.open(slot, UserType::So, &so_pin) {
            Ok(session) => session,
            Err(error) if error.kind == ErrorKind::Credentials => return Ok(false),
            Err(error) => return Err(error),
        };
        self.make_pin(self.pin_file)?;
        session
            .init_pin(&pin(self.pin_file)?)
            .map_err(|error| unavailable("set the user PIN".to_owned(), &error))?;
        let _ = session.logout();
        Ok(true)
    }

    fn open(&self, slot: Slot, user: UserType, pin: &AuthPin) -> Result<Session, BackendError> {
        let session = self
            .module
            .context()
            .open_rw_session(slot)
            .map_err(|error| unavailable("open a session for writing".to_owned(), &error))?;
        match session.login(user, Some(pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
            Err(error) if classify(&error) == Class::Pin => {
                let attempted = "log in to the token";
                Err(BackendError::new(ErrorKind::Credentials, attempted, describe(&error))
                    .advise("is the PIN in the file that of this token?"))
            }
            Err(error) => Err(unavailable("log in to the token".to_owned(), &error)),
        }
    }

    /// Makes the key unless it is there; says whether it was made.
    fn create_key(&self, session: &Session) -> Result<bool, BackendError> {
        let selector = &self.settings.key;
        let asked = self.options.cka_id.as_ref().or(selector.id.as_ref());
        let (whole, stumps) = self.find_keys(session)?;
        let there = |ids: &Ids| match asked {
            Some(asked) => ids.iter().any(|id| keys::same_id(id, asked)),
            None => !ids.is_empty(),
        };
        if there(&whole) {
            return Ok(false);
        }
        let id = match asked {
            Some(asked) if there(&stumps) => {
                let attempted = format!("create a key with CKA_ID {}", crate::key_id::hex(asked));
                let reason = "there is one without a value, left by a creation that was cut off";
                return Err(BackendError::new(ErrorKind::Misconfigured, attempted, reason)
                    .advise("delete it with the token's tools, or ask for another --cka-id"));
            }
            Some(asked) => asked.clone(),
            // Beside what a creation left that was cut off: it is left alone.
            None => keys::next_id(&stumps).unwrap_or_else(|| FIRST_CKA_ID.to_vec()),
        };
        let label = selector.label.as_deref().unwrap_or("kek");
        session
            .generate_key(&Mechanism::AesKeyGen, &template(label, &id))
            .map(|_| true)
            .map_err(|error| unavailable(format!("create an {selector}"), &error))
    }

    /// The `CKA_ID`s of our keys: of those that are whole, and of those that never were.
    fn find_keys(&self, session: &Session) -> Result<(Ids, Ids), BackendError> {
        let selector = &self.settings.key;
        let tools = Tools::new(self.module.calls(), session, self.random);
        let id = self.options.cka_id.as_deref().or(selector.id.as_deref());
        let sort = || -> Result<_, Failure> {
            let (mut whole, mut stumps) = (Vec::new(), Vec::new());
            for handle in keys::find(&tools, selector.label.as_deref(), id)? {
                let attributes = Attributes::read(session, handle)?;
                let stump = keys::never_was_a_key(&tools, handle, &attributes)?;
                if stump { &mut stumps } else { &mut whole }.push(attributes.id);
            }
            Ok((whole, stumps))
        };
        sort().map_err(|failure| failure.explain("look for the key"))
    }

    /// Generates a PIN into `file` unless there is one.
    fn make_pin(&self, file: &Path) -> Result<(), BackendError> {
        if file.exists() {
            return Ok(());
        }
        let fail = |reason: String| {
            let attempted = format!("put a PIN into {}", file.display());
            BackendError::new(ErrorKind::Misconfigured, attempted, reason)
        };
        let mut bytes = Zeroizing::new([0; PIN_LENGTH]);
        self.random.fill(&mut *bytes).map_err(|error| fail(error.to_string()))?;
        let pin = bytes.iter().map(|byte| PIN_ALPHABET[usize::from(byte % 32)]).collect::<Vec<_>>();
        write_private(file, &Secret::from(pin)).map_err(|error| fail(error.to_string()))
    }
}

fn pin(file: &Path) -> Result<AuthPin, BackendError> {
    let pin = PinSource::File(file.to_owned()).read()?;
    match String::from_utf8(pin.into_exposed()) {
        Ok(pin) => Ok(AuthPin::from(pin)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            let attempted = format!("read the PIN from {}", file.display());
            Err(BackendError::new(ErrorKind::Misconfigured, attempted, "it is not UTF-8"))
        }
    }
}

/// All flags are stated: the defaults differ between modules, and some are readable keys.
fn template(label: &str, id: &[u8]) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::ValueLen(32.into()),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(id.to_vec()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Sign(false),
        Attribute::Verify(false),
        Attribute::Derive(false),
    ]
}

/// Held for the whole creation; gone with the process.
fn lock_directory(pin_file: &Path) -> Result<File, BackendError> {
    let directory = pin_file.parent().unwrap_or(Path::new("/"));
    let fail = |reason: String| {
        let attempted = format!("lock the directory {}", directory.display());
        BackendError::new(ErrorKind::Misconfigured, attempted, reason)
    };
    let file = File::open(directory).map_err(|error| fail(error.to_string()))?;
    let owner = file.metadata().map_err(|error| fail(error.to_string()))?.uid();
    // Root could go on, and would leave files that the plugin may not read.
    if owner != nix::unistd::geteuid().as_raw() {
        return Err(fail(format!("it belongs to uid {owner}")).advise(
            "run kleidi init as that user, which has to be the one that kleidi serves as",
        ));
    }
    file.lock().map_err(|error| fail(error.to_string()))?;
    Ok(file)
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A new file with mode 0600: whole or not there at all, even after a power cut.
fn write_private(file: &Path, content: &Secret) -> io::Result<()> {
    let temporary = with_suffix(file, ".new");
    let _ = fs::remove_file(&temporary);
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    out.write_all(content.expose())?;
    out.sync_all()?;
    fs::rename(&temporary, file)?;
    File::open(file.parent().unwrap_or(Path::new("/")))?.sync_all()
}
