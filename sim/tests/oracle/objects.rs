//! What is stored, and what is read of it, whole and spoilt.

use std::collections::BTreeMap;
use std::time::Duration;

use kleidi_proto::encryption::EncryptedObject;
use kleidi_proto::kms::{EncryptResponse, StatusResponse};
use kleidi_sim::cache::Cache;
use kleidi_sim::envelope::{self, Read, Reading};
use kleidi_sim::object::{self, Secret};
use kleidi_sim::probe::Probe;
use kleidi_sim::time::Time;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::process::{Oracle, bytes, hex};
use crate::{cases, each};

const NOW: Time = Time(Duration::from_secs(1_800_000_000));

#[derive(Debug, Clone)]
struct Case {
    provider: String,
    seed: Vec<u8>,
    info: [u8; 32],
    nonce: [u8; 12],
    plaintext: Vec<u8>,
    aad: String,
    /// Without the data.
    record: EncryptedObject,
}

fn case() -> impl Strategy<Value = Case> {
    let byte = any::<u8>;
    let record = (
        "\\PC{1,40}",
        proptest::collection::vec(byte(), 1..1024),
        proptest::collection::btree_map(
            "[a-z]{1,9}\\.[a-z]{1,9}",
            proptest::collection::vec(byte(), 1..99),
            0..4,
        ),
    );
    let record = record.prop_map(|(key_id, encrypted_dek_source, annotations)| EncryptedObject {
        key_id,
        encrypted_dek_source,
        annotations,
        encrypted_data: vec![],
        encrypted_dek_source_type: 1,
    });
    let seed = proptest::collection::vec(byte(), 32..99);
    let plaintext = proptest::collection::vec(byte(), 0..300);
    let texts = ("[ -9;-~]{1,20}", "/\\PC{0,40}");
    (texts, seed, any::<[u8; 32]>(), any::<[u8; 12]>(), plaintext, record).prop_map(
        |((provider, aad), seed, info, nonce, plaintext, record)| Case {
            provider,
            seed,
            info,
            nonce,
            plaintext,
            aad,
            record,
        },
    )
}

impl Case {
    /// The value as the model writes it.
    fn value(&self) -> Vec<u8> {
        let secret = Secret::Seed(Zeroizing::new(self.seed.clone()));
        let aad = self.aad.as_bytes();
        let sealed = secret.seal(&self.info, &self.nonce, &self.plaintext, aad);
        let record = EncryptedObject { encrypted_data: sealed.unwrap(), ..self.record.clone() };
        object::to_value(&self.provider, &record)
    }

    /// The value as upstream writes it.
    fn sealed(&self, oracle: &mut Oracle) -> Vec<u8> {
        let mut request = described(&self.record);
        request["do"] = "seal".into();
        request["provider"] = self.provider.clone().into();
        request["secret"] = hex(&self.seed).into();
        request["random"] = hex(&[self.info.as_slice(), &self.nonce].concat()).into();
        request["aad"] = self.aad.clone().into();
        request["plaintext"] = hex(&self.plaintext).into();
        bytes(&oracle.ask(&request)["value"])
    }
}

fn described(record: &EncryptedObject) -> Value {
    let annotations: BTreeMap<_, _> =
        record.annotations.iter().map(|(name, value)| (name, hex(value))).collect();
    json!({
        "type": record.encrypted_dek_source_type,
        "key_id": record.key_id,
        "dek_source": hex(&record.encrypted_dek_source),
        "annotations": annotations,
    })
}

/// What a plugin answers to Decrypt.
type Answer = Result<Vec<u8>, String>;

/// What the model reads of a value while it writes under this key_id, and what Decrypt was asked.
fn read(
    case: &Case,
    current: &str,
    value: &[u8],
    answer: &Answer,
) -> (Option<EncryptedObject>, Result<Read, String>) {
    let mut probe = Probe::new(&case.provider);
    probe.status(
        NOW,
        Ok(StatusResponse { version: "v2".into(), healthz: "ok".into(), key_id: current.into() }),
    );
    let wrapped = EncryptResponse {
        ciphertext: b"another".to_vec(),
        key_id: current.to_owned(),
        annotations: BTreeMap::new(),
    };
    probe.encrypt(NOW, &[0; 32], "uid", Ok(wrapped));
    let (mut cache, aad) = (Cache::default(), case.aad.as_bytes());
    match envelope::begin(&probe, &cache, value, aad) {
        Reading::Done(read) => (None, read),
        Reading::Decrypt(record) => {
            let answer = answer.clone().map(Zeroizing::new);
            let read = envelope::finish(&probe, &mut cache, NOW, &record, answer, aad);
            (Some(record), read)
        }
    }
}

const ANNOTATIONS: &str = "failed to validate annotations: ";

fn compare(
    oracle: &mut Oracle,
    case: &Case,
    current: &str,
    value: &[u8],
    answer: &Answer,
) -> Result<(), TestCaseError> {
    let decrypt = match answer {
        Ok(plaintext) => json!({"plaintext": hex(plaintext)}),
        Err(error) => json!({"plaintext": "", "error": error}),
    };
    let upstream = oracle.ask(&json!({
        "do": "open",
        "provider": case.provider,
        "value": hex(value),
        "aad": case.aad,
        "state": {"type": 1, "key_id": current, "dek_source": "00", "annotations": null},
        "decrypt": decrypt,
    }));
    let (asked, read) = read(case, current, value, answer);
    let calls = upstream["calls"].as_array().unwrap();
    prop_assert_eq!(asked.iter().count(), calls.len(), "{:?} {}", read, upstream);
    if let (Some(record), [call]) = (&asked, calls.as_slice()) {
        prop_assert_eq!(&record.key_id, call["key_id"].as_str().unwrap());
        prop_assert_eq!(&record.encrypted_dek_source, &bytes(&call["ciphertext"]));
        let annotations: BTreeMap<_, _> = call["annotations"]
            .as_object()
            .map(|all| all.iter().map(|(name, value)| (name.clone(), bytes(value))).collect())
            .unwrap_or_default();
        prop_assert_eq!(&record.annotations, &annotations);
    }
    match (read, upstream["error"].as_str()) {
        (Ok(read), None) => {
            prop_assert_eq!(read.plaintext, bytes(&upstream["plaintext"]));
            prop_assert_eq!(json!(read.stale), upstream["stale"].clone());
        }
        (Err(model), Some(upstream)) if model.starts_with("failed to decode") => {
            // The words are those of a protobuf library.
            prop_assert!(
                upstream.contains("proto")
                    || upstream.contains("EOF")
                    || upstream.contains("UTF-8"),
                "{} / {}",
                model,
                upstream
            );
        }
        (Err(model), Some(upstream)) if model.starts_with(ANNOTATIONS) => {
            // What is said of them, is compared in limits.rs.
            prop_assert!(upstream.starts_with(ANNOTATIONS), "{} / {}", model, upstream);
        }
        (Err(model), Some(upstream)) => prop_assert_eq!(model, upstream),
        (read, _) => prop_assert!(false, "model: {:?}, upstream: {}", read, upstream),
    }
    Ok(())
}

#[test]
fn the_same_bytes_are_stored() {
    each(|_, oracle| {
        proptest!(cases(400), |(case in case())| {
            let (model, upstream) = (case.value(), case.sealed(&mut oracle.borrow_mut()));
            if case.record.annotations.len() < 2 {
                prop_assert_eq!(&model, &upstream);
            } else {
                // Upstream's order is that of a Go map.
                prop_assert_eq!(model.len(), upstream.len());
                let parsed = object::parse(&upstream, &case.provider);
                prop_assert_eq!(object::parse(&model, &case.provider), parsed);
            }
        });
    });
}

/// Since 1.34; before, an annotation's empty value is left out.
#[test]
#[ignore = "the model writes as 1.34 and later do, whatever the version"]
fn an_annotations_empty_value_is_stored_alike() {
    each(|version, oracle| {
        proptest!(cases(10), |(case in case())| {
            let mut case = case;
            case.record.annotations = [("a.b".to_owned(), vec![])].into();
            prop_assert_eq!(case.value(), case.sealed(&mut oracle.borrow_mut()), "{}", version);
        });
    });
}

/// What becomes of a value on its way.
#[derive(Debug, Clone)]
enum Spoilt {
    Not,
    Flipped(Index, u8),
    Cut(Index),
    Inserted(Index, u8),
    Appended(Vec<u8>),
    Replaced(Vec<u8>),
}

impl Spoilt {
    fn strategy() -> impl Strategy<Value = Self> {
        let some = || proptest::collection::vec(any::<u8>(), 0..20);
        prop_oneof![
            2 => Just(Self::Not),
            3 => (any::<Index>(), 1..=u8::MAX).prop_map(|(at, bits)| Self::Flipped(at, bits)),
            1 => any::<Index>().prop_map(Self::Cut),
            1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Self::Inserted(at, byte)),
            1 => some().prop_map(Self::Appended),
            1 => some().prop_map(Self::Replaced),
        ]
    }

    fn apply(&self, mut value: Vec<u8>, prefix: usize) -> Vec<u8> {
        match self {
            Self::Not => {}
            Self::Flipped(at, bits) => {
                let at = at.index(value.len());
                value[at] ^= bits;
            }
            Self::Cut(at) => value.truncate(at.index(value.len())),
            Self::Inserted(at, byte) => value.insert(at.index(value.len()), *byte),
            Self::Appended(more) => value.extend(more),
            Self::Replaced(record) => {
                value.truncate(prefix);
                value.extend(record);
            }
        }
        value
    }
}

#[test]
fn the_same_is_read() {
    let answer = || {
        prop_oneof![
            8 => Just(None),
            1 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Some(Ok(bytes))),
            1 => "[a-z]{1,9}".prop_map(|error| Some(Err(error))),
        ]
    };
    let all = (case(), Spoilt::strategy(), answer(), any::<bool>());
    each(|_, oracle| {
        proptest!(cases(1500), |((case, spoilt, answer, fresh) in &all)| {
            let prefix = format!("k8s:enc:kms:v2:{}:", case.provider).len();
            let value = spoilt.apply(case.value(), prefix);
            let current = if fresh { case.record.key_id.as_str() } else { "another" };
            let answer = answer.unwrap_or_else(|| Ok(case.seed.clone()));
            prop_assume!(!passed_over(&value, &case.provider));
            compare(&mut oracle.borrow_mut(), &case, current, &value, &answer)?;
        });
    });
}

/// Whether the model's decoder refuses a record for what one of upstream's (gogo's before 1.34) passes over.
fn passed_over(value: &[u8], provider: &str) -> bool {
    object::parse(value, provider).is_err_and(|error| {
        let error = error.to_string();
        ["invalid wire type", "invalid key value", "unexpected end group tag", "invalid tag value"]
            .iter()
            .any(|fault| error.contains(fault))
    })
}

/// To upstream a known field of another wire type is an unknown one, and passed over.
#[test]
#[ignore = "the model refuses the record"]
fn mistyped_fields_are_passed_over_alike() {
    let all = (
        case(),
        prop_oneof![
            Just(vec![0x19, 0, 0, 0, 0, 0, 0, 0, 0]),
            Just(vec![0x1c]),
            Just(vec![0x98, 0x80, 0x80, 0x80, 0x10, 0]),
        ],
    );
    each(|_, oracle| {
        proptest!(cases(20), |((case, field) in &all)| {
            let value = [case.value(), field].concat();
            let (current, answer) = (&case.record.key_id, Ok(case.seed.clone()));
            compare(&mut oracle.borrow_mut(), &case, current, &value, &answer)?;
        });
    });
}

/// Values of 1.27 and 1.28, which have a key for all objects.
#[test]
fn values_under_a_key_are_read() {
    let key = prop_oneof![Just(16_usize), Just(24), Just(32), 0..40_usize];
    let all = (case(), key, any::<bool>());
    each(|_, oracle| {
        proptest!(cases(200), |((case, size, fresh) in &all)| {
            let mut case = case;
            case.record.encrypted_dek_source_type = 0;
            let mut key = [case.info, case.info].concat();
            key.truncate(size);
            let mut request = described(&case.record);
            request["do"] = "seal".into();
            request["provider"] = case.provider.clone().into();
            request["secret"] = hex(&key).into();
            request["random"] = hex(&case.nonce).into();
            request["aad"] = case.aad.clone().into();
            request["plaintext"] = hex(&case.plaintext).into();
            if ![16, 24, 32].contains(&size) {
                // Sealed with a good key; then Decrypt answers with a bad one.
                request["secret"] = hex(&[1; 32]).into();
            }
            let value = bytes(&oracle.borrow_mut().ask(&request)["value"]);
            prop_assert!(!value.is_empty());
            let current = if fresh { case.record.key_id.as_str() } else { "another" };
            compare(&mut oracle.borrow_mut(), &case, current, &value, &Ok(key))?;
        });
    });
}
