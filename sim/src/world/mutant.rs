//! Broken plugins, apiservers and sockets: each has to be caught by the judge, or the judge is of no use.

use std::sync::Arc;

use kleidi::backend::{
    Backend, BackendError, ErrorKind, KeySet, Reply, Scheme, UnwrapRequest, WrapRequest, Wrapped,
};
use kleidi::key_id::{KeyId, Version};
use kleidi::secret::Secret;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::generate::Profile;
use super::judge::Invariant;

/// What is broken, in every plugin of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Each node has a key of its own under one key_id, as where each makes one by its label (the Go kleidi).
    KeyPerNode,
    /// The key is another one after a restart, under the same key_id (the Go kleidi).
    KeyAnewAtStart,
    /// Wraps with the version before and says that it was the latest (the Go kleidi).
    LabelsWithLatest,
    /// Unwraps with the current key alone (the Go kleidi).
    CurrentKeyAlone,
    /// Tells the key that it saw first for ever.
    FirstKeyForEver,
    /// Says that all is well when the KMS cannot be used.
    SwallowsErrors,
    /// Names a key by its material alone, so that one that comes back has its old key_id.
    NamesByMaterial,
    /// Tries again without an end to it.
    TriesWithoutEnd,
    /// A task stays behind with each call.
    LeaksTasks,
    /// Gives out a seed with one bit wrong, now and then.
    DamagesSeeds,
    /// What is stored is the object itself.
    StoresInClear,
    /// The apiserver takes one object for another.
    MixesObjects,
    /// A process that ends removes the socket of the one that has begun meanwhile.
    RemovesForeignSocket,
    /// Wraps with whatever version transit has, and says that it was the one of the last look.
    LabelsWithObserved,
    /// Asks transit for a version, and does not look which one has wrapped.
    IgnoresTheAnswer,
    /// Takes one answer in a list for another.
    MixesAnswers,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::KeyPerNode,
        Self::KeyAnewAtStart,
        Self::LabelsWithLatest,
        Self::CurrentKeyAlone,
        Self::FirstKeyForEver,
        Self::SwallowsErrors,
        Self::NamesByMaterial,
        Self::TriesWithoutEnd,
        Self::LeaksTasks,
        Self::DamagesSeeds,
        Self::StoresInClear,
        Self::MixesObjects,
        Self::RemovesForeignSocket,
        Self::LabelsWithObserved,
        Self::IgnoresTheAnswer,
        Self::MixesAnswers,
    ];

    /// Whether it is a client of transit that is broken.
    #[must_use]
    pub fn is_of_transit(self) -> bool {
        matches!(self, Self::LabelsWithObserved | Self::IgnoresTheAnswer | Self::MixesAnswers)
    }

    /// In which profile it is looked for with this seed.
    #[must_use]
    pub fn profile(self, seed: u64) -> Profile {
        if self.is_of_transit() { Profile::Transit } else { Profile::of(seed) }
    }

    /// What has to catch it: one of these.
    #[must_use]
    pub fn caught_by(self) -> &'static [Invariant] {
        use Invariant::{L1, L2, L3, S1, S2, S3, S4, S7, S8, S11, S12};
        match self {
            Self::KeyPerNode | Self::CurrentKeyAlone | Self::DamagesSeeds | Self::MixesAnswers => {
                &[S7, L2]
            }
            Self::KeyAnewAtStart => &[S7, L2, S3],
            Self::LabelsWithLatest | Self::LabelsWithObserved | Self::IgnoresTheAnswer => &[S3],
            Self::FirstKeyForEver => &[L3],
            Self::SwallowsErrors => &[S8],
            Self::NamesByMaterial => &[S4],
            Self::TriesWithoutEnd => &[S11],
            Self::LeaksTasks => &[S12],
            Self::StoresInClear => &[S2],
            Self::MixesObjects => &[S1],
            Self::RemovesForeignSocket => &[L1],
        }
    }
}

/// A plugin's backend, broken.
pub struct Broken {
    inner: Arc<dyn Backend>,
    mutant: Mutant,
    node: usize,
    /// Which start of the process it is.
    start: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seen: Option<KeySet>,
    unwrapped: u64,
}

impl Broken {
    /// Breaks it.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, mutant: Mutant, node: usize, start: u64) -> Self {
        Self { inner, mutant, node, start, state: Mutex::default() }
    }

    /// What is added to what a payload is bound to: as if it were another key's.
    fn another_key(&self) -> Vec<u8> {
        match self.mutant {
            Mutant::KeyPerNode => format!("key of node {}", self.node).into_bytes(),
            Mutant::KeyAnewAtStart => format!("key of start {}", self.start).into_bytes(),
            _ => Vec::new(),
        }
    }

    fn see(&self, keys: KeySet) -> KeySet {
        let mut state = self.state.lock();
        match self.mutant {
            Mutant::FirstKeyForEver => state.seen.get_or_insert(keys).clone(),
            Mutant::NamesByMaterial => {
                let KeySet { current, older, .. } = keys.clone();
                let named = |mut key: kleidi::backend::Key| {
                    key.id = by_material(&key.id);
                    key
                };
                KeySet {
                    current: named(current),
                    older: older.into_iter().map(named).collect(),
                    ..keys
                }
            }
            _ => {
                state.seen = Some(keys.clone());
                keys
            }
        }
    }
}

fn by_material(id: &KeyId) -> KeyId {
    KeyId::new(id.fingerprint(), &Version::of_number(0))
}

impl Backend for Broken {
    fn scheme(&self) -> Scheme {
        self.inner.scheme()
    }

    fn observe(&self, deadline: Instant) -> Reply<'_, KeySet> {
        Box::pin(async move {
            if self.mutant == Mutant::TriesWithoutEnd {
                for _ in 0..40 {
                    if self.inner.observe(deadline).await.is_ok() {
                        break;
                    }
                }
            }
            match self.inner.observe(deadline).await {
                Ok(keys) => Ok(self.see(keys)),
                Err(error) => match &self.state.lock().seen {
                    Some(seen) if self.mutant == Mutant::SwallowsErrors => Ok(seen.clone()),
                    _ => Err(error),
                },
            }
        })
    }

    fn wrap(&self, request: WrapRequest, deadline: Instant) -> Reply<'_, Wrapped> {
        Box::pin(async move {
            let WrapRequest { key, plaintext, mut aad } = request;
            aad.extend(self.another_key());
            let mut asked = key.clone();
            if self.mutant == Mutant::LabelsWithLatest
                && let Some(seen) = &self.state.lock().seen
                && let Some(before) = seen.older.first()
            {
                asked = before.id.clone();
            }
            if self.mutant == Mutant::LeaksTasks {
                tokio::spawn(std::future::pending::<()>());
            }
            let request = WrapRequest { key: asked, plaintext, aad };
            let wrapped = self.inner.wrap(request, deadline).await?;
            Ok(Wrapped { key, ..wrapped })
        })
    }

    fn unwrap(&self, request: Arc<UnwrapRequest>, deadline: Instant) -> Reply<'_, Secret> {
        Box::pin(async move {
            let mut request = UnwrapRequest::clone(&request);
            request.aad.extend(self.another_key());
            let current = self.state.lock().seen.as_ref().map(|seen| seen.current.id.clone());
            if self.mutant == Mutant::CurrentKeyAlone && current.is_some_and(|id| id != request.key)
            {
                let reason = "it is not the current one";
                return Err(BackendError::new(ErrorKind::BadCiphertext, "use the key", reason));
            }
            let seed = self.inner.unwrap(Arc::new(request), deadline).await?;
            let unwrapped = {
                let mut state = self.state.lock();
                state.unwrapped += 1;
                state.unwrapped
            };
            if self.mutant == Mutant::DamagesSeeds && unwrapped.is_multiple_of(3) {
                let mut bytes = seed.into_exposed();
                if let Some(first) = bytes.first_mut() {
                    *first ^= 1;
                }
                return Ok(Secret::from(bytes));
            }
            Ok(seed)
        })
    }
}
