//! Reading and writing objects with one `kms` entry (upstream `kmsv2/envelope.go`, `TransformToStorage`
//! and `TransformFromStorage`). No I/O: what Decrypt is to be asked comes out, its answer goes in.

use kleidi_proto::encryption::EncryptedObject;
use zeroize::Zeroizing;

use crate::cache::Cache;
use crate::object::{self, INFO_BYTES, NONCE_BYTES, ReadError, Secret};
use crate::probe::{Probe, WRITTEN};
use crate::time::Time;

/// An object that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The object.
    pub plaintext: Vec<u8>,
    /// It was written under another key_id or type than would be now, so that an update without a change
    /// writes it.
    pub stale: bool,
}

/// A reading that waits for the answer of Decrypt.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// What was read from etcd.
    pub record: EncryptedObject,
    /// The key_id of what was written when the reading began: what changes while Decrypt is under way does
    /// not count.
    current: String,
}

/// What reading needs next.
#[derive(Debug, PartialEq)]
pub enum Reading {
    /// The seed is not known: call Decrypt with the record's key_id, ciphertext and annotations, a fresh uid,
    /// and hand the answer to [`finish`].
    Decrypt(Asked),
    /// Nothing.
    Done(Result<Read, String>),
}

/// Writes an object to the place `aad` in etcd: the value. `info` and `nonce` are random. No call is ever
/// needed.
pub fn write(
    probe: &Probe,
    cache: &mut Cache,
    now: Time,
    random: (&[u8; INFO_BYTES], &[u8; NONCE_BYTES]),
    plaintext: &[u8],
    aad: &[u8],
) -> Result<Vec<u8>, String> {
    let state = probe.state_for_writing(now)?;
    // Renews its day.
    cache.set(now, state.cache_key, state.secret.clone());
    let (info, nonce) = random;
    let sealed = state.secret.seal(info, nonce, plaintext, aad);
    let record = EncryptedObject {
        encrypted_data: sealed.ok_or("a seed is needed to write")?,
        key_id: state.key_id.clone(),
        encrypted_dek_source: state.dek_source.clone(),
        annotations: state.annotations.clone(),
        encrypted_dek_source_type: WRITTEN as i32,
    };
    object::validate(&record)?;
    Ok(object::to_value(probe.name(), &record, probe.by()))
}

/// Begins to read a value of the place `aad`.
#[must_use]
pub fn begin(probe: &Probe, cache: &Cache, value: &[u8], aad: &[u8]) -> Reading {
    let record = match object::parse(value, probe.name(), probe.by()) {
        Ok(record) => record,
        Err(error) => return Reading::Done(Err(error.to_string())),
    };
    // Its time does not matter; but before the first good probe nothing can be read.
    let current = match probe.state() {
        Ok(state) => state.key_id.clone(),
        Err(error) => return Reading::Done(Err(error)),
    };
    let asked = Asked { record, current };
    match cache.get(&object::cache_key(&asked.record)) {
        Some(secret) => Reading::Done(opened(&asked, &secret, aad)),
        None => Reading::Decrypt(asked),
    }
}

/// Reads with what Decrypt answered; an error is gRPC's text.
///
/// A seed of a good length is remembered before it is known to open anything.
pub fn finish(
    cache: &mut Cache,
    now: Time,
    asked: &Asked,
    answer: Result<Zeroizing<Vec<u8>>, String>,
    aad: &[u8],
) -> Result<Read, String> {
    let bytes = answer.map_err(|error| format!("failed to decrypt DEK, error: {error}"))?;
    let secret = Secret::new(asked.record.encrypted_dek_source_type(), bytes)
        .map_err(|error: ReadError| error.to_string())?;
    cache.set(now, object::cache_key(&asked.record), secret.clone());
    opened(asked, &secret, aad)
}

fn opened(asked: &Asked, secret: &Secret, aad: &[u8]) -> Result<Read, String> {
    let Asked { record, current } = asked;
    let plaintext = secret.open(&record.encrypted_data, aad).map_err(|error| error.to_string())?;
    let stale = record.key_id != *current || record.encrypted_dek_source_type() != WRITTEN;
    Ok(Read { plaintext, stale })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kleidi_proto::kms::{EncryptResponse, StatusResponse};

    use super::*;
    use crate::version::Version;

    const NOW: Time = Time(std::time::Duration::from_secs(1_800_000_000));
    const SEED: [u8; 32] = [7; 32];

    fn rotate_to(probe: &mut Probe, key_id: &str) {
        let status =
            StatusResponse { version: "v2".into(), healthz: "ok".into(), key_id: key_id.into() };
        probe.status(NOW, Ok(status));
        let (key_id, annotations) = (key_id.to_owned(), BTreeMap::new());
        let wrapped = EncryptResponse { ciphertext: b"wrapped".to_vec(), key_id, annotations };
        probe.encrypt(NOW, &SEED, "uid", Ok(wrapped));
    }

    /// Upstream fetches what is current before it calls Decrypt.
    #[test]
    fn whether_a_record_is_stale_is_judged_by_what_was_current_when_the_reading_began() {
        let mut probe = Probe::new("kms", Version::V1_37);
        rotate_to(&mut probe, "1");
        let old = write(&probe, &mut Cache::default(), NOW, (&[0; 32], &[0; 12]), b"it", b"place");
        let old = old.unwrap();
        let mut cache = Cache::default();
        let Reading::Decrypt(asked) = begin(&probe, &cache, &old, b"place") else { panic!() };
        rotate_to(&mut probe, "2");
        let answer = || Ok(Zeroizing::new(SEED.to_vec()));
        let read = finish(&mut cache, NOW, &asked, answer(), b"place").unwrap();
        assert_eq!((read.plaintext.as_slice(), read.stale), (&b"it"[..], false));
        let Reading::Done(Ok(again)) = begin(&probe, &cache, &old, b"place") else { panic!() };
        assert!(again.stale);
    }
}
