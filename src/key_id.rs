//! The `key_id` by which kube-apiserver, etcd and operators name a key.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// Longest [`KeyId`] in bytes; kube-apiserver accepts up to 1024 (k8s.io/apiserver
/// pkg/storage/value/encrypt/envelope/kmsv2/envelope.go, `keyIDMaxSize`).
pub const KEY_ID_BYTES_MAX: usize = FINGERPRINT_HEX + 1 + VERSION_BYTES_MAX;

// Our own, stricter rule: it is stored with every object.
const _: () = assert!(KEY_ID_BYTES_MAX <= 64);

/// Longest [`Version`] in bytes.
pub const VERSION_BYTES_MAX: usize = 31;

const FINGERPRINT_HEX: usize = 32;

/// What a key's material is recognised by: 128 bits of a hash of something only that key computes.
///
/// Equal wherever the same material is, different for different material, and tells nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The fingerprint of the key that computed `witness` from a fixed input.
    ///
    /// `domain` names the way in which it was computed, so that two ways never agree by accident.
    /// `witness` may be as sensitive as a MAC: only its hash is kept.
    #[must_use]
    pub fn of(domain: &str, witness: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(domain.as_bytes());
        hash.update([0]);
        hash.update(witness);
        let mut short = [0; 16];
        short.copy_from_slice(&hash.finalize()[..16]);
        Self(short)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the KMS itself calls this generation of the key: a transit version, a `CKA_ID`.
///
/// 1 to 31 characters of `0-9a-z`. It keeps a key that comes back as a new generation from
/// sharing the id of its earlier life.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(String);

impl Version {
    /// A version from the KMS's own bytes: their hex form, or a hash where that would be too long.
    ///
    /// Empty bytes give `0`, which no other bytes give.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self("0".to_owned());
        }
        if bytes.len() * 2 < VERSION_BYTES_MAX {
            return Self(hex(bytes));
        }
        Self(format!("h{}", hex(&Sha256::digest(bytes)[..15])))
    }

    /// A version that the KMS counts.
    #[must_use]
    pub fn of_number(number: u64) -> Self {
        Self(number.to_string())
    }
}

/// Lower-case hex digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The id of a key: its fingerprint, `-`, its version; at most [`KEY_ID_BYTES_MAX`] bytes.
///
/// The fingerprint alone finds the key again. The whole id is authenticated with each ciphertext.
/// Clones share the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId {
    fingerprint: Fingerprint,
    text: Arc<str>,
}

impl KeyId {
    /// The id of this generation of this key.
    #[must_use]
    pub fn new(fingerprint: Fingerprint, version: &Version) -> Self {
        Self { fingerprint, text: format!("{fingerprint}-{}", version.0).into() }
    }

    /// What the key's material is recognised by.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// As kube-apiserver gets it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an id that [`KeyId`]'s `Display` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key_id of this plugin (32 hex digits, '-', 1 to 31 of 0-9a-z)")]
pub struct ParseKeyIdError;

impl FromStr for KeyId {
    type Err = ParseKeyIdError;

    fn from_str(text: &str) -> Result<Self, ParseKeyIdError> {
        let (fingerprint, version) = text.split_once('-').ok_or(ParseKeyIdError)?;
        let lower_hex = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        if fingerprint.len() != FINGERPRINT_HEX {
            return Err(ParseKeyIdError);
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(fingerprint.as_bytes().chunks_exact(2)) {
            let (high, low) = (lower_hex(pair[0]), lower_hex(pair[1]));
            *byte = high.zip(low).map(|(h, l)| h << 4 | l).ok_or(ParseKeyIdError)?;
        }
        let legal = (1..=VERSION_BYTES_MAX).contains(&version.len())
            && version.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        if !legal {
            return Err(ParseKeyIdError);
        }
        Ok(Self { fingerprint: Fingerprint(bytes), text: text.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The id is in etcd for years: a change of how it is made would orphan every stored object.
    #[test]
    fn ids_are_what_they_were() {
        let id = KeyId::new(Fingerprint::of("test", b"witness"), &Version::of_bytes(&[1]));
        assert_eq!(id.to_string(), "69156414b31011bea3741935dbf6da04-01");
        let long = Version::of_bytes(&[0xab; 20]);
        assert_eq!(long.0, "h4844a34d8cec095f6eff24651f335f");
    }

    #[test]
    fn texts_that_are_no_ids_are_refused() {
        let fingerprint = "0123456789abcdef0123456789abcdef";
        assert!(format!("{fingerprint}-1").parse::<KeyId>().is_ok());
        for text in [
            String::new(),
            "kleidi-kms-plugin".to_owned(),
            fingerprint.to_owned(),
            format!("{fingerprint}-"),
            format!("{fingerprint}-A"),
            format!("{fingerprint}-1-1"),
            format!("{}-1", fingerprint.to_uppercase()),
            format!("{}-1", &fingerprint[1..]),
            format!("{fingerprint}0-1"),
            format!("{fingerprint}-{}", "1".repeat(32)),
            format!("{fingerprint}-é"),
        ] {
            assert!(text.parse::<KeyId>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn ids_are_legal_stable_and_read_back(
            witness in proptest::collection::vec(any::<u8>(), 0..64),
            version in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let id = KeyId::new(Fingerprint::of("d", &witness), &Version::of_bytes(&version));
            let text = id.to_string();
            prop_assert!(text.len() <= KEY_ID_BYTES_MAX);
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
            prop_assert_eq!(text.parse::<KeyId>().unwrap(), id);
            let again = KeyId::new(Fingerprint::of("d", &witness), &Version::of_bytes(&version));
            prop_assert_eq!(again.to_string(), text);
        }

        #[test]
        fn ids_are_injective(
            a in (proptest::collection::vec(any::<u8>(), 0..20), proptest::collection::vec(any::<u8>(), 0..20)),
            b in (proptest::collection::vec(any::<u8>(), 0..20), proptest::collection::vec(any::<u8>(), 0..20)),
        ) {
            let id = |(w, v): &(Vec<u8>, Vec<u8>)| KeyId::new(Fingerprint::of("d", w), &Version::of_bytes(v));
            prop_assert_eq!(id(&a) == id(&b), a == b);
        }

        #[test]
        fn parsing_is_total(text in "\\PC{0,70}") {
            if let Ok(id) = text.parse::<KeyId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
