//! Three nodes of OpenBao: asked alone, as the manual sets them up, and as ones that forward all.

use std::fs;

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

/// The manual's configuration is one that works: three nodes, TLS, a seal that opens by itself, two audit
/// devices.
#[test]
fn the_manuals_servers() {
    let stage = Stage::new("manual");
    let authority = Authority::new(&stage, "authority");
    let Some(mut cluster) = BaoCluster::as_in_the_manual(&stage, &authority) else { return };
    let leader = cluster.wait_whole();
    let role = cluster.nodes[leader].provision();
    for device in ["first/", "second/"] {
        let list = cluster.nodes[leader].call("GET", "sys/audit", &json!(null)).1;
        assert_eq!(list["data"][device]["type"], "file", "{list}");
    }
    for directory in ["log", "srv"] {
        assert!(fs::metadata(stage.path(directory).join("audit.log")).unwrap().len() > 0);
    }
    // After a power cut nobody has to come.
    for node in &mut cluster.nodes {
        node.process.signal(Signal::SIGKILL);
        node.process.wait();
    }
    for node in &mut cluster.nodes {
        node.start_again();
    }
    let leader = cluster.wait_whole();
    let standby = cluster.nodes.remove((leader + 1) % 3);
    let world = World::with(stage, standby, role);
    let keys = world.heals();
    assert_eq!(world.unwrap(&world.wrap(&keys).unwrap()).unwrap(), SEED);
}

/// As Vault's community edition does it, too: a standby asks the leader. Planned, no call fails; without
/// a leader every call says so, and all is over by itself.
#[test]
fn standbys_that_forward_are_an_outage_only_while_there_is_no_leader() {
    let stage = Stage::new("forwarding");
    let authority = Authority::new(&stage, "authority");
    let more = json!({"disable_standby_reads": true});
    let cluster = BaoCluster::start_with(&stage, "bao", &authority, &more);
    let Some(mut cluster) = cluster else { return };
    let leader = cluster.wait_whole();
    let role = cluster.nodes[leader].provision();
    let addresses: Vec<_> = cluster.nodes.iter().map(|node| node.address().to_owned()).collect();
    let standby = cluster.nodes.remove((leader + 1) % 3);
    let mut world = World::with(stage, standby, role);
    let keys = world.heals();
    let wrapped = world.wrap(&keys).unwrap();
    assert_eq!(world.unwrap(&wrapped).unwrap(), SEED, "by a standby alone");

    let all = Settings { addresses, ..settings(&world.server, app_role(&world)) };
    world.backend = Arc::new(Transit::new(all, Arc::new(OsRandom)));
    assert_eq!(world.heals().current, keys.current);
    let leads =
        |node: &VaultServer| node.call("GET", "sys/leader", &json!(null)).1["is_self"] == true;
    let old = cluster.nodes.iter().find(|node| leads(node)).unwrap();
    assert!((200..300).contains(&old.call("PUT", "sys/step-down", &json!({})).0));
    for _ in 0..40 {
        assert_eq!(world.unwrap(&wrapped).unwrap(), SEED, "planned");
        std::thread::park_timeout(Duration::from_millis(50));
    }

    // Killed: whoever leads now, if it is not the one that is asked alone above.
    let leader = within(SOON, "a leader", || {
        let nodes = || cluster.nodes.iter().chain([&world.server]);
        nodes().position(leads).ok_or_else(|| "none".to_owned())
    });
    let killed = match leader {
        2 => &mut world.server,
        number => &mut cluster.nodes[number],
    };
    killed.process.signal(Signal::SIGKILL);
    killed.process.wait();
    let (begin, mut failed, mut good) = (Instant::now(), 0, 0);
    while good < 20 {
        match world.unwrap(&wrapped) {
            Ok(seed) => {
                assert_eq!(seed, SEED);
                good += 1;
            }
            Err(error) => {
                assert!(error.kind.retryable(), "{error}");
                (failed, good) = (failed + 1, 0);
            }
        }
        assert!(begin.elapsed() < SOON, "{failed} calls failed");
    }
    assert_eq!(world.heals().current, keys.current);
}
