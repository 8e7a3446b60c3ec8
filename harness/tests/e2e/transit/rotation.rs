//! The key is rotated under load: three kube-apiservers on one etcd, each with its own plugin, each plugin
//! with another node of the cluster first in its list.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kleidi_harness::{
    ApiServer, Authority, BaoCluster, Etcd, Load, Made, Plugin, Rpc, Stage, Stored, VaultServer,
    within,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::none_failed;
use crate::cluster::{HEALTH_PATIENCE, PROVIDER, secret_key, value_of};
use crate::writing::Writing;

/// Versions that are met: 4 and 5 come faster than anybody can follow.
const LATEST: u64 = 6;

#[test]
fn what_is_named_is_what_wrapped() {
    let stage = Stage::new("rotation under load");
    let authority = Authority::new(&stage, "authority");
    let Some(cluster) = BaoCluster::start(&stage, "bao", &authority) else { return };
    let leader = &cluster.nodes[cluster.wait_whole()];
    let role = leader.provision();
    let Some(etcd) = Etcd::start(&stage) else { return };
    let (mut apiservers, mut plugins) = (Vec::new(), Vec::new());
    for n in 0..3 {
        let Some(apiserver) = ApiServer::new(&stage, &format!("apiserver-{n}"), "1.37.2", &etcd)
        else {
            return;
        };
        let nodes = cluster.beginning_with(n);
        let plugin = Plugin::on_nodes(&stage, &format!("plugin-{n}"), &nodes, &role).start();
        apiservers.push(apiserver.encrypt_with(PROVIDER, &plugin.socket()).start());
        plugins.push(plugin);
    }
    let loads: Vec<_> = plugins.iter().map(|plugin| Load::start(&plugin.socket(), 2)).collect();
    let all: Vec<_> = apiservers.iter().collect();
    let writing = Writing::during(&all, |writing| {
        writing.more(30);
        leader.rotate();
        plugins_announce(&plugins, 2);
        apiservers_write_with(&apiservers, &etcd, 2);
        leader.rotate();
        plugins_announce(&plugins, 3);
        (3..LATEST).for_each(|_| leader.rotate());
        plugins_announce(&plugins, LATEST);
        writing.more(30);
        apiservers_write_with(&apiservers, &etcd, LATEST);
    });
    writing.none_refused();

    let ids = ids(leader, LATEST);
    for (n, load) in loads.into_iter().enumerate() {
        let calls = load.finish();
        none_failed(&stage, &format!("rotated to version {LATEST}, plugin {n}"), &calls);
        encrypt_names_what_status_said(&calls);
        status_does_not_go_back(&calls);
        for made in calls.iter().filter(|made| made.rpc == Rpc::Encrypt) {
            assert_eq!(Some(&made.key_id), ids.get(&wrapped_with(&made.ciphertext)), "{made:?}");
        }
    }
    let mut met = BTreeSet::new();
    for (key, value) in etcd.list("/registry/secrets/default/") {
        let object = Stored::parse(&value).unwrap().object;
        let version = wrapped_with(&object.encrypted_dek_source);
        assert_eq!(Some(&object.key_id), ids.get(&version), "{key}");
        met.insert(version);
    }
    assert!(met.is_superset(&[1, 2, LATEST].into()), "{met:?}");
    // Each has to have the others' seeds unwrapped, of all versions.
    apiservers[0].stop();
    apiservers[0].start_again();
    for name in writing.written() {
        assert_eq!(apiservers[0].read_secret(&name), Ok(value_of(&name)), "{name}");
    }
}

fn plugins_announce(plugins: &[Plugin], version: u64) {
    for plugin in plugins {
        within(HEALTH_PATIENCE, "every plugin to announce the version", || match plugin.key_id() {
            id if version_of(&id) == version => Ok(()),
            id => Err(id),
        });
    }
}

/// An apiserver moves to a version when it is asked for its health, but not before 20 s are over.
fn apiservers_write_with(apiservers: &[ApiServer], etcd: &Etcd, version: u64) {
    for (n, apiserver) in apiservers.iter().enumerate() {
        let mut tries = 0;
        within(HEALTH_PATIENCE, "every apiserver to write with the version", || {
            apiserver.kms_health()?;
            let name = format!("version-{version}-{n}-{tries}");
            tries += 1;
            apiserver.create_secret(&name, &value_of(&name));
            let value = etcd.get(&secret_key(&name)).unwrap();
            match Stored::parse(&value)?.object.key_id {
                id if version_of(&id) == version => Ok(()),
                id => Err(id),
            }
        });
    }
}

/// On each connection, Encrypt names what Status said last: kube-apiserver refuses anything else.
fn encrypt_names_what_status_said(calls: &[Made]) {
    let mut said = BTreeMap::new();
    for made in calls {
        match made.rpc {
            Rpc::Status => {
                said.insert(made.client, &made.key_id);
            }
            Rpc::Encrypt => assert_eq!(Some(&&made.key_id), said.get(&made.client), "{made:?}"),
            Rpc::Decrypt => {}
        }
    }
}

/// Whatever the connection, a later Status of a plugin does not name an earlier version.
fn status_does_not_go_back(calls: &[Made]) {
    let status: Vec<_> = calls
        .iter()
        .filter(|made| made.rpc == Rpc::Status)
        .map(|made| (made.began, made.ended, version_of(&made.key_id)))
        .collect();
    for (began, _, version) in &status {
        let before = status.iter().filter(|(_, ended, _)| ended < began);
        let highest = before.map(|(_, _, version)| version).max();
        assert!(highest.is_none_or(|highest| highest <= version), "{highest:?}, then {version}");
    }
    let versions: BTreeSet<_> = status.iter().map(|(_, _, version)| version).collect();
    assert!(versions.len() >= 4, "it has seen rotations: {versions:?}");
}

/// The key_ids that versions 1 to `latest` have to have, from what the server computes with them.
fn ids(server: &VaultServer, latest: u64) -> BTreeMap<u64, String> {
    (1..=latest)
        .map(|version| {
            let input = STANDARD.encode("kleidi key fingerprint v1");
            let body = json!({"input": input, "key_version": version});
            let (status, answer) = server.call("POST", "transit/hmac/kms", &body);
            assert_eq!(status, 200, "{answer}");
            let hmac = answer["data"]["hmac"].as_str().unwrap();
            let hmac = hmac.strip_prefix(&format!("vault:v{version}:")).unwrap();
            let mut hash = Sha256::new();
            hash.update(b"kleidi transit hmac-sha256 v1\0");
            hash.update(STANDARD.decode(hmac).unwrap());
            let hash = hash.finalize();
            let short = u128::from_be_bytes(hash[..16].try_into().unwrap());
            (version, format!("{short:032x}-{version}"))
        })
        .collect()
}

/// The version in a key_id.
fn version_of(key_id: &str) -> u64 {
    let (_, version) = key_id.split_once('-').unwrap_or_else(|| panic!("{key_id:?}"));
    version.parse().unwrap()
}

/// The version in a ciphertext: `\x01\x02vault:v<version>:…`.
fn wrapped_with(ciphertext: &[u8]) -> u64 {
    let text = std::str::from_utf8(ciphertext.strip_prefix(b"\x01\x02vault:v").unwrap()).unwrap();
    text.split_once(':').unwrap().0.parse().unwrap()
}
