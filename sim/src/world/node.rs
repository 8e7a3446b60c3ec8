//! A control-plane node: an apiserver, its configuration, and a plugin.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::history::{History, Is, millis};
use super::kms::Kms;
use super::mutant::Mutant;
use super::net::Net;
use super::plan::{Plan, Provider};
use super::plugin::{Plugin, Start, address};
use super::random::Stream;
use super::store::{Store, record};
use crate::apiserver::{Apiserver, Options};
use crate::edges::{Answer, Clock, Edges, Outcome, Watch};
use crate::limits;
use crate::time::Time;
use crate::version::Version;

/// Names the provider, until a plan changes it.
pub const PROVIDER: &str = "kms";

/// Another name for the same plugin, which a plan may change to.
pub const OTHER: &str = "other";

/// When a simulated run begins, as a date.
const BEGIN: Time = Time(Duration::from_secs(1_800_000_000));

/// How far the clock of a node may be ahead of that.
const AHEAD: Duration = Duration::from_secs(3600);

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
    /// The plan's.
    pub seed: u64,
    /// The plan's.
    pub period: Duration,
    /// What is broken.
    pub mutant: Option<Mutant>,
}

impl Shared {
    /// Which version of the key really wrapped the seed of that value.
    pub(super) fn who_wrapped(&self, value: &[u8]) -> Option<u64> {
        let record = record(value)?;
        let source = &record.encrypted_dek_source;
        let payload = kleidi::provider::envelope::parse(self.kms.scheme(), source).ok()?;
        self.kms.who_wrapped(payload)
    }
}

/// A node.
pub struct Node {
    pub(super) shared: Arc<Shared>,
    pub(super) number: usize,
    version: Version,
    /// Its own: no two nodes agree on what time it is.
    clock: Clock,
    config: Arc<Mutex<Vec<u8>>>,
    apiserver: Mutex<Option<Arc<Apiserver>>>,
    plugin: Mutex<Option<Plugin>>,
    /// Processes that were started, so that each draws something else.
    starts: Mutex<Starts>,
    pub(super) random: Stream,
}

#[derive(Default)]
struct Starts {
    plugin: u64,
    apiserver: u64,
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
        let ahead = Stream::of(shared.seed, &format!("clock {number}")).below(millis(AHEAD));
        let node = Self {
            shared: Arc::clone(shared),
            number,
            version,
            clock: Clock::at(BEGIN + Duration::from_millis(ahead)),
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
            let number = {
                let mut starts = self.starts.lock();
                starts.plugin += 1;
                starts.plugin
            };
            let (node, period, mutant) = (self.number, *period, *mutant);
            let random = Stream::of(self.shared.seed, &format!("plugin {node} {number}"));
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
            plugin.stop(self.number, Arc::clone(&self.shared.history), self.shared.mutant);
        }
    }

    /// Starts the apiserver, anew if it runs; it lists everything.
    pub async fn start_apiserver(self: Arc<Self>) {
        self.apiserver.lock().take();
        let number = {
            let mut starts = self.starts.lock();
            starts.apiserver += 1;
            starts.apiserver
        };
        let config = Arc::clone(&self.config);
        let file = move || Ok::<_, io::Error>(config.lock().clone());
        let stream = Stream::of(self.shared.seed, &format!("apiserver {} {number}", self.number));
        let edges = Edges {
            dial: Arc::new(self.shared.net.clone()),
            clock: self.clock,
            random: Arc::new(stream),
            watch: Some(Arc::new(Calls {
                node: self.number,
                history: Arc::clone(&self.shared.history),
            })),
        };
        let options = Options { version: self.version, config: Arc::new(file), reload: true };
        match Apiserver::start(edges, options).await {
            // Another one may have been started meanwhile.
            Ok(apiserver) if self.starts.lock().apiserver == number => {
                let apiserver = Arc::new(apiserver);
                *self.apiserver.lock() = Some(Arc::clone(&apiserver));
                self.list_until_well(&apiserver).await;
            }
            Ok(_) => {}
            Err(error) => self.health(Some(format!("it does not start: {error}"))),
        }
    }

    /// Another configuration, which is loaded when the apiserver looks at it next.
    pub fn configure(&self, providers: &[Provider]) {
        *self.config.lock() = configuration(self.number, providers);
    }

    pub(super) fn apiserver(&self) -> Option<Arc<Apiserver>> {
        self.apiserver.lock().clone()
    }

    /// Whether that is its apiserver, and no later one.
    pub(super) fn is(&self, apiserver: &Arc<Apiserver>) -> bool {
        self.apiserver().is_some_and(|now| Arc::ptr_eq(&now, apiserver))
    }

    /// Whether it runs.
    pub fn has_apiserver(&self) -> bool {
        self.apiserver().is_some()
    }

    pub(super) fn health(&self, error: Option<String>) {
        self.shared.history.push(Is::Health { node: self.number, error });
    }
}

/// Tells the history of calls.
struct Calls {
    node: usize,
    history: Arc<History>,
}

impl Watch for Calls {
    fn sends(&self, seed: &[u8]) {
        self.history.seeds.remember(seed);
    }

    fn called(&self, name: &str, method: &str, _: Time, took: Duration, outcome: Outcome) {
        self.history.push(Is::Called {
            node: self.node,
            provider: name.to_owned(),
            rpc: method.to_owned(),
            took_ms: millis(took),
            key_id: outcome.ok().and_then(|answer| answer.key_id().map(ToOwned::to_owned)),
            illegal: outcome.ok().and_then(illegal),
            error: outcome.err().map(crate::client::text),
        });
    }
}

/// Why kube-apiserver would not take an answer.
fn illegal(answer: Answer<'_>) -> Option<String> {
    match answer {
        Answer::Status(status) if status.healthz != "ok" => {
            Some(format!("healthz is {:?}", status.healthz))
        }
        Answer::Status(status) if status.version != "v2" => {
            Some(format!("the version is {:?}", status.version))
        }
        Answer::Status(status) => limits::key_id(&status.key_id).err().map(|e| e.to_string()),
        Answer::Encrypt(answer) => limits::key_id(&answer.key_id)
            .map_err(|error| error.to_string())
            .and_then(|()| limits::dek_source(&answer.ciphertext))
            .and_then(|()| limits::annotations(&answer.annotations))
            .err(),
        Answer::Decrypt(answer) => {
            answer.plaintext.is_empty().then(|| "the seed is empty".to_owned())
        }
    }
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
