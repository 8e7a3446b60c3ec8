//! What is in etcd of an encrypted object, and whether it could be opened with what lies beside it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kleidi_proto::encryption::{EncryptedDekSourceType, EncryptedObject};
use kleidi_sim::object::{self, SEED_BYTES, Secret};
use kleidi_sim::version::Version;
use zeroize::Zeroizing;

/// Checks a value of etcd: of the provider `provider`, legal, with a seed that is wrapped; gives its key_id.
pub fn key_id(key: &str, value: &[u8], provider: &str) -> Result<String, String> {
    let object = object::parse(value, provider, Version::default()).map_err(|error| {
        let start = String::from_utf8_lossy(&value[..value.len().min(40)]);
        format!("{key} begins with {start:?}: {error}")
    })?;
    if object.encrypted_dek_source_type() != EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed {
        return Err(format!("{key}: no seed, but {:?}", object.encrypted_dek_source_type()));
    }
    if opens_by_itself(key, &object) {
        return Err(format!(
            "{key}: the seed lies beside the object in clear: etcd alone opens it"
        ));
    }
    Ok(object.key_id)
}

/// Whether the wrapped seed holds the seed, as it is or in base64, at whatever place.
fn opens_by_itself(key: &str, object: &EncryptedObject) -> bool {
    let wrapped = &object.encrypted_dek_source;
    let decoded = STANDARD.decode(wrapped).unwrap_or_default();
    let windows = wrapped.windows(SEED_BYTES).chain(decoded.windows(SEED_BYTES));
    windows.map(|window| Zeroizing::new(window.to_vec())).any(|seed| {
        let secret = Secret::new(object.encrypted_dek_source_type(), seed);
        secret.is_ok_and(|secret| secret.open(&object.encrypted_data, key.as_bytes()).is_ok())
    })
}

/// A text as it may lie in a file: as it is, and in base64, whatever is before it.
#[must_use]
pub fn forms(text: &str) -> Vec<String> {
    let shifted = (0..3).map(|shift| {
        let coded = STANDARD.encode([&vec![0; shift], text.as_bytes()].concat());
        // Characters that depend on what is before and behind it are left out.
        let whole = (shift + text.len()) / 3 * 4;
        coded[[0, 2, 3][shift]..whole].to_owned()
    });
    [text.to_owned()].into_iter().chain(shifted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "/registry/secrets/default/one";

    fn value(wrapped: &[u8], seed: &[u8]) -> Vec<u8> {
        let source_type = EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed;
        let secret = Secret::new(source_type, Zeroizing::new(seed.to_vec())).unwrap();
        let object = EncryptedObject {
            encrypted_data: secret.seal(&[1; 32], &[2; 12], b"hunter2", KEY.as_bytes()).unwrap(),
            key_id: "key".to_owned(),
            encrypted_dek_source: wrapped.to_vec(),
            annotations: std::collections::BTreeMap::new(),
            encrypted_dek_source_type: source_type.into(),
        };
        object::to_value("kleidi", &object, Version::default())
    }

    #[test]
    fn a_seed_that_is_not_wrapped_is_found() {
        let seed: Vec<u8> = (0..32).collect();
        let wrapped = value(&[7; 60], &seed);
        assert_eq!(key_id(KEY, &wrapped, "kleidi"), Ok("key".to_owned()));
        let in_clear = value(&[&[9; 5], &seed[..], &[9; 5]].concat(), &seed);
        assert!(key_id(KEY, &in_clear, "kleidi").unwrap_err().contains("in clear"));
        let coded = value(STANDARD.encode(&seed).as_bytes(), &seed);
        assert!(key_id(KEY, &coded, "kleidi").unwrap_err().contains("in clear"));
    }

    #[test]
    fn another_provider_and_no_encryption_are_refused() {
        let wrapped = value(&[7; 60], &[0; 32]);
        assert!(key_id(KEY, &wrapped, "other").is_err());
        let error = key_id(KEY, b"k8s\0\n\x0c\n\x02v1\x12\x06Secret", "kleidi").unwrap_err();
        assert!(error.contains("k8s"), "{error}");
    }

    #[test]
    fn a_text_is_found_in_base64_behind_anything() {
        for before in ["", "1", "12", "123", "1234"] {
            for behind in ["", "x", "yz"] {
                let coded = STANDARD.encode(format!("{before}canary-4711{behind}"));
                assert!(forms("canary-4711").iter().any(|form| coded.contains(form)), "{coded}");
            }
        }
    }
}
