//! A node is shut down or loses its power, and its control plane comes back unaided.
//!
//! Ten times: five with kleidi as a static pod, and five as a systemd service. Twice each, all start as they do on
//! any node; in the others one of them is made to come late, so that both orders are seen.

use std::time::Duration;

use crate::clock::{Stopwatch, within};
use crate::cluster::Cluster;
use crate::node::Node;
use crate::plan::{Install, Kms, Plan};
use crate::scenario::{Scenario, Stage, ensure};

pub const SCENARIO: Scenario = Scenario {
    name: "reboots",
    shows: "shut down or without power, ten times: the control plane comes back unaided, whoever starts first",
    minutes: 12,
    run,
};

/// Who is late after a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    Nobody,
    /// kube-apiserver answers already, and cannot read a Secret.
    Plugin,
    /// kleidi answers already.
    Apiserver,
    /// The service does not start with the node: only its socket is there, and kube-apiserver's first call starts it.
    Service,
}

/// Rounds, and whether each is a power cut.
const STATIC_POD: [(Late, bool); 5] = [
    (Late::Nobody, false),
    (Late::Nobody, true),
    (Late::Plugin, false),
    (Late::Plugin, true),
    (Late::Apiserver, true),
];
const SYSTEMD: [(Late, bool); 5] = [
    (Late::Nobody, false),
    (Late::Nobody, true),
    (Late::Service, false),
    (Late::Service, true),
    (Late::Apiserver, true),
];

/// How long the one that is not late may take.
const OTHERS: Duration = Duration::from_secs(300);

fn run(stage: &Stage) -> Result<(), String> {
    for (install, rounds) in [(Install::Systemd, SYSTEMD), (Install::StaticPod, STATIC_POD)] {
        let cluster = stage.cluster(Plan::new(Kms::SoftHsm).install(install))?;
        let key_id = cluster.key_id()?;
        let mut longest = Duration::ZERO;
        for (round, (late, power_cut)) in rounds.into_iter().enumerate() {
            cluster.create_secrets(&format!("round-{round}"), 5)?;
            longest = longest.max(reboot(&cluster, power_cut, late)?);
            cluster.readable_through(cluster.node()?)?;
        }
        if install == Install::Systemd {
            activated_by_its_socket(cluster.node()?)?;
            stage.shown("systemd: a call on the socket starts the service, also after a reboot");
        } else {
            stage.shown("kube-apiserver without kleidi answers, reads no Secret, and recovers");
        }
        let shown = cluster.encrypted_at_rest(&[&key_id])?;
        stage.shown(format!(
            "{}: five reboots, in order again after {} s at most; {shown}",
            install.name(),
            longest.as_secs()
        ));
        cluster.finish();
    }
    Ok(())
}

/// Stops the node and starts it; gives how long it took until everything was in order: since the start, or since the
/// one that was late could come.
fn reboot(cluster: &Cluster, power_cut: bool, late: Late) -> Result<Duration, String> {
    let node = cluster.node()?;
    let how = if power_cut { "a power cut" } else { "a shutdown" };
    cluster.step(&format!("{how}; late: {late:?}"));
    hold_back(node, late)?;
    if power_cut {
        node.cut_power()?;
    } else {
        node.stop()?;
    }
    node.start()?;
    let started = Stopwatch::start();
    let watch = let_come(node, late)?.unwrap_or(started);
    node.wait_healthy()?;
    let time = watch.elapsed();
    if late == Late::Service {
        node.sh("[ \"$(systemctl is-enabled kleidi.service)\" = disabled ] && systemctl is-active kleidi.service")?;
        node.sh("systemctl enable kleidi.service")?;
    }
    cluster.step(&format!("in order again after {} s", time.as_secs()));
    Ok(time)
}

fn hold_back(node: &Node, late: Late) -> Result<(), String> {
    match late {
        Late::Nobody => Ok(()),
        Late::Plugin => node.sh("mv /etc/kubernetes/manifests/kleidi.yaml /root/").map(|_| ()),
        Late::Apiserver => {
            node.sh("mv /etc/kubernetes/manifests/kube-apiserver.yaml /root/").map(|_| ())
        }
        Late::Service => node.sh("systemctl disable kleidi.service").map(|_| ()),
    }
}

/// Waits for the others, and lets come who was held back; gives the time since then.
fn let_come(node: &Node, late: Late) -> Result<Option<Stopwatch>, String> {
    let manifest = match late {
        Late::Nobody | Late::Service => return Ok(None),
        Late::Plugin => {
            within(OTHERS, "a kube-apiserver without a plugin", || serves_without(node))?;
            "kleidi.yaml"
        }
        Late::Apiserver => {
            node.key_id()?;
            ensure(node.sh("pgrep -x kube-apiserver").is_err(), || {
                "kube-apiserver runs without its manifest".to_owned()
            })?;
            "kube-apiserver.yaml"
        }
    };
    node.sh(&format!("mv /root/{manifest} /etc/kubernetes/manifests/"))?;
    Ok(Some(Stopwatch::start()))
}

/// It answers, says that its KMS is away, and reads no Secret.
fn serves_without(node: &Node) -> Result<(), String> {
    let api = node.api()?;
    api.cannot_decrypt("round-0-0")?;
    ensure(api.kms_health().is_err(), || "it finds the KMS in order".to_owned())
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
