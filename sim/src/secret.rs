//! A Secret as kube-apiserver stores it, byte for byte: `k8s\0`, and protobuf in protobuf (`runtime.Unknown`,
//! `core/v1`, `meta/v1`; `k8s.io/apimachinery/pkg/runtime/serializer/protobuf`).
//!
//! Upstream's encoder writes every string and number that is no pointer, empty ones too; prost does not,
//! hence an encoder of its own.

use std::collections::BTreeMap;

use prost::Message as _;

pub mod valid;

/// What every object in protobuf begins with.
const MAGIC: &[u8] = b"k8s\0";

/// The type of a Secret of which nothing is known.
pub const OPAQUE: &str = "Opaque";

/// A Secret, as far as it is modelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// A UUID.
    pub uid: String,
    /// When it was created, in seconds since 1970.
    pub created: i64,
    /// Its content.
    pub data: BTreeMap<String, Vec<u8>>,
    /// [`OPAQUE`], or what else it is for.
    pub kind: String,
    /// Who has set the content.
    pub manager: Option<Manager>,
}

/// Who last set which fields, as `managedFields` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manager {
    /// What the client calls itself.
    pub name: String,
    /// When, in seconds since 1970.
    pub time: i64,
}

impl Secret {
    /// The bytes that are encrypted.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut secret = Fields::default();
        secret.bytes(1, &self.metadata());
        for (key, value) in &self.data {
            let mut entry = Fields::default();
            entry.bytes(1, key.as_bytes());
            entry.bytes(2, value);
            secret.bytes(2, &entry.0);
        }
        secret.bytes(3, self.kind.as_bytes());
        let mut kind = Fields::default();
        kind.bytes(1, b"v1");
        kind.bytes(2, b"Secret");
        let mut unknown = Fields(MAGIC.to_vec());
        unknown.bytes(1, &kind.0);
        unknown.bytes(2, &secret.0);
        // Encoding and type of the content, which are not said.
        unknown.bytes(3, b"");
        unknown.bytes(4, b"");
        unknown.0
    }

    fn metadata(&self) -> Vec<u8> {
        let mut fields = Fields::default();
        fields.bytes(1, self.name.as_bytes());
        // generateName
        fields.bytes(2, b"");
        fields.bytes(3, self.namespace.as_bytes());
        // selfLink
        fields.bytes(4, b"");
        fields.bytes(5, self.uid.as_bytes());
        // resourceVersion, which is etcd's revision, and generation
        fields.bytes(6, b"");
        fields.number(7, 0);
        fields.bytes(8, &time(self.created));
        if let Some(manager) = &self.manager {
            fields.bytes(17, &self.managed(manager));
        }
        fields.0
    }

    fn managed(&self, manager: &Manager) -> Vec<u8> {
        let names = self.data.keys().map(|key| (format!("f:{key}"), serde_json::json!({})));
        let mut data: serde_json::Map<_, _> = names.collect();
        data.insert(".".to_owned(), serde_json::json!({}));
        let json = serde_json::json!({"f:data": data, "f:type": {}}).to_string();
        let mut set = Fields::default();
        set.bytes(1, json.as_bytes());
        let mut fields = Fields::default();
        fields.bytes(1, manager.name.as_bytes());
        fields.bytes(2, b"Update");
        fields.bytes(3, b"v1");
        fields.bytes(4, &time(manager.time));
        fields.bytes(6, b"FieldsV1");
        fields.bytes(7, &set.0);
        // subresource
        fields.bytes(8, b"");
        fields.0
    }

    /// Reads what an apiserver has stored; labels and whatever else is not modelled is left out.
    pub fn decode(object: &[u8]) -> Result<Self, String> {
        let protobuf = object.strip_prefix(MAGIC).ok_or("the object is not in protobuf")?;
        let not = |error: prost::DecodeError| format!("the object is no protobuf: {error}");
        let unknown = wire::Unknown::decode(protobuf).map_err(not)?;
        let kind = unknown.kind.unwrap_or_default();
        if (kind.version.as_str(), kind.name.as_str()) != ("v1", "Secret") {
            return Err(format!("the object is a {} {}, no Secret", kind.version, kind.name));
        }
        let secret = wire::Secret::decode(unknown.raw.as_slice()).map_err(not)?;
        let metadata = secret.metadata.unwrap_or_default();
        let manager = metadata.managed.into_iter().next().map(|managed| Manager {
            name: managed.manager,
            time: managed.time.unwrap_or_default().seconds,
        });
        Ok(Self {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            created: metadata.created.unwrap_or_default().seconds,
            data: secret.data,
            kind: secret.kind,
            manager,
        })
    }
}

/// `meta/v1.Time`: seconds, and nanoseconds, which it does not keep.
fn time(seconds: i64) -> Vec<u8> {
    let mut fields = Fields::default();
    fields.number(1, u64::try_from(seconds).unwrap_or(0));
    fields.number(2, 0);
    fields.0
}

/// A message that is being written.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        use prost::encoding::{WireType, encode_key, encode_varint};
        encode_key(number, WireType::LengthDelimited, &mut self.0);
        encode_varint(bytes.len() as u64, &mut self.0);
        self.0.extend_from_slice(bytes);
    }

    fn number(&mut self, number: u32, value: u64) {
        use prost::encoding::{WireType, encode_key, encode_varint};
        encode_key(number, WireType::Varint, &mut self.0);
        encode_varint(value, &mut self.0);
    }
}

/// What is read of the messages.
mod wire {
    use std::collections::BTreeMap;

    #[derive(prost::Message)]
    pub(super) struct Unknown {
        #[prost(message, tag = "1")]
        pub(super) kind: Option<Kind>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) raw: Vec<u8>,
    }

    #[derive(prost::Message)]
    pub(super) struct Kind {
        #[prost(string, tag = "1")]
        pub(super) version: String,
        #[prost(string, tag = "2")]
        pub(super) name: String,
    }

    #[derive(prost::Message)]
    pub(super) struct Secret {
        #[prost(message, tag = "1")]
        pub(super) metadata: Option<Metadata>,
        #[prost(btree_map = "string, bytes", tag = "2")]
        pub(super) data: BTreeMap<String, Vec<u8>>,
        #[prost(string, tag = "3")]
        pub(super) kind: String,
    }

    #[derive(prost::Message)]
    pub(super) struct Metadata {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "3")]
        pub(super) namespace: String,
        #[prost(string, tag = "5")]
        pub(super) uid: String,
        #[prost(message, tag = "8")]
        pub(super) created: Option<Time>,
        #[prost(message, repeated, tag = "17")]
        pub(super) managed: Vec<Managed>,
    }

    #[derive(prost::Message)]
    pub(super) struct Managed {
        #[prost(string, tag = "1")]
        pub(super) manager: String,
        #[prost(message, tag = "4")]
        pub(super) time: Option<Time>,
    }

    #[derive(prost::Message)]
    pub(super) struct Time {
        #[prost(int64, tag = "1")]
        pub(super) seconds: i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written() {
        let secret = Secret {
            namespace: "default".into(),
            name: "one".into(),
            uid: "0b5d…".into(),
            created: 1_800_000_000,
            data: [("a".to_owned(), vec![0, 255]), ("b".to_owned(), vec![])].into(),
            kind: "Opaque".into(),
            manager: Some(Manager { name: "m".into(), time: 1_800_000_001 }),
        };
        assert_eq!(Secret::decode(&secret.encode()), Ok(secret));
        assert!(Secret::decode(b"{}").is_err());
    }

    /// Record R2 of upstream's tests, written by kube-apiserver 1.28.0.
    #[test]
    fn the_bytes_are_upstreams() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../vectors/objects.json")).unwrap();
        let all = vectors.as_array().unwrap();
        let recorded = all.iter().filter(|vector| vector.get("recorded_from").is_some());
        let mut compared = 0;
        for vector in recorded {
            let hex = vector["plaintext"].as_str().unwrap().as_bytes();
            let digits = hex.chunks(2).map(|two| std::str::from_utf8(two).unwrap());
            let bytes: Vec<u8> = digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect();
            assert_eq!(Secret::decode(&bytes).unwrap().encode(), bytes, "{}", vector["name"]);
            compared += 1;
        }
        assert_eq!(compared, 2);
    }
}
