//! Keys and rotation: which key wraps, what a ciphertext is bound to, what Status may claim.
//!
//! Knows no gRPC and no KMS. What it knows of the KMS is one [`snapshot::State`], which the
//! [`monitor`] keeps fresh in the background; Status answers from it alone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub mod envelope;
pub mod error;
pub mod monitor;
pub mod snapshot;
#[cfg(test)]
pub(crate) mod tests;

pub use crate::backend::ErrorKind;
use crate::backend::{Backend, BackendError, ForeignRequest, UnwrapRequest, WrapRequest};
use crate::key_id::KeyId;
use crate::limits;
use crate::random::Random;
use crate::secret::Secret;
use crate::sim_point::sim_point;
use envelope::Annotations;
pub use error::Error;
use monitor::Monitor;
use snapshot::State;

/// How often the KMS is observed, and how long that vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Time between two observations while all is well; also the longest time between two attempts
    /// while it is not.
    pub period: Duration,
    /// Age of the last good observation from which on Status is an error.
    pub stale_after: Duration,
}

/// Wraps and unwraps seeds with the keys of one KMS.
pub struct Provider {
    backend: Arc<dyn Backend>,
    monitor: monitor::Handle,
    stale_after: Duration,
}

/// What Status last told one client, which is one connection.
///
/// kube-apiserver asks Status and then Encrypt on the same connection, and takes the answer only if
/// both name the same key. Several apiservers do so at their own pace, so the key to use is kept per
/// connection: a new key is used for an apiserver once that apiserver has been told of it.
#[derive(Debug, Default)]
pub struct Announced(Mutex<Option<KeyId>>);

impl Announced {
    fn set(&self, key_id: &KeyId) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(key_id.clone());
    }

    fn get(&self) -> Option<KeyId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A wrapped seed, as kube-apiserver gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encrypted {
    /// At most [`limits::CIPHERTEXT_BYTES_MAX`] bytes.
    pub ciphertext: Vec<u8>,
    /// The key that wrapped.
    pub key_id: KeyId,
    /// None so far; bound to the ciphertext all the same.
    pub annotations: Annotations,
}

/// What kube-apiserver hands back, all of it from etcd and none of it trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// As returned by Encrypt, or by another plugin.
    pub ciphertext: Vec<u8>,
    /// As returned by Encrypt, or by another plugin.
    pub key_id: String,
    /// As returned by Encrypt, or by another plugin.
    pub annotations: Annotations,
}

impl Provider {
    /// A provider, and the monitor that has to run beside it.
    pub fn new(
        backend: Arc<dyn Backend>,
        random: Arc<dyn Random>,
        health: Health,
    ) -> (Arc<Self>, Monitor) {
        let (monitor, handle) = Monitor::new(Arc::clone(&backend), random, health.period);
        let provider = Self { backend, monitor: handle, stale_after: health.stale_after };
        (Arc::new(provider), monitor)
    }

    /// The id of the current key, announced to this client from now on; an error in an outage.
    ///
    /// Never asks the KMS. Waits only where nothing is known of it yet, right after the start.
    pub async fn status(&self, client: &Announced, deadline: Instant) -> Result<KeyId, Error> {
        self.started(deadline).await;
        let state = self.monitor.state();
        let keys = state.healthy(Instant::now(), self.stale_after)?;
        client.set(&keys.current.id);
        Ok(keys.current.id.clone())
    }

    /// Wraps a seed with the key announced to this client.
    pub async fn encrypt(
        &self,
        client: &Announced,
        plaintext: Secret,
        deadline: Instant,
    ) -> Result<Encrypted, Error> {
        if plaintext.is_empty() {
            return Err(Error::PlaintextEmpty);
        }
        let bytes = plaintext.len();
        let max = limits::CIPHERTEXT_BYTES_MAX;
        if bytes > max {
            return Err(Error::PlaintextTooLong { bytes, max });
        }
        let key = self.key_for(client, deadline).await?;
        sim_point!("chosen, and not yet used");
        let annotations = Annotations::new();
        let aad = envelope::aad(self.backend.scheme(), key.as_str(), &annotations);
        let request = WrapRequest { key: key.clone(), plaintext, aad };
        let wrapped = self.heed(self.backend.wrap(request, deadline).await)?;
        if wrapped.key != key {
            self.monitor.nudge();
            return Err(Error::AnotherKeyAnswered { asked: key, answered: wrapped.key });
        }
        let ciphertext = envelope::frame(self.backend.scheme(), &wrapped.payload);
        if ciphertext.len() > max {
            return Err(Error::PlaintextTooLong { bytes, max });
        }
        Ok(Encrypted { ciphertext, key_id: key, annotations })
    }

    /// Unwraps a seed with whatever key wrapped it, or refuses.
    pub async fn decrypt(&self, stored: Stored, deadline: Instant) -> Result<Secret, Error> {
        match stored.key_id.parse::<KeyId>() {
            Ok(key) => self.decrypt_ours(key, &stored, deadline).await,
            Err(_) => self.decrypt_foreign(stored, deadline).await,
        }
    }

    async fn decrypt_ours(
        &self,
        key: KeyId,
        stored: &Stored,
        deadline: Instant,
    ) -> Result<Secret, Error> {
        let scheme = self.backend.scheme();
        let payload = envelope::parse(scheme, &stored.ciphertext)?.to_vec();
        let aad = envelope::aad(scheme, &stored.key_id, &stored.annotations);
        let request = Arc::new(UnwrapRequest { key, payload, aad });
        match self.backend.unwrap(Arc::clone(&request), deadline).await {
            Err(error) if error.kind == ErrorKind::KeyNotFound => {}
            outcome => return self.heed(outcome),
        }
        // Another node may have made the key a moment ago.
        let looked = self.monitor.refresh(deadline).await;
        match self.backend.unwrap(request, deadline).await {
            Err(error) if looked && error.kind == ErrorKind::KeyNotFound => Err(self
                .unless_out_of_order(Error::KeyUnknown {
                    key_id: stored.key_id.clone(),
                    ours: true,
                })),
            Err(error) if !looked && is_no_answer(&error) => {
                Err(self.unless_out_of_order(Error::NotLookedUp(stored.key_id.clone())))
            }
            outcome => self.heed(outcome),
        }
    }

    async fn decrypt_foreign(&self, stored: Stored, deadline: Instant) -> Result<Secret, Error> {
        let Stored { ciphertext, key_id, annotations } = stored;
        let request = Arc::new(ForeignRequest { key_id, ciphertext, annotations });
        match self.backend.unwrap_foreign(Arc::clone(&request), deadline).await {
            Ok(None) => return Err(not_ours(&request)),
            Ok(Some(seed)) => return Ok(seed),
            Err(error) if error.kind == ErrorKind::KeyNotFound => {}
            Err(error) => return self.heed(Err(error)),
        }
        let looked = self.monitor.refresh(deadline).await;
        match self.backend.unwrap_foreign(Arc::clone(&request), deadline).await {
            Ok(Some(seed)) => Ok(seed),
            Ok(None) => Err(not_ours(&request)),
            Err(error) if !looked && is_no_answer(&error) => {
                Err(self.unless_out_of_order(Error::NotLookedUp(request.key_id.clone())))
            }
            // That there is no key is told in the backend's words: it knows which one it looked for.
            Err(error) => self.heed(Err(error)),
        }
    }

    /// A key is unknown only if the KMS could be asked; otherwise the outage is the reason.
    fn unless_out_of_order(&self, error: Error) -> Error {
        match self.monitor.state().healthy(Instant::now(), self.stale_after) {
            Ok(_) => error,
            Err(outage) => outage,
        }
    }

    /// The key announced to this client, or the current one if it has not asked yet.
    async fn key_for(&self, client: &Announced, deadline: Instant) -> Result<KeyId, Error> {
        self.started(deadline).await;
        let state = self.monitor.state();
        // Other outages may be over before we look; a key that computes nonsense is not.
        if let Some(outage) = &state.outage
            && outage.error.kind == ErrorKind::KeyDamaged
        {
            state.healthy(Instant::now(), self.stale_after)?;
        }
        let Some(keys) = &state.keys else {
            state.healthy(Instant::now(), self.stale_after)?;
            return Err(Error::Starting);
        };
        match client.get() {
            None => Ok(keys.current.id.clone()),
            Some(announced) if keys.find(&announced).is_some() => Ok(announced),
            Some(gone) => Err(Error::AnnouncedKeyGone(gone)),
        }
    }

    async fn started(&self, deadline: Instant) {
        if self.monitor.state().observations == 0 {
            self.monitor.first(deadline).await;
        }
    }

    /// A call that failed because of the KMS is a reason to look at the KMS now.
    fn heed<T>(&self, outcome: Result<T, BackendError>) -> Result<T, Error> {
        outcome.map_err(|error| {
            if matches!(
                error.kind,
                ErrorKind::Unavailable
                    | ErrorKind::Timeout
                    | ErrorKind::KeyDamaged
                    | ErrorKind::KeyNotFound
            ) {
                self.monitor.nudge();
            }
            Error::Backend(error)
        })
    }

    /// Waits for the first observation, for no longer than `deadline`.
    pub async fn first_observation(&self, deadline: Instant) {
        self.monitor.first(deadline).await;
    }

    /// What is known of the KMS, as it changes.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<State> {
        self.monitor.subscribe()
    }
}

/// Whether it leaves open if the KMS has the key, as long as nobody has looked afresh.
fn is_no_answer(error: &BackendError) -> bool {
    matches!(error.kind, ErrorKind::KeyNotFound | ErrorKind::Timeout)
}

fn not_ours(request: &ForeignRequest) -> Error {
    Error::KeyUnknown { key_id: request.key_id.clone(), ours: false }
}
