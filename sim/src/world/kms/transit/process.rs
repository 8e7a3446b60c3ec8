//! The product's client of transit, as a plugin's process has it.

use std::sync::Arc;

use kleidi::backend::transit::{Auth, Settings, Tls, Transit};
use kleidi::backend::{Backend, KeySet, Reply, Scheme, UnwrapRequest, WrapRequest, Wrapped};
use kleidi::random::Random;
use kleidi::secret::Secret;
use tokio::time::Instant;

use super::naive::Naive;
use super::wire::{Wire, addresses};
use super::{Cluster, KEY};
use crate::latest::Latest;
use crate::world::history::KmsCall;
use crate::world::kms::Process;
use crate::world::mutant::Mutant;

/// The client, and a note of each of its calls.
pub(super) struct Client {
    backend: Arc<dyn Backend>,
    wire: Arc<Wire>,
}

impl Client {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        node: usize,
        random: Arc<dyn Random>,
        mutant: Option<Mutant>,
    ) -> Self {
        let wire = Arc::new(Wire { cluster, node, dead: Arc::new(Latest::new(false)) });
        let settings = Settings {
            addresses: addresses(),
            tls: Tls::default(),
            namespace: None,
            auth_namespace: None,
            mount: "transit".to_owned(),
            key: KEY.to_owned(),
            auth: Auth::AppRole {
                mount: "approle".to_owned(),
                role_id_file: "role_id".into(),
                secret_id_file: "secret_id".into(),
            },
            foreign: Vec::new(),
        };
        let backend: Arc<dyn Backend> = match mutant.filter(|mutant| mutant.is_of_transit()) {
            Some(mutant) => Arc::new(Naive::new(Arc::clone(&wire), mutant)),
            None => Arc::new(Transit::over(Arc::clone(&wire) as _, settings, random)),
        };
        Self { backend, wire }
    }

    async fn noted<T>(
        &self,
        what: KmsCall,
        reply: Reply<'_, T>,
    ) -> Result<T, kleidi::backend::BackendError> {
        let outcome = reply.await;
        if !*self.wire.dead.get() {
            self.wire.cluster.history.kms(self.wire.node, what, &outcome);
        }
        outcome
    }
}

impl Process for Client {
    fn die(&self) {
        self.wire.dead.set(true);
    }
}

impl Backend for Client {
    fn scheme(&self) -> Scheme {
        self.backend.scheme()
    }

    fn observe(&self, deadline: Instant) -> Reply<'_, KeySet> {
        Box::pin(self.noted(KmsCall::Observe, self.backend.observe(deadline)))
    }

    fn wrap(&self, request: WrapRequest, deadline: Instant) -> Reply<'_, Wrapped> {
        Box::pin(self.noted(KmsCall::Wrap, self.backend.wrap(request, deadline)))
    }

    fn unwrap(&self, request: Arc<UnwrapRequest>, deadline: Instant) -> Reply<'_, Secret> {
        Box::pin(self.noted(KmsCall::Unwrap, self.backend.unwrap(request, deadline)))
    }
}
