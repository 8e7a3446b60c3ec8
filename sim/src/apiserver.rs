//! An apiserver, as far as its plugins see it: it loads an EncryptionConfiguration, polls, writes with the
//! first provider, reads with all, says whether they are healthy, and loads the file again when it changes.
//!
//! ```text
//! generation   all that is made of one file
//!   plugin     one `kms` entry at work
//! reload       the next generation, when the file has changed
//! ```
//!
//! What it needs of the world is in [`crate::edges`]; it runs on tokio, and on a paused clock too.

mod generation;
mod plugin;
mod reload;

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::config::{self, ConfigError, GroupResource};
use crate::edges::Edges;
use crate::envelope::Read;
use crate::reload::Reload;
use crate::version::Version;
use generation::Generation;

/// Gives the bytes of the EncryptionConfiguration, each time anew.
pub type ConfigFile = Arc<dyn Fn() -> io::Result<Vec<u8>> + Send + Sync>;

/// How an apiserver is started.
#[derive(Clone)]
pub struct Options {
    /// Whose ways.
    pub version: Version,
    /// `--encryption-provider-config`
    pub config: ConfigFile,
    /// `--encryption-provider-config-automatic-reload`
    pub reload: bool,
}

/// Why one has not started. A plugin that does not answer is no reason.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file cannot be read.
    #[error("cannot read the EncryptionConfiguration: {0}")]
    File(#[from] io::Error),
    /// The file is refused, as kube-apiserver would.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// A running one.
pub struct Apiserver {
    shared: Arc<Shared>,
    reloads: Option<JoinHandle<()>>,
}

struct Shared {
    edges: Edges,
    options: Options,
    now: RwLock<Arc<Generation>>,
}

impl Apiserver {
    /// Starts one: each plugin has been looked at once when this returns, whatever it answered.
    pub async fn start(edges: Edges, options: Options) -> Result<Self, StartError> {
        let file = (options.config)()?;
        let plan = config::load(&file, options.version, options.reload)?;
        let reload = options.reload.then(|| Reload::new(options.version, &file));
        let now = Generation::start(&edges, options.version, plan).await;
        let shared = Arc::new(Shared { edges, options, now: RwLock::new(Arc::new(now)) });
        let reloads = reload.map(|reload| tokio::spawn(reload::watch(Arc::clone(&shared), reload)));
        Ok(Self { shared, reloads })
    }

    /// `/healthz/kms-providers`: the error is the body behind `internal server error: `.
    pub async fn health(&self) -> Result<(), String> {
        self.shared.now().health().await
    }

    /// Encrypts an object's bytes for the place `key` in etcd. No plugin is ever called.
    pub fn write(
        &self,
        resource: &GroupResource,
        object: &[u8],
        key: &[u8],
    ) -> Result<Vec<u8>, String> {
        self.shared.now().write(resource, object, key)
    }

    /// Decrypts a value of the place `key` in etcd. `metadata` goes with a Decrypt, should one be needed.
    pub async fn read(
        &self,
        resource: &GroupResource,
        value: &[u8],
        key: &[u8],
        metadata: &MetadataMap,
    ) -> Result<Read, String> {
        self.shared.now().read(resource, value, key, metadata).await
    }

    /// Decrypts pairs of key and value as the list that fills an apiserver's cache when it starts: as many at
    /// a time, and with the metadata, of its version.
    pub async fn list(
        &self,
        resource: &GroupResource,
        pairs: &[(String, Vec<u8>)],
    ) -> Vec<Result<Read, String>> {
        let version = self.shared.options.version;
        let permits = Arc::new(Semaphore::new(version.decrypts_at_once()));
        let (name, value) = version.leaked_by_a_list();
        let mut metadata = MetadataMap::new();
        metadata.insert(name, MetadataValue::from_static(value));
        let mut reads = Vec::new();
        for (key, value) in pairs {
            let (key, value) = (key.clone(), value.clone());
            let (now, permits) = (self.shared.now(), Arc::clone(&permits));
            let (resource, metadata) = (resource.clone(), metadata.clone());
            reads.push(tokio::spawn(async move {
                let _permit = permits.acquire().await;
                now.read(&resource, &value, key.as_bytes(), &metadata).await
            }));
        }
        let mut all = Vec::new();
        for read in reads {
            all.push(read.await.unwrap_or_else(|error| Err(error.to_string())));
        }
        all
    }

    /// Returns once it is healthy. Until then kube-apiserver asks itself, as soon as it serves, each 100 ms,
    /// so that plugins are looked at every 3 s (`controlplane/controller/kubernetesservice`, which waits for
    /// `/readyz`).
    pub async fn until_ready(&self) {
        while self.health().await.is_err() {
            sleep(ASK_ITSELF).await;
        }
    }
}

/// How often an apiserver asks itself whether it is ready.
const ASK_ITSELF: Duration = Duration::from_millis(100);

impl Drop for Apiserver {
    fn drop(&mut self) {
        if let Some(reloads) = &self.reloads {
            reloads.abort();
        }
    }
}

impl Shared {
    fn now(&self) -> Arc<Generation> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }
}
