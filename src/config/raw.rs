//! The configuration file as it is written: names and positions, no meaning.
//!
//! Every scalar is text with its position, so that what it means, and what to say if it means
//! nothing, is decided in one place (`resolve.rs`).
//!
//! A key with nothing behind it is refused, and does not count as absent: most likely a template was
//! not filled in, and another namespace or another key would be used without a word.

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_saphyr::Spanned;

use super::NO_VALUE;

/// A value as written, and where.
pub(super) type Text = Spanned<String>;

/// What has to have a value if it is there, with a default for where it is not.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from)?.ok_or_else(|| D::Error::custom(NO_VALUE))
}

/// The same without a default.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    present(from).map(Some)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct File {
    pub(super) api_version: Text,
    pub(super) kind: Text,
    #[serde(default, deserialize_with = "present")]
    pub(super) socket: Socket,
    #[serde(default, deserialize_with = "given")]
    pub(super) pkcs11: Option<Pkcs11>,
    #[serde(default, deserialize_with = "given")]
    pub(super) transit: Option<Transit>,
    #[serde(default, deserialize_with = "present")]
    pub(super) health: Health,
    #[serde(default, deserialize_with = "present")]
    pub(super) log: Log,
    #[serde(default, deserialize_with = "given")]
    pub(super) shutdown_grace: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) lock_memory: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Socket {
    #[serde(default, deserialize_with = "given")]
    pub(super) listen: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) mode: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) owner: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) group: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) allowed_users: Option<Vec<Text>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Pkcs11 {
    #[serde(default, deserialize_with = "given")]
    pub(super) uri: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) module: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) module_parameters: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) token_label: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) token_serial: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) key_label: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) cka_id: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) pin_file: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) allow_weak_keys: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) workers: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) queue: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) call_timeout: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    pub(super) decrypt_also: Vec<DecryptAlso>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct DecryptAlso {
    pub(super) plugin: Text,
    #[serde(default, deserialize_with = "given")]
    pub(super) key_label: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Transit {
    #[serde(default, deserialize_with = "given")]
    pub(super) addresses: Option<Vec<Text>>,
    #[serde(default, deserialize_with = "given")]
    pub(super) ca_file: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) server_name: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) certificate_file: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) key_file: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) namespace: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) auth_namespace: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) mount: Option<Text>,
    pub(super) key: Text,
    pub(super) auth: Auth,
    #[serde(default, deserialize_with = "present")]
    pub(super) decrypt_also: Vec<DecryptAlsoInTransit>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct DecryptAlsoInTransit {
    pub(super) plugin: Text,
    #[serde(default, deserialize_with = "given")]
    pub(super) mount: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) key: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Auth {
    pub(super) method: Text,
    #[serde(default, deserialize_with = "given")]
    pub(super) mount: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) role: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) token_file: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) role_id_file: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) secret_id_file: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) wrapped_secret_id_file: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) jwt_file: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Health {
    #[serde(default, deserialize_with = "given")]
    pub(super) period: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) stale_after: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Log {
    #[serde(default, deserialize_with = "given")]
    pub(super) level: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) format: Option<Text>,
}
