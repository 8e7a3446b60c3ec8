//! A node is shut down or loses its power, and its control plane comes back unaided.
//!
//! Ten times: five with kleidi as a static pod, of which one starts before kube-apiserver and one after it, and
//! five as a systemd service, whose socket is there before everybody.

use std::time::Duration;

use crate::clock::{Stopwatch, within};
use crate::cluster::Cluster;
use crate::node::Node;
use crate::plan::{Install, Kms, Plan};
use crate::scenario::{Scenario, Stage, ensure};

pub const SCENARIO: Scenario = Scenario {
    name: "reboots",
    shows: "(not played to the end yet) shut down or without power, ten times: the control plane comes back unaided, whoever starts first",
    minutes: 12,
    run,
};

fn run(stage: &Stage) -> Result<(), String> {
    for install in [Install::StaticPod, Install::Systemd] {
        let cluster = stage.cluster(Plan::new(Kms::SoftHsm).install(install))?;
        let key_id = cluster.key_id()?;
        let mut longest = Duration::ZERO;
        for round in 0..5 {
            cluster.create_secrets(&format!("round-{round}"), 5)?;
            let late = match (install, round) {
                (Install::StaticPod, 3) => Some("kleidi.yaml"),
                (Install::StaticPod, 4) => Some("kube-apiserver.yaml"),
                _ => None,
            };
            longest = longest.max(reboot(&cluster, round % 2 == 1, late)?);
            cluster.readable_through(cluster.node()?)?;
        }
        if install == Install::Systemd {
            activated_by_its_socket(cluster.node()?)?;
            stage.shown("systemd: a call on the socket starts the service");
        }
        let shown = cluster.encrypted_at_rest(&[&key_id], "round")?;
        stage.shown(format!(
            "{}: five reboots, in order again after {} s at most; {shown}",
            install.name(),
            longest.as_secs()
        ));
        cluster.finish();
    }
    Ok(())
}

/// Stops the node and starts it; gives how long it took until everything was in order. The manifest `late` is put
/// back only when the rest is up.
fn reboot(cluster: &Cluster, power_cut: bool, late: Option<&str>) -> Result<Duration, String> {
    let node = cluster.node()?;
    let how = if power_cut { "a power cut" } else { "a shutdown" };
    cluster.step(&format!("{how}; {} is late", late.unwrap_or("nobody")));
    if let Some(manifest) = late {
        node.sh(&format!("mv /etc/kubernetes/manifests/{manifest} /root/"))?;
    }
    if power_cut {
        node.cut_power()?;
    } else {
        node.stop()?;
    }
    node.start()?;
    let watch = Stopwatch::start();
    if let Some(manifest) = late {
        let patience = Duration::from_secs(180);
        within(patience, "the others", || {
            if manifest == "kleidi.yaml" {
                // It serves, and says that its KMS is away.
                let api = node.api()?;
                api.ready()?;
                return ensure(api.kms_health().is_err(), || {
                    "the KMS is in order already".to_owned()
                });
            }
            node.sh("kleidi status --socket unix:///run/kleidi/kms.sock").map(|_| ())
        })?;
        node.sh(&format!("mv /root/{manifest} /etc/kubernetes/manifests/"))?;
    }
    node.wait_healthy()?;
    Ok(watch.elapsed())
}

/// With the service stopped, its socket still takes a call, and starts it.
fn activated_by_its_socket(node: &Node) -> Result<(), String> {
    // kube-apiserver may have called in between, too.
    within(Duration::from_secs(60), "the service to be stopped", || {
        node.sh("systemctl stop kleidi.service && ! systemctl is-active --quiet kleidi.service")
    })?;
    node.key_id()?;
    node.sh("systemctl is-active --quiet kleidi.service").map(|_| ())
}
