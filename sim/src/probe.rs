//! One `kms` entry's health, and the seed that it writes with (upstream `server/options/
//! encryptionconfig/config.go`, `kmsv2PluginProbe`).
//!
//! A state machine without I/O. The driver asks [`Probe::select`] what to do, does it, and hands the
//! answer to [`Probe::status`] or [`Probe::encrypt`]; it has to see to it that one check is over before the
//! next begins, as upstream does by a mutex that it holds over both calls.

use std::collections::BTreeMap;
use std::time::Duration;

use kleidi_proto::encryption::{EncryptedDekSourceType, EncryptedObject};
use kleidi_proto::kms::{EncryptResponse, StatusResponse};
use zeroize::Zeroizing;

use crate::limits::{self, joined};
use crate::object::{self, Secret};
use crate::time::Time;
use crate::version::Version;

/// How long a good result is given again without a call.
pub const REUSE_GOOD: Duration = Duration::from_secs(20);

/// How long a bad result is.
pub const REUSE_BAD: Duration = Duration::from_secs(3);

/// How long may be written with a seed after Status last confirmed its key_id.
pub const WRITES_FOR: Duration = Duration::from_secs(3 * 60);

/// Versions of the interface that are understood since 1.29; the first one seen has to stay.
const VERSIONS: [&str; 2] = ["v2", "v2beta1"];

/// The type of what is written since 1.29.
pub const WRITTEN: EncryptedDekSourceType = EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed;

/// A seed that objects are written with, and how it is stored beside them.
#[derive(Clone)]
pub struct State {
    /// The seed.
    pub secret: Secret,
    /// What Status said, and Encrypt too.
    pub key_id: String,
    /// What Encrypt answered.
    pub dek_source: Vec<u8>,
    /// What Encrypt answered.
    pub annotations: BTreeMap<String, Vec<u8>>,
    /// After this moment nothing may be written with it.
    pub expires: Time,
    /// Of [`object::cache_key`].
    pub cache_key: [u8; 32],
}

/// What a check is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Call Status.
    Status,
    /// Call Encrypt with a fresh seed and uid.
    Encrypt,
    /// Nothing: the check is over, with this result.
    Done(Result<(), String>),
}

/// A `kms` entry's health and seed.
pub struct Probe {
    name: String,
    by: Version,
    state: Option<State>,
    /// The version that was first seen.
    version: Option<String>,
    /// The last result, and when it was got.
    last: Option<(Time, Result<(), String>)>,
    checking: Option<Checking>,
}

/// A check between Status and Encrypt.
struct Checking {
    faults: Vec<String>,
    key_id: String,
    expires: Time,
}

impl Probe {
    /// For the entry with this name of an apiserver of this version; nothing is known yet.
    #[must_use]
    pub fn new(name: &str, by: Version) -> Self {
        let name = name.to_owned();
        Self { name, by, state: None, version: None, last: None, checking: None }
    }

    /// The apiserver's version.
    #[must_use]
    pub fn by(&self) -> Version {
        self.by
    }

    /// The entry's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Begins a check: a call of Status, unless the last result is fresh enough.
    #[must_use]
    pub fn select(&self, now: Time) -> Step {
        match &self.last {
            Some((at, result)) => {
                let reuse = if result.is_ok() { REUSE_GOOD } else { REUSE_BAD };
                if now.since(*at) < reuse { Step::Done(result.clone()) } else { Step::Status }
            }
            None => Step::Status,
        }
    }

    /// Takes in what Status answered; an error is gRPC's text.
    pub fn status(&mut self, now: Time, answer: Result<StatusResponse, String>) -> Step {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                // What is remembered is the bare error: the same failure reads differently the second time.
                self.last = Some((now, Err(error.clone())));
                let name = &self.name;
                return Step::Done(Err(format!(
                    "failed to perform status section of the healthz check for KMS Provider {name}, \
                     error: {error}"
                )));
            }
        };
        let mut faults = Vec::new();
        if answer.healthz != "ok" {
            faults.push(format!("got unexpected healthz status: {}", answer.healthz));
        }
        faults.extend(self.version_fault(&answer.version));
        if let Err(error) = limits::key_id(&answer.key_id) {
            let hash = object::key_id_hash(&answer.key_id);
            faults.push(format!("got invalid KMSv2 KeyID hash \"{hash}\": {error}"));
            return self.done(now, &faults);
        }
        // Whatever else is wrong: upstream issue 138950.
        let expires = now + WRITES_FOR;
        match &mut self.state {
            Some(state) if state.key_id == answer.key_id => {
                state.expires = expires;
                self.done(now, &faults)
            }
            _ => {
                let key_id = answer.key_id;
                self.checking = Some(Checking { faults, key_id, expires });
                Step::Encrypt
            }
        }
    }

    fn version_fault(&mut self, version: &str) -> Option<String> {
        if !VERSIONS.contains(&version) {
            return Some(format!("expected KMSv2 API version v2, got {version}"));
        }
        let first = self.version.get_or_insert_with(|| version.to_owned());
        (first != version).then(|| {
            format!(
                "KMSv2 API version should not change after the initial status response version \
                 {first}, got {version}"
            )
        })
    }

    /// Takes in what Encrypt answered to this seed and uid.
    pub fn encrypt(
        &mut self,
        now: Time,
        seed: &[u8; object::SEED_BYTES],
        uid: &str,
        answer: Result<EncryptResponse, String>,
    ) -> Step {
        let Some(Checking { mut faults, key_id, expires }) = self.checking.take() else {
            return Step::Done(Err("no check is under way".to_owned()));
        };
        let generated = answer
            .map_err(|error| format!("failed to encrypt DEK, error: {error}"))
            .and_then(|answer| generate(seed, answer, expires));
        match generated {
            Ok(state) if state.key_id == key_id => self.state = Some(state),
            other => {
                let (encrypt_hash, err_gen) = match &other {
                    Ok(state) => (object::key_id_hash(&state.key_id), "<nil>"),
                    Err(error) => (String::new(), error.as_str()),
                };
                let (err_state, state_hash, expiration) = match &self.state {
                    Some(state) => {
                        ("<nil>", object::key_id_hash(&state.key_id), state.expires.to_string())
                    }
                    None => (NO_STATE, String::new(), "0001-01-01T00:00:00Z".to_owned()),
                };
                faults.push(format!(
                    "failed to rotate DEK uid={uid:?}, useSeed=true, errState={err_state}, \
                     errGen={err_gen}, statusKeyIDHash={:?}, encryptKeyIDHash={encrypt_hash:?}, \
                     stateKeyIDHash={state_hash:?}, expirationTimestamp={expiration}",
                    object::key_id_hash(&key_id),
                ));
            }
        }
        self.done(now, &faults)
    }

    fn done(&mut self, now: Time, faults: &[String]) -> Step {
        let result = joined(faults).map_or(Ok(()), |faults| {
            Err(format!("kmsv2 Provider {} is not healthy, error: {faults}", self.name))
        });
        self.last = Some((now, result.clone()));
        Step::Done(result)
    }

    /// The seed to read by and compare with; its time does not matter.
    pub fn state(&self) -> Result<&State, String> {
        self.state.as_ref().ok_or_else(|| NO_STATE.to_owned())
    }

    /// The seed to write with.
    pub fn state_for_writing(&self, now: Time) -> Result<&State, String> {
        let state = self.state()?;
        if now > state.expires {
            return Err(format!(
                "encryptedDEKSource with keyID hash {:?} expired at {} (current time is {now})",
                object::key_id_hash(&state.key_id),
                state.expires,
            ));
        }
        Ok(state)
    }
}

const NO_STATE: &str = "got unexpected nil transformer";

/// The state that an answer of Encrypt makes, if it is legal.
fn generate(
    seed: &[u8; object::SEED_BYTES],
    answer: EncryptResponse,
    expires: Time,
) -> Result<State, String> {
    let record = EncryptedObject {
        // Only so that the record is complete; the validator wants some.
        encrypted_data: vec![0],
        key_id: answer.key_id,
        encrypted_dek_source: answer.ciphertext,
        annotations: answer.annotations,
        encrypted_dek_source_type: WRITTEN as i32,
    };
    object::validate(&record)?;
    let cache_key = object::cache_key(&record);
    Ok(State {
        secret: Secret::Seed(Zeroizing::new(seed.to_vec())),
        key_id: record.key_id,
        dek_source: record.encrypted_dek_source,
        annotations: record.annotations,
        expires,
        cache_key,
    })
}
