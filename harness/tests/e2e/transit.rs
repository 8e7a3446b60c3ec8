//! The same way with the key in a real OpenBao or Vault instead of SoftHSM.

use kleidi_harness::{ApiServer, Etcd, Plugin, Product, Stage, Stored, VaultServer, within};
use nix::sys::signal::Signal;

use crate::cluster::{CANARY, HEALTH_PATIENCE, PROVIDER, secret_key, value_of};

#[test]
fn openbao_and_1_37() {
    encrypts_through_transit(Product::OpenBao, "1.37.2");
}

#[test]
fn openbao_and_1_29() {
    encrypts_through_transit(Product::OpenBao, "1.29.6");
}

#[test]
fn vault_and_1_37() {
    encrypts_through_transit(Product::Vault, "1.37.2");
}

/// Secrets are encrypted, readable after a restart of both sides, and move to a new version; a server
/// that hangs is an outage that ends by itself.
fn encrypts_through_transit(product: Product, version: &str) {
    let stage = Stage::new(&format!("transit {product:?} {version}"));
    let Some(server) = VaultServer::start(&stage, "vault", product) else { return };
    let role = server.provision();
    let Some(etcd) = Etcd::start(&stage) else { return };
    let Some(apiserver) = ApiServer::new(&stage, "apiserver", version, &etcd) else { return };
    let mut plugin = Plugin::on_transit(&stage, "plugin", &server, &role).start();
    let first = plugin.key_id();
    let check = plugin.config().run(&["check", "--live"]);
    assert!(check.status.success(), "{check:?}");
    assert!(String::from_utf8_lossy(&check.stdout).contains(&first), "{check:?}");
    let mut apiserver = apiserver.encrypt_with(PROVIDER, &plugin.socket()).start();
    let healthy = |apiserver: &ApiServer| {
        within(HEALTH_PATIENCE, "the KMS provider to be healthy", || apiserver.kms_health());
    };
    healthy(&apiserver);
    let stored = |name: &str| Stored::parse(&etcd.get(&secret_key(name)).unwrap()).unwrap();
    for n in 0..10 {
        let name = format!("secret-{n}");
        apiserver.create_secret(&name, &value_of(&name));
        assert_eq!(stored(&name).object.key_id, first);
        let source = stored(&name).object.encrypted_dek_source;
        assert!(source.starts_with(b"\x01\x02vault:v1:"), "{source:?}");
    }
    plugin.process.kill();
    plugin.start_again();
    assert_eq!(plugin.key_id(), first);
    apiserver.stop();
    apiserver.start_again();
    healthy(&apiserver);
    assert_eq!(apiserver.read_secret("secret-3"), Ok(value_of("secret-3")));

    server.rotate();
    let second = within(HEALTH_PATIENCE, "another key_id", || match plugin.key_id() {
        id if id != first => Ok(id),
        id => Err(id),
    });
    assert!(second.ends_with("-2"), "{second}");
    within(HEALTH_PATIENCE, "a Secret to move to the new version", || {
        apiserver.rewrite_secret("secret-4").map_err(|error| error.message)?;
        match stored("secret-4").object.key_id {
            id if id == second => Ok(()),
            id => Err(id),
        }
    });
    assert_eq!(apiserver.read_secret("secret-4"), Ok(value_of("secret-4")));
    assert_eq!(stored("secret-5").object.key_id, first);
    assert_eq!(apiserver.read_secret("secret-5"), Ok(value_of("secret-5")));

    server.process.signal(Signal::SIGSTOP);
    let outage = within(HEALTH_PATIENCE, "Status to be an error", || {
        plugin.client().status().map_or_else(Ok, |status| Err(format!("{status:?}")))
    });
    assert!(!outage.message().contains(&role.secret_id), "{outage}");
    server.process.signal(Signal::SIGCONT);
    assert_eq!(kleidi_harness::wait_healthy(&plugin, HEALTH_PATIENCE), second);
    apiserver.create_secret("after", &value_of("after"));

    assert_eq!(plugin.process.terminate(), 0);
    apiserver.stop();
    // The server's own log is its own affair; the credentials are in the files that hold them.
    let secrets = [CANARY.as_bytes(), role.secret_id.as_bytes()];
    stage.assert_absent(&secrets, |file| {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        !name.ends_with("secret-id") && !name.starts_with("vault")
    });
}
