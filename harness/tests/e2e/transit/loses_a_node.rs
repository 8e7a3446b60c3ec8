//! A cluster of three nodes that loses one or more of them under load: no call fails, and no Secret.

use std::time::Duration;

use kleidi_harness::{
    ApiServer, AppRole, Authority, Balancer, BaoCluster, Etcd, Load, Made, Plugin, Rpc, Stage,
    VaultServer, eventually, wait_healthy, within,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::none_failed;
use crate::cluster::{HEALTH_PATIENCE, PROVIDER, value_of};
use crate::writing::Writing;

/// What happens to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    FollowerKilled,
    LeaderKilled,
    LeaderHung,
    LeaderStepsDown,
    /// Two of three are killed: the last one serves on without a leader.
    QuorumLost,
}

impl Loss {
    const ALL: [Self; 5] = [
        Self::FollowerKilled,
        Self::LeaderKilled,
        Self::LeaderHung,
        Self::LeaderStepsDown,
        Self::QuorumLost,
    ];
}

/// Clients of each plugin.
const CLIENTS: usize = 2;

/// How long a start may take while a node hangs: a login that waits for it makes room after three seconds.
const STARTS_IN: Duration = Duration::from_secs(15);

/// Calls that are waited for before a loss, and again when it is over.
const CALLS: usize = 60;

#[test]
fn no_call_fails() {
    let stage = Stage::new("a cluster loses a node");
    let authority = Authority::new(&stage, "authority");
    let Some(mut cluster) = BaoCluster::start(&stage, "bao", &authority) else { return };
    let leader = &cluster.nodes[cluster.wait_whole()];
    let role = leader.provision();
    let short_lived = short_lived(leader);
    // One plugin lives through all of it; each loss has one besides that first asks what is lost, and
    // that has to renew its token soon.
    let lasting = Plugin::on_nodes(&stage, "lasting", &cluster.beginning_with(0), &role).start();
    let key_id = wait_healthy(&lasting, HEALTH_PATIENCE);
    let load = Load::start(&lasting.socket(), CLIENTS);
    for loss in Loss::ALL {
        survives(&stage, &mut cluster, &short_lived, loss);
    }
    hangs_behind_a_balancer(&stage, &cluster, &role);
    let _ = cluster.wait_whole();
    load.more(CALLS);
    let calls = load.finish();
    none_failed(&stage, "all of them, one plugin", &calls);
    assert!(calls.iter().all(|made| made.key_id == key_id));
}

/// A role of whose tokens half of the time is over in five to ten seconds.
fn short_lived(leader: &VaultServer) -> AppRole {
    let call = |method, path: &str, body: &Value| leader.must(method, path, body)["data"].clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let role = "auth/approle/role/short-lived";
    call("POST", role, &json!({"token_policies": "kms-plugin", "token_ttl": "20s"}));
    let role_id = call("GET", &format!("{role}/role-id"), &Value::Null);
    let secret_id = call("POST", &format!("{role}/secret-id"), &json!({}));
    AppRole { role_id: text(&role_id["role_id"]), secret_id: text(&secret_id["secret_id"]) }
}

fn survives(stage: &Stage, cluster: &mut BaoCluster, role: &AppRole, loss: Loss) {
    let leader = cluster.wait_whole();
    let first = if loss == Loss::FollowerKilled { (leader + 1) % 3 } else { leader };
    let nodes = cluster.beginning_with(first);
    let plugin = Plugin::on_nodes(stage, &format!("{loss:?}"), &nodes, role).start();
    let _ = wait_healthy(&plugin, HEALTH_PATIENCE);
    let load = Load::start(&plugin.socket(), CLIENTS);
    load.more(CALLS);

    let begin = Instant::now();
    let logged = plugin.process.log().len();
    match loss {
        Loss::FollowerKilled | Loss::LeaderKilled => {
            cluster.nodes[first].process.kill();
        }
        Loss::LeaderHung => cluster.nodes[first].process.hang(),
        Loss::LeaderStepsDown => {
            let (status, answer) = cluster.nodes[first].call("PUT", "sys/step-down", &json!({}));
            assert_eq!(status, 204, "{answer}");
        }
        Loss::QuorumLost => {
            cluster.nodes[first].process.kill();
            cluster.nodes[(first + 1) % 3].process.kill();
        }
    }
    let told = if loss == Loss::QuorumLost {
        // For as long as it takes until the token should have been renewed, which needs a leader.
        eventually("the token not to be renewed", || {
            let log = plugin.process.log();
            if log.contains("the token cannot be kept") {
                Ok(())
            } else {
                Err("not yet".to_owned())
            }
        });
        format!("{loss:?}, no leader for {:.1?}", begin.elapsed())
    } else {
        let _ = cluster.leader();
        format!("{loss:?}, a leader after {:.1?}", begin.elapsed())
    };
    load.more(CALLS);
    // It is the node that calls went to that was lost: an attempt was in vain.
    if loss != Loss::LeaderStepsDown {
        let log = plugin.process.log();
        let (address, since) = (cluster.nodes[first].address(), &log[logged..]);
        let missed = ["an attempt failed", "no answer yet"];
        let noticed =
            |line: &str| line.contains(address) && missed.iter().any(|text| line.contains(text));
        assert!(since.lines().any(noticed), "{loss:?}: nobody asked {address}");
    }
    match loss {
        Loss::FollowerKilled | Loss::LeaderKilled => cluster.nodes[first].start_again(),
        Loss::LeaderHung => cluster.nodes[first].process.signal(Signal::SIGCONT),
        Loss::LeaderStepsDown => {}
        Loss::QuorumLost => {
            cluster.nodes[first].start_again();
            cluster.nodes[(first + 1) % 3].start_again();
        }
    }
    load.more(CALLS);
    let mut calls = load.finish();
    calls.retain(|made| made.ended > begin);
    none_failed(stage, &told, &calls);
}

/// The plugin knows one address, and the balancer there knows before the plugin that a node hangs: the
/// connections to that node are of no use, but new ones are.
fn hangs_behind_a_balancer(stage: &Stage, cluster: &BaoCluster, role: &AppRole) {
    let leader = cluster.wait_whole();
    let (hangs, other) = (&cluster.nodes[leader], &cluster.nodes[(leader + 1) % 3]);
    let balancer = Balancer::start(hangs.port());
    let address = format!("https://127.0.0.1:{}", balancer.port());
    let plugin = Plugin::on_nodes(stage, "balanced", &[hangs], role);
    let plugin = plugin.replace(hangs.address(), &address).start();
    let _ = wait_healthy(&plugin, HEALTH_PATIENCE);
    let load = Load::start(&plugin.socket(), 4 * CLIENTS);
    load.more(4 * CALLS);
    let begin = Instant::now();
    balancer.direct_to(other.port());
    hangs.process.hang();
    load.more(4 * CALLS);
    hangs.process.signal(Signal::SIGCONT);
    let mut calls = load.finish();
    calls.retain(|made| made.ended > begin);
    none_failed(stage, "a node hung behind a balancer", &calls);
}

/// Without a token, and the first node hangs: the login takes another one soon.
#[test]
fn it_starts_while_a_node_hangs() {
    let stage = Stage::new("a node hangs at the start");
    let authority = Authority::new(&stage, "authority");
    let Some(cluster) = BaoCluster::start(&stage, "bao", &authority) else { return };
    let leader = cluster.wait_whole();
    let role = cluster.nodes[leader].provision();
    let first = (leader + 1) % 3;
    cluster.nodes[first].process.hang();
    let plugin = Plugin::on_nodes(&stage, "plugin", &cluster.beginning_with(first), &role).start();
    // Not of what builds it.
    let begin = Instant::now();
    let _ = wait_healthy(&plugin, HEALTH_PATIENCE);
    stage
        .say(&format!("healthy {:.1?} after its start, with the first node hung", begin.elapsed()));
    assert!(begin.elapsed() < STARTS_IN, "{:?}", begin.elapsed());
    cluster.nodes[first].process.signal(Signal::SIGCONT);
}

/// A node that was away during a rotation is all that answers, then another one besides: Status is an error
/// first and does not go back to the version before, and what the first node does not know is asked of the second.
#[test]
fn a_node_that_is_behind_is_passed_over() {
    let stage = Stage::new("a node is behind");
    let authority = Authority::new(&stage, "authority");
    let Some(mut cluster) = BaoCluster::start(&stage, "bao", &authority) else { return };
    let leader = cluster.wait_whole();
    let role = cluster.nodes[leader].provision();
    let (behind, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let nodes = [leader, behind, other].map(|node| &cluster.nodes[node]);
    let plugin = Plugin::on_nodes(&stage, "plugin", &nodes, &role).start();
    let first = wait_healthy(&plugin, HEALTH_PATIENCE);
    let old = plugin.client().encrypt(b"wrapped before the rotation").unwrap();

    let load = Load::start(&plugin.socket(), CLIENTS);
    // By then it has heard of the plugin's token.
    load.more(2 * CALLS);

    cluster.nodes[behind].process.kill();
    cluster.nodes[leader].rotate();
    let second = within(HEALTH_PATIENCE, "another key_id", || match plugin.key_id() {
        id if id != first => Ok(id),
        id => Err(id),
    });
    let rotated = Instant::now();
    load.more(CALLS);
    // Now nobody who knows the second version answers.
    cluster.nodes[leader].process.hang();
    cluster.nodes[other].process.hang();
    cluster.nodes[behind].start_again();
    let looks = || plugin.process.log().matches("than is known: the node is behind").count();
    eventually("a look at the node that is behind", || {
        let unwrapped = plugin.client().decrypt(&old).map_err(|error| error.to_string())?;
        assert_eq!(unwrapped, b"wrapped before the rotation");
        if looks() > 0 { Ok(()) } else { Err("none".to_owned()) }
    });
    // It cannot wrap with what has been announced, and Status does not say that it could.
    within(HEALTH_PATIENCE, "Status to be an error", || match plugin.client().status() {
        Ok(status) => Err(format!("{status:?}")),
        Err(_) => Ok(()),
    });

    cluster.nodes[other].process.signal(Signal::SIGCONT);
    assert_eq!(wait_healthy(&plugin, HEALTH_PATIENCE), second);
    let begin = Instant::now();
    load.more(2 * CALLS);
    cluster.nodes[leader].process.signal(Signal::SIGCONT);
    let calls = load.finish();
    let status =
        |made: &&Made| made.rpc == Rpc::Status && made.began > rotated && made.error.is_none();
    assert!(calls.iter().filter(status).all(|made| made.key_id == second), "Status went back");
    let after: Vec<_> = calls.into_iter().filter(|made| made.began > begin).collect();
    none_failed(&stage, "one node behind, one that knows, one that hangs", &after);
}

/// A kube-apiserver writes through a loss, and another one starts in it.
#[test]
fn no_secret_fails() {
    let stage = Stage::new("a cluster loses its leader under an apiserver");
    let authority = Authority::new(&stage, "authority");
    let Some(mut cluster) = BaoCluster::start(&stage, "bao", &authority) else { return };
    let leader = cluster.wait_whole();
    let role = cluster.nodes[leader].provision();
    let Some(etcd) = Etcd::start(&stage) else { return };
    let Some(apiserver) = ApiServer::new(&stage, "apiserver", "1.37.2", &etcd) else { return };
    let plugin = Plugin::on_nodes(&stage, "plugin", &cluster.beginning_with(leader), &role).start();
    let apiserver = apiserver.encrypt_with(PROVIDER, &plugin.socket()).start();
    within(HEALTH_PATIENCE, "the provider to be healthy", || apiserver.kms_health());
    let other = ApiServer::new(&stage, "other", "1.37.2", &etcd).unwrap();
    let other = other.encrypt_with(PROVIDER, &plugin.socket());

    let mut started = None;
    let writing = Writing::during(&[&apiserver], |writing| {
        writing.more(20);
        let begin = Instant::now();
        cluster.nodes[leader].process.kill();
        // It has a seed wrapped and others unwrapped while there is no leader.
        let other = started.insert(other.start());
        other.kms_health().expect("the provider is healthy from the start");
        let _ = cluster.leader();
        writing.more(20);
        let (count, took) = (writing.written().len(), begin.elapsed());
        stage
            .say(&format!("{count} Secrets written, {took:.1?} of it after the loss; none failed"));
    });
    writing.none_refused();
    let other = started.unwrap();
    for name in writing.written() {
        assert_eq!(other.read_secret(&name), Ok(value_of(&name)), "{name}");
    }
}
