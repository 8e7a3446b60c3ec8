//! From a document to a [`Configuration`], with upstream's defaults (`apis/apiserver/v1/defaults.go`).
//!
//! Names of fields are told apart by case; a value of another type is an error; nothing is made of a number
//! but a number. Strict decoding, since 1.31, refuses unknown and repeated fields as well.

use super::duration;
use super::types::{Configuration, Key, Kms, Provider, Rule};
use super::value::Value;

/// Of a call to a plugin, if the file does not say.
const TIMEOUT_NANOSECONDS: i64 = 3_000_000_000;

/// Of v1's cache, if the file does not say.
const CACHE_SIZE: i32 = 1000;

/// The two names under which it may come; the second is an old fault of the documents.
const KINDS: [(&str, &str); 2] =
    [("apiserver.config.k8s.io/v1", "EncryptionConfiguration"), ("v1", "EncryptionConfig")];

/// Decodes a document. Errors are in words of ours, paths of fields as upstream has them.
pub(super) fn configuration(document: &Value, strict: bool) -> Result<Configuration, Vec<String>> {
    let mut faults = Faults::default();
    let kind = kind(document).map_err(|fault| vec![fault])?;
    if !KINDS.contains(&(kind.0.as_str(), kind.1.as_str())) {
        return Err(vec![format!("no kind {:?} is registered for version {:?}", kind.1, kind.0)]);
    }
    let mut configuration = Configuration::default();
    faults.fields(document, "", |faults, name, value, at| {
        match name {
            "apiVersion" | "kind" => drop(faults.string(value, at)),
            "resources" => configuration.resources = faults.list(value, at, rule),
            _ => return false,
        }
        true
    });
    if strict {
        faults.fatal.append(&mut faults.strict);
    }
    if faults.fatal.is_empty() { Ok(configuration) } else { Err(faults.fatal) }
}

fn kind(document: &Value) -> Result<(String, String), String> {
    let Value::Map(map) = document else {
        return Err(format!("couldn't get version/kind: the document is {}", document.kind()));
    };
    let field = |wanted: &str| match map.iter().rev().find(|(name, _)| name == wanted) {
        None | Some((_, Value::Null)) => Ok(String::new()),
        Some((_, Value::String(text))) => Ok(text.clone()),
        Some((_, other)) => Err(format!("couldn't get version/kind: {wanted} is {}", other.kind())),
    };
    let (version, kind) = (field("apiVersion")?, field("kind")?);
    match (version.as_str(), kind.as_str()) {
        (_, "") => Err("Object 'Kind' is missing".to_owned()),
        ("", _) => Err("Object 'apiVersion' is missing".to_owned()),
        _ => Ok((version, kind)),
    }
}

fn rule(faults: &mut Faults, value: &Value, at: &str) -> Rule {
    let mut rule = Rule::default();
    faults.fields(value, at, |faults, name, value, at| {
        match name {
            "resources" => rule.resources = faults.list(value, at, Faults::string),
            "providers" => rule.providers = faults.list(value, at, provider),
            _ => return false,
        }
        true
    });
    rule
}

fn provider(faults: &mut Faults, value: &Value, at: &str) -> Provider {
    let mut provider = Provider::default();
    faults.fields(value, at, |faults, name, value, at| {
        let there = *value != Value::Null;
        match name {
            "aesgcm" => provider.aesgcm = there.then(|| keys(faults, value, at)),
            "aescbc" => provider.aescbc = there.then(|| keys(faults, value, at)),
            "secretbox" => provider.secretbox = there.then(|| keys(faults, value, at)),
            "identity" => {
                provider.identity = there;
                faults.fields(value, at, |_, _, _, _| false);
            }
            "kms" => provider.kms = there.then(|| kms(faults, value, at)),
            _ => return false,
        }
        true
    });
    provider
}

fn keys(faults: &mut Faults, value: &Value, at: &str) -> Vec<Key> {
    let mut keys = Vec::new();
    faults.fields(value, at, |faults, name, value, at| {
        let known = name == "keys";
        if known {
            keys = faults.list(value, at, key);
        }
        known
    });
    keys
}

fn key(faults: &mut Faults, value: &Value, at: &str) -> Key {
    let mut key = Key::default();
    faults.fields(value, at, |faults, name, value, at| {
        match name {
            "name" => key.name = faults.string(value, at),
            "secret" => key.secret = faults.string(value, at),
            _ => return false,
        }
        true
    });
    key
}

fn kms(faults: &mut Faults, value: &Value, at: &str) -> Kms {
    let mut kms = Kms { timeout: TIMEOUT_NANOSECONDS, ..Kms::default() };
    faults.fields(value, at, |faults, name, value, at| {
        match name {
            "apiVersion" => kms.api_version = faults.string(value, at),
            "name" => kms.name = faults.string(value, at),
            "endpoint" => kms.endpoint = faults.string(value, at),
            "cachesize" => kms.cache_size = faults.int32(value, at),
            "timeout" if *value == Value::Null => kms.timeout = TIMEOUT_NANOSECONDS,
            "timeout" => {
                kms.timeout = duration::parse(&faults.string(value, at)).unwrap_or_else(|fault| {
                    faults.fatal.push(fault);
                    0
                });
            }
            _ => return false,
        }
        true
    });
    if kms.api_version.is_empty() {
        "v1".clone_into(&mut kms.api_version);
    }
    if kms.api_version == "v1" {
        kms.cache_size.get_or_insert(CACHE_SIZE);
    }
    kms
}

#[derive(Default)]
struct Faults {
    fatal: Vec<String>,
    /// What only strict decoding refuses.
    strict: Vec<String>,
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
                self.strict.push(format!("duplicate field {path:?}"));
            }
            if !known(self, name, value, &path) {
                self.strict.push(format!("unknown field {path:?}"));
            }
        }
    }

    fn list<T>(
        &mut self,
        value: &Value,
        at: &str,
        item: impl Fn(&mut Self, &Value, &str) -> T,
    ) -> Vec<T> {
        match value {
            Value::List(list) => list
                .iter()
                .enumerate()
                .map(|(index, value)| item(self, value, &format!("{at}[{index}]")))
                .collect(),
            Value::Null => Vec::new(),
            other => {
                self.type_fault(other, at, "array");
                Vec::new()
            }
        }
    }

    fn string(&mut self, value: &Value, at: &str) -> String {
        match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => {
                self.type_fault(other, at, "string");
                String::new()
            }
        }
    }

    fn int32(&mut self, value: &Value, at: &str) -> Option<i32> {
        let number = match value {
            Value::Null => return None,
            Value::Int(number) => i32::try_from(*number).ok(),
            _ => None,
        };
        if number.is_none() {
            self.type_fault(value, at, "int32");
        }
        number
    }

    fn type_fault(&mut self, value: &Value, at: &str, wanted: &str) {
        self.fatal.push(format!("cannot unmarshal {} into {at} of type {wanted}", value.kind()));
    }
}
