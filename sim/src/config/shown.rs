//! Wrong values as upstream prints them (`apimachinery/pkg/util/validation/field/errors.go`, `ErrorBody`): as Go
//! would write them in its source (`%#v`), in 1.31 and before; as JSON, since.
//!
//! Three things are not as upstream prints them: keys, which it shows since it prints JSON, are blacked out; an
//! empty list of keys is `null`, as one that is not there; and the addresses of its memory, which it showed
//! before, are all [`ADDRESS`].

use serde::Serialize;

use super::duration;
use super::types::{Key, Provider};
use crate::go;
use crate::version::Version;

/// Where everything in upstream's memory is.
pub const ADDRESS: &str = "0xc000000000";

/// A list of resources.
pub(super) fn resources(resources: &[String], by: Version) -> String {
    if by.prints_json() {
        return json(&resources);
    }
    let quoted: Vec<_> = resources.iter().map(go::quoted).collect();
    format!("[]string{{{}}}", quoted.join(", "))
}

/// A timeout in nanoseconds.
pub(super) fn timeout(nanoseconds: i64, by: Version) -> String {
    if by.prints_json() {
        json(&duration::text(nanoseconds))
    } else {
        format!("v1.Duration{{Duration:{nanoseconds}}}")
    }
}

/// An element of a list of providers.
pub(super) fn provider(provider: &Provider, by: Version) -> String {
    if by.prints_json() {
        return json(&Shown::from(provider));
    }
    // The package of the types, which moved in 1.30.
    let package = if by == Version::V1_29 { "config" } else { "apiserver" };
    let kinds = [
        ("AESGCM", "AES", provider.aesgcm.is_some()),
        ("AESCBC", "AES", provider.aescbc.is_some()),
        ("Secretbox", "Secretbox", provider.secretbox.is_some()),
        ("Identity", "Identity", provider.identity),
        ("KMS", "KMS", provider.kms.is_some()),
    ];
    let kinds = kinds.map(|(name, kind, there)| {
        let at = if there { ADDRESS } else { "nil" };
        format!("{name}:(*{package}.{kind}Configuration)({at})")
    });
    format!("{package}.ProviderConfiguration{{{}}}", kinds.join(", "))
}

fn json(value: &impl Serialize) -> String {
    // Nothing here can fail to be JSON.
    go::json(&serde_json::to_string(value).unwrap_or_default())
}

/// `ProviderConfiguration` with its fields in upstream's order.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(rename = "AESGCM")]
    aesgcm: Option<ShownKeys<'a>>,
    #[serde(rename = "AESCBC")]
    aescbc: Option<ShownKeys<'a>>,
    #[serde(rename = "Secretbox")]
    secretbox: Option<ShownKeys<'a>>,
    #[serde(rename = "Identity")]
    identity: Option<Empty>,
    #[serde(rename = "KMS")]
    kms: Option<ShownKms<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownKeys<'a> {
    keys: Option<Vec<ShownKey<'a>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownKey<'a> {
    name: &'a str,
    secret: &'static str,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownKms<'a> {
    #[serde(rename = "APIVersion")]
    api_version: &'a str,
    name: &'a str,
    cache_size: Option<i32>,
    endpoint: &'a str,
    timeout: String,
}

impl<'a> From<&'a Provider> for Shown<'a> {
    fn from(provider: &'a Provider) -> Self {
        let key = |key: &'a Key| ShownKey { name: &key.name, secret: "REDACTED" };
        let keys = |keys: &'a Option<Vec<Key>>| {
            let keys = keys.as_ref()?;
            let keys = (!keys.is_empty()).then(|| keys.iter().map(key).collect());
            Some(ShownKeys { keys })
        };
        let kms = provider.kms.as_ref().map(|kms| ShownKms {
            api_version: &kms.api_version,
            name: &kms.name,
            cache_size: kms.cache_size,
            endpoint: &kms.endpoint,
            timeout: duration::text(kms.timeout),
        });
        Self {
            aesgcm: keys(&provider.aesgcm),
            aescbc: keys(&provider.aescbc),
            secretbox: keys(&provider.secretbox),
            identity: provider.identity.then_some(Empty {}),
            kms,
        }
    }
}
