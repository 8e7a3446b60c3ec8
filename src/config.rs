//! The configuration: one YAML file, what flags and environment override, and the Go kleidi's JSON.
//!
//! [`Config`] is the only type that other modules see. Everything is checked before anything is
//! touched, and everything that is wrong is said at once, with file, line, column and key.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod environment;
mod error;
mod file;
mod legacy;
mod raw;
mod resolve;
#[cfg(test)]
mod tests;
mod transit_auth;
mod transit_section;

use crate::backend::{pkcs11, transit};
use crate::provider::Health;
use crate::socket::{Access, Address, DEFAULT_MODE};
pub use environment::{Environment, Remarks};
pub use error::{ConfigError, LoadError, Problem};
use file::Source;
pub use resolve::parse_cka_id;

/// Where the configuration is, unless told otherwise.
pub const DEFAULT_FILE: &str = "/etc/kleidi/kleidi.yaml";

/// Where the plugin listens, unless told otherwise.
pub const DEFAULT_LISTEN: &str = "/run/kleidi/kms.sock";

/// A configuration without a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file that says so.
    pub file: PathBuf,
    /// Where to listen.
    pub listen: Address,
    /// Who may connect.
    pub access: Access,
    /// Where the keys are.
    pub kms: Kms,
    /// How often the KMS is observed.
    pub health: Health,
    /// What is logged.
    pub log_level: LogLevel,
    /// How it is logged.
    pub log_format: LogFormat,
    /// How long calls in flight may take at shutdown.
    pub shutdown_grace: Duration,
    /// Keep the process's memory out of swap.
    pub lock_memory: bool,
    /// What an operator should know of where it comes from.
    pub remarks: Remarks,
}

/// Where the keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kms {
    /// On a PKCS#11 token.
    Pkcs11(pkcs11::Settings),
    /// In the transit engine of Vault or OpenBao.
    Transit(transit::Settings),
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Outages and lost keys.
    Error,
    /// And what an operator should look at.
    Warn,
    /// And what happened, without routine.
    #[default]
    Info,
    /// And every Decrypt; Encrypt, which is rare, is told at `Info`.
    Debug,
}

impl LogLevel {
    /// By name.
    pub const ALL: [(&str, Self); 4] = [
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
    ];
}

/// How it is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// By name.
    pub const ALL: [(&str, Self); 2] = [("text", Self::Text), ("json", Self::Json)];
}

/// What flags and environment say; they win over the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--listen`, `KLEIDI_LISTEN`.
    pub listen: Option<Address>,
    /// `--log-level`, `KLEIDI_LOG_LEVEL`.
    pub log_level: Option<LogLevel>,
    /// `--log-format`, `KLEIDI_LOG_FORMAT`.
    pub log_format: Option<LogFormat>,
}

impl Config {
    /// The defaults, for the keys that are there.
    fn with(file: &Path, kms: Kms) -> Self {
        let users = BTreeSet::from([0, nix::unistd::geteuid().as_raw()]);
        let (period, stale_after) = (Duration::from_secs(10), Duration::from_secs(30));
        Self {
            file: file.to_owned(),
            listen: Address::Path(DEFAULT_LISTEN.into()),
            access: Access { mode: DEFAULT_MODE, owner: None, group: None, users },
            kms,
            health: Health { period, stale_after },
            log_level: LogLevel::default(),
            log_format: LogFormat::default(),
            shutdown_grace: Duration::from_secs(10),
            lock_memory: true,
            remarks: Remarks::default(),
        }
    }

    /// Reads and checks the file that was named.
    ///
    /// If none was, that is the one at [`DEFAULT_FILE`]; and if there is none, the Go kleidi's default,
    /// with a warning.
    pub fn load(named: Option<&Path>, overrides: &Overrides) -> Result<Self, LoadError> {
        let Source { path, content, stands_in } = Source::open(named)?;
        let mut config = Self::parse(&path, &content, overrides, &Environment::of_process())?;
        if stands_in {
            let what = format!("there is no {DEFAULT_FILE}: {} stands in for it", path.display());
            config.remarks.warnings.insert(0, what);
        }
        Ok(config)
    }

    /// Where a plugin listens that runs with the file that was named, or else with that of the usual
    /// place.
    ///
    /// For one who asks that plugin, and has neither its environment nor its credentials: no more of the
    /// file is resolved.
    pub fn address(named: Option<&Path>) -> Result<Address, LoadError> {
        let Source { path, content, .. } = Source::open(named)?;
        if let Some(object) = legacy::recognise(&content) {
            return Ok(legacy::resolve(&path, &object, &Overrides::default())?.listen);
        }
        Ok(resolve::address(&path, &read(&path, &content)?)?)
    }

    /// Checks the content of a file; `path` is for the messages.
    pub fn parse(
        path: &Path,
        content: &str,
        overrides: &Overrides,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        if let Some(object) = legacy::recognise(content) {
            return legacy::resolve(path, &object, overrides);
        }
        resolve::resolve(path, &read(path, content)?, overrides, environment)
    }
}

/// The names and texts in a file.
fn read(path: &Path, content: &str) -> Result<raw::File, ConfigError> {
    serde_saphyr::from_str(content).map_err(|error| {
        let position = error.location().map(|at| (at.line(), at.column()));
        let message = in_words(&error.without_snippet().to_string());
        let file = Some(path.to_owned());
        ConfigError(vec![Problem { file, position, key: String::new(), message }])
    })
}

/// What is said of a key with nothing, `~` or `null` behind it.
const NO_VALUE: &str = "is there without a value: give one or remove the line";

/// What the YAML library says, for somebody who does not program with it.
fn in_words(said: &str) -> String {
    // The position comes first in our messages.
    let said = said.rsplit_once(" at line ").map_or(said, |(message, _)| message);
    // No key has anything but letters and digits: a colon was forgotten, and a value is part of the name.
    if let Some((name, expected)) =
        said.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, "))
        && !name.chars().all(|c| c.is_ascii_alphanumeric())
    {
        return format!("an unknown key, {expected}");
    }
    match said {
        "unexpected end of input" => "the file is empty".to_owned(),
        "expected mapping start" => "keys with values are expected here".to_owned(),
        said if said.starts_with("cannot deserialize null into string") => NO_VALUE.to_owned(),
        "expected string scalar" => "a single value is expected here".to_owned(),
        said if said.starts_with("multiple YAML documents") => {
            "a second document begins here; one is expected".to_owned()
        }
        said => match said.strip_prefix("duplicate mapping key: ") {
            Some(rest) => format!("{} is there twice", rest.split(',').next().unwrap_or(rest)),
            None => said.to_owned(),
        },
    }
}
