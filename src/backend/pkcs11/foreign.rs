//! What other plugins wrote with a key of the same token.
//!
//! Both formats are `IV (16 bytes) ‖ ciphertext ‖ tag (16 bytes)` of AES-256-GCM, with a fixed key_id
//! that is the AAD, too. They bind neither the annotations nor which of several keys it was, so each
//! has to be named in the configuration to be read; nothing is written in them.

use cryptoki::object::ObjectHandle;

use super::keys;
use super::tools::{Failure, Tools};
use crate::backend::{BackendError, ErrorKind, ForeignRequest};

/// Bytes of the IV in both formats; ours has 12.
pub(super) const IV_BYTES: usize = 16;

/// Which plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    /// The Go kleidi, with its provider `softhsm`.
    KleidiGo,
    /// The reference plugin of kubernetes/kms (`internal/plugins/_mock`).
    KubernetesMock,
}

/// A format to be read, and where its key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignFormat {
    /// Who wrote it.
    pub plugin: Plugin,
    /// Label of the key; both plugins used it as key_id, too.
    pub key_label: String,
}

impl Plugin {
    /// The label that the plugin gave its key unless told otherwise.
    #[must_use]
    pub fn default_key_label(self) -> &'static str {
        match self {
            Self::KleidiGo => "kleidi-kms-plugin",
            Self::KubernetesMock => "kms-test",
        }
    }

    /// Names of the one annotation that the plugin wrote, in its various versions.
    fn annotations(self) -> &'static [&'static str] {
        match self {
            Self::KleidiGo => &["v2.kleidi.beezy.dev", "version.encryption.remote.io"],
            Self::KubernetesMock => &["version.encryption.remote.io"],
        }
    }
}

impl ForeignFormat {
    /// Whether this looks like the format: its key_id, and its annotation with the value `1`.
    pub(super) fn claims(&self, request: &ForeignRequest) -> bool {
        let annotated = match request.annotations.iter().next() {
            Some((name, value)) if request.annotations.len() == 1 => {
                self.plugin.annotations().contains(&name.as_str()) && value == b"1"
            }
            _ => false,
        };
        request.key_id == self.key_label && annotated
    }

    /// What the ciphertext is bound to.
    pub(super) fn aad(&self) -> &[u8] {
        self.key_label.as_bytes()
    }

    /// The keys that may have written it.
    pub(super) fn keys(&self, tools: &Tools<'_>) -> Result<Vec<ObjectHandle>, Failure> {
        let found = keys::find(tools, Some(&self.key_label), None)?;
        if !found.is_empty() {
            return Ok(found);
        }
        let attempted = format!("find the key with label {:?} of another plugin", self.key_label);
        let missing =
            BackendError::new(ErrorKind::KeyNotFound, attempted, "it is not on the token");
        Err(Failure::KeyUnknown(missing.advise("keep that key as long as its data is there")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_claims_only_what_its_plugin_wrote() {
        let format = |plugin: Plugin| ForeignFormat {
            plugin,
            key_label: plugin.default_key_label().to_owned(),
        };
        let request = |key_id: &str, annotations: &[(&str, &[u8])]| ForeignRequest {
            key_id: key_id.to_owned(),
            ciphertext: vec![],
            annotations: annotations
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                .collect(),
        };
        let (go, mock) = (format(Plugin::KleidiGo), format(Plugin::KubernetesMock));
        let one: &[u8] = b"1";
        let (ours, remote) = ("v2.kleidi.beezy.dev", "version.encryption.remote.io");
        for (wanted, format, key_id, annotations) in [
            (true, &go, "kleidi-kms-plugin", &[(ours, one)][..]),
            (true, &go, "kleidi-kms-plugin", &[(remote, one)]),
            (false, &go, "kleidi-kms-plugin", &[]),
            (false, &go, "kleidi-kms-plugin", &[(ours, b"2")]),
            (false, &go, "kleidi-kms-plugin", &[(ours, one), (remote, one)]),
            (false, &go, "kms-test", &[(ours, one)]),
            (true, &mock, "kms-test", &[(remote, one)]),
            (false, &mock, "kms-test", &[(ours, one)]),
        ] {
            assert_eq!(format.claims(&request(key_id, annotations)), wanted, "{key_id}");
        }
    }
}
