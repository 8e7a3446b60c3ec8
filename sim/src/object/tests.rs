//! Values written by others, read and written again.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// Any version does: all read the same, and none of the vectors has an empty annotation but one.
const BY: Version = Version::V1_37;

#[derive(Deserialize)]
struct Vector {
    name: String,
    r#type: i32,
    provider: String,
    key_id: String,
    secret: String,
    encrypted_dek_source: String,
    annotations: BTreeMap<String, String>,
    aad: String,
    info: String,
    nonce: String,
    plaintext: String,
    stored: String,
    cache_key: Option<String>,
    cache_key_sha256: String,
    key_id_hash: Option<String>,
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("../../vectors/objects.json")).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn secret(vector: &Vector, bytes: usize) -> Result<Secret, ReadError> {
    let source_type = EncryptedDekSourceType::try_from(vector.r#type).unwrap();
    let mut secret = hex(&vector.secret);
    secret.truncate(bytes);
    Secret::new(source_type, Zeroizing::new(secret))
}

#[test]
fn values_of_others_are_read() {
    assert_eq!(vectors().len(), 7);
    for vector in vectors() {
        let value = hex(&vector.stored);
        assert!(is_of(&value, &vector.provider) && !is_of(&value, "another"), "{}", vector.name);
        assert_eq!(parse(&value, "another", BY), Err(ReadError::NoPrefix));
        let object = parse(&value, &vector.provider, BY).unwrap();
        assert_eq!(object.key_id, vector.key_id);
        assert_eq!(object.encrypted_dek_source, hex(&vector.encrypted_dek_source));
        let annotations: BTreeMap<_, _> =
            vector.annotations.iter().map(|(name, value)| (name.clone(), hex(value))).collect();
        assert_eq!(object.annotations, annotations, "{}", vector.name);
        assert_eq!(cache_key(&object).to_vec(), hex(&vector.cache_key_sha256), "{}", vector.name);
        if let Some(bytes) = &vector.cache_key {
            assert_eq!(cache_key_bytes(&object), hex(bytes), "{}", vector.name);
        }
        if let Some(hash) = &vector.key_id_hash {
            assert_eq!(key_id_hash(&object.key_id), *hash);
        }
        let secret = secret(&vector, usize::MAX).unwrap();
        let data = &object.encrypted_data;
        assert_eq!(secret.open(data, vector.aad.as_bytes()).unwrap(), hex(&vector.plaintext));

        let elsewhere = format!("{}x", vector.aad);
        let moved = secret.open(data, elsewhere.as_bytes());
        assert_eq!(moved, Err(ReadError::Authentication), "{}", vector.name);
        let least = NONCE_BYTES + if vector.r#type == 1 { INFO_BYTES } else { 0 };
        let cut = secret.open(&data[..least - 1], vector.aad.as_bytes());
        assert_eq!(cut, Err(ReadError::TooShort), "{}", vector.name);
        let cut = secret.open(&data[..least], vector.aad.as_bytes());
        assert_eq!(cut, Err(ReadError::Authentication), "{}", vector.name);
        for at in 0..data.len() {
            let mut flipped = data.clone();
            flipped[at] ^= 1;
            let opened = secret.open(&flipped, vector.aad.as_bytes());
            assert_eq!(opened, Err(ReadError::Authentication), "{} byte {at}", vector.name);
        }
    }
}

#[test]
fn the_same_values_are_written() {
    for vector in vectors() {
        let value = hex(&vector.stored);
        let object = parse(&value, &vector.provider, BY).unwrap();
        assert_eq!(to_value(&vector.provider, &object, BY), value, "{}", vector.name);
        let sealed = secret(&vector, usize::MAX).unwrap().seal(
            &hex(&vector.info).try_into().unwrap_or([0; INFO_BYTES]),
            &hex(&vector.nonce).try_into().unwrap(),
            &hex(&vector.plaintext),
            vector.aad.as_bytes(),
        );
        let wanted = (vector.r#type == 1).then_some(object.encrypted_data);
        assert_eq!(sealed, wanted, "{}", vector.name);
    }
}

#[test]
fn what_a_plugin_answers_has_to_have_a_length() {
    for vector in vectors() {
        let short = secret(&vector, 31).err();
        let wanted =
            if vector.r#type == 1 { ReadError::SeedLength(31) } else { ReadError::KeySize(31) };
        assert_eq!(short, Some(wanted));
    }
}

/// `encryptedData` alone.
#[derive(Deserialize)]
struct Data {
    name: String,
    r#type: i32,
    secret: String,
    aad: String,
    data: String,
    derived_key: Option<String>,
    plaintext: String,
}

#[test]
fn the_vectors_of_upstreams_unit_tests() {
    let all: Vec<Data> = serde_json::from_str(include_str!("../../vectors/data.json")).unwrap();
    assert_eq!(all.len(), 2);
    for vector in all {
        let (bytes, data) = (hex(&vector.secret), hex(&vector.data));
        if let Some(derived) = vector.derived_key {
            assert_eq!(derive(&bytes, &data[..INFO_BYTES]).to_vec(), hex(&derived));
        }
        let source_type = EncryptedDekSourceType::try_from(vector.r#type).unwrap();
        let secret = Secret::new(source_type, Zeroizing::new(bytes)).unwrap();
        let opened = secret.open(&data, &hex(&vector.aad)).unwrap();
        assert_eq!(opened, hex(&vector.plaintext), "{}", vector.name);
    }
}

#[test]
fn an_empty_annotation_is_written_as_go_writes_it() {
    let object = EncryptedObject {
        annotations: [("a.b".to_owned(), Vec::new())].into(),
        ..EncryptedObject::default()
    };
    let value = to_value("p", &object, Version::V1_37);
    assert!(value.ends_with(&[0x22, 7, 0x0a, 3, b'a', b'.', b'b', 0x12, 0]), "{value:?}");
    let value = to_value("p", &object, Version::V1_31);
    assert!(value.ends_with(&[0x22, 5, 0x0a, 3, b'a', b'.', b'b']), "{value:?}");
}

/// What upstream's two libraries made of it; compared with them in `tests/oracle`.
#[test]
fn odd_protobuf_is_read_as_upstreams_libraries_do() {
    let good: &[u8] = &[0x0a, 1, 7, 0x12, 1, b'1', 0x1a, 1, 9];
    for (more, gogo, google) in [
        (&[0x0a, 1, 7][..], true, true),
        (&[0x19, 0, 0, 0, 0, 0, 0, 0, 0], true, true), // a known field of another type
        (&[0x98, 0x80, 0x80, 0x80, 0x10, 0], true, false), // a number beyond 29 bits
        (&[0x20, 0], false, true),                     // annotations of another type
        (&[0x02, 0], false, false),                    // the number 0
        (b"\x22\x07\x0a\x03a.b\x02\0", true, false),   // that within an annotation
        (&[0x33, 0x3c], true, false),                  // the end of another group
        (&[0x34], false, false),                       // the end of no group
        (&[0x33, 0x33, 0x34], false, false),           // a group without end
        (&[0x36], false, false),                       // no wire type
        (&[0x12, 1, 0xff], false, false),              // no UTF-8
        (&[0x28, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], false, false), // 65 bits
        (&[0x0a, 9], false, false),
    ] {
        let value = [b"k8s:enc:kms:v2:p:", good, more].concat();
        for (by, reads) in
            [(Version::V1_29, gogo), (Version::V1_31, gogo), (Version::V1_37, google)]
        {
            let read = parse(&value, "p", by);
            assert_eq!(read.is_ok(), reads, "{more:x?} {by}: {read:?}");
            assert!(
                reads || matches!(read, Err(ReadError::Protobuf(_))),
                "{more:x?} {by}: {read:?}"
            );
        }
    }
}

#[test]
fn faults_are_said_in_upstreams_order() {
    let mut object = EncryptedObject { encrypted_dek_source_type: 2, ..EncryptedObject::default() };
    let mut says = |change: &dyn Fn(&mut EncryptedObject), wanted: &str| {
        assert_eq!(validate(&object).unwrap_err(), wanted);
        change(&mut object);
    };
    says(&|o| o.encrypted_dek_source_type = 1, "unknown encryptedDEKSourceType: 2");
    says(&|o| o.encrypted_data = vec![0], "encrypted data is empty");
    says(
        &|o| o.encrypted_dek_source = vec![0],
        "failed to validate encrypted DEK source: encrypted DEK source is empty",
    );
    says(&|o| o.key_id = "1".to_owned(), "failed to validate key id: keyID is empty");
    assert_eq!(validate(&object), Ok(()));
    object.annotations.insert("x".to_owned(), vec![]);
    assert!(validate(&object).unwrap_err().starts_with("failed to validate annotations: "));
}

proptest! {
    #[test]
    fn reading_is_total(value: Vec<u8>, prefixed: bool) {
        let value = if prefixed { [b"k8s:enc:kms:v2:p:", &*value].concat() } else { value };
        if let Ok(object) = parse(&value, "p", BY) {
            let _ = cache_key(&object);
        }
    }

    #[test]
    fn what_is_written_is_read(
        info: [u8; INFO_BYTES],
        nonce: [u8; NONCE_BYTES],
        seed in proptest::collection::vec(any::<u8>(), 32..64),
        plaintext: Vec<u8>,
        aad in "/[a-z/]{1,40}",
        key_id in "\\PC{1,40}",
        dek_source in proptest::collection::vec(any::<u8>(), 1..1024),
        annotations in proptest::collection::btree_map("[a-z]{1,9}\\.[a-z]{1,9}", any::<Vec<u8>>(), 0..4),
    ) {
        let secret = Secret::Seed(Zeroizing::new(seed));
        let object = EncryptedObject {
            encrypted_data: secret.seal(&info, &nonce, &plaintext, aad.as_bytes()).unwrap(),
            key_id,
            encrypted_dek_source: dek_source,
            annotations,
            encrypted_dek_source_type: 1,
        };
        let read = parse(&to_value("p", &object, BY), "p", BY).unwrap();
        prop_assert_eq!(&read, &object);
        prop_assert_eq!(secret.open(&read.encrypted_data, aad.as_bytes()).unwrap(), plaintext);
    }
}
