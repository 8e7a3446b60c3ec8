//! A plugin's backend that is broken in one way.

use std::sync::Arc;
use std::time::Duration;

use kleidi::backend::{
    Backend, BackendError, ErrorKind, Key, KeySet, Reply, Scheme, UnwrapRequest, WrapRequest,
    Wrapped,
};
use kleidi::key_id::{Fingerprint, KeyId, Version};
use kleidi::secret::Secret;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Mutant;

/// How often one asks again that cannot stop.
const ASKS_AGAIN: usize = 20;

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
    was_down: bool,
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
            Mutant::NamesByLabel => {
                state.seen = Some(keys.clone());
                let current = Key { id: by_label(), ..keys.current };
                KeySet { current, older: Vec::new(), ..keys }
            }
            Mutant::FirstKeyForEver => state.seen.get_or_insert(keys).clone(),
            Mutant::NamesByMaterial => {
                let KeySet { current, older, .. } = keys.clone();
                let named = |key: Key| Key { id: by_material(&key.id), ..key };
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

fn by_label() -> KeyId {
    KeyId::new(Fingerprint::of("label", b"kleidi"), &Version::of_number(0))
}

impl Broken {
    /// What wraps in truth, if it is another key than was asked for.
    fn instead(&self) -> Option<KeyId> {
        let state = self.state.lock();
        let seen = state.seen.as_ref()?;
        match self.mutant {
            Mutant::LabelsWithLatest => Some(seen.older.first()?.id.clone()),
            Mutant::NamesByLabel => Some(seen.current.id.clone()),
            _ => None,
        }
    }

    /// Says that a call has failed, when it does.
    async fn fail(&self, error: BackendError) -> BackendError {
        if self.mutant == Mutant::LeaksTasks {
            tokio::spawn(std::future::pending::<()>());
        }
        if self.mutant == Mutant::IgnoresDeadlines && error.kind == ErrorKind::Timeout {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        error
    }

    /// What is given out of a seed that was unwrapped.
    #[allow(clippy::panic, reason = "a mutant that panics has to")]
    fn given_out(&self, seed: Secret) -> Secret {
        let unwrapped = {
            let mut state = self.state.lock();
            state.unwrapped += 1;
            state.unwrapped
        };
        match self.mutant {
            Mutant::Panics if unwrapped.is_multiple_of(5) => panic!("the fifth seed"),
            Mutant::DamagesSeeds if unwrapped.is_multiple_of(3) => {
                let mut bytes = seed.into_exposed();
                if let Some(first) = bytes.first_mut() {
                    *first ^= 1;
                }
                Secret::from(bytes)
            }
            _ => seed,
        }
    }

    /// Every key that was seen, for whoever does not know which one it was.
    fn all_seen(&self) -> Vec<KeyId> {
        let state = self.state.lock();
        state.seen.iter().flat_map(KeySet::iter).map(|key| key.id.clone()).collect()
    }
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
            if self.mutant == Mutant::StaysDown && self.state.lock().was_down {
                return Err(BackendError::new(ErrorKind::Unavailable, "look", "it was away once"));
            }
            match self.inner.observe(deadline).await {
                Ok(keys) => Ok(self.see(keys)),
                Err(error) => {
                    let mut state = self.state.lock();
                    state.was_down = true;
                    match &state.seen {
                        Some(seen) if self.mutant == Mutant::SwallowsErrors => Ok(seen.clone()),
                        _ => Err(error),
                    }
                }
            }
        })
    }

    fn wrap(&self, request: WrapRequest, deadline: Instant) -> Reply<'_, Wrapped> {
        Box::pin(async move {
            let WrapRequest { key, plaintext, mut aad } = request;
            aad.extend(self.another_key());
            if self.mutant == Mutant::TellsSeeds {
                let seed = plaintext.expose();
                tracing::debug!(?seed, "to be wrapped");
            }
            let asked = self.instead().unwrap_or_else(|| key.clone());
            let request = WrapRequest { key: asked, plaintext, aad };
            match self.inner.wrap(request, deadline).await {
                Ok(wrapped) => Ok(Wrapped { key, ..wrapped }),
                Err(error) => Err(self.fail(error).await),
            }
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
            let mut asked = vec![request.key.clone()];
            if self.mutant == Mutant::NamesByLabel {
                asked = self.all_seen();
            }
            if self.mutant == Mutant::AsksAgain {
                for _ in 0..ASKS_AGAIN {
                    let _ = self.inner.unwrap(Arc::new(request.clone()), deadline).await;
                }
            }
            let reason = "there is no such key";
            let mut outcome = Err(BackendError::new(ErrorKind::KeyNotFound, "use the key", reason));
            for key in asked {
                let request = Arc::new(UnwrapRequest { key, ..request.clone() });
                outcome = self.inner.unwrap(request, deadline).await;
                if outcome.is_ok() {
                    break;
                }
            }
            match outcome {
                Ok(seed) => Ok(self.given_out(seed)),
                Err(error) => Err(self.fail(error).await),
            }
        })
    }
}
