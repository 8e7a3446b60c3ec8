//! Records real kube-apiservers: `cargo test --package kleidi-harness --test fidelity -- --ignored record`.
//!
//! Takes five minutes, nearly all of them spent waiting, with up to nine apiservers at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kleidi_harness::{ApiServer, Etcd, Stage, Stored, eventually, within};
use tokio::time::Instant;

use crate::plugin::Plugin;
use crate::recording::Recording;
use crate::script::{Does, SCENARIOS, Script};
use crate::world::{Sockets, configuration};
use crate::{DIFFERENT_SEEDS, PROVIDER, VERSIONS};

/// One apiserver starts at a time: each takes all the processors there are.
static STARTING: Mutex<()> = Mutex::new(());

const STEADY: Script = Script(&[(0, Does::Answers("1"))]);

#[test]
#[ignore = "takes five minutes, and changes the recordings that the other tests compare with"]
fn record() {
    std::thread::scope(|scope| {
        for version in VERSIONS {
            scope.spawn(move || polls(version));
            scope.spawn(move || start_and_health(version));
            scope.spawn(move || reload(version));
        }
    });
}

/// One apiserver with a `kms` entry for each scenario; each entry has its own connection and loop.
fn polls(version: &str) {
    let stage = Stage::new(&format!("recording polls {version}"));
    let sockets = Sockets::new(&stage);
    let Some(etcd) = Etcd::start(&stage) else { return };
    let Some(apiserver) = ApiServer::new(&stage, "apiserver", version, &etcd) else { return };
    let plugins: Vec<_> =
        SCENARIOS.iter().map(|scenario| sockets.start(scenario.name, scenario.script)).collect();
    let paths: Vec<_> = SCENARIOS.iter().map(|scenario| sockets.path(scenario.name)).collect();
    let entries: Vec<_> =
        SCENARIOS.iter().zip(&paths).map(|(s, path)| (s.name, path.as_path())).collect();
    // Nothing makes any, so nothing is encrypted or decrypted.
    let apiserver = apiserver.encrypt_by(&configuration("podtemplates", &entries, "3s"));
    let apiserver = alone(|| apiserver.start());
    for (scenario, plugin) in SCENARIOS.iter().zip(&plugins) {
        let script = scenario.script.to_string();
        wait_for(plugin, scenario.lasts);
        plugin.recording(version, scenario.name, &script, scenario.lasts).save();
    }
    drop(apiserver);
}

/// A start with Secrets in etcd; later, health is looked at each second.
fn start_and_health(version: &str) {
    let stage = Stage::new(&format!("recording start {version}"));
    let Some((etcd, mut apiserver)) = with_secrets(&stage, version, "start") else { return };
    let sockets = Sockets::new(&stage);
    let plugin = sockets.start("again", STEADY);
    let entries = [(PROVIDER, &*sockets.path("again"))];
    let text = configuration("secrets", &entries, "3s");
    let _ = apiserver.config().clone().encrypt_by(&text);
    alone(|| apiserver.start_again());
    wait_for(&plugin, 15);
    let script = format!("{DIFFERENT_SEEDS} Secrets with as many seeds are in etcd");
    plugin.recording(version, "start", &script, 15).save();
    wait_for(&plugin, 25);
    while elapsed(&plugin) < Duration::from_secs(110) {
        let next = elapsed(&plugin) + Duration::from_secs(1);
        apiserver.kms_health().expect("it is healthy");
        eventually("the next second", || later_than(&plugin, next));
    }
    let script = "from 25 s on, health is looked at each second";
    plugin.recording(version, "health", script, 110).without_decrypts().save();
    drop((apiserver, etcd));
}

/// Another file at 30 s, with another timeout; reads at 110 s.
fn reload(version: &str) {
    let stage = Stage::new(&format!("recording reload {version}"));
    let Some((etcd, mut apiserver)) = with_secrets(&stage, version, "reload") else { return };
    let sockets = Sockets::new(&stage);
    let plugin = sockets.start("again", STEADY);
    let entries = [(PROVIDER, &*sockets.path("again"))];
    let _ = apiserver.config().clone().encrypt_by(&configuration("secrets", &entries, "3s"));
    apiserver.reload_automatically();
    alone(|| apiserver.start_again());
    wait_for(&plugin, 30);
    let _ = apiserver.config().clone().encrypt_by(&configuration("secrets", &entries, "4s"));
    wait_for(&plugin, 110);
    for number in 0..2 {
        let name = format!("secret-{number}");
        assert_eq!(apiserver.read_secret(&name), Ok(name));
    }
    wait_for(&plugin, 200);
    let script = "the file is replaced at 30 s, timeout 4 s instead of 3 s; two Secrets are read at 110 s";
    plugin.recording(version, "reload", script, 200).save();
    drop((apiserver, etcd));
}

/// A stopped apiserver whose Secrets have been written, each with a seed of its own.
fn with_secrets(stage: &Stage, version: &str, name: &str) -> Option<(Etcd, ApiServer)> {
    let sockets = Sockets::new(stage);
    let _plugin = sockets.start("first", STEADY);
    let etcd = Etcd::start(stage)?;
    let apiserver = ApiServer::new(stage, name, version, &etcd)?;
    let entries = [(PROVIDER, &*sockets.path("first"))];
    let text = configuration("secrets", &entries, "3s");
    let mut apiserver = alone(|| apiserver.encrypt_by(&text).start());
    for number in 0..DIFFERENT_SEEDS {
        let name = format!("secret-{number}");
        apiserver.create_secret(&name, &name);
    }
    apiserver.stop();
    // The plugin does not mind what is behind the seed; for the apiserver it is another.
    for (number, (key, value)) in etcd.list("/registry/secrets/default/").iter().enumerate() {
        let mut stored = Stored::parse(value).expect("it was encrypted");
        stored.object.encrypted_dek_source.push(u8::try_from(number).expect("few"));
        etcd.put(key, &stored.to_bytes());
    }
    Some((etcd, apiserver))
}

fn alone<T>(start: impl FnOnce() -> T) -> T {
    let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    start()
}

fn elapsed(plugin: &Plugin) -> Duration {
    plugin.first_status().map(|first| first.elapsed()).unwrap_or_default()
}

fn later_than(plugin: &Plugin, time: Duration) -> Result<(), String> {
    let elapsed = elapsed(plugin);
    if elapsed > time { Ok(()) } else { Err(format!("{elapsed:?}")) }
}

/// Waits until so many seconds have passed since the plugin's first Status.
fn wait_for(plugin: &Arc<Plugin>, seconds: u64) {
    let until = Duration::from_secs(seconds);
    let begin = Instant::now();
    within(until + Duration::from_secs(120), "the scenario to be over", || {
        later_than(plugin, until).map_err(|elapsed| format!("{elapsed} of {:?}", begin.elapsed()))
    });
}

impl Recording {
    /// Without the reads of the start, which another recording has.
    fn without_decrypts(mut self) -> Self {
        for connection in &mut self.connections {
            connection.calls.retain(|call| call.method != "Decrypt");
        }
        self
    }
}
