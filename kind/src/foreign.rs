//! Secrets whose seed another plugin has wrapped, in etcd as kube-apiserver would have stored them then.

use kleidi_proto::encryption::{EncryptedDekSourceType, EncryptedObject};
use kleidi_sim::object::{self, Secret};
use kleidi_sim::version::Version;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::cluster::Cluster;
use crate::plan::PROVIDER;

/// Stores Secrets `<series>-0` and so on, one for each of the vectors (`harness/vectors/foreign-plugins.json`) that
/// has wrapped a seed, past kube-apiserver; gives their names. They belong to the cluster's Secrets then.
pub fn store(cluster: &Cluster, series: &str, vectors: &Value) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for vector in vectors.as_array().into_iter().flatten() {
        // Not all that was wrapped is a seed.
        if let Ok(seed) = <[u8; 32]>::try_from(hex(&vector["plaintext_hex"])?) {
            let name = format!("{series}-{}", names.len());
            store_one(cluster, &name, vector, &seed)?;
            names.push(name);
        }
    }
    if names.is_empty() {
        return Err("no vector has a seed".to_owned());
    }
    Ok(names)
}

fn store_one(cluster: &Cluster, name: &str, vector: &Value, seed: &[u8; 32]) -> Result<(), String> {
    let value = cluster.value(name);
    let plain = kleidi_sim::secret::Secret {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        uid: format!("00000000-0000-4000-8000-{:012}", cluster.secrets.borrow().len()),
        created: 1_760_000_000,
        data: [("value".to_owned(), value.clone().into_bytes())].into(),
        kind: kleidi_sim::secret::OPAQUE.to_owned(),
        manager: None,
    };
    let key = format!("/registry/secrets/default/{name}");
    let source_type = EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed;
    let secret = Secret::new(source_type, Zeroizing::new(seed.to_vec()))
        .map_err(|error| error.to_string())?;
    let mut random = [0; 44];
    getrandom::fill(&mut random).map_err(|error| error.to_string())?;
    let (info, nonce) = random.split_first_chunk().ok_or("too few random bytes")?;
    let nonce = nonce.try_into().map_err(|_| "too few random bytes")?;
    let sealed = secret.seal(info, nonce, &plain.encode(), key.as_bytes());
    let annotations = vector["annotations_hex"].as_object().into_iter().flatten();
    let object = EncryptedObject {
        encrypted_data: sealed.ok_or("a seed that seals nothing")?,
        key_id: vector["key_id"].as_str().unwrap_or_default().to_owned(),
        encrypted_dek_source: hex(&vector["ciphertext_hex"])?,
        annotations: annotations
            .map(|(name, value)| Ok((name.clone(), hex(value)?)))
            .collect::<Result<_, String>>()?,
        encrypted_dek_source_type: source_type.into(),
    };
    cluster.node()?.put(&key, &object::to_value(PROVIDER, &object, Version::default()))?;
    cluster.secrets.borrow_mut().insert(name.to_owned(), value);
    Ok(())
}

/// The bytes of a string in hex.
pub fn hex(text: &Value) -> Result<Vec<u8>, String> {
    let text = text.as_str().ok_or("a vector lacks a field")?;
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).map_err(|error| format!("{text}: {error}")))
        .collect()
}
