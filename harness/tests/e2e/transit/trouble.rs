//! Trouble with one server that the plugin gets over, or tells.

use std::time::Duration;

use kleidi_harness::{
    Load, Made, Plugin, Product, Rpc, Stage, VaultServer, wait_healthy, within, write_private,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::none_failed;
use crate::cluster::HEALTH_PATIENCE;

/// Shortest time between two logins of the plugin (src/backend/transit/login.rs).
const LOGIN_GAP: Duration = Duration::from_secs(5);

/// Somebody revokes the plugin's token while calls come in: none of them fails.
pub fn outlives_its_token_under_load(product: Product) {
    let stage = Stage::new(&format!("outlives its token {product:?}"));
    let Some(server) = VaultServer::start(&stage, "server", product) else { return };
    let role = server.provision();
    let plugin = Plugin::on_transit(&stage, "plugin", &server, &role).start();
    let key_id = wait_healthy(&plugin, HEALTH_PATIENCE);
    let load = Load::start(&plugin.socket(), 4);
    for _ in 0..2 {
        let begin = Instant::now();
        within(2 * LOGIN_GAP, "the last login to be long enough ago", || {
            let age = begin.elapsed();
            if age > LOGIN_GAP { Ok(()) } else { Err(format!("{age:?}")) }
        });
        revoke_all(&server);
        load.more(60);
    }
    let calls = load.finish();
    none_failed(&stage, "two revocations", &calls);
    assert!(calls.iter().all(|made| made.key_id == key_id));
    assert_eq!(plugin.process.log().matches("logged in").count(), 3, "once, and once each time");
}

/// Revokes every token but the one that does so.
fn revoke_all(server: &VaultServer) {
    let get = |path: &str| server.call("GET", path, &Value::Null).1;
    let own = get("auth/token/lookup-self")["data"]["accessor"].clone();
    let accessors = get("auth/token/accessors?list=true")["data"]["keys"].clone();
    let others: Vec<_> = accessors.as_array().unwrap().iter().filter(|one| **one != own).collect();
    assert!(!others.is_empty(), "there is a token to revoke");
    for accessor in others {
        let body = json!({ "accessor": accessor });
        let (status, answer) = server.call("POST", "auth/token/revoke-accessor", &body);
        assert_eq!(status, 204, "{answer}");
    }
}

/// A server that hangs is an outage that says so and ends by itself; calls end in time. `check --live`
/// tells the same key before. A token that somebody else has put there is told to nobody in all this.
pub fn says_that_the_server_hangs(product: Product) {
    let stage = Stage::new(&format!("hangs {product:?}"));
    let Some(server) = VaultServer::start(&stage, "server", product) else { return };
    let role = server.provision();
    let token = server.log_in(&role);
    write_private(&stage.path("plugin-token"), &token);
    let path = |name: &str| stage.path(name).display().to_string();
    let plugin = Plugin::on_transit(&stage, "plugin", &server, &role)
        .replace(
            "method: appRole",
            &format!("method: token\n    tokenFile: {}", path("plugin-token")),
        )
        .replace(&format!("    roleIdFile: {}\n", path("plugin-role-id")), "")
        .replace(&format!("    secretIdFile: {}\n", path("plugin-secret-id")), "")
        .start();
    let key_id = wait_healthy(&plugin, HEALTH_PATIENCE);
    let check = plugin.config().run(&["check", "--live"]);
    assert!(check.status.success(), "{check:?}");
    assert!(String::from_utf8_lossy(&check.stdout).contains(&key_id), "{check:?}");

    let load = Load::start(&plugin.socket(), 2);
    load.more(30);
    server.process.hang();
    let begin = Instant::now();
    let outage = within(HEALTH_PATIENCE, "Status to be an error", || {
        plugin.client().status().map_or_else(Ok, |status| Err(format!("{status:?}")))
    });
    assert!(begin.elapsed() < Duration::from_secs(5), "soon: {:?}", begin.elapsed());
    assert!(outage.message().contains("no answer in time"), "{outage}");
    assert!(outage.message().contains(server.address()), "{outage}");
    load.more(6);
    server.process.signal(Signal::SIGCONT);
    assert_eq!(wait_healthy(&plugin, HEALTH_PATIENCE), key_id);
    let calls = load.finish();
    let took = |made: &Made| made.ended - made.began;
    let longest = calls.iter().map(took).max().unwrap();
    assert!(longest < Duration::from_secs(3), "before kube-apiserver's own timeout: {longest:?}");
    let status = calls.iter().filter(|made| made.rpc == Rpc::Status).map(took).max().unwrap();
    assert!(status < Duration::from_secs(1), "Status does not wait for the server: {status:?}");
    let errors: Vec<_> = calls.iter().filter_map(|made| made.error.as_ref()).collect();
    assert!(!errors.is_empty(), "there was an outage");
    assert!(!errors.iter().any(|error| error.contains(&token)), "an error tells the token");
    stage.assert_absent(&[token.as_bytes()], |file| !file.ends_with("plugin-token"));
}
