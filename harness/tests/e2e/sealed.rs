//! A server that is sealed for longer than kube-apiserver's seed lives. Beside the other tests of transit so
//! that it, which takes longest, begins first.

use std::time::Duration;

use kleidi_harness::{ApiServer, Etcd, Plugin, Product, Stage, VaultServer, wait_healthy, within};
use tokio::time::Instant;

use crate::cluster::{HEALTH_PATIENCE, PROVIDER, value_of};

/// For how long the server is sealed, in seconds; 200 without it. At least as many.
const VARIABLE: &str = "KLEIDI_SEALED_SECONDS";

/// How long an apiserver writes with its seed after the last good Status (k8s.io/apiserver
/// pkg/server/options/encryptionconfig/config.go, `kmsv2PluginWriteDEKSourceMaxTTL`).
const SEED_LIVES: Duration = Duration::from_mins(3);

/// It may have been asked for that long before the seal (`kmsv2PluginHealthzPositiveInterval`).
const ASKED_EVERY: Duration = Duration::from_secs(20);

/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(10);

/// Between two looks at the outage.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads go on, health fails, writes stop after three minutes, and all of it heals unaided.
#[test]
fn reads_go_on_and_writes_stop_after_three_minutes() {
    let stage = Stage::new("sealed");
    let Some(server) = VaultServer::start(&stage, "server", Product::OpenBao) else { return };
    let role = server.provision();
    let Some(etcd) = Etcd::start(&stage) else { return };
    let Some(apiserver) = ApiServer::new(&stage, "apiserver", "1.37.2", &etcd) else { return };
    let plugin = Plugin::on_transit(&stage, "plugin", &server, &role).start();
    let key_id = wait_healthy(&plugin, HEALTH_PATIENCE);
    let apiserver = apiserver.encrypt_with(PROVIDER, &plugin.socket()).start();
    let healthy = || within(HEALTH_PATIENCE, "health to be good", || apiserver.kms_health());
    healthy();
    let write = |name: &str| apiserver.try_create_secret(name, &value_of(name));
    let read = |name: &str| assert_eq!(apiserver.read_secret(name), Ok(value_of(name)), "{name}");
    write("before").unwrap();

    server.seal();
    let sealed = Instant::now();
    let health = within(HEALTH_PATIENCE, "health to be bad", || {
        apiserver.kms_health().map_or_else(Ok, |()| Err("it is good".to_owned()))
    });
    assert!(health.contains("sealed") && health.contains("unseal it"), "{health}");
    let mut acknowledged = vec!["before".to_owned()];
    let mut stopped = None;
    while sealed.elapsed() < patience() {
        let name = format!("meanwhile-{}", acknowledged.len());
        match write(&name) {
            Ok(()) => {
                assert!(stopped.is_none(), "writes stopped, and go on: {stopped:?}");
                acknowledged.push(name);
            }
            Err(error) => {
                let first = stopped.get_or_insert((sealed.elapsed(), error));
                assert_eq!(first.1.status, 500, "{first:?}");
            }
        }
        assert!(apiserver.kms_health().is_err(), "health stays bad");
        read("before");
        std::thread::park_timeout(PAUSE);
    }
    let (after, error) = stopped.expect("writes stop");
    assert!(error.message.contains("expired at"), "{error:?}");
    assert!(after + ASKED_EVERY + SLACK > SEED_LIVES, "too soon: {after:?}");
    assert!(after < SEED_LIVES + SLACK, "too late: {after:?}");

    server.unseal();
    let unsealed = Instant::now();
    assert_eq!(wait_healthy(&plugin, HEALTH_PATIENCE), key_id);
    healthy();
    write("after").expect("writes go on as soon as health is good");
    stage.say(&format!(
        "sealed for {} s: writes stopped after {after:.1?}, reads did not; in order again {:.1?} after the unseal",
        (unsealed - sealed).as_secs(),
        unsealed.elapsed()
    ));
    acknowledged.push("after".to_owned());
    for name in &acknowledged {
        read(name);
    }
}

fn patience() -> Duration {
    let seconds = std::env::var(VARIABLE).ok().map(|text| text.parse().expect("a number"));
    Duration::from_secs(seconds.unwrap_or(0)).max(SEED_LIVES + 2 * SLACK)
}
