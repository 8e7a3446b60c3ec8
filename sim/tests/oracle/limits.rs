//! What is accepted of a plugin, and in which words it is refused.

use std::collections::BTreeMap;

use kleidi_proto::encryption::EncryptedObject;
use kleidi_sim::{limits, object};
use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::process::{Oracle, bytes, hex, said};
use crate::{cases, each};

/// Keys of annotations, good, bad and in between.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9]{1,9}(\\.[a-z0-9-]{1,9}){0,3}\\.?",
        "[a-z0-9A-Z._/*:-]{0,12}",
        "\\PC{0,9}",
        "(a{60,65}\\.)?b{60,65}\\.?",
        "(aaaaaaaaaaa\\.){20,22}[bB]{0,9}",
    ]
}

/// So many bytes, and fewer often.
fn some(most: usize) -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..9_usize, 1 => most - 3..=most + 3]
}

fn object() -> impl Strategy<Value = EncryptedObject> {
    let contents = some(32 * 1024).prop_map(|size| vec![7; size]);
    let annotations = proptest::collection::btree_map(key(), contents, 0..4);
    (-1..4_i32, 0..2_usize, "\\PC{0,9}", some(1024), some(1024), annotations).prop_map(
        |(number, data, key_id, more, source, annotations)| EncryptedObject {
            encrypted_data: vec![0; data],
            key_id: key_id + &"k".repeat(more),
            encrypted_dek_source: vec![9; source],
            annotations,
            encrypted_dek_source_type: number,
        },
    )
}

/// An aggregate in the order of its parts, as upstream's is that of a Go map.
fn ordered(said: Result<(), String>) -> Result<(), Vec<String>> {
    said.map_err(|error| {
        let mut parts: Vec<_> = error
            .strip_prefix("failed to validate annotations: ")
            .map_or(error.clone(), |rest| {
                let bare = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                format!("annotations, {}", bare.unwrap_or(rest))
            })
            .split(", ")
            .map(str::to_owned)
            .collect();
        parts.sort();
        parts
    })
}

fn compare(oracle: &mut Oracle, object: &EncryptedObject) -> Result<(), TestCaseError> {
    let annotations: BTreeMap<_, _> =
        object.annotations.iter().map(|(key, value)| (key, hex(value))).collect();
    let answer = oracle.ask(&json!({
        "do": "validate",
        "type": object.encrypted_dek_source_type,
        "key_id": object.key_id,
        "dek_source": hex(&object.encrypted_dek_source),
        "annotations": annotations,
        "data": hex(&object.encrypted_data),
    }));
    prop_assert_eq!(ordered(object::validate(object)), ordered(said(&answer["object"])));
    let key_id = limits::key_id(&object.key_id).map_err(|error| error.to_string());
    prop_assert_eq!(key_id, said(&answer["key_id"]));
    prop_assert_eq!(object::key_id_hash(&object.key_id), answer["key_id_hash"].as_str().unwrap());

    let generated =
        EncryptedObject { encrypted_data: vec![0], encrypted_dek_source_type: 1, ..object.clone() };
    let valid = object::validate(&generated);
    if valid.is_ok() {
        let cache_key: [u8; 32] = Sha256::digest(bytes(&answer["cache_key"])).into();
        prop_assert_eq!(object::cache_key(&generated), cache_key);
    }
    prop_assert_eq!(ordered(valid), ordered(said(&answer["encrypt"])));
    Ok(())
}

#[test]
fn objects_are_accepted_and_refused_alike() {
    each(|_, oracle| {
        proptest!(cases(1000), |(object in object())| compare(&mut oracle.borrow_mut(), &object)?);
    });
}

fn compare_key(oracle: &mut Oracle, key: String) -> Result<(), TestCaseError> {
    let object = EncryptedObject {
        encrypted_data: vec![0],
        key_id: "1".to_owned(),
        encrypted_dek_source: vec![0],
        annotations: [(key, vec![])].into(),
        encrypted_dek_source_type: 1,
    };
    compare(oracle, &object)
}

/// A refused key is quoted as Go quotes: `X` and DEL as `"X\x7f"`.
#[test]
fn any_key_is_quoted_alike() {
    each(|_, oracle| {
        proptest!(cases(200), |(key in "X\\PC{0,9}|X\\x7f")| {
            compare_key(&mut oracle.borrow_mut(), key)?;
        });
    });
}

/// A refused key is said without the dot at its end.
#[test]
fn a_key_with_a_dot_at_its_end_is_said_alike() {
    each(|_, oracle| {
        proptest!(cases(200), |(key in "[a-z._]{0,9}\\.")| {
            compare_key(&mut oracle.borrow_mut(), key)?;
        });
    });
}

/// Of a key with a label that is too long, that label is said.
#[test]
fn a_label_that_is_too_long_is_said_alike() {
    each(|_, oracle| {
        proptest!(cases(50), |(key in "a{1,64}\\.b{64,66}")| {
            compare_key(&mut oracle.borrow_mut(), key)?;
        });
    });
}

/// Two faults of one key are said in one message.
#[test]
fn two_faults_of_a_key_are_said_alike() {
    each(|_, oracle| {
        proptest!(cases(20), |(key in "(aaaaaaaaaaa\\.){22}[A-Z]{1,9}")| {
            compare_key(&mut oracle.borrow_mut(), key)?;
        });
    });
}
