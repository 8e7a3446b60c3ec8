//! A value of etcd's, field by field, each byte accounted for.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kleidi_harness::Stored;
use kleidi_proto::encryption::ETCD_PREFIX;

/// Bytes of a field that are shown.
const SHOWN: usize = 8;

/// The table: offset, length, first bytes, what it is.
pub fn explain(raw: &[u8], key_id: &str) -> String {
    let Stored { provider, object } = Stored::parse(raw).expect("the value of an encrypted object");
    assert_eq!(object.key_id, key_id, "the object's key_id is that of Status");
    let mut table = Table { raw, at: 0, text: String::new() };
    table.row(ETCD_PREFIX.len(), "text: encrypted by a KMS v2 plugin");
    table.row(provider.len() + 1, "text: the provider's name in the EncryptionConfiguration");

    let data = object.encrypted_data.len();
    table.field("encryptedData, the object, encrypted by kube-apiserver", data);
    table.row(32, "from this and the seed comes the key of this object alone (HKDF)");
    table.row(12, "AES-GCM nonce");
    table.row(data - 60, "the Secret, encrypted");
    table.row(16, "AES-GCM tag; it covers the object's key in etcd, too");

    let seed = &object.encrypted_dek_source;
    let in_transit = seed.starts_with(&[1, 2]);
    table.field("keyID, which key wrapped the seed", key_id.len());
    table.row(32, "text: fingerprint of the key's material");
    let generation = if in_transit { "version in transit" } else { "CKA_ID" };
    table.row(key_id.len() - 32, &format!("text: the key's {generation}"));

    table.field("encryptedDEKSource, the seed, as the plugin wrapped it", seed.len());
    if in_transit {
        table.row(2, "the plugin's format 1, scheme 2: transit");
        table.transit(&seed[2..]);
    } else {
        table.row(2, "the plugin's format 1, scheme 1: AES-256-GCM");
        table.row(12, "IV");
        table.row(seed.len() - 30, "the seed, encrypted by the key on the token");
        table.row(16, "tag; it covers keyID and annotations, too");
    }

    assert!(object.annotations.is_empty(), "this plugin writes no annotations");
    let kind = object.encrypted_dek_source_type().as_str_name();
    table.row(2, &format!("encryptedDEKSourceType: {kind}"));
    assert_eq!(table.at, raw.len(), "every byte is explained");
    table.text
}

struct Table<'a> {
    raw: &'a [u8],
    at: usize,
    text: String,
}

impl Table<'_> {
    /// Tag and length of a protobuf field whose content the next rows explain.
    fn field(&mut self, what: &str, length: usize) {
        // All field numbers are below 16: the tag has one byte.
        let size = 1 + prost::length_delimiter_len(length);
        self.row(size, &format!("{what}: {length} bytes"));
    }

    /// A ciphertext of transit's. Its mark is the same with OpenBao, which descends from Vault.
    fn transit(&mut self, ciphertext: &[u8]) {
        let colon = ciphertext.iter().rposition(|byte| *byte == b':').expect("vault:v<version>:");
        let (mark, base64) = ciphertext.split_at(colon + 1);
        let text = String::from_utf8_lossy(mark);
        self.row(mark.len(), &format!("text {text}, the server's mark: which version of its key"));
        let seed = STANDARD.decode(base64).expect("transit answers in base64").len() - 12 - 16;
        let what = format!("text: base64 of IV (12), the seed, encrypted by the server ({seed}),");
        self.row(base64.len(), &what);
        self.note("tag (16); it covers keyID and annotations, too");
    }

    /// More of what the last row is.
    fn note(&mut self, what: &str) {
        let _ = writeln!(self.text, "{:43}{what}", "");
    }

    fn row(&mut self, length: usize, what: &str) {
        let bytes = &self.raw[self.at..self.at + length];
        let mut hex = String::new();
        for byte in bytes.iter().take(SHOWN) {
            let _ = write!(hex, "{byte:02x} ");
        }
        if length > SHOWN {
            hex.push('…');
        }
        let _ = writeln!(self.text, "  {:5} {length:4}  {hex:<27}{what}", self.at);
        self.at += length;
    }
}
