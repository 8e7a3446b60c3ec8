//! Records real kube-apiservers: `cargo test --package kleidi-harness --test fidelity -- --ignored record`.
//!
//! Takes ten minutes, most of them spent waiting, with up to twelve apiservers at a time.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kleidi_harness::{ApiServer, Etcd, Stage, Stored, within};
use tokio::time::Instant;

use crate::plugin::Plugin;
use crate::recording::Recording;
use crate::script::{LATE, SCENARIOS, STEADY};
use crate::world::{Sockets, configuration};
use crate::{CHANGED_AT, DIFFERENT_SEEDS, HEALTH_FROM, PROVIDER, READ_AT, VERSIONS};

/// How long an apiserver may need to start, when nine others run.
const PATIENCE: Duration = Duration::from_secs(300);

/// One apiserver starts at a time: each takes all the processors there are.
static STARTING: Mutex<()> = Mutex::new(());

#[test]
#[ignore = "takes ten minutes, and changes the recordings that the other tests compare with"]
fn record() {
    std::thread::scope(|scope| {
        for version in VERSIONS {
            scope.spawn(move || polls(version));
            scope.spawn(move || reads(version));
        }
    });
}

/// One apiserver with a `kms` entry for each scenario, as each entry has its own connection and loop; and one
/// with a plugin that is late.
fn polls(version: &str) {
    let stage = Stage::new(&format!("recording polls {version}"));
    let sockets = Sockets::new(&stage);
    let Some(etcd) = Etcd::start(&stage) else { return };
    let start = |name: &str, entries: &[(&str, &Path)]| {
        let apiserver = ApiServer::new(&stage, name, version, &etcd)?;
        // Nothing makes any of these, so nothing is encrypted or decrypted.
        let text = configuration("podtemplates", entries, "3s");
        Some(alone(|| apiserver.encrypt_by(&text).patience(PATIENCE).start()))
    };
    let plugins: Vec<_> =
        SCENARIOS.iter().map(|scenario| sockets.start(scenario.name, scenario.script)).collect();
    let paths: Vec<_> = SCENARIOS.iter().map(|scenario| sockets.path(scenario.name)).collect();
    let entries: Vec<_> =
        SCENARIOS.iter().zip(&paths).map(|(s, path)| (s.name, path.as_path())).collect();
    let several = start("several", &entries);
    let late = sockets.start(LATE.name, LATE.script);
    let one = start("one", &[(LATE.name, &sockets.path(LATE.name))]);
    let scenarios = [&LATE].into_iter().chain(&SCENARIOS);
    for (scenario, plugin) in scenarios.zip([&late].into_iter().chain(&plugins)) {
        let script = scenario.script.to_string();
        wait_for(plugin, scenario.lasts);
        plugin.recording(version, scenario.name, &script, scenario.lasts).save();
    }
    drop((several, one));
}

/// Two apiservers on Secrets that another has written, each with a seed of its own.
fn reads(version: &str) {
    let stage = Stage::new(&format!("recording reads {version}"));
    let sockets = Sockets::new(&stage);
    let Some(etcd) = Etcd::start(&stage) else { return };
    if write_secrets(&stage, &sockets, version, &etcd).is_none() {
        return;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| start_and_health(&stage, &sockets, version, &etcd));
        scope.spawn(|| reload(&stage, &sockets, version, &etcd));
    });
}

/// A start with Secrets in etcd; later, health is looked at each second.
fn start_and_health(stage: &Stage, sockets: &Sockets, version: &str, etcd: &Etcd) {
    let plugin = sockets.start("health", STEADY);
    let entries = [(PROVIDER, &*sockets.path("health"))];
    let apiserver = ApiServer::new(stage, "health", version, etcd).expect("there was one");
    let text = configuration("secrets", &entries, "3s");
    let apiserver = alone(|| apiserver.encrypt_by(&text).patience(PATIENCE).start());
    wait_for(&plugin, 15);
    let script = format!("{DIFFERENT_SEEDS} Secrets with as many seeds are in etcd");
    plugin.recording(version, "start", &script, 15).save();
    wait_for(&plugin, HEALTH_FROM);
    while elapsed(&plugin) < Duration::from_secs(250) {
        let next = elapsed(&plugin) + Duration::from_secs(1);
        apiserver.kms_health().expect("it is healthy");
        within(PATIENCE, "the next second", || later_than(&plugin, next));
    }
    let script = format!("from {HEALTH_FROM} s on, health is looked at each second");
    plugin.recording(version, "health", &script, 250).without_decrypts().save();
}

/// Another file, with another timeout; reads later.
fn reload(stage: &Stage, sockets: &Sockets, version: &str, etcd: &Etcd) {
    let plugin = sockets.start("reload", STEADY);
    let entries = [(PROVIDER, &*sockets.path("reload"))];
    let file = |timeout: &str| configuration("secrets", &entries, timeout);
    let apiserver = ApiServer::new(stage, "reload", version, etcd).expect("there was one");
    let apiserver = apiserver.encrypt_by(&file("3s")).reload_automatically().patience(PATIENCE);
    let apiserver = alone(|| apiserver.start());
    wait_for(&plugin, CHANGED_AT);
    let _ = apiserver.config().clone().encrypt_by(&file("4s"));
    wait_for(&plugin, READ_AT);
    for number in 0..2 {
        let name = format!("secret-{number}");
        assert_eq!(apiserver.read_secret(&name), Ok(name));
    }
    wait_for(&plugin, 320);
    let script = format!(
        "the file is replaced at {CHANGED_AT} s, timeout 4 s instead of 3 s; two Secrets are read at \
         {READ_AT} s"
    );
    plugin.recording(version, "reload", &script, 320).save();
}

/// Secrets that an apiserver writes and that then get a seed each; nothing if there is no apiserver.
fn write_secrets(stage: &Stage, sockets: &Sockets, version: &str, etcd: &Etcd) -> Option<()> {
    let _plugin = sockets.start("first", STEADY);
    let apiserver = ApiServer::new(stage, "first", version, etcd)?;
    let entries = [(PROVIDER, &*sockets.path("first"))];
    let text = configuration("secrets", &entries, "3s");
    let mut apiserver = alone(|| apiserver.encrypt_by(&text).patience(PATIENCE).start());
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
    Some(())
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
