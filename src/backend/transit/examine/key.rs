//! Whether the key is of the right kind, and safe.

use http::Method;
use serde::Deserialize;

use super::super::answer::forbids;
use super::{Way, within};
use crate::backend::transit::Data;
use crate::backend::transit::json::Object;
use crate::backend::transit::json::parse;
use crate::backend::{BackendError, ErrorKind, Finding};

/// Types of keys that take associated data.
const TYPES: [&str; 4] =
    ["aes256-gcm96", "aes128-gcm96", "chacha20-poly1305", "xchacha20-poly1305"];

/// What `transit/keys/<name>` says.
#[derive(Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "it is the server's answer")]
struct KeySettings {
    #[serde(rename = "type")]
    kind: String,
    latest_version: u64,
    #[serde(default)]
    min_decryption_version: u64,
    #[serde(default)]
    exportable: bool,
    #[serde(default)]
    allow_plaintext_backup: bool,
    #[serde(default)]
    deletion_allowed: bool,
    #[serde(default)]
    derived: bool,
    #[serde(default)]
    soft_deleted: bool,
}

pub(super) async fn key(way: &Way<'_>, findings: &mut Vec<Finding>) -> Result<(), BackendError> {
    const ATTEMPTED: &str = "look at the transit key";
    let settings = &way.inner.settings;
    let path = settings.path("keys");
    let at = (settings.namespace.as_deref(), path.as_str());
    let answer = match way.ask(ATTEMPTED, Method::GET, at, Object::with_capacity(0)).await {
        Ok(answer) => answer,
        Err(error) if forbids(&error) => {
            findings.push(Finding::Warning(format!(
                "whether the key can be exported or deleted is not known: the token's policies lack \
                 read on {path}{}",
                within(at.0)
            )));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let Data { data: key } = parse::<Data<KeySettings>>(ATTEMPTED, &answer)?;
    let wrong = |reason: String, advice: String| {
        Err(BackendError::new(ErrorKind::Misconfigured, format!("use {path}"), reason)
            .advise(advice))
    };
    if !TYPES.contains(&key.kind.as_str()) {
        let advice = "make a key of type aes256-gcm96".to_owned();
        return wrong(format!("its type {} takes no associated data", key.kind), advice);
    }
    if key.derived {
        let advice = "make a key with derived=false".to_owned();
        return wrong("it is a derived key".to_owned(), advice);
    }
    if key.soft_deleted {
        let advice = format!("restore it: bao write -f {path}/soft-delete-restore");
        return wrong("it is soft-deleted".to_owned(), advice);
    }
    let KeySettings { kind, latest_version, min_decryption_version, .. } = &key;
    findings.push(Finding::Good(format!(
        "{path}: {kind}, latest version {latest_version}, decrypts from version {}",
        min_decryption_version.max(&1)
    )));
    warn_of_what_endangers(&key, &path, &settings.mount, findings);
    Ok(())
}

fn warn_of_what_endangers(key: &KeySettings, path: &str, mount: &str, findings: &mut Vec<Finding>) {
    let cannot_be_undone = "That cannot be undone: make another key, and move to it";
    for (set, what) in [
        (
            key.exportable,
            format!(
                "can be exported (exportable=true): whoever may read {mount}/export takes it away. \
                 {cannot_be_undone}"
            ),
        ),
        (
            key.allow_plaintext_backup,
            format!(
                "can be backed up in clear (allow_plaintext_backup=true): whoever may read \
                 {mount}/backup takes it away. {cannot_be_undone}"
            ),
        ),
        (
            key.deletion_allowed,
            format!(
                "can be deleted (deletion_allowed=true): one call makes all Secrets unreadable. Set it \
                 to false: bao write {path}/config deletion_allowed=false"
            ),
        ),
    ] {
        if set {
            findings.push(Finding::Warning(format!("{path} {what}")));
        }
    }
}
