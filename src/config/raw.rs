//! The configuration file as it is written: names and positions, no meaning.
//!
//! Every scalar is text with its position, so that what it means, and what to say if it means
//! nothing, is decided in one place (`resolve.rs`).

use serde::Deserialize;
use serde_saphyr::Spanned;

/// A value as written, and where.
pub(super) type Text = Spanned<String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct File {
    pub(super) api_version: Text,
    pub(super) kind: Text,
    #[serde(default)]
    pub(super) socket: Socket,
    pub(super) pkcs11: Option<Pkcs11>,
    pub(super) transit: Option<Transit>,
    #[serde(default)]
    pub(super) health: Health,
    #[serde(default)]
    pub(super) log: Log,
    pub(super) shutdown_grace: Option<Text>,
    pub(super) lock_memory: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Socket {
    pub(super) listen: Option<Text>,
    pub(super) mode: Option<Text>,
    pub(super) owner: Option<Text>,
    pub(super) group: Option<Text>,
    pub(super) allowed_users: Option<Vec<Text>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Pkcs11 {
    pub(super) uri: Option<Text>,
    pub(super) module: Option<Text>,
    pub(super) module_parameters: Option<Text>,
    pub(super) token_label: Option<Text>,
    pub(super) token_serial: Option<Text>,
    pub(super) key_label: Option<Text>,
    pub(super) cka_id: Option<Text>,
    pub(super) pin_file: Option<Text>,
    pub(super) allow_weak_keys: Option<Text>,
    pub(super) workers: Option<Text>,
    pub(super) queue: Option<Text>,
    pub(super) call_timeout: Option<Text>,
    #[serde(default)]
    pub(super) decrypt_also: Vec<DecryptAlso>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct DecryptAlso {
    pub(super) plugin: Text,
    pub(super) key_label: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Transit {
    pub(super) addresses: Option<Vec<Text>>,
    pub(super) ca_file: Option<Text>,
    pub(super) server_name: Option<Text>,
    pub(super) certificate_file: Option<Text>,
    pub(super) key_file: Option<Text>,
    pub(super) namespace: Option<Text>,
    pub(super) auth_namespace: Option<Text>,
    pub(super) mount: Option<Text>,
    pub(super) key: Text,
    pub(super) auth: Auth,
    #[serde(default)]
    pub(super) decrypt_also: Vec<DecryptAlsoInTransit>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct DecryptAlsoInTransit {
    pub(super) plugin: Text,
    pub(super) mount: Option<Text>,
    pub(super) key: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Auth {
    pub(super) method: Text,
    pub(super) mount: Option<Text>,
    pub(super) role: Option<Text>,
    pub(super) token_file: Option<Text>,
    pub(super) role_id_file: Option<Text>,
    pub(super) secret_id_file: Option<Text>,
    pub(super) wrapped_secret_id_file: Option<Text>,
    pub(super) jwt_file: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Health {
    pub(super) period: Option<Text>,
    pub(super) stale_after: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Log {
    pub(super) level: Option<Text>,
    pub(super) format: Option<Text>,
}
