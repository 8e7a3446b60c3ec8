//! The Go kleidi's configuration: a JSON file for its provider `softhsm`, with the PIN in it.
//!
//! It is understood so that a manifest can switch images and nothing else. Its key was often made
//! without `CKA_PRIVATE`, so weak keys are accepted here, with a warning at every start; and what the
//! Go plugin wrote is read.

use std::path::Path;

use super::error::{ConfigError, Problem};
use super::{Config, Kms, Overrides};
use crate::backend::pkcs11::{
    ForeignFormat, KeySelector, PinSource, Plugin, Settings, TokenSelector,
};
use crate::socket::Address;

/// Its `-configfile`, unless told otherwise.
pub(super) const DEFAULT_FILE: &str = "/opt/kleidi/config.json";

/// Its `-listen`, unless told otherwise.
const DEFAULT_LISTEN: &str = "/tmp/kleidi/kleidi-kms-plugin.socket";

/// Keys of the Go kleidi's other provider.
const TRANSIT_KEYS: [&str; 7] =
    ["address", "namespace", "transitkey", "transitpath", "vaultrole", "authmethod", "authpath"];

/// Keys that Go's PKCS#11 library took and that mean nothing here.
const IGNORED_KEYS: [&str; 4] = ["maxsessions", "poolwaittimeout", "usertype", "loginnotsupported"];

/// Whether it is such a file: JSON without an `apiVersion`.
pub(super) fn recognise(content: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
    let object: serde_json::Map<_, _> = serde_json::from_str(content).ok()?;
    (!object.contains_key("apiVersion")).then_some(object)
}

/// What the file means.
pub(super) fn resolve(
    path: &Path,
    object: &serde_json::Map<String, serde_json::Value>,
    overrides: &Overrides,
) -> Result<Config, ConfigError> {
    let mut problems = Vec::new();
    let mut problem = |key: &str, message: &str| {
        problems.push(Problem {
            file: Some(path.to_owned()),
            position: None,
            key: key.to_owned(),
            message: message.to_owned(),
        });
    };
    let transit = |key: &String| TRANSIT_KEYS.contains(&key.to_lowercase().as_str());
    if let Some(key) = object.keys().find(|key| transit(key)) {
        // Not translated: its policy has no hmac, so somebody has to do something anyway.
        let instead = "belongs to the provider \"hvault\": write a configuration with a section transit \
                       and kleidi-go in its decryptAlso; kleidi init --print-policy prints the policy";
        problem(key, instead);
        return Err(ConfigError(problems));
    }
    let (mut module, mut token_label, mut serial, mut pin) = (None, None, None, false);
    for (key, value) in object {
        let text = value.as_str().map(ToOwned::to_owned);
        // Go compares keys without regard to case.
        match key.to_lowercase().as_str() {
            _ if text.is_none() && !IGNORED_KEYS.contains(&key.to_lowercase().as_str()) => {
                problem(key, "has to be a text");
            }
            "path" => module = text,
            "tokenlabel" => token_label = text,
            "tokenserial" => serial = text,
            // Its value stays in the file: it is read at each login.
            "pin" => pin = true,
            other if IGNORED_KEYS.contains(&other) => {}
            _ => problem(key, "is not one of: path, tokenLabel, tokenSerial, pin"),
        }
    }
    if !pin {
        problem("pin", "is missing");
    }
    if token_label.is_none() && serial.is_none() {
        problem("tokenLabel", "is missing");
    }
    if module.is_none() {
        problem("path", "is missing: the module's file");
    }
    let module = module.unwrap_or_default();
    if !problems.is_empty() {
        return Err(ConfigError(problems));
    }
    let plugin = Plugin::KleidiGo;
    let key_label = plugin.default_key_label().to_owned();
    let token = TokenSelector { label: token_label, serial };
    let key = KeySelector { label: Some(key_label.clone()), id: None, allow_weak: true };
    let pin = PinSource::LegacyJson(path.to_owned());
    let mut pkcs11 = Settings::new(module.into(), token, key, pin);
    pkcs11.foreign.push(ForeignFormat { plugin, key_label });
    let default = Config::with(path, Kms::Pkcs11(pkcs11));
    Ok(Config {
        listen: overrides.listen.clone().unwrap_or(Address::Path(DEFAULT_LISTEN.into())),
        log_level: overrides.log_level.unwrap_or(default.log_level),
        log_format: overrides.log_format.unwrap_or(default.log_format),
        ..default
    })
}
