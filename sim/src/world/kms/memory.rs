//! A KMS in memory, with versions of a key, and what each node gets to see of it.
//!
//! It knows which key really wrapped what: the judge asks it, and no plugin can.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use kleidi::backend::{
    Backend, BackendError, ErrorKind, Key, KeySet, Reply, Scheme, UnwrapRequest, WrapRequest,
    Wrapped,
};
use kleidi::key_id::{Fingerprint, KeyId, Version};
use kleidi::random::Random;
use kleidi::secret::Secret;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Kms, Process};
use crate::world::history::{History, KmsCall};
use crate::world::mutant::Mutant;
use crate::world::plan::{Trouble, What};
use crate::world::random::Stream;

/// Bytes of a nonce before what is wrapped.
const NONCE: usize = 12;

/// A version of the key.
struct KeyVersion {
    id: KeyId,
    /// Versions with the same material are one key.
    material: [u8; 32],
    made: Instant,
    enabled: bool,
    destroyed: bool,
}

/// What a node gets to see.
#[derive(Clone, Copy)]
struct View {
    trouble: Trouble,
    takes: Duration,
    lag: Duration,
}

const WELL: View =
    View { trouble: Trouble::None, takes: Duration::from_millis(2), lag: Duration::ZERO };

struct State {
    versions: Vec<KeyVersion>,
    views: Vec<View>,
    /// Which version wrapped, by the payload.
    wrapped: BTreeMap<Vec<u8>, u64>,
}

/// A KMS.
pub struct Memory {
    state: Mutex<State>,
    random: Stream,
    history: Arc<History>,
}

impl Memory {
    /// With one key, for so many nodes.
    #[must_use]
    pub fn new(seed: u64, nodes: usize, history: Arc<History>) -> Arc<Self> {
        let state =
            State { versions: Vec::new(), views: vec![WELL; nodes], wrapped: BTreeMap::new() };
        let (state, random) = (Mutex::new(state), Stream::of(seed, "kms"));
        let kms = Arc::new(Self { state, random, history });
        kms.rotate();
        kms
    }

    /// A new key, from now on the current one.
    fn rotate(&self) {
        let mut material = [0; 32];
        self.random.bytes(&mut material);
        self.add(material);
    }

    /// The one before the current one becomes current again: the same material, as a new version.
    fn reinstate(&self) {
        let material = {
            let state = self.state.lock();
            let usable = state.versions.iter().rev().filter(|version| !version.destroyed);
            usable.map(|version| version.material).nth(1)
        };
        if let Some(material) = material {
            self.add(material);
        }
    }

    fn add(&self, material: [u8; 32]) {
        let versions = &mut self.state.lock().versions;
        let version = Version::of_number(number(versions.len()));
        let id = KeyId::new(Fingerprint::of("simulated", &material), &version);
        let made = Instant::now();
        versions.push(KeyVersion { id, material, made, enabled: true, destroyed: false });
    }

    /// Whether all but the current one may be used.
    fn enable_old(&self, enabled: bool) {
        self.old(|version| version.enabled = enabled);
    }

    fn old(&self, change: impl Fn(&mut KeyVersion)) {
        let mut state = self.state.lock();
        let Some((current, old)) = state.versions.split_last_mut() else { return };
        // The same material under another number is not old.
        for version in old.iter_mut().filter(|version| version.material != current.material) {
            change(version);
        }
    }

    /// What the KMS does when this node calls.
    fn trouble(&self, node: usize, trouble: Trouble) {
        self.view(node, |view| view.trouble = trouble);
    }

    /// How long an answer to this node takes.
    fn takes(&self, node: usize, takes: Duration) {
        self.view(node, |view| view.takes = takes);
    }

    /// How much later this node hears of a new key.
    fn lag(&self, node: usize, lag: Duration) {
        self.view(node, |view| view.lag = lag);
    }

    fn view(&self, node: usize, change: impl FnOnce(&mut View)) {
        if let Some(view) = self.state.lock().views.get_mut(node) {
            change(view);
        }
    }
}

impl Kms for Memory {
    fn happen(&self, what: &What) {
        let millis = Duration::from_millis;
        match what {
            What::Kms { node, does } => self.trouble(*node, *does),
            What::KmsTakes { node, ms } => self.takes(*node, millis(*ms)),
            What::KmsLag { node, ms } => self.lag(*node, millis(*ms)),
            What::Rotated => self.rotate(),
            What::Reinstated => self.reinstate(),
            What::OldDisabled => self.enable_old(false),
            What::OldEnabled => self.enable_old(true),
            _ => {}
        }
    }

    fn heal(&self) {
        for view in &mut self.state.lock().views {
            *view = WELL;
        }
        self.enable_old(true);
    }

    fn destroy_old(&self) {
        self.old(|version| version.destroyed = true);
    }

    fn scheme(&self) -> Scheme {
        Scheme::AES_256_GCM
    }

    fn current(&self) -> u64 {
        number(self.state.lock().versions.len().saturating_sub(1))
    }

    fn who_wrapped(&self, payload: &[u8]) -> Option<u64> {
        self.state.lock().wrapped.get(payload).copied()
    }

    fn keys(&self) -> BTreeMap<u64, bool> {
        let state = self.state.lock();
        let there = state.versions.iter().enumerate().filter(|(_, version)| !version.destroyed);
        there.map(|(at, version)| (number(at), version.enabled)).collect()
    }

    fn is_usable(&self, version: u64) -> bool {
        let state = self.state.lock();
        let found = usize::try_from(version).ok().and_then(|at| state.versions.get(at));
        found.is_some_and(|version| version.enabled && !version.destroyed)
    }

    fn id_of(&self, version: u64) -> Option<KeyId> {
        let state = self.state.lock();
        let found = state.versions.get(usize::try_from(version).ok()?)?;
        Some(found.id.clone())
    }

    fn process(
        self: Arc<Self>,
        node: usize,
        _: Arc<dyn Random>,
        _: Option<Mutant>,
    ) -> Arc<dyn Process> {
        let (lives, heard) = (AtomicBool::new(true), AtomicU64::new(0));
        Arc::new(NodeKms { kms: self, node, lives, heard })
    }
}

fn number(at: usize) -> u64 {
    u64::try_from(at).unwrap_or(u64::MAX)
}

/// A version that a plugin may use.
#[derive(Clone)]
struct Visible {
    number: u64,
    id: KeyId,
    material: [u8; 32],
}

/// The KMS as a plugin's process sees it.
struct NodeKms {
    kms: Arc<Memory>,
    node: usize,
    /// Until the process dies.
    lives: AtomicBool,
    /// The highest version that it has heard of: what was heard is not forgotten, as in the real backends.
    heard: AtomicU64,
}

impl NodeKms {
    /// A call, which is noted when it has ended.
    async fn noted<T>(
        &self,
        what: KmsCall,
        call: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let outcome = call.await;
        self.kms.history.kms(self.node, what, &outcome);
        outcome
    }

    /// What is in the way of a call, after the time that it takes.
    async fn call(&self, what: KmsCall, deadline: Instant) -> Result<(), BackendError> {
        let view = self.kms.state.lock().views.get(self.node).copied();
        let Some(View { trouble, takes, .. }) = view else { return Ok(()) };
        self.wait(trouble, what, Instant::now() + takes, deadline).await
    }

    async fn wait(
        &self,
        trouble: Trouble,
        what: KmsCall,
        answers: Instant,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        let fault = |kind, reason: &str| Err(BackendError::new(kind, "use the KMS", reason));
        let late = || BackendError::new(ErrorKind::Timeout, "use the KMS", "no answer in time");
        if trouble == Trouble::Unreachable {
            sleep(Duration::from_millis(1)).await;
            return fault(ErrorKind::Unavailable, "connection refused");
        }
        if trouble == Trouble::Hangs || answers > deadline {
            sleep_until(deadline).await;
            return Err(late());
        }
        sleep_until(answers).await;
        if !self.lives.load(Ordering::Relaxed) {
            return fault(ErrorKind::Unavailable, "the process is dead");
        }
        match (trouble, what) {
            (Trouble::Sealed, _) => fault(ErrorKind::Unavailable, "it is sealed"),
            (Trouble::Throttled, _) => fault(ErrorKind::Overloaded, "too many requests"),
            (Trouble::Forbidden, _)
            | (Trouble::WrapDenied, KmsCall::Wrap | KmsCall::Observe)
            | (Trouble::UnwrapDenied, KmsCall::Unwrap | KmsCall::Observe) => {
                fault(ErrorKind::Credentials, "permission denied")
            }
            // As those look that try their keys at each look.
            (Trouble::UnwrapsWrongly, KmsCall::Observe) => {
                fault(ErrorKind::KeyDamaged, "what was wrapped does not come back")
            }
            (Trouble::DamagesCiphertexts | Trouble::SaysNothing | Trouble::Truncates, _) => {
                fault(ErrorKind::Unavailable, "a strange answer")
            }
            _ => Ok(()),
        }
    }

    /// The versions that this node has heard of and may use, the lowest first.
    fn visible(&self) -> Vec<Visible> {
        let state = self.kms.state.lock();
        let lag = state.views.get(self.node).map_or(Duration::ZERO, |view| view.lag);
        let versions = state.versions.iter().enumerate();
        let arrived = versions.clone().filter(|(_, version)| version.made.elapsed() >= lag);
        let latest = arrived.map(|(at, _)| number(at)).max().unwrap_or(0);
        let heard = latest.max(self.heard.fetch_max(latest, Ordering::Relaxed));
        versions
            .filter(|(at, _)| number(*at) <= heard)
            .filter(|(_, version)| version.enabled && !version.destroyed)
            .map(|(at, KeyVersion { id, material, .. })| {
                let (id, material) = (id.clone(), *material);
                Visible { number: number(at), id, material }
            })
            .collect()
    }

    fn find(&self, id: &KeyId) -> Result<Visible, BackendError> {
        let visible = self.visible();
        // What wraps under this id, or else whatever has the same material.
        let exact = visible.iter().find(|version| version.id == *id);
        let same = |version: &&Visible| version.id.fingerprint() == id.fingerprint();
        exact.or_else(|| visible.iter().find(same)).cloned().ok_or_else(|| {
            BackendError::new(ErrorKind::KeyNotFound, "find the key", "the KMS does not hold it")
        })
    }
}

impl Process for NodeKms {
    fn die(&self) {
        self.lives.store(false, Ordering::Relaxed);
    }
}

impl Backend for NodeKms {
    fn scheme(&self) -> Scheme {
        Scheme::AES_256_GCM
    }

    fn observe(&self, deadline: Instant) -> Reply<'_, KeySet> {
        Box::pin(self.noted(KmsCall::Observe, async move {
            self.call(KmsCall::Observe, deadline).await?;
            let mut keys =
                self.visible().into_iter().rev().map(|Visible { number, id, .. }| Key {
                    id,
                    name: format!("version {number}"),
                    facts: Arc::new([]),
                });
            let current = keys.next().ok_or_else(|| {
                BackendError::new(ErrorKind::Misconfigured, "find a key", "there is none")
            })?;
            let (older, facts) = (keys.collect(), Arc::new([]));
            Ok(KeySet { current, older, without_id: Vec::new(), refused: Vec::new(), facts })
        }))
    }

    fn wrap(&self, request: WrapRequest, deadline: Instant) -> Reply<'_, Wrapped> {
        Box::pin(self.noted(KmsCall::Wrap, async move {
            self.call(KmsCall::Wrap, deadline).await?;
            let mut version = self.find(&request.key)?;
            let views = self.kms.state.lock().views[self.node];
            if views.trouble == Trouble::WrapsWithPrevious {
                let number = version.number;
                let before = self.visible().into_iter().rev().find(|other| other.number < number);
                version = before.unwrap_or(version);
            }
            let Visible { number, id, material } = version;
            let mut nonce = [0; NONCE];
            self.kms.random.bytes(&mut nonce);
            let payload = Payload { msg: request.plaintext.expose(), aad: &request.aad };
            let sealed = Aes256Gcm::new(&material.into()).encrypt(&nonce.into(), payload);
            let sealed = sealed.map_err(|_| {
                BackendError::new(ErrorKind::KeyDamaged, "wrap", "the cipher has failed")
            })?;
            let payload = [&nonce[..], &sealed].concat();
            self.kms.state.lock().wrapped.insert(payload.clone(), number);
            Ok(Wrapped { key: id, payload })
        }))
    }

    fn unwrap(&self, request: Arc<UnwrapRequest>, deadline: Instant) -> Reply<'_, Secret> {
        Box::pin(self.noted(KmsCall::Unwrap, async move {
            self.call(KmsCall::Unwrap, deadline).await?;
            let Visible { material, .. } = self.find(&request.key)?;
            let damaged = || {
                BackendError::new(ErrorKind::BadCiphertext, "unwrap", "it is not what was wrapped")
            };
            let (nonce, sealed) = request.payload.split_at_checked(NONCE).ok_or_else(damaged)?;
            let nonce: [u8; NONCE] = nonce.try_into().map_err(|_| damaged())?;
            let payload = Payload { msg: sealed, aad: &request.aad };
            let opened = Aes256Gcm::new(&material.into()).decrypt(&nonce.into(), payload);
            let mut seed = opened.map_err(|_| damaged())?;
            if self.kms.state.lock().views[self.node].trouble == Trouble::UnwrapsWrongly {
                super::another(&mut seed);
            }
            Ok(Secret::from(seed))
        }))
    }
}
