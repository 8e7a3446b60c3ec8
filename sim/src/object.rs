//! What kube-apiserver stores of an object, byte for byte (upstream `kmsv2/envelope.go`,
//! `encrypt/aes`).
//!
//! ```text
//! k8s:enc:kms:v2:<provider>:<EncryptedObject>
//! encryptedData, with a seed:  info (32) ‖ nonce (12) ‖ AES-256-GCM ‖ tag (16)
//! encryptedData, with a DEK:              nonce (12) ‖ AES-GCM     ‖ tag (16)
//! ```
//!
//! The data are bound to the object's key in etcd. Neither key_id nor annotations are bound to anything:
//! that is the plugin's affair.

use std::fmt::Write as _;

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload, consts::U12};
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm};
use hkdf::Hkdf;
use kleidi_proto::encryption::{ETCD_PREFIX, EncryptedDekSourceType, EncryptedObject};
use prost::encoding::{WireType, encode_key, encode_varint};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::limits;
use crate::version::Version;
pub use wire::Library;

mod wire;

type Aes192Gcm = AesGcm<aes::Aes192, U12>;

/// Bytes of the random input to the derivation of an object's key.
pub const INFO_BYTES: usize = 32;

/// Bytes of the nonce of AES-GCM.
pub const NONCE_BYTES: usize = 12;

/// Fewest bytes of a seed that is read; what is written has as many.
pub const SEED_BYTES: usize = 32;

/// Why a stored value cannot be read. The words are upstream's, where they are stable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is not of this provider.
    #[error("no matching prefix found")]
    NoPrefix,
    /// The record is no protobuf.
    #[error("failed to decode the stored object: {0}")]
    Protobuf(&'static str),
    /// The record is not legal.
    #[error("{0}")]
    Invalid(String),
    /// There is not even room for what is before the ciphertext.
    #[error("the stored data was shorter than the required size")]
    TooShort,
    /// Another key, another place in etcd, or changed bytes.
    #[error("cipher: message authentication failed")]
    Authentication,
    /// The plugin answered with too short a seed.
    #[error("invalid seed length {0} used for key generation")]
    SeedLength(usize),
    /// The plugin answered with what is no AES key.
    #[error("crypto/aes: invalid key size {0}")]
    KeySize(usize),
}

/// What a plugin unwrapped, as the object's type has it used.
#[derive(Clone)]
pub enum Secret {
    /// Each object has a key of its own, derived from this (since 1.29; 1.28 by a gate).
    Seed(Zeroizing<Vec<u8>>),
    /// All objects have this key (1.27 and 1.28).
    Key(Zeroizing<Vec<u8>>),
}

impl Secret {
    /// Accepts what Decrypt answered: a seed of at least 32 bytes, or a key of 16, 24 or 32.
    pub fn new(
        source_type: EncryptedDekSourceType,
        bytes: Zeroizing<Vec<u8>>,
    ) -> Result<Self, ReadError> {
        match (source_type, bytes.len()) {
            (EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed, SEED_BYTES..) => {
                Ok(Self::Seed(bytes))
            }
            (EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed, length) => {
                Err(ReadError::SeedLength(length))
            }
            (EncryptedDekSourceType::AesGcmKey, 16 | 24 | 32) => Ok(Self::Key(bytes)),
            (EncryptedDekSourceType::AesGcmKey, length) => Err(ReadError::KeySize(length)),
        }
    }

    /// Encrypts with a fresh key derived from the seed; `info` and `nonce` are random.
    ///
    /// `None` for a key: no supported version writes with one.
    #[must_use]
    pub fn seal(
        &self,
        info: &[u8; INFO_BYTES],
        nonce: &[u8; NONCE_BYTES],
        plaintext: &[u8],
        aad: &[u8],
    ) -> Option<Vec<u8>> {
        let Self::Seed(seed) = self else { return None };
        let sealed = seal_with_key(&*derive(seed, info), nonce, plaintext, aad)?;
        Some([info.as_slice(), &sealed].concat())
    }

    /// Decrypts `encryptedData` of the object at the place `aad` in etcd.
    pub fn open(&self, data: &[u8], aad: &[u8]) -> Result<Vec<u8>, ReadError> {
        match self {
            Self::Seed(seed) => {
                let (info, rest) = data.split_at_checked(INFO_BYTES).ok_or(ReadError::TooShort)?;
                open_with_key(&*derive(seed, info), rest, aad)
            }
            Self::Key(key) => open_with_key(key, data, aad),
        }
    }
}

/// HKDF-Expand alone, without Extract and salt.
fn derive(seed: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    // Fails for a seed of less than 32 bytes, which `Secret::new` refuses, or for an output of more than
    // 8160; a key of zeros then opens nothing.
    if let Ok(hkdf) = Hkdf::<Sha256>::from_prk(seed) {
        let _ = hkdf.expand(info, &mut *key);
    }
    key
}

/// Nonce (the first 12 of the random bytes), ciphertext and tag of AES-GCM; nothing for a key of a wrong length
/// or too few random bytes.
pub(crate) fn seal_with_key(
    key: &[u8],
    random: &[u8],
    plaintext: &[u8],
    aad: &[u8],
) -> Option<Vec<u8>> {
    let nonce: &[u8; NONCE_BYTES] = random.get(..NONCE_BYTES)?.try_into().ok()?;
    let payload = Payload { msg: plaintext, aad };
    let sealed = match key.len() {
        16 => Aes128Gcm::new_from_slice(key).ok()?.encrypt(nonce.into(), payload),
        24 => Aes192Gcm::new_from_slice(key).ok()?.encrypt(nonce.into(), payload),
        _ => Aes256Gcm::new_from_slice(key).ok()?.encrypt(nonce.into(), payload),
    };
    Some([nonce.as_slice(), &sealed.ok()?].concat())
}

/// What [`seal_with_key`] made, opened.
pub(crate) fn open_with_key(key: &[u8], data: &[u8], aad: &[u8]) -> Result<Vec<u8>, ReadError> {
    let (nonce, sealed) = data.split_at_checked(NONCE_BYTES).ok_or(ReadError::TooShort)?;
    let nonce: &[u8; NONCE_BYTES] = nonce.try_into().map_err(|_| ReadError::TooShort)?;
    let payload = Payload { msg: sealed, aad };
    let opened = match key.len() {
        16 => Aes128Gcm::new_from_slice(key).map(|cipher| cipher.decrypt(nonce.into(), payload)),
        24 => Aes192Gcm::new_from_slice(key).map(|cipher| cipher.decrypt(nonce.into(), payload)),
        _ => Aes256Gcm::new_from_slice(key).map(|cipher| cipher.decrypt(nonce.into(), payload)),
    };
    opened.map_err(|_| ReadError::KeySize(key.len()))?.map_err(|_| ReadError::Authentication)
}

/// Whether a value is that of the provider with this name.
#[must_use]
pub fn is_of(value: &[u8], provider: &str) -> bool {
    record(value, provider).is_some()
}

fn record<'a>(value: &'a [u8], provider: &str) -> Option<&'a [u8]> {
    let rest = value.strip_prefix(ETCD_PREFIX.as_bytes())?;
    rest.strip_prefix(provider.as_bytes())?.strip_prefix(b":")
}

/// The record of a value of this provider, with all limits checked.
pub fn parse(value: &[u8], provider: &str, by: Version) -> Result<EncryptedObject, ReadError> {
    read(record(value, provider), by)
}

/// The record of a value, whichever provider's it is, with all limits checked.
pub fn parse_any(value: &[u8], by: Version) -> Result<EncryptedObject, ReadError> {
    read(record_of_any(value), by)
}

/// The bytes of the record in a value, whichever provider's it is.
#[must_use]
pub fn record_of_any(value: &[u8]) -> Option<&[u8]> {
    let rest = value.strip_prefix(ETCD_PREFIX.as_bytes())?;
    rest.iter().position(|byte| *byte == b':').map(|at| &rest[at + 1..])
}

fn read(record: Option<&[u8]>, by: Version) -> Result<EncryptedObject, ReadError> {
    let record = record.ok_or(ReadError::NoPrefix)?;
    let object = wire::decode(record, by.protobuf()).map_err(ReadError::Protobuf)?;
    validate(&object).map_err(ReadError::Invalid)?;
    Ok(object)
}

/// Whether a record is legal, in upstream's order and words.
pub fn validate(object: &EncryptedObject) -> Result<(), String> {
    let number = object.encrypted_dek_source_type;
    if EncryptedDekSourceType::try_from(number).is_err() {
        return Err(format!("unknown encryptedDEKSourceType: {number}"));
    }
    if object.encrypted_data.is_empty() {
        return Err("encrypted data is empty".to_owned());
    }
    limits::dek_source(&object.encrypted_dek_source)
        .map_err(|error| format!("failed to validate encrypted DEK source: {error}"))?;
    limits::key_id(&object.key_id)
        .map_err(|error| format!("failed to validate key id: {error}"))?;
    limits::annotations(&object.annotations)
        .map_err(|error| format!("failed to validate annotations: {error}"))
}

/// The value of a record, with the bytes that Go writes. Google's library writes an annotation's empty value;
/// gogo's and prost leave it out (spec 3.1). Go's order of several annotations is random; ours is sorted.
#[must_use]
pub fn to_value(provider: &str, object: &EncryptedObject, by: Version) -> Vec<u8> {
    let mut value = format!("{ETCD_PREFIX}{provider}:").into_bytes();
    field(1, &object.encrypted_data, &mut value);
    field(2, object.key_id.as_bytes(), &mut value);
    field(3, &object.encrypted_dek_source, &mut value);
    for (name, content) in &object.annotations {
        let mut entry = Vec::new();
        always(1, name.as_bytes(), &mut entry);
        if by.protobuf() == Library::Google {
            always(2, content, &mut entry);
        } else {
            field(2, content, &mut entry);
        }
        always(4, &entry, &mut value);
    }
    if let Ok(number @ 1..) = u64::try_from(object.encrypted_dek_source_type) {
        encode_key(5, WireType::Varint, &mut value);
        encode_varint(number, &mut value);
    }
    value
}

fn field(number: u32, bytes: &[u8], into: &mut Vec<u8>) {
    if !bytes.is_empty() {
        always(number, bytes, into);
    }
}

fn always(number: u32, bytes: &[u8], into: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, into);
    encode_varint(bytes.len() as u64, into);
    into.extend_from_slice(bytes);
}

/// By what an unwrapped seed is found again: all that Decrypt would be asked with, and the type.
#[must_use]
pub fn cache_key(object: &EncryptedObject) -> [u8; 32] {
    Sha256::digest(cache_key_bytes(object)).into()
}

fn cache_key_bytes(object: &EncryptedObject) -> Vec<u8> {
    // The lengths fit: `validate` bounds them.
    fn counted(bytes: &[u8], into: &mut Vec<u8>) {
        into.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
        into.extend_from_slice(bytes);
    }
    let mut bytes = object.encrypted_dek_source_type.to_be_bytes().to_vec();
    counted(&object.encrypted_dek_source, &mut bytes);
    counted(object.key_id.as_bytes(), &mut bytes);
    if !object.annotations.is_empty() {
        let count = u32::try_from(object.annotations.len()).unwrap_or(u32::MAX);
        bytes.extend(count.to_be_bytes());
        for (name, value) in &object.annotations {
            counted(name.as_bytes(), &mut bytes);
            counted(value, &mut bytes);
        }
    }
    bytes
}

/// A key_id as upstream's messages and metrics show it; nothing for an empty one.
#[must_use]
pub fn key_id_hash(key_id: &str) -> String {
    if key_id.is_empty() {
        return String::new();
    }
    sha256("sha256:", key_id.as_bytes())
}

/// The prefix, and a SHA-256 in hex.
pub(crate) fn sha256(prefix: &str, bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(prefix.to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
