//! What an observation looks at: which version is the latest, whether it is the key that it was, whether
//! it wraps and unwraps, and whether all servers hold the same one.
//!
//! One call per period, the hmac; the rest every half minute, and when something is new.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use super::answer::DISALLOWED;
use super::json::{self, Object, parse};
use super::versions::News;
use super::{Data, Inner, Operation, prefixed};
use crate::backend::{BackendError, ErrorKind, Key, KeySet, UnwrapRequest, WrapRequest, Wrapped};
use crate::key_id::Fingerprint;
use crate::secret::Secret;

const ATTEMPTED: &str = "look at the transit key";

/// What a version is recognised by: the server's hmac of this, which is bound to the key's material.
const FINGERPRINT_INPUT: &[u8] = b"kleidi key fingerprint v1";
const FINGERPRINT_DOMAIN: &str = "kleidi transit hmac-sha256 v1";

/// Bytes of an hmac with SHA-256.
const HMAC_BYTES: usize = 32;

/// What is wrapped and unwrapped to see that it can be.
const PROBE: &[u8; 32] = b"kleidi wraps this, it is no seed";
const PROBE_AAD: &[u8] = b"kleidi probe v1";
const ANOTHER_AAD: &[u8] = b"kleidi probe v0";

/// How long it is believed that the key wraps and unwraps: some calls, so not every period.
const PROVED_FOR: Duration = Duration::from_secs(30);

/// How long a new version is held back: by then every node has heard of it.
const LAG: Duration = Duration::from_secs(1);

/// Longest time for the hmac of a period: an outage is to be told before kube-apiserver's three seconds
/// for Status are over.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest time in which a server is asked whether it holds the same key.
const COMPARE_TIMEOUT: Duration = Duration::from_millis(300);

/// A version as a server showed it.
pub(super) struct Seen {
    pub(super) version: u64,
    pub(super) fingerprint: Fingerprint,
    /// Which server.
    pub(super) address: Arc<str>,
}

impl Inner {
    pub(super) async fn look(&self, deadline: Instant) -> Result<KeySet, BackendError> {
        self.cluster.follow_files().await;
        self.login.keep(deadline).await;
        let seen = self.fingerprint(None, None, soon(deadline)).await;
        let seen = seen.inspect_err(|_| self.forget_proof())?;
        self.take_in(&seen, deadline).await?;
        self.prove(deadline).await?;
        self.key_set()
    }

    async fn take_in(&self, seen: &Seen, deadline: Instant) -> Result<(), BackendError> {
        let (version, fingerprint) = (seen.version, seen.fingerprint);
        let mut news = self.versions.lock().saw_latest(version, fingerprint, Instant::now());
        if let News::Higher { than, known } = news {
            // Numbers are no identity: one made anew may have been rotated beyond what was known.
            news = match self.fingerprint(Some(than), Some(&seen.address), soon(deadline)).await {
                Ok(before) if before.fingerprint != known => {
                    self.versions.lock().doubt(version, fingerprint, Instant::now())
                }
                Err(error) if error.kind.retryable() => return Err(error),
                // It cannot be told whether it is the same.
                Err(error) if !error.reason.contains(DISALLOWED) => {
                    self.versions.lock().doubt(version, fingerprint, Instant::now())
                }
                // The same, or one that min_encryption_version has put out of use.
                Ok(_) | Err(_) => {
                    let known = self.versions.lock().known_since(version, fingerprint);
                    let held_until = known + LAG;
                    if held_until > deadline {
                        // The next observation comes after that.
                        return Ok(());
                    }
                    sleep_until(held_until).await;
                    self.versions.lock().become_current(version, fingerprint);
                    News::Same
                }
            };
        }
        match news {
            News::Same | News::Higher { .. } => Ok(()),
            News::Behind => {
                tracing::debug!(version, "an earlier version than is known: the node is behind");
                // Or the later ones are gone: then nothing can be wrapped, and that is to be seen now.
                self.forget_proof();
                Ok(())
            }
            News::Doubtful => {
                let reason = format!(
                    "{} holds another key under the name {} than before",
                    seen.address,
                    self.settings.path("keys")
                );
                Err(BackendError::new(ErrorKind::Misconfigured, ATTEMPTED, reason).advise(
                    "it was made anew, restored from a backup, or the addresses are of different \
                     clusters; it is believed when nothing else has been seen for a while",
                ))
            }
            News::AnotherKey => {
                tracing::error!(
                    key = self.settings.path("keys"),
                    version,
                    address = &*seen.address,
                    "the key in transit is another one than before: made anew, or restored from a backup"
                );
                Ok(())
            }
        }
    }

    /// Does with the current version all that calls need, if that was not done a moment ago: the hmac
    /// shows neither that a policy forbids to encrypt or to decrypt, nor that the key binds what it
    /// should; and one server's answer does not show that the others hold the same key.
    async fn prove(&self, deadline: Instant) -> Result<(), BackendError> {
        let Some((version, key)) = self.versions.lock().current() else { return Ok(()) };
        let proved = self.proved.lock().clone();
        if proved.is_some_and(|(at, proved)| proved == key && at.elapsed() < PROVED_FOR) {
            return Ok(());
        }
        self.forget_proof();
        let plaintext = Secret::from(PROBE.to_vec());
        let request = WrapRequest { key: key.clone(), plaintext, aad: PROBE_AAD.to_vec() };
        let wrapped = self.wrap_verified(&request, deadline).await?;
        if wrapped.key != key {
            let reason = format!("it is {} and not {key} that wraps", wrapped.key);
            return Err(BackendError::new(ErrorKind::Unavailable, ATTEMPTED, reason));
        }
        self.prove_binding(&wrapped, deadline).await?;
        self.compare(version, key.fingerprint(), deadline).await?;
        *self.proved.lock() = Some((Instant::now(), key));
        Ok(())
    }

    /// The right associated data unwraps and another does not, in the form that Decrypts take.
    async fn prove_binding(
        &self,
        wrapped: &Wrapped,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        let request = |aad: &[u8]| {
            let (key, payload) = (wrapped.key.clone(), wrapped.payload.clone());
            Arc::new(UnwrapRequest { key, payload, aad: aad.to_vec() })
        };
        let both = [request(PROBE_AAD), request(ANOTHER_AAD)];
        let [read, refused] = self.unwrap_both(both, deadline).await?;
        if read?.expose() != PROBE {
            let reason = "it unwraps to something else than was wrapped";
            return Err(BackendError::new(ErrorKind::KeyDamaged, ATTEMPTED, reason));
        }
        match refused {
            Err(error) if error.kind == ErrorKind::BadCiphertext => Ok(()),
            Err(error) => Err(error),
            Ok(_) => {
                let reason = "it unwraps with other associated data than it wrapped with";
                Err(BackendError::new(ErrorKind::KeyDamaged, ATTEMPTED, reason)
                    .advise("is there a proxy that drops associated_data?"))
            }
        }
    }

    /// The next observation does it all again.
    pub(super) fn forget_proof(&self) {
        *self.proved.lock() = None;
    }

    /// Whether all servers that can say so hold this key.
    pub(super) async fn compare(
        &self,
        version: u64,
        wanted: Fingerprint,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        let addresses = &self.settings.addresses;
        let (mut ours, mut without) = (None, Vec::new());
        for address in addresses.iter().filter(|_| addresses.len() > 1) {
            let until = deadline.min(Instant::now() + COMPARE_TIMEOUT);
            match self.fingerprint(Some(version), Some(address), until).await {
                Ok(found) if found.fingerprint == wanted => ours = ours.or(Some(address)),
                Ok(_) => return Err(self.another(address)),
                // It did not answer, which is nothing that it shows.
                Err(error) if error.kind.retryable() => {}
                Err(_) => without.push(address),
            }
        }
        for address in without {
            if self.is_another_there(address, ours.map(String::as_str), deadline).await {
                return Err(self.another(address));
            }
        }
        Ok(())
    }

    fn another(&self, address: &str) -> BackendError {
        let key = self.settings.path("keys");
        let reason = format!("{address} holds another key under the name {key} than the others");
        BackendError::new(ErrorKind::Misconfigured, ATTEMPTED, reason)
            .advise("are all addresses of one cluster?")
    }

    /// Whether this server, which does not have the current version, shows that its key is another one: one that is of
    /// another cluster may have fewer versions than ours, so the latest that it has is compared with what is
    /// remembered, or with what the server `ours` has, which has shown the current version.
    async fn is_another_there(&self, address: &str, ours: Option<&str>, deadline: Instant) -> bool {
        let until = || deadline.min(Instant::now() + COMPARE_TIMEOUT);
        let Ok(found) = self.fingerprint(None, Some(address), until()).await else { return false };
        let remembered = self.versions.lock().fingerprint(found.version);
        let wanted = match (remembered, ours) {
            (Some(remembered), _) => remembered,
            (None, Some(ours)) => {
                match self.fingerprint(Some(found.version), Some(ours), until()).await {
                    Ok(seen) => seen.fingerprint,
                    Err(_) => return false,
                }
            }
            (None, None) => return false,
        };
        wanted != found.fingerprint
    }

    fn key_set(&self) -> Result<KeySet, BackendError> {
        let versions = self.versions.lock();
        let named = |(version, id)| Key {
            id,
            name: format!("{}/keys/{} version {version}", self.settings.mount, self.settings.key),
            facts: Arc::new([]),
        };
        let current = versions.current().map(named).ok_or_else(|| {
            let reason = format!("{} has no version yet", self.settings.path("keys"));
            BackendError::new(ErrorKind::Unavailable, "find the key", reason)
        })?;
        Ok(KeySet {
            current,
            older: versions.others().map(named).collect(),
            without_id: Vec::new(),
            refused: Vec::new(),
            facts: Arc::new([("transit key", self.settings.key.clone())]),
        })
    }

    /// The fingerprint of a version, or of the latest one; `only` by the server at that address.
    pub(super) async fn fingerprint(
        &self,
        version: Option<u64>,
        only: Option<&str>,
        deadline: Instant,
    ) -> Result<Seen, BackendError> {
        #[derive(Deserialize)]
        struct Hmac<'a> {
            hmac: &'a str,
        }
        let mut body = Object::with_capacity(128)
            .bytes("input", FINGERPRINT_INPUT)
            .text("algorithm", "sha2-256");
        if let Some(version) = version {
            body = body.number("key_version", version);
        }
        let path = self.settings.path("hmac");
        let operation = Operation { only, ..Operation::new(ATTEMPTED, path, body) };
        let answer = self.call(operation, deadline).await?;
        let found: Data<Hmac<'_>> = parse(ATTEMPTED, &answer)?;
        let strange = || {
            let address = &answer.address;
            let reason = format!("{address}: the answer to hmac is not vault:v<version>:<base64>");
            BackendError::new(ErrorKind::Unavailable, ATTEMPTED, reason)
        };
        let (number, hmac) = prefixed(found.data.hmac).ok_or_else(strange)?;
        if version.is_some_and(|version| version != number) {
            return Err(strange());
        }
        let hmac =
            json::decode(hmac).filter(|hmac| hmac.len() == HMAC_BYTES).ok_or_else(strange)?;
        let fingerprint = Fingerprint::of(FINGERPRINT_DOMAIN, &hmac);
        Ok(Seen { version: number, fingerprint, address: Arc::clone(&answer.address) })
    }
}

fn soon(deadline: Instant) -> Instant {
    deadline.min(Instant::now() + LOOK_TIMEOUT)
}
