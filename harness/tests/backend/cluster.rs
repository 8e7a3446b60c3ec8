//! One of three nodes of OpenBao, asked alone.

use kleidi_harness::{Authority, BaoCluster};
use nix::sys::signal::Signal;

use super::*;

/// A standby serves without its leader, too; only who has to log in then waits for a new one.
#[test]
fn a_standby_needs_no_leader_but_for_a_login() {
    let stage = Stage::new("standby");
    let authority = Authority::new(&stage, "authority");
    let Some(mut cluster) = BaoCluster::start(&stage, "bao", &authority) else { return };
    let leader = cluster.wait_whole();
    let role = cluster.nodes[leader].provision();
    let standby = cluster.nodes.remove((leader + 1) % 3);
    let mut others = cluster.nodes;
    let mut world = World::with(stage, standby, role);
    let keys = world.heals();
    let wrapped = world.wrap(&keys).unwrap();
    assert_eq!(world.unwrap(&wrapped).unwrap(), SEED);

    // What the leader alone knows of the token goes with it.
    let applied = |node: &VaultServer| {
        let (_, answer) = node.call("GET", "sys/leader", &json!(null));
        answer["raft_applied_index"].as_u64().expect("an index")
    };
    let reached = others.iter().map(applied).max().unwrap();
    within(SOON, "the standby to have heard of all", || match applied(&world.server) {
        index if index >= reached => Ok(()),
        index => Err(format!("{index} of {reached}")),
    });
    for node in &mut others {
        node.process.signal(Signal::SIGKILL);
        node.process.wait();
    }
    let before = Arc::clone(&world.backend);
    world.log_in_by(app_role(&world));
    let error = world.observe().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("the cluster has no leader"), "{error}");
    let anew = std::mem::replace(&mut world.backend, before);
    for _ in 0..20 {
        assert_eq!(world.unwrap(&wrapped).unwrap(), SEED);
        assert_eq!(world.observe().unwrap().current, keys.current);
    }
    world.backend = anew;
    for node in &mut others {
        node.start_again();
    }
    assert_eq!(world.heals().current, keys.current);
    assert_eq!(world.unwrap(&wrapped).unwrap(), SEED);
}
