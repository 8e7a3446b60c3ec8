//! What other plugins wrote through the same transit engine.
//!
//! All of them store transit's own text, `vault:v<version>:<base64>`, and bind it to nothing, so each has
//! to be named in the configuration to be read; nothing is written in these formats. A version in their
//! key_id is not compared with that of the ciphertext: under load they label with the one and wrap with
//! the other, and that data must be read, too.

use crate::backend::ForeignRequest;

/// From here on a number is the time of a key, in seconds since 1970, and no version.
const FIRST_TIME: u64 = 1_000_000_000;

/// Which plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    /// The Go kleidi, with its provider `hvault`: key_id `kleidi-kms-plugin_<version>_<seconds>`.
    KleidiGo,
    /// vault-kubernetes-kms: key_id `<version>`.
    VaultKubernetesKms,
    /// The Rust vault-kms-provider: key_id `<seconds>`, when the version was made.
    VaultKmsProvider,
}

/// A format to be read, and where its key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignFormat {
    /// Who wrote it.
    pub plugin: Plugin,
    /// Where its transit engine is mounted.
    pub mount: String,
    /// Name of its key there.
    pub key: String,
}

impl ForeignFormat {
    /// Whether this looks like the format, by its key_id and annotations.
    pub(super) fn claims(&self, request: &ForeignRequest) -> bool {
        match self.plugin {
            Plugin::KleidiGo => {
                let numbers = request.key_id.strip_prefix("kleidi-kms-plugin_");
                let parts = numbers.and_then(|numbers| numbers.split_once('_'));
                let numbered = parts.is_some_and(|(version, seconds)| {
                    number(version).is_some() && number(seconds).is_some()
                });
                let names = ["v2.kleidi.beezy.dev", "version.encryption.remote.io"];
                let annotated = match request.annotations.iter().next() {
                    Some((name, value)) if request.annotations.len() == 1 => {
                        names.contains(&name.as_str()) && value == b"1"
                    }
                    _ => false,
                };
                numbered && annotated
            }
            Plugin::VaultKubernetesKms => {
                request.annotations.is_empty()
                    && number(&request.key_id).is_some_and(|version| version < FIRST_TIME)
            }
            Plugin::VaultKmsProvider => {
                request.annotations.is_empty()
                    && number(&request.key_id).is_some_and(|seconds| seconds >= FIRST_TIME)
            }
        }
    }
}

/// A number without sign, blanks or leading zeros.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_claims_only_what_its_plugin_wrote() {
        use Plugin::{KleidiGo, VaultKmsProvider, VaultKubernetesKms};
        let one: &[u8] = b"1";
        let (ours, remote) = ("v2.kleidi.beezy.dev", "version.encryption.remote.io");
        for (claimed_by, key_id, annotations) in [
            (Some(KleidiGo), "kleidi-kms-plugin_1_1795411088", &[(ours, one)][..]),
            (Some(KleidiGo), "kleidi-kms-plugin_12_1795411088", &[(remote, one)]),
            (None, "kleidi-kms-plugin_1_1795411088", &[]),
            (None, "kleidi-kms-plugin_1_1795411088", &[(ours, b"2")]),
            (None, "kleidi-kms-plugin_1_1795411088", &[(ours, one), (remote, one)]),
            (None, "kleidi-kms-plugin_1", &[(ours, one)]),
            (None, "kleidi-kms-plugin", &[(ours, one)]),
            (Some(VaultKubernetesKms), "1", &[]),
            (Some(VaultKubernetesKms), "42", &[]),
            (None, "1", &[(ours, one)]),
            (None, "0", &[]),
            (None, "01", &[]),
            (None, "+1", &[]),
            (None, "", &[]),
            (None, "99999999999999999999999", &[]),
            (Some(VaultKmsProvider), "1795411088", &[]),
            (None, "1795411088", &[(ours, one)]),
        ] {
            let request = ForeignRequest {
                key_id: key_id.to_owned(),
                ciphertext: vec![],
                annotations: annotations
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                    .collect(),
            };
            for plugin in [KleidiGo, VaultKubernetesKms, VaultKmsProvider] {
                let (mount, key) = ("transit".to_owned(), "kms".to_owned());
                let format = ForeignFormat { plugin, mount, key };
                let wanted = claimed_by == Some(plugin);
                assert_eq!(format.claims(&request), wanted, "{plugin:?} {key_id} {annotations:?}");
            }
        }
    }
}
