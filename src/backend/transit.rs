//! A key in the transit engine of HashiCorp Vault or OpenBao.
//!
//! ```text
//!  Transit ──► login: the token ──► client: endpoints, deadline ──► http: one request
//!     versions: what each version               answer: what a refusal means,
//!     of the key is recognised by               one table
//! ```
//!
//! Facts that shape it, measured on OpenBao 2.7.2: every node of OpenBao serves these calls, without a
//! leader too, but a node can be some hundred milliseconds behind a rotation and then says that a version
//! is *too new*; a token that is gone and a policy that forbids look alike; the server wraps with the
//! latest version unless it is told which, so it is told.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

pub mod answer;
mod batch;
mod client;
mod endpoints;
mod http_client;
mod json;
mod login;
#[cfg(test)]
mod tests;
mod versions;

use super::{
    Backend, BackendError, ErrorKind, Key, KeySet, Reply, Scheme, UnwrapRequest, WrapRequest,
    Wrapped,
};
use crate::key_id::{Fingerprint, KeyId};
use crate::random::Random;
use crate::secret::Secret;
use batch::Queue;
use client::{Cluster, Failure};
pub use http_client::Tls;
use http_client::{Answer, Request};
use json::Object;
pub use login::Auth;
use login::{Login, parse};
use versions::{News, Versions};

/// What a version is recognised by: the server's hmac of this, which is bound to the key's material.
const FINGERPRINT_INPUT: &[u8] = b"kleidi key fingerprint v1";
const FINGERPRINT_DOMAIN: &str = "kleidi transit hmac-sha256 v1";

/// How long a new version is held back: by then every node has heard of it.
const LAG: Duration = Duration::from_secs(1);

/// Where the key is and how to get at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Addresses of the nodes, as in `https://vault.example:8200`, without a slash at the end.
    pub addresses: Vec<String>,
    /// How they are recognised.
    pub tls: Tls,
    /// Namespace of the transit engine.
    pub namespace: Option<String>,
    /// Namespace of the login.
    pub auth_namespace: Option<String>,
    /// Where transit is mounted, `transit` usually.
    pub mount: String,
    /// Name of the key.
    pub key: String,
    /// Who we are.
    pub auth: Auth,
}

/// A key in transit.
pub struct Transit(Arc<Inner>);

/// What calls and the tasks that send them share.
struct Inner {
    cluster: Arc<Cluster>,
    login: Login,
    settings: Settings,
    versions: Mutex<Versions>,
    queue: Queue,
}

impl Transit {
    /// Does not connect yet.
    #[must_use]
    pub fn new(settings: Settings, random: Arc<dyn Random>) -> Self {
        let cluster = Cluster::new(&settings.addresses, settings.tls.clone(), Arc::clone(&random));
        let cluster = Arc::new(cluster);
        let (auth, namespace) = (settings.auth.clone(), settings.auth_namespace.clone());
        let login = Login::new(Arc::clone(&cluster), auth, namespace, random);
        let (versions, queue) = (Mutex::default(), Queue::default());
        Self(Arc::new(Inner { cluster, login, settings, versions, queue }))
    }
}

impl Inner {
    async fn look(&self, deadline: Instant) -> Result<KeySet, BackendError> {
        self.login.keep(deadline).await?;
        let (version, fingerprint) = self.fingerprint(None, deadline).await?;
        let news = self.versions.lock().saw_latest(version, fingerprint, Instant::now());
        match news {
            News::Rotated => {
                sleep(LAG.min(deadline.saturating_duration_since(Instant::now()))).await;
            }
            News::AnotherKey => tracing::error!(
                key = self.settings.key,
                version,
                "the key in transit is another one than before: made anew, or restored from a backup"
            ),
            News::Same | News::Behind => {}
        }
        let versions = self.versions.lock();
        let named = |(version, id)| Key {
            id,
            name: format!("{}/keys/{} version {version}", self.settings.mount, self.settings.key),
            facts: Arc::new([]),
        };
        let current = versions.current().map(named).ok_or_else(|| {
            BackendError::new(ErrorKind::Unavailable, "find the key", "it has no version yet")
        })?;
        Ok(KeySet {
            current,
            older: versions.others().map(named).collect(),
            without_id: Vec::new(),
            refused: Vec::new(),
            facts: Arc::new([("transit key", self.settings.key.clone())]),
        })
    }

    /// The fingerprint of a version, or of the latest one.
    async fn fingerprint(
        &self,
        version: Option<u64>,
        deadline: Instant,
    ) -> Result<(u64, Fingerprint), BackendError> {
        #[derive(Deserialize)]
        struct Hmac<'a> {
            hmac: &'a str,
        }
        const ATTEMPTED: &str = "look at the transit key";
        let mut body = Object::with_capacity(128).bytes("input", FINGERPRINT_INPUT);
        if let Some(version) = version {
            body = body.number("key_version", version);
        }
        let answer = self.call(ATTEMPTED, "hmac", body, false, deadline).await?;
        let answer: Data<Hmac<'_>> = parse(ATTEMPTED, &answer)?;
        let strange = || {
            let reason = "the answer to hmac is not vault:v<version>:<base64>";
            BackendError::new(ErrorKind::Unavailable, ATTEMPTED, reason)
        };
        let (found, hmac) = prefixed(answer.data.hmac).ok_or_else(strange)?;
        if version.is_some_and(|version| version != found) {
            return Err(strange());
        }
        let hmac = json::decode(hmac).ok_or_else(strange)?;
        Ok((found, Fingerprint::of(FINGERPRINT_DOMAIN, &hmac)))
    }

    async fn wrap_now(
        &self,
        request: WrapRequest,
        deadline: Instant,
    ) -> Result<Wrapped, BackendError> {
        #[derive(Deserialize)]
        struct Encrypted<'a> {
            ciphertext: &'a str,
        }
        const ATTEMPTED: &str = "wrap a seed";
        let version = self.versions.lock().find(&request.key).ok_or_else(|| {
            let attempted = format!("find the key {}", request.key);
            BackendError::new(
                ErrorKind::KeyNotFound,
                attempted,
                "the transit key has no such version",
            )
        })?;
        let plaintext = request.plaintext.expose();
        let body = Object::with_capacity(2 * (plaintext.len() + request.aad.len()))
            .bytes("plaintext", plaintext)
            .bytes("associated_data", &request.aad)
            .number("key_version", version);
        let answer = self.call(ATTEMPTED, "encrypt", body, false, deadline).await?;
        let answer: Data<Encrypted<'_>> = parse(ATTEMPTED, &answer)?;
        let ciphertext = answer.data.ciphertext;
        let Some((used, _)) = prefixed(ciphertext) else {
            let reason = "the answer to encrypt is not vault:v<version>:<base64>";
            return Err(BackendError::new(ErrorKind::Unavailable, ATTEMPTED, reason));
        };
        let key = if used == version { request.key } else { self.id_of(used, deadline).await? };
        Ok(Wrapped { key, payload: ciphertext.as_bytes().to_vec() })
    }

    /// The id of a version, asking the server if need be.
    async fn id_of(&self, version: u64, deadline: Instant) -> Result<KeyId, BackendError> {
        let (_, fingerprint) = self.fingerprint(Some(version), deadline).await?;
        let mut versions = self.versions.lock();
        versions.learn(version, fingerprint);
        versions.id(version).ok_or_else(|| {
            BackendError::new(ErrorKind::Unavailable, "find the key", "its version is not known")
        })
    }

    async fn unwrap_one(
        &self,
        request: &UnwrapRequest,
        deadline: Instant,
    ) -> Result<Secret, BackendError> {
        #[derive(Deserialize)]
        struct Decrypted<'a> {
            plaintext: &'a str,
        }
        use batch::ATTEMPTED;
        let damaged = || {
            let reason = "the ciphertext is none of transit's";
            BackendError::new(ErrorKind::BadCiphertext, ATTEMPTED, reason)
                .advise("the object in etcd is damaged: restore it from a backup")
        };
        let ciphertext = std::str::from_utf8(&request.payload).map_err(|_| damaged())?;
        prefixed(ciphertext).ok_or_else(damaged)?;
        let body = Object::with_capacity(ciphertext.len() + 2 * request.aad.len())
            .text("ciphertext", ciphertext)
            .bytes("associated_data", &request.aad);
        let answer = self.call(ATTEMPTED, "decrypt", body, false, deadline).await?;
        let answer: Data<Decrypted<'_>> = parse(ATTEMPTED, &answer)?;
        let plaintext = json::decode(answer.data.plaintext).ok_or_else(|| {
            BackendError::new(ErrorKind::Unavailable, ATTEMPTED, "the answer is no base64")
        })?;
        Ok(Secret::from(plaintext))
    }

    /// Calls an operation of the key; logs in anew, once, if the token is refused.
    async fn call(
        &self,
        attempted: &'static str,
        operation: &str,
        body: Object,
        batch: bool,
        deadline: Instant,
    ) -> Result<Answer, BackendError> {
        let path = format!("{}/{operation}/{}", self.settings.mount, self.settings.key);
        let body = body.finish();
        let mut ticket = self.login.ticket(deadline).await?;
        for last in [false, true] {
            let request = Request {
                method: Method::POST,
                path: &path,
                namespace: self.settings.namespace.as_deref(),
                token: Some(&ticket.token),
                body: body.clone(),
                batch,
            };
            match self.cluster.call(attempted, &request, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Login(error)) if last => return Err(error),
                Err(Failure::Login(error)) => {
                    ticket = self.login.replace(&ticket, error, deadline).await?;
                }
            }
        }
        Err(BackendError::new(ErrorKind::Credentials, attempted, "the token is refused"))
    }
}

/// What is around every answer.
#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

/// Version and base64 of `vault:v<version>:<base64>`.
fn prefixed(text: &str) -> Option<(u64, &str)> {
    let (version, rest) = text.strip_prefix("vault:v")?.split_once(':')?;
    let digits = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
    Some((version.parse().ok().filter(|_| digits)?, rest))
}

impl Backend for Transit {
    fn scheme(&self) -> Scheme {
        Scheme::TRANSIT
    }

    fn observe(&self, deadline: Instant) -> Reply<'_, KeySet> {
        Box::pin(self.0.look(deadline))
    }

    fn wrap(&self, request: WrapRequest, deadline: Instant) -> Reply<'_, Wrapped> {
        Box::pin(self.0.wrap_now(request, deadline))
    }

    fn unwrap(&self, request: Arc<UnwrapRequest>, deadline: Instant) -> Reply<'_, Secret> {
        Box::pin(batch::unwrap(&self.0, request, deadline))
    }
}
