//! kleidi as a DaemonSet, and what that cannot do.
//!
//! A DaemonSet needs a kube-apiserver that serves before kleidi runs: so a cluster cannot begin with encryption, and
//! after each reboot kube-apiserver cannot read a single Secret until it has told the kubelet of the pod. It heals
//! unaided, as long as nothing on the way to that pod needs a Secret. A static pod has none of this: hence the
//! recommendation.

use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::{Stopwatch, within};
use crate::cluster::{self, Cluster};
use crate::plan::{IDENTITY, Install, KMS, Kms, Plan, encryption};
use crate::scenario::{Scenario, Stage, ensure};
use crate::seed;

pub const SCENARIO: Scenario = Scenario {
    name: "daemon-set",
    shows: "kleidi as a DaemonSet: encryption is turned on in a running cluster, and a reboot heals unaided",
    minutes: 4,
    run,
};

fn run(stage: &Stage) -> Result<(), String> {
    let plan = Plan::new(Kms::SoftHsm).install(Install::DaemonSet).providers(&[IDENTITY]);
    let cluster = stage.cluster(plan)?;
    let node = cluster.node()?;
    cluster.step("the DaemonSet is applied, and encryption turned on");
    cluster::apply(node, &daemon_set(&cluster.image)?)?;
    let key_id = cluster.key_id()?;
    cluster.configure_encryption(&encryption(&[KMS, IDENTITY]))?;
    cluster.restart_apiservers()?;
    cluster.rewrite_secrets()?;
    cluster.create_secrets("secret", 20)?;

    cluster.step("a reboot");
    node.stop()?;
    node.start()?;
    let without = time_without_secrets(&cluster)?;
    stage.shown(format!(
        "after a reboot kube-apiserver answered for {} s without being able to read a Secret, and recovered unaided",
        without.as_secs()
    ));
    node.wait_healthy()?;
    stage.shown(cluster.encrypted_at_rest(&[&key_id])?);
    cluster.finish();
    Ok(())
}

/// From the moment when kube-apiserver answers, and cannot decrypt a Secret, to the one when it can.
fn time_without_secrets(cluster: &Cluster) -> Result<Duration, String> {
    let node = cluster.node()?;
    let patience = Duration::from_secs(300);
    let api = within(patience, "kube-apiserver to answer without a plugin", || {
        let api = node.api()?;
        api.cannot_decrypt("secret-0").map(|()| api)
    })?;
    let watch = Stopwatch::start();
    within(patience, "a Secret that can be read", || {
        let value = api.read_secret("secret-0")?;
        ensure(value == cluster.value("secret-0"), || value.clone())
    })?;
    Ok(watch.elapsed())
}

/// The manual's pod on every control-plane node.
fn daemon_set(image: &str) -> Result<Value, String> {
    let pod = seed::static_pod(Kms::SoftHsm, image, None)?;
    let labels = pod["metadata"]["labels"].clone();
    let mut spec = pod["spec"].clone();
    spec["nodeSelector"] = json!({"node-role.kubernetes.io/control-plane": ""});
    spec["tolerations"] = json!([{"operator": "Exists"}]);
    Ok(json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "kleidi", "namespace": "kube-system"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }))
}
