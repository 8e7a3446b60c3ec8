//! A new key takes over while the cluster works, everything is written anew, and the old key is destroyed.
//!
//! Twice, because the ways differ: on a SoftHSM token a second key beside the first, in OpenBao a new version.

use std::time::Duration;

use crate::clock::within;
use crate::cluster::Cluster;
use crate::plan::{Kms, Plan};
use crate::scenario::{Scenario, Stage, ensure};

pub const SCENARIO: Scenario = Scenario {
    name: "rotates",
    shows: "a new key takes over at the next health check, all objects move to it, the old key can go; no write is refused",
    minutes: 6,
    run,
};

/// kube-apiserver hears of a new key at its next health check, a minute away at most.
const HEARD: Duration = Duration::from_secs(120);

fn run(stage: &Stage) -> Result<(), String> {
    for kms in [Kms::SoftHsm, Kms::OpenBao] {
        let cluster = stage.cluster(Plan::new(kms))?;
        let old = cluster.key_id()?;
        cluster.create_secrets("before", 20)?;

        let written = cluster.under_load("load", || {
            cluster.step("a new key");
            make_new_key(&cluster)?;
            wait_for_another_key_id(&cluster, &old)?;
            cluster.wait_until_written_under(&cluster.key_id()?)
        })?;
        written.without_a_failure()?;
        let new = cluster.key_id()?;
        let counts = cluster.raw_values()?;
        ensure(counts.contains_key(&old), || "nothing is under the old key any more".to_owned())?;

        cluster.step("everything is written anew, and the old key destroyed");
        cluster.rewrite_secrets()?;
        let counts = cluster.raw_values()?;
        ensure(!counts.contains_key(&old), || {
            format!("still under the old key: {}", counts[&old])
        })?;
        destroy_old_key(&cluster)?;
        // As after a reboot: the plugin cannot have it in memory either.
        cluster.node()?.restart_plugin()?;
        let shown = cluster.encrypted_at_rest(&[&new])?;
        stage.shown(format!(
            "{}: from {old} to a new key under load, {} writes, none refused, the old key destroyed; {shown}",
            kms.name(),
            written.acknowledged.len()
        ));
        cluster.finish();
    }
    Ok(())
}

fn make_new_key(cluster: &Cluster) -> Result<(), String> {
    if let Some(openbao) = &cluster.openbao {
        return openbao.rotate();
    }
    // In the plugin's own image, as root, as the manual says.
    cluster.in_plugins_image("init --cka-id 02")?;
    // SoftHSM does not notice a change in a directory that it may only read.
    cluster.node()?.restart_plugin().map(|_| ())
}

fn destroy_old_key(cluster: &Cluster) -> Result<(), String> {
    match &cluster.openbao {
        Some(openbao) => openbao.retire_before(2),
        None => cluster
            .node()?
            .sh("command -v pkcs11-tool >/dev/null \
                 || { apt-get update -qq && apt-get install -y -qq --no-install-recommends opensc softhsm2; }\n\
                 export SOFTHSM2_CONF=/etc/kleidi/softhsm2.conf\n\
                 pkcs11-tool --module /usr/lib/softhsm/libsofthsm2.so --token-label kleidi --login \
                   --pin \"$(cat /etc/kleidi/pin)\" --delete-object --type secrkey --id 01")
            .map(|_| ()),
    }
}

fn wait_for_another_key_id(cluster: &Cluster, old: &str) -> Result<(), String> {
    within(HEARD, "Status to name the new key", || {
        let key_id = cluster.key_id()?;
        ensure(key_id != old, || format!("it is {key_id}"))
    })
}
