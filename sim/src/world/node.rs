//! A control-plane node: an apiserver, its configuration, and a plugin.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use kleidi::key_id::{Fingerprint, KeyId};
use parking_lot::Mutex;
use tonic::metadata::MetadataMap;

use super::history::{History, Is};
use super::kms::Kms;
use super::mutant::Mutant;
use super::net::Net;
use super::plan::{Plan, Provider};
use super::plugin::{Plugin, Start, address};
use super::random::Stream;
use super::store::{Store, Stored, key, record, shows};
use crate::apiserver::{Apiserver, Options};
use crate::config::GroupResource;
use crate::edges::{Clock, Edges, Outcome, Watch};
use crate::time::Time;
use crate::version::Version;

/// Bytes of an object.
const OBJECT: usize = 48;

/// Names the provider, until a plan changes it.
pub const PROVIDER: &str = "kms";

/// What all nodes share.
pub struct Shared {
    /// Sockets.
    pub net: Net,
    /// The KMS of all.
    pub kms: Arc<dyn Kms>,
    /// Objects.
    pub store: Arc<Store>,
    /// What has happened.
    pub history: Arc<History>,
    /// The time of all; each starts with the run.
    pub clock: Clock,
    /// The plan's.
    pub seed: u64,
    /// The plan's.
    pub period: Duration,
    /// What is broken.
    pub mutant: Option<Mutant>,
}

/// A node.
pub struct Node {
    shared: Arc<Shared>,
    number: usize,
    version: Version,
    config: Arc<Mutex<Vec<u8>>>,
    apiserver: Mutex<Option<Arc<Apiserver>>>,
    plugin: Mutex<Option<Plugin>>,
    /// Processes that were started, so that each draws something else.
    starts: Mutex<u64>,
    random: Stream,
}

impl Node {
    /// With a plugin that is started, and an apiserver that is not.
    pub fn new(shared: &Arc<Shared>, number: usize, plan: &Plan) -> Result<Arc<Self>, String> {
        let versions = plan.versions.len();
        let version = match plan.versions.get(number % versions.max(1)) {
            Some(version) => version.parse()?,
            None => Version::default(),
        };
        let providers = [Provider::Kms(PROVIDER.to_owned()), Provider::Identity];
        let node = Self {
            shared: Arc::clone(shared),
            number,
            version,
            config: Arc::new(Mutex::new(configuration(number, &providers))),
            apiserver: Mutex::default(),
            plugin: Mutex::default(),
            starts: Mutex::default(),
            random: Stream::of(shared.seed, &format!("client {number}")),
        };
        node.start_plugin();
        Ok(Arc::new(node))
    }

    /// Starts the plugin, unless it runs.
    pub fn start_plugin(&self) {
        let mut plugin = self.plugin.lock();
        if plugin.is_none() {
            let Shared { net, kms, period, mutant, .. } = &*self.shared;
            let random = self.stream("plugin");
            let (number, mutant) = (*self.starts.lock(), *mutant);
            let (node, period) = (self.number, *period);
            let start = Start { net, kms, node, period, random, mutant, number };
            *plugin = Some(Plugin::start(start));
        }
    }

    /// Kills the plugin.
    pub fn kill_plugin(&self) {
        drop(self.plugin.lock().take());
    }

    /// Asks the plugin to end.
    pub fn stop_plugin(&self) {
        if let Some(plugin) = self.plugin.lock().take() {
            plugin.stop(self.shared.mutant);
        }
    }

    /// Starts the apiserver, anew if it runs.
    pub async fn start_apiserver(self: Arc<Self>) {
        self.apiserver.lock().take();
        let config = Arc::clone(&self.config);
        let file = move || Ok::<_, io::Error>(config.lock().clone());
        let edges = Edges {
            dial: Arc::new(self.shared.net.clone()),
            clock: self.shared.clock,
            random: Arc::new(self.stream("apiserver")),
            watch: Some(Arc::new(Calls {
                node: self.number,
                history: Arc::clone(&self.shared.history),
            })),
        };
        let options = Options { version: self.version, config: Arc::new(file), reload: true };
        match Apiserver::start(edges, options).await {
            Ok(apiserver) => *self.apiserver.lock() = Some(Arc::new(apiserver)),
            Err(error) => self.health(Some(format!("it does not start: {error}"))),
        }
    }

    /// Another configuration, which is loaded when the apiserver looks at it next.
    pub fn configure(&self, providers: &[Provider]) {
        *self.config.lock() = configuration(self.number, providers);
    }

    fn stream(&self, what: &str) -> Stream {
        let mut starts = self.starts.lock();
        *starts += 1;
        Stream::of(self.shared.seed, &format!("{what} {} {starts}", self.number))
    }

    fn apiserver(&self) -> Option<Arc<Apiserver>> {
        self.apiserver.lock().clone()
    }

    /// Whether it runs.
    pub fn has_apiserver(&self) -> bool {
        self.apiserver().is_some()
    }

    /// Whether its apiserver writes under the key of that fingerprint, as an operator sees by writing.
    pub fn wraps_with(&self, fingerprint: Option<Fingerprint>) -> bool {
        let Some(apiserver) = self.apiserver() else { return false };
        let value =
            apiserver.write(&secrets(), b"is it under the new key?", b"/registry/secrets/a/b");
        let key_id = value.ok().and_then(|value| record(&value)).map(|record| record.key_id);
        let id = key_id.and_then(|key_id| key_id.parse::<KeyId>().ok());
        id.is_some_and(|id| Some(id.fingerprint()) == fingerprint)
    }

    fn health(&self, error: Option<String>) {
        self.shared.history.push(Is::Health { node: self.number, error });
    }

    /// Asks the apiserver how it is.
    pub async fn look(&self) {
        let error = match self.apiserver() {
            Some(apiserver) => apiserver.health().await.err(),
            None => Some("the apiserver does not run".to_owned()),
        };
        self.health(error);
    }

    /// Writes an object with new content.
    pub fn write(&self, object: usize) {
        let mut content = vec![0; OBJECT];
        self.random.bytes(&mut content);
        let revision = self.shared.store.get(object).map_or(0, |stored| stored.revision);
        self.update(object, revision, content);
    }

    /// Writes an object, unless it is not what it was at that revision any more.
    fn update(&self, object: usize, revision: u64, content: Vec<u8>) {
        let Some(apiserver) = self.apiserver() else { return };
        let key = key(object);
        match apiserver.write(&secrets(), &content, key.as_bytes()) {
            Ok(_) if self.shared.mutant == Some(Mutant::StoresInClear) => {
                self.put(object, revision, &content.clone(), content);
            }
            Ok(value) => self.put(object, revision, &value, content),
            Err(error) => self.wrote(object, None, &[], false, Some(error)),
        }
    }

    fn put(&self, object: usize, revision: u64, value: &[u8], content: Vec<u8>) {
        let shows = shows(value, &content);
        let stored = self.shared.store.put(object, revision, value.to_vec(), content);
        self.wrote(object, stored, value, shows, None);
    }

    fn wrote(
        &self,
        object: usize,
        revision: Option<u64>,
        value: &[u8],
        shows: bool,
        error: Option<String>,
    ) {
        let wrapped_by = self.who_wrapped(value);
        let key_id = record(value).map(|record| record.key_id);
        let named = wrapped_by.and_then(|version| self.shared.kms.id_of(version));
        let truly = key_id.is_some() && named.map(|id| id.to_string()) == key_id;
        let node = self.number;
        let history = &self.shared.history;
        history.push(Is::Wrote { node, object, revision, key_id, wrapped_by, truly, shows, error });
    }

    /// Reads an object: its revision and what it is, if that worked.
    pub async fn read(&self, object: usize) -> Option<(u64, Vec<u8>)> {
        let (apiserver, stored) = (self.apiserver()?, self.shared.store.get(object)?);
        let Stored { revision, value, truth, tampered } = stored;
        let key = key(object);
        let read = apiserver.read(&secrets(), &value, key.as_bytes(), &MetadataMap::new()).await;
        // One that was restarted meanwhile has answered nobody.
        if !self.apiserver().is_some_and(|now| Arc::ptr_eq(&now, &apiserver)) {
            return None;
        }
        let wrapped_by = self.who_wrapped(&value);
        let usable = wrapped_by.is_none_or(|version| self.shared.kms.is_usable(version));
        let mixed = self.shared.mutant == Some(Mutant::MixesObjects) && object == 1;
        let (same, error, content) = match read {
            Ok(_) if mixed => (false, None, None),
            Ok(read) => (read.plaintext == truth, None, Some((revision, read.plaintext))),
            Err(error) => (false, Some(error), None),
        };
        self.shared.history.push(Is::Read {
            node: self.number,
            object,
            revision,
            same,
            tampered,
            wrapped_by,
            usable,
            error,
        });
        content
    }

    /// Reads so many objects, one after another.
    pub async fn read_all(&self, objects: usize) {
        for object in 0..objects {
            self.read(object).await;
        }
    }

    /// Reads and writes an object as it is, so that it is under the current key.
    pub async fn rewrite(&self, object: usize) {
        if let Some((revision, content)) = self.read(object).await {
            self.update(object, revision, content);
        }
    }

    fn who_wrapped(&self, value: &[u8]) -> Option<u64> {
        let record = record(value)?;
        let scheme = self.shared.kms.scheme();
        let payload =
            kleidi::provider::envelope::parse(scheme, &record.encrypted_dek_source).ok()?;
        self.shared.kms.who_wrapped(payload)
    }

    /// A client of its apiserver, for ever.
    pub async fn use_it(self: Arc<Self>, plan: Arc<Plan>) {
        let least = Duration::from_millis(plan.think_ms.div_ceil(64).max(1));
        loop {
            tokio::time::sleep(self.random.time(least, Duration::from_millis(plan.think_ms))).await;
            let object = self.random.index(plan.objects);
            match self.random.below(20) {
                0 => self.look().await,
                1 => self.read_all(plan.objects).await,
                2..=9 => self.write(object),
                _ => {
                    self.read(object).await;
                }
            }
        }
    }
}

/// Tells the history of calls.
struct Calls {
    node: usize,
    history: Arc<History>,
}

impl Watch for Calls {
    fn called(&self, name: &str, method: &str, _: Time, took: Duration, outcome: Outcome) {
        self.history.push(Is::Called {
            node: self.node,
            provider: name.to_owned(),
            rpc: method.to_owned(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            key_id: outcome.ok().flatten().map(ToOwned::to_owned),
            error: outcome.err().map(crate::client::text),
        });
    }
}

fn secrets() -> GroupResource {
    GroupResource::parse("secrets")
}

/// The EncryptionConfiguration of a node.
fn configuration(node: usize, providers: &[Provider]) -> Vec<u8> {
    let endpoint = format!("unix://{}", String::from_utf8_lossy(&address(node)));
    let mut text = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
                    resources:\n- resources: [secrets]\n  providers:\n"
        .to_owned();
    for provider in providers {
        text += "  - ";
        text += &match provider {
            Provider::Kms(name) => {
                ["kms: {apiVersion: v2, name: ", name, ", endpoint: '", &endpoint, "'}\n"].concat()
            }
            Provider::Identity => "identity: {}\n".to_owned(),
        };
    }
    text.into_bytes()
}
