//! What a token says of a key.

use cryptoki::error::Result;
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::Session;

/// AES-256; shorter keys are not used.
const KEY_BYTES: u64 = 32;

/// The attributes that matter; `None` where the token does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::backend::pkcs11) struct Attributes {
    pub(in crate::backend::pkcs11) id: Vec<u8>,
    pub(in crate::backend::pkcs11) label: Vec<u8>,
    pub(super) bytes: Option<u64>,
    pub(super) private: Option<bool>,
    pub(super) sensitive: Option<bool>,
    pub(super) extractable: Option<bool>,
    pub(super) encrypt: Option<bool>,
    pub(super) decrypt: Option<bool>,
    pub(super) local: Option<bool>,
    pub(super) never_extractable: Option<bool>,
    /// First bytes of E_K(0); empty or absent in many tokens.
    pub(super) check_value: Option<Vec<u8>>,
}

const WANTED: [AttributeType; 11] = [
    AttributeType::Id,
    AttributeType::Label,
    AttributeType::ValueLen,
    AttributeType::Private,
    AttributeType::Sensitive,
    AttributeType::Extractable,
    AttributeType::Encrypt,
    AttributeType::Decrypt,
    AttributeType::Local,
    AttributeType::NeverExtractable,
    AttributeType::CheckValue,
];

impl Attributes {
    pub(in crate::backend::pkcs11) fn read(
        session: &Session,
        handle: ObjectHandle,
    ) -> Result<Self> {
        let mut attributes = Self::default();
        for attribute in session.get_attributes(handle, &WANTED)? {
            match attribute {
                Attribute::Id(id) => attributes.id = id,
                Attribute::Label(label) => attributes.label = label,
                #[allow(clippy::useless_conversion, reason = "it is 32 bits long elsewhere")]
                Attribute::ValueLen(bytes) => attributes.bytes = u64::try_from(*bytes).ok(),
                Attribute::Private(flag) => attributes.private = Some(flag),
                Attribute::Sensitive(flag) => attributes.sensitive = Some(flag),
                Attribute::Extractable(flag) => attributes.extractable = Some(flag),
                Attribute::Encrypt(flag) => attributes.encrypt = Some(flag),
                Attribute::Decrypt(flag) => attributes.decrypt = Some(flag),
                Attribute::Local(flag) => attributes.local = Some(flag),
                Attribute::NeverExtractable(flag) => attributes.never_extractable = Some(flag),
                Attribute::CheckValue(value) => attributes.check_value = Some(value),
                _ => {}
            }
        }
        Ok(attributes)
    }

    /// Why this is no key for us, whatever the configuration says.
    pub(super) fn wrong_length(&self) -> Option<String> {
        match self.bytes {
            Some(KEY_BYTES) => None,
            // Seen with keys from a file: softhsm2-util 2.6.1 takes it for a text.
            Some(bytes) => Some(format!(
                "it is {bytes} bytes long instead of {KEY_BYTES} (softhsm2-util --import cuts a key \
                 off at a NUL or newline byte)"
            )),
            None => Some("the token does not say how long it is".to_owned()),
        }
    }

    /// What makes the key less safe than it has to be: `allowWeakKeys` accepts that.
    pub(super) fn weaknesses(&self) -> Vec<&'static str> {
        let mut weaknesses = Vec::new();
        if self.private != Some(true) {
            weaknesses
                .push("CKA_PRIVATE is not set: SoftHSM keeps such a key in clear on the disk");
        }
        if self.sensitive != Some(true) {
            weaknesses.push("CKA_SENSITIVE is not set: the key can be read out");
        }
        if self.extractable != Some(false) {
            weaknesses.push("CKA_EXTRACTABLE is set: the key can be taken out");
        }
        weaknesses
    }

    /// Neither made on the token nor with a check value: see `never_was_a_key`.
    pub(super) fn could_be_a_stump(&self) -> bool {
        self.local != Some(true) && self.check_value.as_ref().is_none_or(Vec::is_empty)
    }

    /// How the operator finds the key.
    pub(super) fn name(&self) -> String {
        let label = String::from_utf8_lossy(&self.label);
        match &self.id[..] {
            [] => format!("label {label:?}, no CKA_ID"),
            id => format!("label {label:?}, CKA_ID {}", crate::key_id::hex(id)),
        }
    }
}

/// `CKA_ID` as it is ordered: a number in big-endian bytes, so leading zeros do not count.
pub(super) fn order(id: &[u8]) -> (usize, &[u8]) {
    let zeros = id.iter().take_while(|byte| **byte == 0).count();
    (id.len() - zeros, &id[zeros..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_are_ordered_as_numbers() {
        let ids: [&[u8]; 7] = [&[], &[1], &[0, 2], &[9], &[10], &[1, 0], &[0x20, 0x26, 0x01]];
        assert!(ids.windows(2).all(|pair| order(pair[0]) < order(pair[1])));
        assert_eq!(order(&[0, 0, 7]), order(&[7]));
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_numbers(a: u32, b: u32) {
            prop_assert_eq!(order(&a.to_be_bytes()).cmp(&order(&b.to_be_bytes())), a.cmp(&b));
        }
    }
}
