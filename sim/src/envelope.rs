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

/// What reading needs next.
#[derive(Debug, PartialEq)]
pub enum Reading {
    /// The seed is not known: call Decrypt with the record's key_id, ciphertext and annotations, a fresh uid,
    /// and hand the answer to [`finish`].
    Decrypt(EncryptedObject),
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
    if let Err(error) = probe.state() {
        return Reading::Done(Err(error));
    }
    match cache.get(&object::cache_key(&record)) {
        Some(secret) => Reading::Done(opened(probe, &record, &secret, aad)),
        None => Reading::Decrypt(record),
    }
}

/// Reads with what Decrypt answered; an error is gRPC's text.
///
/// A seed of a good length is remembered before it is known to open anything.
pub fn finish(
    probe: &Probe,
    cache: &mut Cache,
    now: Time,
    record: &EncryptedObject,
    answer: Result<Zeroizing<Vec<u8>>, String>,
    aad: &[u8],
) -> Result<Read, String> {
    let bytes = answer.map_err(|error| format!("failed to decrypt DEK, error: {error}"))?;
    let secret = Secret::new(record.encrypted_dek_source_type(), bytes)
        .map_err(|error: ReadError| error.to_string())?;
    cache.set(now, object::cache_key(record), secret.clone());
    opened(probe, record, &secret, aad)
}

fn opened(
    probe: &Probe,
    record: &EncryptedObject,
    secret: &Secret,
    aad: &[u8],
) -> Result<Read, String> {
    let plaintext = secret.open(&record.encrypted_data, aad).map_err(|error| error.to_string())?;
    let current = probe.state()?;
    let stale = record.key_id != current.key_id || record.encrypted_dek_source_type() != WRITTEN;
    Ok(Read { plaintext, stale })
}
