//! The product on a node: its real server, service and provider, on a simulated socket and KMS.

use std::sync::Arc;
use std::time::Duration;

use kleidi::backend::Backend;
use kleidi::provider::{Health, Provider};
use kleidi::random::Random;
use kleidi::server::{Options, serve};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::history::{History, Is, millis};
use super::kms::{Kms, Process};
use super::mutant::{Broken, Mutant, spoiled};
use super::net::Net;
use super::random::Stream;

/// How long a plugin that is asked to end lets its calls end.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// A plugin's process.
pub struct Plugin {
    address: Vec<u8>,
    net: Net,
    kms: Arc<dyn Process>,
    monitor: JoinHandle<()>,
    server: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
}

/// How one is started.
pub struct Start<'a> {
    /// Sockets.
    pub net: &'a Net,
    /// The KMS.
    pub kms: &'a Arc<dyn Kms>,
    /// On which node.
    pub node: usize,
    /// How often it looks at the KMS.
    pub period: Duration,
    /// What it draws.
    pub random: Stream,
    /// What is broken.
    pub mutant: Option<Mutant>,
    /// How many processes of the node were started before.
    pub number: u64,
}

impl Plugin {
    /// Starts one.
    #[must_use]
    pub fn start(start: Start<'_>) -> Self {
        let Start { net, kms, node, period, random, mutant, number } = start;
        let address = address(node);
        let random: Arc<dyn Random> = Arc::new(random);
        let kms = Arc::clone(kms).process(node, Arc::clone(&random), mutant);
        let mut backend: Arc<dyn Backend> = Arc::clone(&kms) as _;
        if let Some(mutant) = mutant.filter(|mutant| mutant.is_of_backend()) {
            backend = Arc::new(Broken::new(backend, mutant, node, number));
        }
        let health = Health { period, stale_after: period * 3 };
        let (provider, monitor) = Provider::new(Arc::clone(&backend), random, health);
        let monitor = tokio::spawn(monitor.run());
        let (stop, stopped) = oneshot::channel::<()>();
        let options = Options { any_authority: true, grace: GRACE };
        let listener = net.listen(&address);
        let server = tokio::spawn(async move {
            let told = async {
                let _ = stopped.await;
            };
            match mutant.filter(|mutant| mutant.is_of_service()) {
                Some(mutant) => spoiled::serve(listener, provider, backend, told, mutant).await,
                None => {
                    serve(listener, provider, options, told).await;
                }
            }
        });
        Self { address, net: net.clone(), kms, monitor, server, stop: Some(stop) }
    }

    /// Asks it to end; it does so by itself.
    pub fn stop(mut self, node: usize, history: Arc<History>, mutant: Option<Mutant>) {
        self.net.close(&self.address, false);
        let (stop, asked) = (self.stop.take(), Instant::now());
        tokio::spawn(async move {
            drop(stop);
            let _ = (&mut self.server).await;
            history.push(Is::Ended { node, took_ms: millis(asked.elapsed()) });
            if mutant == Some(Mutant::RemovesForeignSocket) {
                tokio::time::sleep(GRACE).await;
                self.net.close(&self.address, false);
            }
        });
    }
}

impl Drop for Plugin {
    /// Nothing of it is left, as if it had been killed; nobody ends what it began.
    fn drop(&mut self) {
        self.kms.die();
        self.monitor.abort();
        if !self.server.is_finished() {
            self.server.abort();
            self.net.close(&self.address, true);
            self.net.cut(&self.address);
        }
    }
}

/// The address of a node's plugin.
#[must_use]
pub fn address(node: usize) -> Vec<u8> {
    format!("/run/kleidi/{node}.sock").into_bytes()
}
