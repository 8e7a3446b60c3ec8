//! A key in the transit engine of HashiCorp Vault or OpenBao.
//!
//! ```text
//!  Status   never comes here; once per period  look ─┐
//!  Encrypt  seed: wrap, and read back ───────────────┼─► call ─► login: the token
//!  Decrypt  batch: a queue, and tasks that send ─────┘    └────► client: endpoints, pauses, one deadline
//!                                                                 └► http_client: one request
//!  versions: which is current, and what each is recognised by
//!  answer:   what a refusal means, one table
//! ```
//!
//! The way of an Encrypt: [`Transit`]'s `wrap`, `Inner::wrap_verified` and `wrap_once` (`seed.rs`),
//! `Inner::call`, `Login::ticket`, `Cluster::call` and `attempt`, `Http::send`. The way of a
//! Decrypt: `unwrap`, `batch::unwrap`, which queues it, `hire`, which starts a task that sends what is queued,
//! `Inner::send` and `exchange`, then `Inner::call` and on as above; the answer comes back by a oneshot.
//!
//! Facts that shape it, measured on OpenBao 2.7.2: every node of OpenBao serves these calls, without a
//! leader too, but a node can be some hundred milliseconds behind a rotation and then says that a version
//! is *too new*; a token that is gone and a policy that forbids look alike; the server wraps with the
//! latest version unless it is told which, so it is told.

use std::pin::Pin;
use std::sync::Arc;

use http::Method;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

pub mod answer;
mod auth;
mod batch;
mod client;
pub mod edges;
mod endpoints;
mod examine;
mod files;
mod foreign;
mod http_client;
mod json;
mod lease;
mod login;
mod look;
mod pauses;
pub mod provisioning;
mod refused;
mod seed;
#[cfg(test)]
mod tests;
mod tls;
mod versions;
mod wrapped;

use super::{
    Backend, BackendError, ErrorKind, Finding, ForeignRequest, KeySet, Reply, Scheme,
    UnwrapRequest, WrapRequest, Wrapped,
};
use crate::key_id::KeyId;
use crate::random::Random;
use crate::secret::Secret;
pub use auth::Auth;
use batch::Queue;
use client::{Cluster, Failure};
use edges::Edges;
pub use foreign::{ForeignFormat, Plugin};
use http_client::{Answer, Request};
use json::Object;
use login::Login;
pub use tls::Tls;
use versions::Versions;

/// Most calls at a time that do not travel together: Encrypts, and what is asked of other formats. More
/// would each take a connection, and a server that is slow already would get them all.
const LONE_MAX: usize = 64;

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
    /// What other plugins wrote and this one reads.
    pub foreign: Vec<ForeignFormat>,
}

impl Settings {
    /// What `kleidi init --print-policy` calls the policy, and the role where none is configured. Two keys of one
    /// server do not share them.
    fn name(&self) -> String {
        let Self { mount, key, .. } = self;
        match mount.as_str() {
            "transit" => format!("kleidi-{key}"),
            mount => format!("kleidi-{}-{key}", mount.replace('/', "-")),
        }
    }

    /// Who we are, by name: where a server had to find a role that fits, it could be another key's.
    fn auth(&self) -> Auth {
        match self.auth.clone() {
            Auth::Certificate { mount, role: None } => {
                Auth::Certificate { mount, role: Some(self.name()) }
            }
            auth => auth,
        }
    }

    /// The path of an operation with the key.
    fn path(&self, operation: &str) -> String {
        format!("{}/{operation}/{}", self.mount, self.key)
    }
}

/// A key in transit.
pub struct Transit(Arc<Inner>);

/// What calls and the tasks that send them share.
struct Inner {
    cluster: Arc<Cluster>,
    login: Arc<Login>,
    settings: Settings,
    versions: Mutex<Versions>,
    /// When a key last wrapped and unwrapped for [`Inner::prove`], and which it was.
    proved: Mutex<Option<(Instant, KeyId)>>,
    queue: Queue,
    /// Calls that do not travel together, so many at a time; observations are not among them.
    lone: Semaphore,
}

impl Transit {
    /// Does not connect yet.
    #[must_use]
    pub fn new(settings: Settings, random: Arc<dyn Random>) -> Self {
        let cluster = Cluster::new(&settings.addresses, settings.tls.clone(), Arc::clone(&random));
        Self::of(cluster, settings, random)
    }

    /// The same, with connections and files that are not the operating system's; TLS is not spoken.
    #[must_use]
    pub fn over(edges: Arc<dyn Edges>, settings: Settings, random: Arc<dyn Random>) -> Self {
        let cluster = Cluster::over(edges, &settings.addresses, Arc::clone(&random));
        Self::of(cluster, settings, random)
    }

    fn of(cluster: Cluster, settings: Settings, random: Arc<dyn Random>) -> Self {
        let cluster = Arc::new(cluster);
        let (auth, namespace) = (settings.auth(), settings.auth_namespace.clone());
        let queue = Queue::new(Arc::clone(&random));
        let login = Arc::new(Login::new(Arc::clone(&cluster), auth, namespace, random));
        let versions = Mutex::default();
        let proved = Mutex::default();
        let lone = Semaphore::new(LONE_MAX);
        Self(Arc::new(Inner { cluster, login, settings, versions, proved, queue, lone }))
    }
}

/// An operation of a key.
struct Operation<'a> {
    /// For errors, to be read after "cannot".
    attempted: &'static str,
    path: String,
    body: Object,
    /// The body has several items, which can fail one by one.
    list: bool,
    /// The one server that is meant, by its address.
    only: Option<&'a str>,
}

impl Operation<'_> {
    /// One that any server may do.
    fn new(attempted: &'static str, path: String, body: Object) -> Self {
        Self { attempted, path, body, list: false, only: None }
    }
}

impl Inner {
    /// What refuses a call may refuse all of them: the next observation tries everything.
    fn heed(&self, error: &BackendError) {
        if matches!(error.kind, ErrorKind::Credentials | ErrorKind::Misconfigured) {
            self.forget_proof();
        }
    }

    /// A turn of those calls that do not travel together.
    async fn turn(
        &self,
        attempted: &'static str,
        deadline: Instant,
    ) -> Result<SemaphorePermit<'_>, BackendError> {
        if let Ok(Ok(permit)) = timeout_at(deadline, self.lone.acquire()).await {
            return Ok(permit);
        }
        let reason = format!("{LONE_MAX} calls are under way and none ends");
        Err(BackendError::new(ErrorKind::Overloaded, attempted, reason))
    }

    /// Does an operation; logs in anew, once, if the token is refused.
    async fn call(
        &self,
        operation: Operation<'_>,
        deadline: Instant,
    ) -> Result<Answer, BackendError> {
        let Operation { attempted, path, body, list, only } = operation;
        let body = body.finish();
        let mut ticket = self.login.ticket(deadline).await?;
        for last in [false, true] {
            let request = Request {
                namespace: self.settings.namespace.as_deref(),
                token: Some(&ticket.token),
                batch: list,
                only,
                ..Request::new(Method::POST, &path, body.clone())
            };
            match self.cluster.call(attempted, &request, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                // One server may be another cluster's, which does not know our tokens.
                Err(Failure::Login(error)) if last || only.is_some() => return Err(error),
                Err(Failure::Login(error)) => {
                    ticket = self.login.replace(&ticket, &path, error, deadline).await?;
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

/// A ciphertext, if it looks like one of transit.
fn checked(ciphertext: &[u8]) -> Result<&str, BackendError> {
    let text = std::str::from_utf8(ciphertext).ok().filter(|text| prefixed(text).is_some());
    text.ok_or_else(|| {
        let reason = "the ciphertext is none of transit's";
        BackendError::new(ErrorKind::BadCiphertext, batch::ATTEMPTED, reason)
            .advise("the object in etcd is damaged: restore it from a backup")
    })
}

impl Backend for Transit {
    fn scheme(&self) -> Scheme {
        Scheme::TRANSIT
    }

    fn observe(&self, deadline: Instant) -> Reply<'_, KeySet> {
        Box::pin(self.0.look(deadline))
    }

    fn wrap(&self, request: WrapRequest, deadline: Instant) -> Reply<'_, Wrapped> {
        Box::pin(async move {
            let _turn = self.0.turn(seed::WRAP, deadline).await?;
            let wrapped = self.0.wrap_verified(&request, deadline).await;
            wrapped.inspect_err(|error| self.0.heed(error))
        })
    }

    fn unwrap(&self, request: Arc<UnwrapRequest>, deadline: Instant) -> Reply<'_, Secret> {
        Box::pin(async move {
            match batch::unwrap(&self.0, Arc::clone(&request), deadline).await {
                Ok(seed) => Ok(seed),
                Err(error) => {
                    self.0.heed(&error);
                    match self.0.turn(batch::ATTEMPTED, deadline).await {
                        Ok(_turn) => Err(self.0.explain(error, &request, deadline).await),
                        Err(_) => Err(error),
                    }
                }
            }
        })
    }

    fn unwrap_foreign(
        &self,
        request: Arc<ForeignRequest>,
        deadline: Instant,
    ) -> Reply<'_, Option<Secret>> {
        Box::pin(async move {
            let _turn = self.0.turn(batch::ATTEMPTED, deadline).await?;
            self.0.unwrap_foreign(&request, deadline).await
        })
    }

    fn examine(
        &self,
        deadline: Instant,
    ) -> Pin<Box<dyn Future<Output = Vec<Finding>> + Send + '_>> {
        Box::pin(examine::examine(&self.0, deadline))
    }
}
