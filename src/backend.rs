//! One KMS that holds key-encryption keys and does not give them out.
//!
//! A backend knows the outside world: sessions, tokens, HTTP, retries. It knows nothing of gRPC,
//! of how ciphertexts are framed or of when a new key is announced; see the [crate docs](crate) for
//! why the cut is here.

use std::borrow::Cow;
use std::fmt;
use std::future::{self, Future};
use std::pin::Pin;
use std::sync::Arc;

use tokio::time::Instant;

use crate::key_id::KeyId;
use crate::secret::Secret;

pub mod pkcs11;
pub mod transit;

/// What a call of a [`Backend`] will answer.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send + 'a>>;

/// A KMS.
///
/// Every call ends by its deadline, whatever the KMS does: with [`ErrorKind::Timeout`] at the latest.
/// Dropping a call is allowed at any time.
pub trait Backend: Send + Sync + 'static {
    /// How the payloads that this backend writes are to be read.
    fn scheme(&self) -> Scheme;

    /// Looks at the KMS afresh: which keys there are, and does the current one wrap and unwrap.
    ///
    /// Called once per period, and when a key_id is met that is not known. An error means that the
    /// KMS cannot serve now; it is also what heals the backend, by connecting anew.
    fn observe(&self, deadline: Instant) -> Reply<'_, KeySet>;

    /// Wraps with the key asked for, and says which key it was.
    fn wrap(&self, request: WrapRequest, deadline: Instant) -> Reply<'_, Wrapped>;

    /// Unwraps with the key of that fingerprint, current or not.
    fn unwrap(&self, request: Arc<UnwrapRequest>, deadline: Instant) -> Reply<'_, Secret>;

    /// Unwraps what another plugin wrote with a key of this KMS, where the configuration says so.
    ///
    /// `None` if no configured format claims the key_id.
    fn unwrap_foreign(
        &self,
        _request: Arc<ForeignRequest>,
        _deadline: Instant,
    ) -> Reply<'_, Option<Secret>> {
        Box::pin(future::ready(Ok(None)))
    }

    /// Looks at everything on the way to the key, step by step, for `kleidi check --live`.
    ///
    /// Nothing to tell where an error of [`Backend::observe`] says it all.
    fn examine(
        &self,
        _deadline: Instant,
    ) -> Pin<Box<dyn Future<Output = Vec<Finding>> + Send + '_>> {
        Box::pin(future::ready(Vec::new()))
    }
}

/// What one step of [`Backend::examine`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// As it should be.
    Good(String),
    /// The key can be used all the same.
    Warning(String),
    /// The way ends here.
    Fault(BackendError),
}

/// The shape of a payload; written before it, so that a payload of another backend is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheme(pub u8);

impl Scheme {
    /// 12 bytes of IV, the ciphertext, 16 bytes of tag: AES-256-GCM with a key that stays the same.
    pub const AES_256_GCM: Self = Self(1);

    /// `vault:v<version>:<base64>`, as transit writes it.
    pub const TRANSIT: Self = Self(2);
}

/// The keys of a KMS that belong to this plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySet {
    /// The key that wraps.
    pub current: Key,
    /// Keys that only unwrap, newest first.
    pub older: Vec<Key>,
    /// Names of keys that unwrap by trial: they may not encrypt, and so cannot be told by what they
    /// compute.
    pub without_id: Vec<String>,
    /// Keys that would belong here but for a fault of theirs, in words for the operator.
    pub refused: Vec<String>,
    /// Where the keys are, as label and value, for `kleidi check --live`.
    pub facts: Arc<[(&'static str, String)]>,
}

impl KeySet {
    /// All keys, the current one first.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.older)
    }

    /// Names of the keys that are not in `after` any more, under whatever id: what they wrapped cannot
    /// be read.
    pub fn lost_in<'a>(&'a self, after: &'a Self) -> impl Iterator<Item = String> + 'a {
        let by_id = self.iter().filter(|key| {
            let same = |now: &Key| now.id.fingerprint() == key.id.fingerprint();
            !after.iter().any(same) && !after.without_id.contains(&key.name)
        });
        let by_name = self.without_id.iter().filter(|name| {
            !after.without_id.contains(name) && !after.iter().any(|now| now.name == **name)
        });
        by_id.map(|key| format!("{} (key_id {})", key.name, key.id)).chain(by_name.cloned())
    }

    /// The key with this id.
    #[must_use]
    pub fn find(&self, id: &KeyId) -> Option<&Key> {
        self.iter().find(|key| key.id == *id)
    }
}

/// A key of a KMS, for naming it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// How kube-apiserver and etcd name it.
    pub id: KeyId,
    /// How the operator finds it in the KMS, for instance `label "kek", CKA_ID 02`.
    pub name: String,
    /// What is known of it, as label and value, for `kleidi check --live`.
    pub facts: Arc<[(&'static str, String)]>,
}

/// What to wrap.
pub struct WrapRequest {
    /// The key to wrap with.
    pub key: KeyId,
    /// The seed in clear.
    pub plaintext: Secret,
    /// What the ciphertext is bound to; it has to be given again to unwrap.
    pub aad: Vec<u8>,
}

/// A wrapped seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// The key that really wrapped.
    pub key: KeyId,
    /// Opaque to everyone but this backend.
    pub payload: Vec<u8>,
}

/// What to unwrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnwrapRequest {
    /// The key that wrapped it; its fingerprint is enough to find it.
    pub key: KeyId,
    /// As returned in [`Wrapped`].
    pub payload: Vec<u8>,
    /// As given in [`WrapRequest`].
    pub aad: Vec<u8>,
}

/// What another plugin wrote, as kube-apiserver hands it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignRequest {
    /// The other plugin's key_id.
    pub key_id: String,
    /// The other plugin's ciphertext.
    pub ciphertext: Vec<u8>,
    /// The other plugin's annotations.
    pub annotations: std::collections::BTreeMap<String, Vec<u8>>,
}

/// Whose fault a [`BackendError`] is, and what can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The KMS does not hold the key. The caller's fault or the operator's; a retry cannot help.
    KeyNotFound,
    /// The bytes are not what the key wrote. Whoever changed them; a retry cannot help.
    BadCiphertext,
    /// The KMS refused our credentials. The operator's fault; a retry is harmful.
    Credentials,
    /// The KMS, its keys or our configuration are not as they have to be. The operator's fault.
    Misconfigured,
    /// A key in the KMS does not compute what it once did. Its storage is broken.
    KeyDamaged,
    /// The KMS cannot be reached or does not work now. A retry helps when it is back.
    Unavailable,
    /// No answer in time. A retry may help.
    Timeout,
    /// More calls are waiting than can be served in time. A retry may help.
    Overloaded,
    /// The request holds more than the KMS reads. A smaller one may pass.
    TooLarge,
}

impl ErrorKind {
    /// Whether the same call can succeed later without anybody doing anything about the call.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout | Self::Overloaded)
    }
}

/// What a KMS could not do.
///
/// Displayed as `cannot ATTEMPTED: REASON; ADVICE`. Nothing secret is in it: it goes to logs and to
/// kube-apiserver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendError {
    /// Whose fault it is.
    pub kind: ErrorKind,
    /// What was attempted, to be read after "cannot".
    pub attempted: Cow<'static, str>,
    /// Why it failed.
    pub reason: String,
    /// What the operator can do; empty if nothing.
    pub advice: Cow<'static, str>,
}

impl BackendError {
    /// An error without advice.
    pub fn new(
        kind: ErrorKind,
        attempted: impl Into<Cow<'static, str>>,
        reason: impl Into<String>,
    ) -> Self {
        Self { kind, attempted: attempted.into(), reason: reason.into(), advice: Cow::Borrowed("") }
    }

    /// The same with what the operator can do about it.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<Cow<'static, str>>) -> Self {
        self.advice = advice.into();
        self
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.attempted, self.reason)?;
        if !self.advice.is_empty() {
            write!(f, "; {}", self.advice)?;
        }
        Ok(())
    }
}

impl std::error::Error for BackendError {}
