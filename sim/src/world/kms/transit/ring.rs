//! The versions of a key in transit, and what is computed with them, in transit's own formats and words.

use std::collections::BTreeMap;
use std::sync::Arc;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kleidi::key_id::{Fingerprint, KeyId, Version};
use sha2::{Digest as _, Sha256};

use crate::world::random::Stream;

/// Bytes of a nonce before what is wrapped.
const NONCE: usize = 12;

/// What a plugin has to recognise a version by, as the specification of its key_ids has it.
pub(super) const FINGERPRINT_INPUT: &[u8] = b"kleidi key fingerprint v1";
pub(super) const FINGERPRINT_DOMAIN: &str = "kleidi transit hmac-sha256 v1";

/// A version of a key. No two have the same material.
pub(super) struct KeyVersion {
    /// Which one of all that ever were, under whatever number.
    pub(super) serial: u64,
    number: u64,
    cipher: [u8; 32],
    mac: [u8; 32],
}

impl KeyVersion {
    pub(super) fn new(serial: u64, number: u64, random: &Stream) -> Arc<Self> {
        let (mut cipher, mut mac) = ([0; 32], [0; 32]);
        random.bytes(&mut cipher);
        random.bytes(&mut mac);
        Arc::new(Self { serial, number, cipher, mac })
    }

    /// The id under which a plugin has to know it.
    pub(super) fn id(&self) -> KeyId {
        let fingerprint = Fingerprint::of(FINGERPRINT_DOMAIN, &self.mac(FINGERPRINT_INPUT));
        KeyId::new(fingerprint, &Version::of_number(self.number))
    }

    /// As long as an HMAC with SHA-256, and as good for telling keys apart.
    fn mac(&self, input: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(self.mac).chain_update(input).finalize().into()
    }
}

/// Why something is not done, in the server's words.
pub(super) type Refusal = String;

/// What a server has of a key.
#[derive(Clone)]
pub(super) struct Ring {
    versions: BTreeMap<u64, Arc<KeyVersion>>,
    /// `min_decryption_version`.
    min: u64,
}

impl Ring {
    /// A key that has just been made.
    pub(super) fn new(first: Arc<KeyVersion>) -> Self {
        Self { versions: BTreeMap::from([(1, first)]), min: 1 }
    }

    /// The number of the latest version.
    pub(super) fn latest(&self) -> u64 {
        self.versions.keys().next_back().copied().unwrap_or(0)
    }

    /// The latest version.
    pub(super) fn current(&self) -> Option<&Arc<KeyVersion>> {
        self.versions.values().next_back()
    }

    /// With one more version.
    pub(super) fn rotated(mut self, version: Arc<KeyVersion>) -> Self {
        self.versions.insert(version.number, version);
        self
    }

    /// With another `min_decryption_version`: the latest one, or the first.
    pub(super) fn with_old(mut self, usable: bool) -> Self {
        self.min = if usable { 1 } else { self.latest() };
        self
    }

    /// Without what is before the latest version.
    pub(super) fn trimmed(mut self) -> Self {
        let latest = self.latest();
        self.versions.retain(|number, _| *number == latest);
        self
    }

    /// All versions that are there, and whether they may be used.
    pub(super) fn all(&self) -> BTreeMap<u64, bool> {
        let versions = self.versions.iter();
        versions.map(|(number, version)| (version.serial, *number >= self.min)).collect()
    }

    /// Whether what this version wrapped can be unwrapped.
    pub(super) fn holds(&self, serial: u64) -> bool {
        let usable = self.versions.range(self.min..);
        usable.into_iter().any(|(_, version)| version.serial == serial)
    }

    /// A version that may be used.
    fn get(&self, number: u64) -> Option<&Arc<KeyVersion>> {
        self.versions.get(&number).filter(|_| number >= self.min)
    }

    /// A ciphertext, and the version that it is of: the latest, or that one.
    pub(super) fn encrypt(
        &self,
        number: Option<u64>,
        plaintext: &[u8],
        aad: &[u8],
        random: &Stream,
    ) -> Result<(String, &Arc<KeyVersion>), Refusal> {
        let number = number.unwrap_or(self.latest());
        if number > self.latest() {
            return Err(
                "requested version for encryption is higher than the latest key version".into()
            );
        }
        let version = self.get(number).ok_or("no such key version")?;
        let mut nonce = [0; NONCE];
        random.bytes(&mut nonce);
        let payload = Payload { msg: plaintext, aad };
        let sealed = Aes256Gcm::new(&version.cipher.into()).encrypt(&nonce.into(), payload);
        let sealed = sealed.map_err(|_| "the cipher has failed")?;
        let text = STANDARD.encode([&nonce[..], &sealed].concat());
        Ok((format!("vault:v{number}:{text}"), version))
    }

    /// What was encrypted.
    pub(super) fn decrypt(&self, ciphertext: &str, aad: &[u8]) -> Result<Vec<u8>, Refusal> {
        let rest = ciphertext.strip_prefix("vault:v").ok_or("invalid ciphertext: no prefix")?;
        let (number, text) =
            rest.split_once(':').ok_or("invalid ciphertext: wrong number of fields")?;
        let number: u64 = number
            .parse()
            .map_err(|_| "invalid ciphertext: version number could not be decoded")?;
        // As the real one does, from its first days.
        let number = number.max(1);
        if number > self.latest() {
            return Err("invalid ciphertext: version is too new".into());
        }
        let old = "ciphertext or signature version is disallowed by policy (too old)";
        let version = self.get(number).ok_or(old)?;
        let bytes =
            STANDARD.decode(text).map_err(|_| "invalid ciphertext: could not decode base64")?;
        let (nonce, sealed) =
            bytes.split_first_chunk::<NONCE>().ok_or("invalid ciphertext length")?;
        let payload = Payload { msg: sealed, aad };
        let opened = Aes256Gcm::new(&version.cipher.into()).decrypt(&(*nonce).into(), payload);
        opened.map_err(|_| "cipher: message authentication failed".into())
    }

    /// `vault:v<version>:<base64>` of the latest version, or of that one.
    pub(super) fn hmac(&self, number: Option<u64>, input: &[u8]) -> Result<String, Refusal> {
        let (latest, number) = (self.latest(), number.unwrap_or(self.latest()));
        if number > latest {
            return Err(format!("key version does not exist; latest key version is {latest}"));
        }
        let version = self.get(number).ok_or("no such key version")?;
        Ok(format!("vault:v{number}:{}", STANDARD.encode(version.mac(input))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the words of OpenBao 2.7.2, asked for the same.
    #[test]
    fn it_says_what_the_real_one_says() {
        let random = Stream::of(1, "ring");
        let ring = Ring::new(KeyVersion::new(0, 1, &random));
        let (ciphertext, _) = ring.encrypt(None, b"seed", b"aad", &random).unwrap();
        assert!(ciphertext.starts_with("vault:v1:"), "{ciphertext}");
        assert_eq!(ring.decrypt(&ciphertext, b"aad").as_deref(), Ok(&b"seed"[..]));
        // What the number says is not bound to the rest.
        let zero = ciphertext.replacen("v1", "v0", 1);
        assert_eq!(ring.decrypt(&zero, b"aad").as_deref(), Ok(&b"seed"[..]));
        let rotated = ring.clone().rotated(KeyVersion::new(1, 2, &random));
        assert_ne!(ring.hmac(None, b"x"), rotated.hmac(None, b"x"));
        assert_eq!(ring.hmac(None, b"x"), rotated.hmac(Some(1), b"x"));
        let without_old = rotated.clone().with_old(false);
        for (outcome, wanted) in [
            (ring.hmac(Some(2), b"x"), "key version does not exist; latest key version is 1"),
            (without_old.hmac(Some(1), b"x"), "no such key version"),
            (
                without_old.decrypt(&ciphertext, b"aad").map(|_| String::new()),
                "ciphertext or signature version is disallowed by policy (too old)",
            ),
            (
                ring.decrypt("vault:v9:AAAA", b"").map(|_| String::new()),
                "invalid ciphertext: version is too new",
            ),
            (
                ring.decrypt("vault:v1:AAAA", b"").map(|_| String::new()),
                "invalid ciphertext length",
            ),
            (
                ring.decrypt(&ciphertext, b"").map(|_| String::new()),
                "cipher: message authentication failed",
            ),
            (
                ring.encrypt(Some(5), b"", b"", &random).map(|(text, _)| text),
                "requested version for encryption is higher than the latest key version",
            ),
            (
                without_old.encrypt(Some(1), b"", b"", &random).map(|(text, _)| text),
                "no such key version",
            ),
        ] {
            assert_eq!(outcome.unwrap_err(), wanted);
        }
        assert!(rotated.holds(0) && !without_old.holds(0) && without_old.holds(1));
        assert!(!rotated.trimmed().with_old(true).holds(0));
    }
}
