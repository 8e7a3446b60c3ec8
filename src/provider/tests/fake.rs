//! A KMS in memory that does what it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::backend::{
    Backend, BackendError, ErrorKind, Key, KeySet, Reply, Scheme, UnwrapRequest, WrapRequest,
    Wrapped,
};
use crate::key_id::{Fingerprint, KeyId, Version};
use crate::secret::Secret;

/// The key number `n`; its material and its version are `n`.
pub(crate) fn key(n: u8) -> Key {
    let fingerprint = Fingerprint::of("fake", &[n]);
    let id = KeyId::new(fingerprint, &Version::of_number(u64::from(n)));
    Key { id, name: format!("key {n}"), facts: Arc::new([]) }
}

pub(crate) fn outage(why: &str) -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "reach the KMS", why)
}

/// What it does now.
pub(crate) struct Script {
    /// Keys that it holds, the current one last.
    pub(crate) keys: Vec<u8>,
    /// Every call fails with this.
    pub(crate) fails: Option<BackendError>,
    /// Unwrapping fails with this.
    pub(crate) unwrapping_fails: Option<BackendError>,
    /// Observing never ends, not even by its deadline.
    pub(crate) observing_hangs: bool,
    /// How long observing takes.
    pub(crate) observing_takes: Duration,
    /// Wraps with this key, whatever key is asked for.
    pub(crate) wraps_with: Option<u8>,
}

pub(crate) struct FakeKms {
    pub(crate) script: Mutex<Script>,
    pub(crate) observations: AtomicUsize,
}

impl FakeKms {
    pub(crate) fn new(keys: &[u8]) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(Script {
                keys: keys.to_vec(),
                fails: None,
                unwrapping_fails: None,
                observing_hangs: false,
                observing_takes: Duration::ZERO,
                wraps_with: None,
            }),
            observations: AtomicUsize::new(0),
        })
    }

    fn cipher(n: u8) -> Aes256Gcm {
        Aes256Gcm::new(&[n; 32].into())
    }

    /// The number of a key that it holds.
    fn find(&self, id: &KeyId) -> Result<u8, BackendError> {
        let script = self.script.lock();
        if let Some(error) = &script.fails {
            return Err(error.clone());
        }
        let same = |n: &&u8| key(**n).id.fingerprint() == id.fingerprint();
        script.keys.iter().find(same).copied().ok_or_else(|| {
            BackendError::new(ErrorKind::KeyNotFound, "find the key", "it is not there")
        })
    }
}

impl Backend for FakeKms {
    fn scheme(&self) -> Scheme {
        Scheme::AES_256_GCM
    }

    fn observe(&self, _deadline: Instant) -> Reply<'_, KeySet> {
        self.observations.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {
            let (hangs, takes) = {
                let script = self.script.lock();
                (script.observing_hangs, script.observing_takes)
            };
            if hangs {
                std::future::pending::<()>().await;
            }
            if !takes.is_zero() {
                sleep(takes).await;
            }
            let script = self.script.lock();
            if let Some(error) = &script.fails {
                return Err(error.clone());
            }
            let mut keys = script.keys.iter().rev().map(|n| key(*n));
            let Some(current) = keys.next() else { return Err(outage("there is no key")) };
            let older = keys.collect();
            Ok(KeySet {
                current,
                older,
                without_id: Vec::new(),
                refused: Vec::new(),
                facts: Arc::new([]),
            })
        })
    }

    fn wrap(&self, request: WrapRequest, _deadline: Instant) -> Reply<'_, Wrapped> {
        Box::pin(async move {
            let asked = self.find(&request.key)?;
            let used = self.script.lock().wraps_with.unwrap_or(asked);
            let iv: [u8; 12] = std::array::from_fn(|at| u8::try_from(at).unwrap_or(0) ^ used);
            let payload = Payload { msg: request.plaintext.expose(), aad: &request.aad };
            let sealed =
                Self::cipher(used).encrypt(&iv.into(), payload).map_err(|_| outage("aes"))?;
            Ok(Wrapped { key: key(used).id, payload: [&iv[..], &sealed].concat() })
        })
    }

    fn unwrap(&self, request: Arc<UnwrapRequest>, _deadline: Instant) -> Reply<'_, Secret> {
        Box::pin(async move {
            if let Some(error) = &self.script.lock().unwrapping_fails {
                return Err(error.clone());
            }
            let number = self.find(&request.key)?;
            let bad = || BackendError::new(ErrorKind::BadCiphertext, "unwrap", "it is damaged");
            let (iv, sealed) = request.payload.split_at_checked(12).ok_or_else(bad)?;
            let payload = Payload { msg: sealed, aad: &request.aad };
            let iv: [u8; 12] = iv.try_into().map_err(|_| bad())?;
            let opened = Self::cipher(number).decrypt(&iv.into(), payload).map_err(|_| bad())?;
            Ok(Secret::from(opened))
        })
    }
}
