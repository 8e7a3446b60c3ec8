//! Three control planes with copies of one SoftHSM token.
//!
//! The key ceremony; a rotation as the manual has it for several nodes, in which no node writes under a key that
//! another cannot read; a node without its plugin, which reads what it has the seed of, and nothing else; a node that
//! is lost.

use std::time::Duration;

use crate::clock::within;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::plan::{Kms, Plan};
use crate::scenario::{Scenario, Stage, ensure};
use crate::verify::under;

pub const SCENARIO: Scenario = Scenario {
    name: "highly-available",
    shows: "three control planes, one key: rotation by the manual, a node's plugin away, a node lost; nothing lost",
    minutes: 10,
    run,
};

/// A kubelet starts its pods again, a kube-apiserver hears of a key at its next health check.
const PATIENCE: Duration = Duration::from_secs(180);

const MANIFEST: &str = "/etc/kubernetes/manifests/kleidi.yaml";

fn run(stage: &Stage) -> Result<(), String> {
    let cluster = stage.cluster(Plan::new(Kms::SoftHsm).control_planes(3))?;
    let first = cluster.key_id()?;
    stage.shown("one ceremony, three tokens, the same key_id");
    cluster.create_secrets("before", 30)?;
    cluster.nodes.iter().try_for_each(|node| cluster.readable_through(node))?;

    let second = rotate(&cluster, &first)?;
    stage.shown("rotated on three nodes by the manual, each wrote only what all could read");
    plugin_away(&cluster)?;
    stage.shown(
        "a node without its plugin reads what it has the seed of, nothing under another, and that when kleidi is back",
    );
    node_lost(&cluster)?;
    stage.shown("a node without power: the others go on, and it comes back unaided");

    cluster.rewrite_secrets()?;
    stage.shown(cluster.encrypted_at_rest(&[&second])?);
    cluster.finish();
    Ok(())
}

/// The manual's steps; gives the new key_id.
fn rotate(cluster: &Cluster, old: &str) -> Result<String, String> {
    let (first, others) = cluster.nodes.split_first().ok_or("there are no nodes")?;
    cluster.step("1. every node keeps to the present key");
    for node in &cluster.nodes {
        configure(node, "sed -i '/^pkcs11:/a\\  ckaId: \"01\"' /etc/kleidi/kleidi.yaml")?;
        ensure(node.key_id()? == old, || format!("{} has another key now", node.name))?;
    }
    cluster.step("2. a new key on the first");
    cluster.in_plugins_image("init --cka-id 02")?;
    first.restart_plugin()?;
    cluster.step("3. its token goes to the others");
    let token = first.bytes("tar --create --directory /var/lib/kleidi tokens", b"")?;
    for node in others {
        let unpack = "install -d -m 700 /var/lib/kleidi/new && tar --extract --directory /var/lib/kleidi/new";
        node.bytes(unpack, &token)?;
        configure(
            node,
            "mv /var/lib/kleidi/tokens /var/lib/kleidi/tokens.old && mv /var/lib/kleidi/new/tokens /var/lib/kleidi/tokens",
        )?;
    }
    // The new key is everywhere, and nobody uses it.
    ensure(cluster.key_id()? == old, || "a node uses the new key before all have it".to_owned())?;
    cluster.step("4. the nodes go over to it, one after the other, under load");
    let written = cluster.under_load("rotation", || {
        // The one that made the key comes last: it has to read it before.
        for node in cluster.nodes.iter().rev() {
            configure(node, "sed -i '/ckaId/d' /etc/kleidi/kleidi.yaml")?;
            let new = node.key_id()?;
            ensure(new != old, || format!("{} has still {new}", node.name))?;
            // This node writes under the new key, others still under the old one, and all read both.
            let name = format!("half-{}", node.name);
            cluster.wait_until_written(node, &name, |key, value| under(&new, key, value))?;
            cluster.nodes.iter().try_for_each(|other| cluster.readable_through(other))?;
        }
        Ok(())
    })?;
    written.without_a_failure()?;
    let new = cluster.key_id()?;
    cluster.wait_until_written_under(&new)?;
    cluster.step("5. everything is written anew");
    cluster.rewrite_secrets()?;
    let counts = cluster.raw_values()?;
    ensure(!counts.contains_key(old), || format!("still under the old key: {}", counts[old]))?;
    Ok(new)
}

fn plugin_away(cluster: &Cluster) -> Result<(), String> {
    cluster.step("the second node has no plugin");
    let [first, second, ..] = &cluster.nodes[..] else {
        return Err("there are too few nodes".to_owned());
    };
    second.sh(&format!("mv {MANIFEST} /root/"))?;
    within(PATIENCE, "its kube-apiserver to notice", || {
        ensure(second.api()?.kms_health().is_err(), || "it finds the KMS in order".to_owned())
    })?;
    // It has all seeds in memory so far.
    cluster.readable_through(second)?;
    // A kube-apiserver that starts makes a seed of its own, which the second node cannot have.
    let api = first.restart_apiserver()?;
    cluster.create_secrets_through(&[api], "meanwhile", 10)?;
    second.api()?.cannot_decrypt("meanwhile-0")?;
    second.sh(&format!("mv /root/kleidi.yaml {MANIFEST}"))?;
    second.wait_healthy()?;
    all_read_everything(cluster)
}

fn node_lost(cluster: &Cluster) -> Result<(), String> {
    cluster.step("the third node loses its power");
    let [first, second, third] = &cluster.nodes[..] else {
        return Err("three nodes are wanted".to_owned());
    };
    third.cut_power()?;
    for (number, node) in [first, second].into_iter().enumerate() {
        let name = format!("without-third-{number}");
        // etcd elects a leader first.
        within(PATIENCE, "a write", || cluster.write_secret(&node.api()?, &name))?;
        within(PATIENCE, "reads", || cluster.readable_through(node))?;
    }
    third.start()?;
    cluster.wait_healthy()?;
    all_read_everything(cluster)
}

/// Every node reads all there is. A kube-apiserver that has lost its etcd or its plugin takes a while to list again.
fn all_read_everything(cluster: &Cluster) -> Result<(), String> {
    cluster.nodes.iter().try_for_each(|node| {
        within(PATIENCE, "reads through every node", || cluster.readable_through(node))
    })
}

/// Changes a node by a script, and starts its plugin anew.
fn configure(node: &Node, script: &str) -> Result<(), String> {
    node.sh(script)?;
    node.restart_plugin().map(|_| ())
}
