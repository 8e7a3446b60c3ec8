//! What has to hold with a real kube-apiserver, whatever its version and wherever the key is.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kleidi_harness::{ApiServer, Etcd, Stage, built, eventually, within};

use crate::cluster::{CANARY, Cluster, HEALTH_PATIENCE, PROVIDER, secret_key, value_of};
use crate::keeper::Kms;
use crate::writing::Writing;

/// Secrets and `ConfigMap`s are encrypted, readable, bound to their place, and readable again by an
/// apiserver that starts with nothing in memory.
pub fn encrypts_at_rest(version: &str, kms: Kms) {
    let Some(mut cluster) = Cluster::start("encrypts at rest", version, kms) else { return };
    let key_id = cluster.plugin.key_id();
    cluster.wait_healthy();
    let names = cluster.create_secrets("secret", 20);
    for n in 0..20 {
        let name = format!("map-{n}");
        cluster.apiserver.create_config_map(&name, &value_of(&name));
    }
    for (prefix, least) in
        [("/registry/secrets/default/", 20), ("/registry/configmaps/default/", 20)]
    {
        let values = cluster.etcd.list(prefix);
        assert!(values.len() >= least, "{prefix}: {}", values.len());
        for (key, value) in values {
            let stored = kleidi_harness::Stored::parse(&value)
                .unwrap_or_else(|error| panic!("{key}: {error}"));
            assert_eq!(stored.provider, PROVIDER, "{key}");
            assert_eq!(stored.object.key_id, key_id, "{key}");
            assert!(stored.is_extended(), "{key}");
            let canary = CANARY.as_bytes();
            assert!(!value.windows(canary.len()).any(|window| window == canary), "{key}");
        }
    }
    cluster.read_all(&names);
    cluster.restart_apiserver();
    cluster.read_all(&names);
    assert_eq!(cluster.apiserver.read_config_map("map-7"), Ok(value_of("map-7")));
    what_is_tampered_with_in_etcd_is_refused(&mut cluster);
    a_second_plugin_on_the_socket_harms_nothing(&cluster);
    cluster.create_secrets("after", 1);
    cluster.finish();
}

/// One bit flipped, two values swapped, another key_id: a clear error each time, never a value.
fn what_is_tampered_with_in_etcd_is_refused(cluster: &mut Cluster) {
    let value = |name: &str| cluster.etcd.get(&secret_key(name)).unwrap();
    let (one, two) = (value("secret-1"), value("secret-2"));
    let mut seed = cluster.stored("secret-3");
    let at = seed.object.encrypted_dek_source.len() / 2;
    seed.object.encrypted_dek_source[at] ^= 1;
    let mut key_id = cluster.stored("secret-4");
    key_id.object.key_id.push('0');
    let mut annotated = cluster.stored("secret-5");
    annotated.object.annotations.insert("added.example.com".into(), b"1".to_vec());

    // In the middle of the encrypted data of secret-0.
    let mut middle = value("secret-0");
    let at = middle.len() / 2;
    middle[at] ^= 0x10;
    for (name, tampered) in [
        ("secret-0", middle),
        ("secret-1", two.clone()),
        ("secret-2", one.clone()),
        ("secret-3", seed.to_bytes()),
        ("secret-4", key_id.to_bytes()),
        ("secret-5", annotated.to_bytes()),
    ] {
        cluster.etcd.put(&secret_key(name), &tampered);
    }
    for name in ["secret-0", "secret-1", "secret-2", "secret-3", "secret-4", "secret-5"] {
        let error = eventually("a read error", || match cluster.apiserver.read_secret(name) {
            // The watch cache may be a moment behind.
            Ok(value) => Err(format!("{name} reads as {value:?}")),
            Err(error) => Ok(error),
        });
        assert_eq!(error.status, 500, "{name}: {error:?}");
        assert!(!error.message.contains(CANARY), "{name}: {error:?}");
    }
    // Everything else is unharmed.
    assert_eq!(cluster.apiserver.read_secret("secret-6"), Ok(value_of("secret-6")));
    for (name, value) in [("secret-1", &one), ("secret-2", &two)] {
        cluster.etcd.put(&secret_key(name), value);
        eventually("the value again", || match cluster.apiserver.read_secret(name) {
            Ok(value) if value == value_of(name) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

/// Somebody starts a second plugin with the same configuration: it refuses, the first serves on.
fn a_second_plugin_on_the_socket_harms_nothing(cluster: &Cluster) {
    let mut second = cluster.plugin.config().spawn("second-plugin");
    assert_eq!(second.wait(), 73, "{}", second.log());
    assert!(second.log().contains("is in use by a running process"), "{}", second.log());
    cluster.plugin.client().status().expect("the first one still answers");
}

/// A plugin that is restarted, and one that is killed, while Secrets are written: nothing that was
/// acknowledged is lost.
pub fn survives_the_plugin_dying_under_load(version: &str, kms: Kms) {
    let Some(mut cluster) = Cluster::start("survives", version, kms) else { return };
    cluster.wait_healthy();
    // What is refused may be refused; what is acknowledged must be there.
    let (apiserver, plugin) = (&cluster.apiserver, &mut cluster.plugin);
    let writing = Writing::during(&[apiserver, apiserver], |writing| {
        writing.more(20);
        assert_eq!(plugin.process.terminate(), 0);
        plugin.start_again();
        writing.more(20);
        plugin.process.kill();
        plugin.start_again();
        writing.more(20);
    });
    let written = writing.written();
    assert!(written.len() >= 60);
    cluster.read_all(&written);
    cluster.restart_apiserver();
    cluster.read_all(&written);
    cluster.finish();
}

/// The KMS is missing at the start, comes, goes for a while and comes back: health says so, reads
/// from the cache go on, and all heals unaided.
pub fn recovers_when_the_kms_is_away(version: &str, kms: Kms) {
    let stage = Stage::new(&format!("recovers {version} {kms:?}"));
    let Some(mut keeper) = kms.start(&stage) else { return };
    let Some(etcd) = Etcd::start(&stage) else { return };
    let Some(apiserver) = ApiServer::new(&stage, "apiserver", version, &etcd) else { return };

    keeper.take_away();
    let plugin = keeper.plugin(&stage, "plugin").start();
    let error = plugin.client().status().unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable, "{error}");
    assert!(error.message().contains(keeper.whereabouts()), "it says where to look: {error}");
    let apiserver = apiserver.encrypt_with(PROVIDER, &plugin.socket()).start();
    let mut cluster = Cluster { apiserver, plugin, etcd, keeper, stage };
    let health = cluster.wait_unhealthy();
    assert!(health.contains("out of order"), "{health}");
    let error = cluster.apiserver.try_create_secret("early", "x").unwrap_err();
    assert_eq!(error.status, 500);

    cluster.keeper.bring_back();
    cluster.wait_healthy();
    let names = cluster.create_secrets("secret", 5);
    cluster.read_all(&names);

    cluster.keeper.take_away();
    cluster.wait_unhealthy();
    // The seed is in the apiserver's memory: reads go on, and for three minutes so do writes.
    cluster.read_all(&names);
    cluster.apiserver.create_secret("meanwhile", &value_of("meanwhile"));
    cluster.keeper.bring_back();
    let key_id = kleidi_harness::wait_healthy(&cluster.plugin, Duration::from_secs(20));
    assert_eq!(cluster.stored("secret-0").object.key_id, key_id, "it is the same key");
    cluster.wait_healthy();
    let more = cluster.create_secrets("later", 5);
    cluster.read_all(&more);
    cluster.read_all(&["meanwhile".to_owned()]);

    let log = cluster.plugin.process.log();
    let count = |text: &str| log.matches(text).count();
    assert_eq!(count("the KMS is out of order: Status fails"), 2, "{log}");
    assert_eq!(count("the KMS is in order again"), 2, "{log}");
    cluster.finish();
}

/// A second key, or version of the key, becomes current without a restart; a rewrite moves everything
/// to it; what is not rewritten stays readable.
pub fn rotates_to_a_second_key(version: &str, kms: Kms) {
    let Some(mut cluster) = Cluster::start("rotates", version, kms) else { return };
    cluster.wait_healthy();
    let names = cluster.create_secrets("secret", 10);
    let old = cluster.plugin.key_id();

    let told = cluster.keeper.rotate(&cluster.plugin);
    let new = within(Duration::from_secs(10), "Status to announce the new key", || {
        match cluster.plugin.key_id() {
            id if id == old => Err(id),
            id => Ok(id),
        }
    });
    assert!(told.is_none_or(|told| told == new), "it is the key that was made");
    // The apiserver moves to it at its next look at the plugin, which its health check makes.
    let mut probes = 0;
    within(HEALTH_PATIENCE, "new Secrets to be written with the new key", || {
        cluster.apiserver.kms_health()?;
        let name = format!("probe-{probes}");
        probes += 1;
        cluster.apiserver.create_secret(&name, &value_of(&name));
        match cluster.stored(&name).object.key_id {
            id if id == new => Ok(()),
            id => Err(id),
        }
    });
    let (moved, left) = names.split_at(5);
    for name in moved {
        assert_eq!(cluster.stored(name).object.key_id, old, "{name} before");
        cluster.apiserver.rewrite_secret(name).unwrap();
        assert_eq!(cluster.stored(name).object.key_id, new, "{name} after");
    }
    cluster.restart_apiserver();
    cluster.read_all(&names);
    for name in left {
        assert_eq!(cluster.stored(name).object.key_id, old, "{name} is still as it was");
    }
    cluster.finish();
}

/// Three apiservers with parallel traffic on one plugin; then two more, each with its own plugin on
/// its own copy of the token, as on the nodes of a control plane.
pub fn serves_several_apiservers(version: &str, kms: Kms) {
    let Some(cluster) = Cluster::start("several", version, kms) else { return };
    let other_plugin = cluster.keeper.plugin_of_another_node(&cluster.stage).start();
    assert_eq!(cluster.plugin.key_id(), other_plugin.key_id(), "the key says which it is");
    let start = |name: &str, socket: &PathBuf| {
        let apiserver = ApiServer::new(&cluster.stage, name, version, &cluster.etcd).unwrap();
        apiserver.encrypt_with(PROVIDER, socket).start()
    };
    let second = start("second-apiserver", &cluster.plugin.socket());
    let third = start("third-apiserver", &other_plugin.socket());
    let all = [&cluster.apiserver, &second, &third];
    for apiserver in all {
        within(HEALTH_PATIENCE, "every apiserver to be healthy", || apiserver.kms_health());
    }
    let names = Arc::new(Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for (number, apiserver) in all.iter().enumerate() {
            let names = Arc::clone(&names);
            scope.spawn(move || {
                for n in 0..20 {
                    let name = format!("from-{number}-{n}");
                    apiserver.create_secret(&name, &value_of(&name));
                    assert_eq!(apiserver.read_secret(&name), Ok(value_of(&name)));
                    names.lock().unwrap().push(name);
                }
            });
        }
    });
    let names = names.lock().unwrap().clone();
    assert_eq!(names.len(), 60);
    // Each reads what the others wrote, seeds included that the other plugin wrapped.
    for apiserver in all {
        for name in &names {
            assert_eq!(apiserver.read_secret(name), Ok(value_of(name)), "{name}");
        }
    }
    drop((second, third, other_plugin));
    cluster.finish();
}

/// The plugin without its filter: versions before 1.32 cannot use it, later ones can.
pub fn needs_the_authority_filter_before_1_32(version: &str, kms: Kms) {
    let stage = Stage::new(&format!("without the filter {version} {kms:?}"));
    let Some(keeper) = kms.start(&stage) else { return };
    let Some(etcd) = Etcd::start(&stage) else { return };
    let Some(apiserver) = ApiServer::new(&stage, "apiserver", version, &etcd) else { return };
    let mutant = built::mutant("without-authority-filter");
    let plugin = keeper.plugin(&stage, "plugin").binary(mutant).start();
    let apiserver = apiserver.encrypt_with(PROVIDER, &plugin.socket()).start();
    let minor: u32 = version.split('.').nth(1).unwrap().parse().unwrap();
    let created = apiserver.try_create_secret("one", &value_of("one"));
    if minor >= 32 {
        assert_eq!(created, Ok(()));
    } else {
        assert_eq!(created.unwrap_err().status, 500);
        let health = apiserver.kms_health().unwrap_err();
        assert!(health.contains("PROTOCOL_ERROR"), "{health}");
    }
}
