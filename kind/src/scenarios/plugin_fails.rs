//! The plugin is killed, deleted, cannot start, and is upgraded, while Secrets are written.
//!
//! kube-apiserver goes on with the seed in its memory for two to three minutes, so nobody who writes notices any of
//! this, unless the plugin is away for longer: then writes are refused until it is back.

use std::time::Duration;

use crate::clock::within;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::plan::{Kms, Plan};
use crate::scenario::{Scenario, Stage, ensure};
use crate::{command, seed};

pub const SCENARIO: Scenario = Scenario {
    name: "plugin-fails",
    shows: "kleidi killed, its pod deleted, crash-looping, upgraded, under load: no write refused before the seed's time is over, nothing lost",
    minutes: 5,
    run,
};

const MANIFEST: &str = "/etc/kubernetes/manifests/kleidi.yaml";

/// The kubelet looks at its manifests every 20 s, and waits twice as long before each start that follows a failure, up
/// to five minutes. It counts all failures of a static pod, also those before it was deleted.
const KUBELET: Duration = Duration::from_secs(330);

/// `kleidi serve` ends so if its configuration is wrong.
const MISCONFIGURED: u64 = 78;

/// A seed is good for three minutes after the last good Status, which is asked for each minute.
const SEED: Duration = Duration::from_secs(110);

fn run(stage: &Stage) -> Result<(), String> {
    let next = stage.image("next")?;
    let cluster = stage.cluster(Plan::new(Kms::SoftHsm))?;
    let key_id = cluster.key_id()?;
    cluster.create_secrets("before", 10)?;
    let written = cluster.under_load("killed", || {
        killed(&cluster)?;
        pod_deleted(&cluster)
    })?;
    written.without_a_failure()?;
    stage.shown(format!("killed and deleted: {written}"));
    // How long it is away is the kubelet's to say, and on a slow machine longer than a seed lasts.
    let written = cluster.under_load("looping", || crash_looping(&cluster))?;
    written.without_a_failure_for(SEED)?;
    stage.shown(format!("crash-looping: {written}"));
    // A seed may be made a moment after health is in order.
    let api = cluster.api()?;
    within(Duration::from_secs(60), "a write", || cluster.write_secret(&api, "again"))?;
    let written = cluster.under_load("upgraded", || upgraded(&cluster, &next))?;
    written.without_a_failure()?;
    stage.shown(format!("upgraded: {written}"));
    stage.shown(cluster.encrypted_at_rest(&[&key_id])?);
    cluster.finish();
    Ok(())
}

fn killed(cluster: &Cluster) -> Result<(), String> {
    cluster.step("kleidi is killed");
    let node = cluster.node()?;
    let before = pid(node)?;
    node.sh("pkill -KILL -x kleidi")?;
    again(node, &before)
}

fn pod_deleted(cluster: &Cluster) -> Result<(), String> {
    cluster.step("its pod is deleted, and comes back");
    let node = cluster.node()?;
    let before = pid(node)?;
    node.sh(&format!("mv {MANIFEST} /root/"))?;
    within(KUBELET, "the end of the pod", || node.sh("! pgrep -x kleidi"))?;
    node.sh(&format!("mv /root/kleidi.yaml {MANIFEST}"))?;
    again(node, &before)
}

fn crash_looping(cluster: &Cluster) -> Result<(), String> {
    cluster.step("its configuration is wrong: it cannot start");
    let node = cluster.node()?;
    let before = pid(node)?;
    node.sh("sed -i s/pkcs11:/pkcs12:/ /etc/kleidi/kleidi.yaml && pkill -x kleidi")?;
    within(KUBELET, "a crash loop", || crash_loops(node))?;
    node.sh("sed -i s/pkcs12:/pkcs11:/ /etc/kleidi/kleidi.yaml")?;
    again(node, &before)
}

fn upgraded(cluster: &Cluster, image: &str) -> Result<(), String> {
    cluster.step("it is upgraded");
    let node = cluster.node()?;
    let before = pid(node)?;
    node.bytes(
        "ctr --namespace k8s.io images import -",
        &command::run("docker", &["save", image])?,
    )?;
    node.write("/root/kleidi.yaml", &seed::static_pod(Kms::SoftHsm, image, None)?.to_string())?;
    node.sh(&format!("mv /root/kleidi.yaml {MANIFEST}"))?;
    again(node, &before)?;
    let running = format!("ctr --namespace k8s.io containers list | grep -q {image}");
    node.sh(&running).map(|_| ())
}

/// Waits until another process of the plugin is in order.
fn again(node: &Node, before: &str) -> Result<(), String> {
    within(KUBELET, "another process of the plugin", || {
        let now = pid(node)?;
        ensure(now != before, || format!("still {now}"))
    })?;
    // kube-apiserver waits longer and longer before it dials again.
    node.wait_healthy().map(|_| ())
}

/// The plugin's process, by its pid on the node. A probe, `kleidi status`, is younger.
fn pid(node: &Node) -> Result<String, String> {
    node.sh("pgrep -xo kleidi")
}

/// Whether the kubelet waits before it starts the plugin again, because it could not start.
fn crash_loops(node: &Node) -> Result<(), String> {
    let path = format!("/api/v1/namespaces/kube-system/pods/kleidi-{}", node.name);
    let pod = node.api()?.call("GET", &path, None)?;
    let container = &pod["status"]["containerStatuses"][0];
    let (waits, ended) = (&container["state"]["waiting"], &container["lastState"]["terminated"]);
    let loops = waits["reason"] == "CrashLoopBackOff" && ended["exitCode"] == MISCONFIGURED;
    ensure(loops, || format!("it waits: {waits}; it has ended: {ended}"))
}
