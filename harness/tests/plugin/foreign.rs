//! What other plugins wrote: genuine answers of theirs, with their keys (`harness/vectors`).

use std::collections::BTreeMap;

use kleidi_harness::{Plugin, SoftHsm, Stage};
use serde_json::Value;
use tonic::Code;

use crate::{SEED, wait_healthy};

/// One genuine answer that came through PKCS#11.
struct Vector {
    plugin: String,
    label: String,
    key: [u8; 32],
    ciphertext: Vec<u8>,
    annotations: BTreeMap<String, Vec<u8>>,
    key_id: String,
    plaintext: Vec<u8>,
}

/// Genuine answers that came through transit, with their key.
pub(crate) struct TransitVectors {
    /// For `transit/restore`.
    pub(crate) backup: String,
    pub(crate) vectors: Vec<TransitVector>,
}

pub(crate) struct TransitVector {
    pub(crate) plugin: String,
    pub(crate) ciphertext: Vec<u8>,
    pub(crate) annotations: BTreeMap<String, Vec<u8>>,
    pub(crate) key_id: String,
    pub(crate) plaintext: Vec<u8>,
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn file() -> Value {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/foreign-plugins.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn annotations(vector: &Value) -> BTreeMap<String, Vec<u8>> {
    let annotations = vector["annotations_hex"].as_object().unwrap();
    annotations.iter().map(|(k, v)| (k.clone(), hex(v))).collect()
}

pub(crate) fn transit_vectors() -> TransitVectors {
    let transit = &file()["transit"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let plugins = transit["plugins"].as_array().unwrap();
    let vectors = plugins.iter().flat_map(|plugin| {
        plugin["vectors"].as_array().unwrap().iter().map(|vector| TransitVector {
            plugin: text(&plugin["plugin"]),
            ciphertext: hex(&vector["ciphertext_hex"]),
            annotations: annotations(vector),
            key_id: text(&vector["key_id"]),
            plaintext: hex(&vector["plaintext_hex"]),
        })
    });
    TransitVectors { backup: text(&transit["backup"]), vectors: vectors.collect() }
}

fn vectors() -> Vec<Vector> {
    let all = file();
    let mut vectors = Vec::new();
    for plugin in all["pkcs11"].as_array().unwrap() {
        let name = match plugin["plugin"].as_str().unwrap() {
            "kleidi (Go)" => "kleidi-go",
            _ => "kubernetes-mock",
        };
        for vector in plugin["vectors"].as_array().unwrap() {
            vectors.push(Vector {
                plugin: name.to_owned(),
                label: plugin["key_label"].as_str().unwrap().to_owned(),
                key: hex(&plugin["aes256_key_hex"]).try_into().unwrap(),
                ciphertext: hex(&vector["ciphertext_hex"]),
                annotations: annotations(vector),
                key_id: vector["key_id"].as_str().unwrap().to_owned(),
                plaintext: hex(&vector["plaintext_hex"]),
            });
        }
    }
    vectors
}

/// A token with our key and both plugins' keys.
fn token(stage: &Stage) -> Option<SoftHsm> {
    let token = SoftHsm::with_key(stage, "token", "kek", 1)?;
    let keys: BTreeMap<_, _> = vectors().into_iter().map(|v| (v.label, v.key)).collect();
    for (label, key) in keys {
        token.add_key(&label, 9, &key);
    }
    Some(token)
}

const BOTH: &str = "  decryptAlso:\n  - plugin: kleidi-go\n  - plugin: kubernetes-mock\n";

#[test]
fn genuine_answers_are_read_where_the_configuration_names_their_plugin() {
    let stage = Stage::new("foreign");
    let Some(token) = token(&stage) else { return };
    let plugin = Plugin::new(&stage, "plugin", &token).append(BOTH).start();
    wait_healthy(&plugin);
    let mut client = plugin.client();
    assert!(vectors().len() >= 6);
    for vector in vectors() {
        let read = client.decrypt_parts(&vector.ciphertext, &vector.key_id, &vector.annotations);
        assert_eq!(read.unwrap(), vector.plaintext, "{}", vector.plugin);
        // New writes are ours.
        let ours = client.encrypt(SEED).unwrap();
        assert_ne!(ours.key_id, vector.key_id);
        // Whatever those formats do bind is checked.
        for bit in [0, 15 * 8, 20 * 8, vector.ciphertext.len() * 8 - 1] {
            let mut bad = vector.ciphertext.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error =
                client.decrypt_parts(&bad, &vector.key_id, &vector.annotations).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "bit {bit}: {error}");
        }
        for length in [0, 16, 31] {
            let bad = &vector.ciphertext[..length];
            let error = client.decrypt_parts(bad, &vector.key_id, &vector.annotations).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{length} bytes: {error}");
        }
        for annotations in [BTreeMap::new(), [("a.b".to_owned(), b"1".to_vec())].into()] {
            let read = client.decrypt_parts(&vector.ciphertext, &vector.key_id, &annotations);
            assert_eq!(read.unwrap_err().code(), Code::NotFound);
        }
    }
}

/// Their formats do not say which of several keys it was.
#[test]
fn broken_keys_of_the_same_label_hide_none() {
    let stage = Stage::new("foreign, broken");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let vector = &vectors()[0];
    let before = token.object_files();
    for id in 2..6 {
        token.add_key(&vector.label, id, &kleidi_harness::random_key());
    }
    token.object_files().iter().filter(|file| !before.contains(file)).for_each(|file| {
        crate::keys::damage_padding(file);
    });
    token.add_key(&vector.label, 9, &vector.key);
    let plugin = Plugin::new(&stage, "plugin", &token).append(BOTH).start();
    wait_healthy(&plugin);
    let mut client = plugin.client();
    let read = client.decrypt_parts(&vector.ciphertext, &vector.key_id, &vector.annotations);
    assert_eq!(read.unwrap(), vector.plaintext);
}

#[test]
fn they_are_refused_where_it_does_not() {
    let stage = Stage::new("not foreign");
    let Some(token) = token(&stage) else { return };
    let plugin = Plugin::new(&stage, "plugin", &token)
        .append("  decryptAlso:\n  - plugin: kubernetes-mock\n")
        .start();
    wait_healthy(&plugin);
    let none = Plugin::new(&stage, "none", &token).start();
    wait_healthy(&none);
    for vector in vectors() {
        let read = |plugin: &Plugin| {
            let mut client = plugin.client();
            client.decrypt_parts(&vector.ciphertext, &vector.key_id, &vector.annotations)
        };
        let error = read(&none).unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{error}");
        assert!(error.message().contains("decryptAlso"), "it says what to do: {error}");
        assert_eq!(read(&plugin).is_ok(), vector.plugin == "kubernetes-mock");
    }
}

#[test]
fn without_the_other_plugins_key_it_says_so() {
    let stage = Stage::new("foreign key missing");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let plugin = Plugin::new(&stage, "plugin", &token).append(BOTH).start();
    wait_healthy(&plugin);
    let vector = &vectors()[0];
    let error = plugin
        .client()
        .decrypt_parts(&vector.ciphertext, &vector.key_id, &vector.annotations)
        .unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    assert!(error.message().contains("keep that key"), "{error}");
}

/// The Go kleidi's image is exchanged for ours and nothing else: same flags, same JSON file, same
/// token with its weak key.
#[test]
fn the_go_kleidis_flags_and_file_are_understood() {
    let stage = Stage::new("go kleidi");
    let Some(token) = SoftHsm::with_token(&stage, "token") else { return };
    let vector = &vectors()[0];
    token.add_key("kleidi-kms-plugin", 0, &vector.key);
    let config = Plugin::new(&stage, "plugin", &token);
    let file = stage.path("config.json");
    let json = serde_json::json!({
        "path": token.module(),
        "tokenLabel": token.token_label(),
        "pin": SoftHsm::PIN,
    });
    std::fs::write(&file, json.to_string()).unwrap();
    let listen = format!("unix://{}", config.socket().display());
    let mut command = config.command(&["-listen", &listen, "-provider", "softhsm", "-debugmode"]);
    command.arg("-configfile").arg(&file);
    let mut process = kleidi_harness::Process::spawn(&stage, "go", &mut command);
    let mut client = kleidi_harness::Client::new(&config.socket());
    let status = process.wait_ready(|| client.status().map_err(|error| error.to_string()));
    assert_ne!(status.key_id, vector.key_id, "the new id says which key it is");
    let read = client.decrypt_parts(&vector.ciphertext, &vector.key_id, &vector.annotations);
    assert_eq!(read.unwrap(), vector.plaintext);
    let ours = client.encrypt(SEED).unwrap();
    assert_eq!(client.decrypt(&ours).unwrap(), SEED);
    assert!(process.log().contains("DEBUG"), "-debugmode");
    assert!(!process.log().contains(SoftHsm::PIN));
}
