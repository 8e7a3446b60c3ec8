//! What kube-apiserver stores of an encrypted object.

use kleidi_proto::encryption::{ETCD_PREFIX, EncryptedDekSourceType, EncryptedObject};
use prost::Message as _;

/// A value in etcd, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Name of the provider in the `EncryptionConfiguration`.
    pub provider: String,
    /// The record behind the prefix.
    pub object: EncryptedObject,
}

impl Stored {
    /// Takes a value apart.
    pub fn parse(value: &[u8]) -> Result<Self, String> {
        let rest = value.strip_prefix(ETCD_PREFIX.as_bytes()).ok_or_else(|| {
            let start = String::from_utf8_lossy(&value[..value.len().min(40)]);
            format!("it does not begin with {ETCD_PREFIX}: {start:?}")
        })?;
        let colon =
            rest.iter().position(|byte| *byte == b':').ok_or("there is no provider name")?;
        let provider = String::from_utf8_lossy(&rest[..colon]).into_owned();
        let object = EncryptedObject::decode(&rest[colon + 1..]).map_err(|e| e.to_string())?;
        Ok(Self { provider, object })
    }

    /// The value again.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut value = format!("{ETCD_PREFIX}{}:", self.provider).into_bytes();
        value.extend(self.object.encode_to_vec());
        value
    }

    /// Whether the seed is expanded per object, as since 1.29.
    #[must_use]
    pub fn is_extended(&self) -> bool {
        self.object.encrypted_dek_source_type()
            == EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed
    }
}
