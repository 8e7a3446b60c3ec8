//! The model in the place of the apiserver, over cables in memory, on a clock that jumps to the next timer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kleidi_harness::Stored;
use kleidi_sim::apiserver::{Apiserver, Options};
use kleidi_sim::config::GroupResource;
use kleidi_sim::edges::{Clock, Dial, Dialing, Edges, Random, Stream};
use kleidi_sim::time::Time;
use kleidi_sim::version::Version;
use tonic::metadata::MetadataMap;

use crate::plugin::Plugin;
use crate::recording::Recording;
use crate::script::{LATE, STEADY, Scenario};
use crate::world::configuration;
use crate::{CHANGED_AT, DIFFERENT_SEEDS, HEALTH_FROM, PROVIDER, READ_AT};

const SOCKET: &str = "/p/kms.sock";

/// A plugin behind every address.
struct Cables(Arc<Plugin>);

impl Dial for Cables {
    fn dial(&self, address: &[u8]) -> Dialing {
        assert!(address.starts_with(b"/p/"));
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(Arc::clone(&self.0).serve(far));
        Box::pin(std::future::ready(Ok(Box::new(near) as Box<dyn Stream>)))
    }
}

/// Numbers that are the same each time (SplitMix64).
struct Numbers(Mutex<u64>);

impl Random for Numbers {
    fn fill(&self, bytes: &mut [u8]) -> std::io::Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in bytes.chunks_mut(8) {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut number = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(number ^ (number >> 31)).to_be_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// A model and what it needs.
struct World {
    version: Version,
    edges: Edges,
    file: Arc<Mutex<String>>,
}

impl World {
    fn new(version: &str, plugin: &Arc<Plugin>) -> Self {
        let (minor, _) = version.rsplit_once('.').unwrap();
        let file = Arc::new(Mutex::new(file("3s")));
        Self { version: minor.parse().unwrap(), edges: edges(plugin), file }
    }

    async fn start(&self, reload: bool) -> Apiserver {
        let file = Arc::clone(&self.file);
        let config = Arc::new(move || Ok(file.lock().unwrap().clone().into_bytes()));
        let options = Options { version: self.version, config, reload };
        Apiserver::start(self.edges.clone(), options).await.unwrap()
    }
}

/// A world in which there is nothing but a plugin.
pub fn edges(plugin: &Arc<Plugin>) -> Edges {
    Edges {
        dial: Arc::new(Cables(Arc::clone(plugin))),
        clock: Clock::at(Time(Duration::from_secs(1_800_000_000))),
        random: Arc::new(Numbers(Mutex::new(7))),
        watch: None,
    }
}

fn file(timeout: &str) -> String {
    configuration("secrets", &[(PROVIDER, SOCKET.as_ref())], timeout)
}

/// Runs on a clock that jumps to the next timer when there is nothing else to do.
pub fn paused<T>(does: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(does)
}

/// Until so many seconds after the plugin's first Status.
async fn until(plugin: &Plugin, seconds: u64) {
    let first = plugin.first_status().expect("the model asks Status when it starts");
    tokio::time::sleep_until(first + Duration::from_secs(seconds)).await;
}

/// A scenario that needs only a plugin.
pub fn poll(version: &str, scenario: &Scenario) -> Recording {
    paused(async {
        let plugin = Plugin::new(scenario.script, SOCKET);
        let apiserver = World::new(version, &plugin).start(false).await;
        if scenario.name == LATE.name {
            apiserver.until_ready().await;
        }
        until(&plugin, scenario.lasts).await;
        plugin.recording(version, scenario.name, "", scenario.lasts)
    })
}

/// A start with Secrets in etcd.
pub fn start(version: &str) -> Recording {
    paused(async {
        let plugin = Plugin::new(STEADY, SOCKET);
        let stored = values(version).await;
        let apiserver = World::new(version, &plugin).start(false).await;
        for read in apiserver.list(&secrets(), &stored).await {
            read.unwrap();
        }
        until(&plugin, 15).await;
        plugin.recording(version, "start", "", 15)
    })
}

/// Health is looked at each second.
pub fn health(version: &str) -> Recording {
    paused(async {
        let plugin = Plugin::new(STEADY, SOCKET);
        let apiserver = World::new(version, &plugin).start(false).await;
        for second in HEALTH_FROM..250 {
            until(&plugin, second).await;
            apiserver.health().await.unwrap();
        }
        until(&plugin, 250).await;
        plugin.recording(version, "health", "", 250)
    })
}

/// The file is replaced; later Secrets are read.
pub fn reload(version: &str) -> Recording {
    paused(async {
        let plugin = Plugin::new(STEADY, SOCKET);
        let stored = values(version).await;
        let world = World::new(version, &plugin);
        let apiserver = world.start(true).await;
        until(&plugin, CHANGED_AT).await;
        *world.file.lock().unwrap() = file("4s");
        until(&plugin, READ_AT).await;
        for (key, value) in &stored[..2] {
            let none = MetadataMap::new();
            apiserver.read(&secrets(), value, key.as_bytes(), &none).await.unwrap();
        }
        until(&plugin, 320).await;
        plugin.recording(version, "reload", "", 320)
    })
}

/// Secrets of an apiserver, each with a seed of its own.
async fn values(version: &str) -> Vec<(String, Vec<u8>)> {
    let plugin = Plugin::new(STEADY, SOCKET);
    let apiserver = World::new(version, &plugin).start(false).await;
    (0..DIFFERENT_SEEDS)
        .map(|number| {
            let key = format!("/registry/secrets/default/secret-{number}");
            let value = apiserver.write(&secrets(), b"k8s\0", key.as_bytes()).unwrap();
            let mut stored = Stored::parse(&value).unwrap();
            stored.object.encrypted_dek_source.push(u8::try_from(number).unwrap());
            (key, stored.to_bytes())
        })
        .collect()
}

fn secrets() -> GroupResource {
    GroupResource::parse("secrets")
}
