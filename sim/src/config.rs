//! EncryptionConfiguration v1: read, validated and resolved as kube-apiserver does it (spec 7).
//!
//! ```text
//! value, yaml   the document
//! decode        its fields, and defaults
//! validate      what upstream validates, with its paths and words
//! plan          what it builds: providers by resource
//! ```

mod decode;
mod duration;
mod endpoint;
mod field;
mod keys;
mod plan;
mod shown;
mod types;
mod validate;
mod value;
mod yaml;

use std::fmt;

use crate::version::Version;
use decode::Mode;
pub use endpoint::address;
pub use field::{Fault, FieldError};
pub use plan::{Keys, Plan, Planned, Plugin};
pub use shown::ADDRESS;
pub use types::{Configuration, GroupResource, Key, Kms, Provider, Rule};
pub use validate::validate;
use value::Value;

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// It cannot be read; in words of ours.
    Decode(Vec<String>),
    /// Fields are wrong; in upstream's words.
    Validate(Vec<FieldError>),
    /// Its parts do not go together; in upstream's words.
    Build(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = match self {
            Self::Decode(faults) => faults.clone(),
            Self::Validate(faults) => faults.iter().map(ToString::to_string).collect(),
            Self::Build(fault) => vec![fault.clone()],
        };
        let stage =
            if matches!(self, Self::Build(_)) { "building transformers" } else { "parsing file" };
        let faults = crate::limits::joined(&faults).unwrap_or_default();
        write!(f, "error while {stage}: {faults}")
    }
}

impl std::error::Error for ConfigError {}

/// Reads a file's bytes, defaults filled in; not validated.
///
/// What begins with `{` is JSON, everything else YAML. Until 1.30, unknown and repeated fields are let pass.
pub fn decode(file: &[u8], version: Version) -> Result<Configuration, Vec<String>> {
    if file.is_empty() {
        return Err(vec!["encryption provider configuration file is empty".to_owned()]);
    }
    let text = std::str::from_utf8(file).map_err(|error| vec![error.to_string()])?;
    let json = text.trim_start().starts_with('{');
    let document: Value = if json {
        serde_json::from_str(text).map_err(|error| vec![error.to_string()])?
    } else {
        yaml::parse(text).map_err(|error| vec![error])?
    };
    decode::configuration(&document, Mode { strict: version.decodes_strictly(), json })
}

/// All that kube-apiserver does with a file before it calls a plugin.
pub fn load(file: &[u8], version: Version, reload: bool) -> Result<Plan, ConfigError> {
    let configuration = decode(file, version).map_err(ConfigError::Decode)?;
    let faults = validate(&configuration, version, reload);
    if !faults.is_empty() {
        return Err(ConfigError::Validate(faults));
    }
    Plan::new(&configuration).map_err(ConfigError::Build)
}

/// The verdict on a file as JSON: `ok`, `stage` (`decode`, `validate`, `build`, or `done`), and `errors`, each
/// with `field`, `type` and `detail`. Only those of `validate` have a field and a type of upstream's.
#[must_use]
pub fn verdict(file: &[u8], version: Version, reload: bool) -> serde_json::Value {
    let plain = |detail: &String| serde_json::json!({"field": "", "type": "", "detail": detail});
    let (stage, errors) = match load(file, version, reload) {
        Ok(_) => ("done", Vec::new()),
        Err(ConfigError::Decode(faults)) => ("decode", faults.iter().map(plain).collect()),
        Err(ConfigError::Build(fault)) => ("build", vec![plain(&fault)]),
        Err(ConfigError::Validate(faults)) => {
            let each = |fault: &FieldError| {
                let kind = fault.fault.name();
                serde_json::json!({"field": fault.field, "type": kind, "detail": fault.detail})
            };
            ("validate", faults.iter().map(each).collect())
        }
    };
    serde_json::json!({"ok": errors.is_empty(), "stage": stage, "errors": errors})
}

#[cfg(test)]
mod tests;
