//! From a document to a [`Configuration`], with upstream's defaults (`apis/apiserver/v1/defaults.go`).
//!
//! Names of fields are told apart by case; a value of another type is an error; nothing is made of a number
//! but a number. Strict decoding, since 1.31, refuses unknown and repeated fields as well.

use super::duration;
use super::types::{Configuration, Key, Kms, Provider, Rule};
use super::value::Value;
use crate::go::quoted;

/// Of a call to a plugin, if the file does not say.
const TIMEOUT_NANOSECONDS: i64 = 3_000_000_000;

/// Of v1's cache, if the file does not say.
const CACHE_SIZE: i32 = 1000;

/// The names under which it may come: group, version, kind. The second is an old fault of the documents.
const KINDS: [(&str, &str, &str); 2] =
    [("apiserver.config.k8s.io", "v1", "EncryptionConfiguration"), ("", "v1", "EncryptionConfig")];

/// How a document is decoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode {
    /// Unknown and repeated fields are refused.
    pub(super) strict: bool,
    /// The document was JSON. Of a field that is there twice the second is decoded over the first, as Go does; in
    /// YAML the second stands in its place.
    pub(super) json: bool,
}

/// Decodes a document. Errors are in words of ours, paths of fields as upstream has them.
pub(super) fn configuration(document: &Value, mode: Mode) -> Result<Configuration, Vec<String>> {
    known_kind(document).map_err(|fault| vec![fault])?;
    let mut faults = Faults { fatal: Vec::new(), strict: Vec::new(), json: mode.json };
    let mut configuration = Configuration::default();
    faults.fields(document, "", |faults, name, value, at| {
        match name {
            "apiVersion" | "kind" => faults.string(value, at, &mut String::new()),
            "resources" => faults.list(value, at, &mut configuration.resources, rule),
            _ => return false,
        }
        true
    });
    if mode.strict {
        faults.fatal.append(&mut faults.strict);
    }
    if !faults.fatal.is_empty() {
        return Err(faults.fatal);
    }
    for provider in configuration.resources.iter_mut().flat_map(|rule| &mut rule.providers) {
        if let Some(kms) = &mut provider.kms {
            defaults(kms);
        }
    }
    Ok(configuration)
}

/// `SetDefaults_KMSConfiguration`; that of the timeout is there from the start.
fn defaults(kms: &mut Kms) {
    if kms.api_version.is_empty() {
        "v1".clone_into(&mut kms.api_version);
    }
    if kms.api_version == "v1" {
        kms.cache_size.get_or_insert(CACHE_SIZE);
    }
}

/// `SimpleMetaFactory.Interpret` and `ParseGroupVersion` of apimachinery.
fn known_kind(document: &Value) -> Result<(), String> {
    let Value::Map(map) = document else {
        return Err(format!("couldn't get version/kind: the document is {}", document.kind()));
    };
    let field = |wanted: &str| match map.iter().rev().find(|(name, _)| name == wanted) {
        None | Some((_, Value::Null)) => Ok(String::new()),
        Some((_, Value::String(text))) => Ok(text.clone()),
        Some((_, other)) => Err(format!("couldn't get version/kind: {wanted} is {}", other.kind())),
    };
    let (api_version, kind) = (field("apiVersion")?, field("kind")?);
    let (group, version) = match api_version.split_once('/') {
        None => ("", api_version.as_str()),
        Some((_, version)) if version.contains('/') => {
            return Err(format!("unexpected GroupVersion string: {api_version}"));
        }
        Some(parts) => parts,
    };
    if kind.is_empty() {
        return Err("Object 'Kind' is missing".to_owned());
    }
    if version.is_empty() {
        return Err("Object 'apiVersion' is missing".to_owned());
    }
    if !KINDS.contains(&(group, version, &kind)) {
        let (kind, version) = (quoted(kind), quoted(api_version));
        return Err(format!("no kind {kind} is registered for version {version}"));
    }
    Ok(())
}

fn rule(faults: &mut Faults, value: &Value, at: &str, rule: &mut Rule) {
    faults.fields(value, at, |faults, name, value, at| {
        match name {
            "resources" => faults.list(value, at, &mut rule.resources, Faults::string),
            "providers" => faults.list(value, at, &mut rule.providers, provider),
            _ => return false,
        }
        true
    });
}

fn provider(faults: &mut Faults, value: &Value, at: &str, provider: &mut Provider) {
    faults.fields(value, at, |faults, name, value, at| {
        match name {
            "aesgcm" => faults.optional(value, at, &mut provider.aesgcm, Vec::new, keys),
            "aescbc" => faults.optional(value, at, &mut provider.aescbc, Vec::new, keys),
            "secretbox" => faults.optional(value, at, &mut provider.secretbox, Vec::new, keys),
            "identity" => {
                provider.identity = *value != Value::Null;
                faults.fields(value, at, |_, _, _, _| false);
            }
            "kms" => {
                let new = || Kms { timeout: TIMEOUT_NANOSECONDS, ..Kms::default() };
                faults.optional(value, at, &mut provider.kms, new, kms);
            }
            _ => return false,
        }
        true
    });
}

fn keys(faults: &mut Faults, value: &Value, at: &str, keys: &mut Vec<Key>) {
    faults.fields(value, at, |faults, name, value, at| {
        let known = name == "keys";
        if known {
            faults.list(value, at, keys, key);
        }
        known
    });
}

fn key(faults: &mut Faults, value: &Value, at: &str, key: &mut Key) {
    faults.fields(value, at, |faults, name, value, at| {
        match name {
            "name" => faults.string(value, at, &mut key.name),
            "secret" => faults.string(value, at, &mut key.secret),
            _ => return false,
        }
        true
    });
}

fn kms(faults: &mut Faults, value: &Value, at: &str, kms: &mut Kms) {
    faults.fields(value, at, |faults, name, value, at| {
        match name {
            "apiVersion" => faults.string(value, at, &mut kms.api_version),
            "name" => faults.string(value, at, &mut kms.name),
            "endpoint" => faults.string(value, at, &mut kms.endpoint),
            "cachesize" => faults.int32(value, at, &mut kms.cache_size),
            "timeout" if *value == Value::Null => kms.timeout = TIMEOUT_NANOSECONDS,
            "timeout" => {
                let mut text = String::new();
                faults.string(value, at, &mut text);
                match duration::parse(&text) {
                    Ok(timeout) => kms.timeout = timeout,
                    Err(fault) => faults.fatal.push(fault),
                }
            }
            _ => return false,
        }
        true
    });
}

struct Faults {
    fatal: Vec<String>,
    /// What only strict decoding refuses.
    strict: Vec<String>,
    /// [`Mode::json`]
    json: bool,
}

impl Faults {
    /// Hands each field to `known`, which says whether there is one of that name.
    fn fields(
        &mut self,
        value: &Value,
        at: &str,
        mut known: impl FnMut(&mut Self, &str, &Value, &str) -> bool,
    ) {
        let map = match value {
            Value::Map(map) => map,
            Value::Null => return,
            other => return self.type_fault(other, at, "object"),
        };
        for (index, (name, value)) in map.iter().enumerate() {
            let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
            if map[..index].iter().any(|(earlier, _)| earlier == name) {
                self.strict.push(format!("duplicate field {}", quoted(&path)));
            }
            let replaced = || map[index + 1..].iter().any(|(later, _)| later == name);
            if !self.json && replaced() {
                continue;
            }
            if !known(self, name, value, &path) {
                self.strict.push(format!("unknown field {}", quoted(&path)));
            }
        }
    }

    fn optional<T>(
        &mut self,
        value: &Value,
        at: &str,
        into: &mut Option<T>,
        new: impl FnOnce() -> T,
        decode: impl FnOnce(&mut Self, &Value, &str, &mut T),
    ) {
        if *value == Value::Null {
            *into = None;
        } else {
            decode(self, value, at, into.get_or_insert_with(new));
        }
    }

    /// Over the items that are there already, if any are.
    fn list<T: Default>(
        &mut self,
        value: &Value,
        at: &str,
        into: &mut Vec<T>,
        decode: impl Fn(&mut Self, &Value, &str, &mut T),
    ) {
        match value {
            Value::List(list) => {
                into.resize_with(list.len(), T::default);
                for (index, (value, item)) in list.iter().zip(into).enumerate() {
                    decode(self, value, &format!("{at}[{index}]"), item);
                }
            }
            Value::Null => into.clear(),
            other => self.type_fault(other, at, "array"),
        }
    }

    fn string(&mut self, value: &Value, at: &str, into: &mut String) {
        match value {
            Value::String(text) => into.clone_from(text),
            // Go leaves what is not a pointer as it was.
            Value::Null => {}
            other => self.type_fault(other, at, "string"),
        }
    }

    fn int32(&mut self, value: &Value, at: &str, into: &mut Option<i32>) {
        let number = match value {
            Value::Null => {
                *into = None;
                return;
            }
            Value::Int(number) => i32::try_from(*number).ok(),
            _ => None,
        };
        if number.is_none() {
            self.type_fault(value, at, "int32");
        }
        *into = number;
    }

    fn type_fault(&mut self, value: &Value, at: &str, wanted: &str) {
        self.fatal.push(format!("cannot unmarshal {} into {at} of type {wanted}", value.kind()));
    }
}
