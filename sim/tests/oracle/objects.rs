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
use kleidi_sim::version::Version;
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
    fn value(&self, by: Version) -> Vec<u8> {
        let secret = Secret::Seed(Zeroizing::new(self.seed.clone()));
        let aad = self.aad.as_bytes();
        let sealed = secret.seal(&self.info, &self.nonce, &self.plaintext, aad);
        let record = EncryptedObject { encrypted_data: sealed.unwrap(), ..self.record.clone() };
        object::to_value(&self.provider, &record, by)
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
    by: Version,
    case: &Case,
    current: &str,
    value: &[u8],
    answer: &Answer,
) -> (Option<EncryptedObject>, Result<Read, String>) {
    let mut probe = Probe::new(&case.provider, by);
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
        Reading::Decrypt(asked) => {
            let answer = answer.clone().map(Zeroizing::new);
            let read = envelope::finish(&mut cache, NOW, &asked, answer, aad);
            (Some(asked.record), read)
        }
    }
}

const ANNOTATIONS: &str = "failed to validate annotations: ";

fn compare(
    (by, oracle): (Version, &mut Oracle),
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
    let (asked, read) = read(by, case, current, value, answer);
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
    each(|by, oracle| {
        proptest!(cases(400), |(case in case())| {
            let (model, upstream) = (case.value(by), case.sealed(&mut oracle.borrow_mut()));
            if case.record.annotations.len() < 2 {
                prop_assert_eq!(&model, &upstream);
            } else {
                // Upstream's order is that of a Go map.
                prop_assert_eq!(model.len(), upstream.len());
                let parsed = object::parse(&upstream, &case.provider, by);
                prop_assert_eq!(object::parse(&model, &case.provider, by), parsed);
            }
        });
    });
}

/// Since 1.34; before, an annotation's empty value is left out.
#[test]
fn an_annotations_empty_value_is_stored_alike() {
    each(|by, oracle| {
        proptest!(cases(10), |(case in case())| {
            let mut case = case;
            case.record.annotations = [("a.b".to_owned(), vec![])].into();
            prop_assert_eq!(case.value(by), case.sealed(&mut oracle.borrow_mut()), "{}", by);
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
    each(|by, oracle| {
        proptest!(cases(1500), |((case, spoilt, answer, fresh) in &all)| {
            let prefix = format!("k8s:enc:kms:v2:{}:", case.provider).len();
            let value = spoilt.apply(case.value(by), prefix);
            let current = if fresh { case.record.key_id.as_str() } else { "another" };
            let answer = answer.unwrap_or_else(|| Ok(case.seed.clone()));
            compare((by, &mut oracle.borrow_mut()), &case, current, &value, &answer)?;
        });
    });
}

/// Fields as they may not be: unknown ones, known ones of another wire type, groups that do not match.
fn fields() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        6 => 0..7_u64,
        2 => proptest::sample::select(vec![(1 << 29) - 1, 1 << 29, (1 << 31) - 1, 1 << 31, 1 << 60]),
        1 => 0..1_u64 << 61,
    ];
    let content = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..9),
        Just(vec![0]),
        Just(vec![2, 0x0a, 0]),
        Just(vec![3, 0x12, 1, 7]),
        Just(vec![0xff; 10]),
        Just([[0xff; 9].as_slice(), &[1]].concat()),
    ];
    let field = (number, 0..8_u64, content).prop_map(|(number, wire, content)| {
        let mut bytes = Vec::new();
        prost::encoding::encode_varint(number << 3 | wire, &mut bytes);
        bytes.extend(content);
        bytes
    });
    proptest::collection::vec(field, 1..4).prop_map(|fields| fields.concat())
}

/// What one library passes over, the other may refuse.
#[test]
fn odd_fields_are_passed_over_alike() {
    let all = (
        case(),
        prop_oneof![
            6 => fields(),
            2 => fields().prop_map(|inner| {
                let mut entry = vec![0x22];
                prost::encoding::encode_varint(inner.len() as u64, &mut entry);
                [entry, inner].concat()
            }),
            2 => fields().prop_map(|inner| [&[0x33][..], &inner, &[0x34]].concat()),
            1 => (9_999..10_004_usize).prop_map(|deep| [[0x33].repeat(deep), [0x34].repeat(deep)].concat()),
        ],
    );
    each(|by, oracle| {
        proptest!(cases(1000), |((case, fields) in &all)| {
            let value = [case.value(by), fields].concat();
            let (current, answer) = (&case.record.key_id, Ok(case.seed.clone()));
            compare((by, &mut oracle.borrow_mut()), &case, current, &value, &answer)?;
        });
    });
}

/// Values of 1.27 and 1.28, which have a key for all objects.
#[test]
fn values_under_a_key_are_read() {
    let key = prop_oneof![Just(16_usize), Just(24), Just(32), 0..40_usize];
    let all = (case(), key, any::<bool>());
    each(|by, oracle| {
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
            compare((by, &mut oracle.borrow_mut()), &case, current, &value, &Ok(key))?;
        });
    });
}
