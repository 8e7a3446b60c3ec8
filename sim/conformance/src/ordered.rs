//! DecryptRequest with its annotations in a stated order, and empty values written out: on the wire a
//! map is a list of entries, in any order, and Go writes both fields of each.

use kleidi_proto::kms::EncryptResponse;

/// A DecryptRequest by its wire format.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OrderedDecryptRequest {
    /// As in DecryptRequest.
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    /// As in DecryptRequest.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// As in DecryptRequest.
    #[prost(string, tag = "3")]
    pub key_id: String,
    /// The map's entries.
    #[prost(message, repeated, tag = "4")]
    pub annotations: Vec<Entry>,
}

/// An entry of the map.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    /// Its key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value; `Some` writes an empty one, too.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub value: Option<Vec<u8>>,
}

impl OrderedDecryptRequest {
    /// What kube-apiserver sends back for this answer of Encrypt.
    #[must_use]
    pub fn new(wrapped: &EncryptResponse, uid: String, reversed: bool) -> Self {
        let mut annotations: Vec<Entry> = wrapped
            .annotations
            .iter()
            .map(|(key, value)| Entry { key: key.clone(), value: Some(value.clone()) })
            .collect();
        if reversed {
            annotations.reverse();
        }
        Self {
            ciphertext: wrapped.ciphertext.clone(),
            uid,
            key_id: wrapped.key_id.clone(),
            annotations,
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn empty_values_are_written_out_and_read_as_a_map() {
        let wrapped = EncryptResponse {
            ciphertext: b"ct".to_vec(),
            key_id: "1".to_owned(),
            annotations: [("a.b".to_owned(), Vec::new())].into(),
        };
        let bytes = OrderedDecryptRequest::new(&wrapped, "u".to_owned(), true).encode_to_vec();
        assert!(bytes.ends_with(b"\x22\x07\x0a\x03a.b\x12\x00"), "{bytes:02x?}");
        let read = kleidi_proto::kms::DecryptRequest::decode(bytes.as_slice()).unwrap();
        assert_eq!(read.annotations, wrapped.annotations);
    }
}
