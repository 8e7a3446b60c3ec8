//! From what is written to what is meant. Every refusal names the key and what is allowed.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Gid, Group, Uid, User};

use super::environment::{Environment, Remarks};
use super::error::{ConfigError, Problem};
use super::raw::{self, Text};
use super::{Config, DEFAULT_LISTEN, Kms, LogFormat, LogLevel, Overrides};
use crate::backend::pkcs11::{
    ForeignFormat, KeySelector, PinSource, Plugin, Settings, TokenSelector, Uri,
};
use crate::limits;
use crate::provider::Health;
use crate::socket::{Access, Address};

const API_VERSION: &str = "kleidi.beezy.dev/v1";
const KIND: &str = "PluginConfiguration";

/// Longest token label in bytes (`CK_TOKEN_INFO`).
const TOKEN_LABEL_BYTES_MAX: usize = 32;

/// Collects what is wrong instead of stopping at the first fault.
pub(super) struct Resolver<'a> {
    file: &'a Path,
    pub(super) environment: &'a Environment,
    pub(super) problems: Vec<Problem>,
    pub(super) remarks: Remarks,
}

/// Resolves a file's content, with what flags and environment override.
pub(super) fn resolve(
    path: &Path,
    file: &raw::File,
    overrides: &Overrides,
    environment: &Environment,
) -> Result<Config, ConfigError> {
    let mut r = Resolver::of(path, file, environment);
    let Some(kms) = r.kms(file) else { return Err(ConfigError(r.problems)) };
    let default = Config::with(path, kms);
    let (listen, access) = r.socket(&file.socket, default.listen, default.access);
    let health = r.health(&file.health, default.health);
    let level = r.choice("log.level", file.log.level.as_ref(), &LogLevel::ALL);
    let format = r.choice("log.format", file.log.format.as_ref(), &LogFormat::ALL);
    let shutdown_grace = r.duration(
        "shutdownGrace",
        file.shutdown_grace.as_ref(),
        default.shutdown_grace,
        Duration::ZERO..=Duration::from_secs(300),
    );
    let lock_memory = r.flag("lockMemory", file.lock_memory.as_ref(), default.lock_memory);
    if !r.problems.is_empty() {
        return Err(ConfigError(r.problems));
    }
    Ok(Config {
        file: default.file,
        listen: overrides.listen.clone().unwrap_or(listen),
        access,
        kms: default.kms,
        health,
        log_level: overrides.log_level.or(level).unwrap_or_default(),
        log_format: overrides.log_format.or(format).unwrap_or_default(),
        shutdown_grace,
        lock_memory,
        remarks: r.remarks,
    })
}

/// What a file says of the plugin's address, whatever else is in it.
pub(super) fn address(path: &Path, file: &raw::File) -> Result<Address, ConfigError> {
    let environment = Environment::default();
    let mut r = Resolver::of(path, file, &environment);
    let listen = r.listen(&file.socket);
    if r.problems.is_empty() {
        Ok(listen.unwrap_or_else(|| Address::Path(DEFAULT_LISTEN.into())))
    } else {
        Err(ConfigError(r.problems))
    }
}

impl<'a> Resolver<'a> {
    /// Begins with what kind of file it is.
    fn of(path: &'a Path, file: &raw::File, environment: &'a Environment) -> Self {
        let (problems, remarks) = (Vec::new(), Remarks::default());
        let mut r = Self { file: path, environment, problems, remarks };
        r.exactly("apiVersion", &file.api_version, API_VERSION);
        r.exactly("kind", &file.kind, KIND);
        r
    }

    pub(super) fn problem(&mut self, key: &str, at: Option<&Text>, message: impl Into<String>) {
        self.problems.push(Problem {
            file: Some(self.file.to_owned()),
            position: at.map(|text| (text.referenced.line(), text.referenced.column())),
            key: key.to_owned(),
            message: message.into(),
        });
    }

    pub(super) fn problem_of_environment(&mut self, variable: &str, message: impl Into<String>) {
        self.problems.push(Problem {
            file: None,
            position: None,
            key: variable.to_owned(),
            message: message.into(),
        });
    }

    /// The one section that says where the keys are; `None` after saying what is wrong with it.
    fn kms(&mut self, file: &raw::File) -> Option<Kms> {
        match (&file.pkcs11, &file.transit) {
            (Some(pkcs11), None) => Some(Kms::Pkcs11(self.pkcs11(pkcs11))),
            (None, Some(transit)) => self.transit(transit).map(Kms::Transit),
            (None, None) => {
                self.problem("", None, "one of the sections pkcs11 and transit has to be there");
                None
            }
            (Some(_), Some(_)) => {
                self.problem("", None, "of the sections pkcs11 and transit only one may be there");
                None
            }
        }
    }

    fn exactly(&mut self, key: &str, found: &Text, wanted: &str) {
        if found.value != wanted {
            self.problem(key, Some(found), format!("{:?} has to be {wanted:?}", found.value));
        }
    }

    /// Parses a text if it is there; a problem gives `None`, too.
    pub(super) fn parsed<T>(
        &mut self,
        key: &str,
        text: Option<&Text>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = text?;
        match parse(&text.value) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problem(key, Some(text), message);
                None
            }
        }
    }

    fn flag(&mut self, key: &str, text: Option<&Text>, default: bool) -> bool {
        let parse = |text: &str| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(format!("{other:?} is neither true nor false")),
        };
        self.parsed(key, text, parse).unwrap_or(default)
    }

    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &str,
        text: Option<&Text>,
        all: &[(&'static str, T)],
    ) -> Option<T> {
        self.parsed(key, text, |text| {
            all.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
                let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
                format!("{text:?} is not one of: {}", names.join(", "))
            })
        })
    }

    fn number(
        &mut self,
        key: &str,
        text: Option<&Text>,
        default: usize,
        allowed: std::ops::RangeInclusive<usize>,
    ) -> usize {
        let parse = |text: &str| match text.parse() {
            Ok(number) if allowed.contains(&number) => Ok(number),
            _ => Err(format!(
                "{text:?} is not a whole number from {} to {}",
                allowed.start(),
                allowed.end()
            )),
        };
        self.parsed(key, text, parse).unwrap_or(default)
    }

    fn duration(
        &mut self,
        key: &str,
        text: Option<&Text>,
        default: Duration,
        allowed: std::ops::RangeInclusive<Duration>,
    ) -> Duration {
        let parse = |text: &str| match humantime::parse_duration(text) {
            Ok(duration) if allowed.contains(&duration) => Ok(duration),
            _ => Err(format!(
                "{text:?} is not a duration from {} to {} (for instance 500ms, 10s, 2m)",
                humantime::format_duration(*allowed.start()),
                humantime::format_duration(*allowed.end())
            )),
        };
        self.parsed(key, text, parse).unwrap_or(default)
    }

    pub(super) fn path(&mut self, key: &str, text: Option<&Text>) -> Option<PathBuf> {
        self.parsed(key, text, absolute)
    }

    fn listen(&mut self, socket: &raw::Socket) -> Option<Address> {
        self.parsed("socket.listen", socket.listen.as_ref(), |text| {
            text.parse::<Address>().map_err(|error| error.to_string())
        })
    }

    fn socket(
        &mut self,
        socket: &raw::Socket,
        listen: Address,
        access: Access,
    ) -> (Address, Access) {
        let listen = self.listen(socket).unwrap_or(listen);
        let mode =
            self.parsed("socket.mode", socket.mode.as_ref(), |text| {
                match u32::from_str_radix(text, 8) {
                    Ok(mode @ (0o600 | 0o620 | 0o640 | 0o660)) => Ok(mode),
                    _ => Err(format!(
                        "{text:?} is not one of: 0600, 0620, 0640, 0660 (whoever may write to the \
                     socket can have every Secret decrypted)"
                    )),
                }
            });
        let owner = self.parsed("socket.owner", socket.owner.as_ref(), user);
        let group = self.parsed("socket.group", socket.group.as_ref(), group);
        let users = match &socket.allowed_users {
            None => access.users,
            Some(names) => names
                .iter()
                .filter_map(|name| self.parsed("socket.allowedUsers", Some(name), user))
                .map(Uid::as_raw)
                .collect(),
        };
        (listen, Access { mode: mode.unwrap_or(access.mode), owner, group, users })
    }

    fn pkcs11(&mut self, pkcs11: &raw::Pkcs11) -> Settings {
        let key = |name: &str| format!("pkcs11.{name}");
        let uri = self
            .parsed(&key("uri"), pkcs11.uri.as_ref(), |text| {
                text.parse::<Uri>().map_err(|error| error.to_string())
            })
            .unwrap_or_default();
        let module = self.path(&key("module"), pkcs11.module.as_ref());
        let parameters = pkcs11.module_parameters.as_ref();
        let module_parameters = self.parsed(&key("moduleParameters"), parameters, |text| {
            CString::new(text).map_err(|_| "it must not contain NUL".to_owned())
        });
        let pin_file = self.parsed(&key("pinFile"), pkcs11.pin_file.as_ref(), pin_file);
        let token_label = self.parsed(&key("tokenLabel"), pkcs11.token_label.as_ref(), not_empty);
        let token_serial =
            self.parsed(&key("tokenSerial"), pkcs11.token_serial.as_ref(), not_empty);
        let key_label = self.parsed(&key("keyLabel"), pkcs11.key_label.as_ref(), not_empty);
        let cka_id = self.parsed(&key("ckaId"), pkcs11.cka_id.as_ref(), parse_cka_id);

        let module = self.either("module", module, "module-path", uri.module_path, pkcs11);
        let pin_file = self.either("pinFile", pin_file, "pin-source", uri.pin_source, pkcs11);
        let token_label = self.either("tokenLabel", token_label, "token", uri.token, pkcs11);
        let serial = self.either("tokenSerial", token_serial, "serial", uri.serial, pkcs11);
        let label = self.either("keyLabel", key_label, "object", uri.object, pkcs11);
        let id = self.either("ckaId", cka_id, "id", uri.id, pkcs11);

        if token_label.as_ref().is_some_and(|label| label.len() > TOKEN_LABEL_BYTES_MAX) {
            let message = format!("longer than {TOKEN_LABEL_BYTES_MAX} bytes");
            self.problem(&key("tokenLabel"), pkcs11.token_label.as_ref(), message);
        }
        self.required("module", "module-path", module.is_some(), pkcs11);
        self.required("pinFile", "pin-source", pin_file.is_some(), pkcs11);
        self.required("tokenLabel", "token", token_label.is_some() || serial.is_some(), pkcs11);
        self.required("keyLabel", "object", label.is_some() || id.is_some(), pkcs11);
        let token = TokenSelector { label: token_label, serial };
        let allow_weak = self.flag(&key("allowWeakKeys"), pkcs11.allow_weak_keys.as_ref(), false);
        let selector = KeySelector { label, id, allow_weak };
        let foreign =
            pkcs11.decrypt_also.iter().filter_map(|also| self.decrypt_also(also)).collect();
        let pin = PinSource::File(pin_file.unwrap_or_default());
        let default = Settings::new(module.unwrap_or_default(), token, selector, pin);
        Settings {
            module_parameters,
            workers: self.number(&key("workers"), pkcs11.workers.as_ref(), default.workers, 1..=16),
            queue: self.number(&key("queue"), pkcs11.queue.as_ref(), default.queue, 1..=65536),
            call_timeout: self.duration(
                &key("callTimeout"),
                pkcs11.call_timeout.as_ref(),
                default.call_timeout,
                Duration::from_millis(100)..=limits::CALL_TIMEOUT,
            ),
            foreign,
            ..default
        }
    }

    /// A field or the URI's attribute of the same meaning; both is a contradiction or a repetition.
    fn either<T>(
        &mut self,
        field: &str,
        value: Option<T>,
        attribute: &str,
        in_uri: Option<T>,
        pkcs11: &raw::Pkcs11,
    ) -> Option<T> {
        if value.is_some() && in_uri.is_some() {
            let message = format!("{field} says the same as {attribute:?} in the uri; keep one");
            self.problem("pkcs11", pkcs11.uri.as_ref(), message);
        }
        value.or(in_uri)
    }

    fn required(&mut self, field: &str, attribute: &str, there: bool, pkcs11: &raw::Pkcs11) {
        // Where something is wrong with it or with the uri, that has been said.
        let said = [format!("pkcs11.{field}"), "pkcs11.uri".to_owned()];
        if !there && !self.problems.iter().any(|problem| said.contains(&problem.key)) {
            let message = format!("{field} is missing (in the uri: {attribute})");
            self.problem("pkcs11", pkcs11.uri.as_ref(), message);
        }
    }

    fn decrypt_also(&mut self, also: &raw::DecryptAlso) -> Option<ForeignFormat> {
        const PLUGINS: [(&str, Plugin); 2] =
            [("kleidi-go", Plugin::KleidiGo), ("kubernetes-mock", Plugin::KubernetesMock)];
        let plugin = self.choice("pkcs11.decryptAlso.plugin", Some(&also.plugin), &PLUGINS)?;
        let key_label = match &also.key_label {
            Some(label) if label.value.is_empty() => {
                self.problem("pkcs11.decryptAlso.keyLabel", Some(label), "must not be empty");
                return None;
            }
            Some(label) => label.value.clone(),
            None => plugin.default_key_label().to_owned(),
        };
        Some(ForeignFormat { plugin, key_label })
    }

    fn health(&mut self, health: &raw::Health, default: Health) -> Health {
        let period = self.duration(
            "health.period",
            health.period.as_ref(),
            default.period,
            Duration::from_millis(100)..=Duration::from_secs(60),
        );
        // Two periods and one slow observation: less would call a healthy KMS stale.
        let least = period * 2 + limits::OBSERVE_TIMEOUT;
        let key = "health.staleAfter";
        let most = Duration::from_secs(300);
        let (text, default) = (health.stale_after.as_ref(), least.max(default.stale_after));
        let stale_after = self.duration(key, text, default, Duration::ZERO..=most);
        if stale_after < least {
            let message = format!(
                "{} is too short: two times health.period ({}) and {} for a slow look at the KMS are {}, \
                 and before that a KMS that is well would be called stale",
                humantime::format_duration(stale_after),
                humantime::format_duration(period),
                humantime::format_duration(limits::OBSERVE_TIMEOUT),
                humantime::format_duration(least),
            );
            self.problem(key, text, message);
        }
        Health { period, stale_after }
    }
}

/// Any text but none: an empty one is most likely a template that was not filled in.
pub(super) fn not_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// What is said of what is no path. It is not repeated: it may be what belongs into the file, a token or a
/// PIN.
const NOT_A_PATH: &str = "is not an absolute path (a file is named here, never what is in it)";

/// A file's path.
pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err(NOT_A_PATH.to_owned()) }
}

/// A relative PIN file is a systemd credential, which is there before we are.
fn pin_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        return Ok(path);
    }
    match std::env::var_os("CREDENTIALS_DIRECTORY").map(|of| PathBuf::from(of).join(path)) {
        Some(file) if file.is_file() => Ok(file),
        Some(_) => Err(format!("{NOT_A_PATH}, nor is there a systemd credential of that name")),
        None => Err(format!(
            "{NOT_A_PATH}; a relative one is a systemd credential, and CREDENTIALS_DIRECTORY is not set"
        )),
    }
}

/// A `CKA_ID` in hex digits.
pub fn parse_cka_id(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.as_bytes();
    let even = !digits.is_empty() && digits.len().is_multiple_of(2);
    if !even || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(format!(
            "{text:?} is not a CKA_ID in hex digits, two per byte, such as \"02\""
        ));
    }
    let byte = |pair: &[u8]| {
        pair.iter().fold(0, |byte, digit| {
            byte << 4 | u8::try_from(char::from(*digit).to_digit(16).unwrap_or(0)).unwrap_or(0)
        })
    };
    Ok(digits.chunks(2).map(byte).collect())
}

fn user(text: &str) -> Result<Uid, String> {
    if let Ok(uid) = text.parse() {
        return Ok(Uid::from_raw(uid));
    }
    match User::from_name(text) {
        Ok(Some(user)) => Ok(user.uid),
        Ok(None) => Err(format!("there is no user {text:?}; give a name or a number")),
        Err(error) => Err(format!("the user {text:?} cannot be looked up: {error}")),
    }
}

fn group(text: &str) -> Result<Gid, String> {
    if let Ok(gid) = text.parse() {
        return Ok(Gid::from_raw(gid));
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(format!("there is no group {text:?}; give a name or a number")),
        Err(error) => Err(format!("the group {text:?} cannot be looked up: {error}")),
    }
}
