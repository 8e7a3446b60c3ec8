//! What the plugin asks of OpenBao, counted.

use std::collections::BTreeMap;
use std::time::Duration;

use kleidi_harness::{CountingProxy, Plugin, Product, Stage, VaultServer, wait_healthy};

/// How often the plugin asked for what, since the last look.
fn asked(proxy: &CountingProxy) -> BTreeMap<String, usize> {
    let short = |path: &str| path.trim_start_matches("/v1/").to_owned();
    proxy.take().into_iter().map(|(path, count)| (short(&path), count)).collect()
}

#[test]
fn a_start_proves_the_key_a_seed_is_read_back_and_status_asks_nothing() {
    let stage = Stage::new("transit calls");
    let Some(server) = VaultServer::start(&stage, "server", Product::OpenBao) else { return };
    let proxy = CountingProxy::start(server.address());
    let plugin = Plugin::on_transit(&stage, "plugin", &server, &server.provision())
        .replace(server.address(), proxy.address())
        // No look at the key in between.
        .replace("period: 1s", "period: 1m")
        .start();
    let _ = wait_healthy(&plugin, Duration::from_secs(10));
    let counts = |counts: &[(&str, usize)]| {
        counts.iter().map(|(path, count)| ((*path).to_owned(), *count)).collect()
    };
    // Which key, then wrapped, read back, and refused with other associated data.
    let start = [
        ("auth/approle/login", 1),
        ("transit/hmac/kms", 2),
        ("transit/encrypt/kms", 1),
        ("transit/decrypt/kms", 2),
    ];
    assert_eq!(asked(&proxy), counts(&start));

    let mut client = plugin.client();
    for _ in 0..50 {
        client.status().unwrap();
    }
    assert_eq!(asked(&proxy), counts(&[]));
    let wrapped: Vec<_> = (0..10).map(|n| client.encrypt(&[n; 32]).unwrap()).collect();
    let read_back =
        [("transit/encrypt/kms", 10), ("transit/hmac/kms", 10), ("transit/decrypt/kms", 10)];
    assert_eq!(asked(&proxy), counts(&read_back));
    for wrapped in &wrapped {
        client.decrypt(wrapped).unwrap();
    }
    assert_eq!(asked(&proxy), counts(&[("transit/decrypt/kms", 10)]));
}
