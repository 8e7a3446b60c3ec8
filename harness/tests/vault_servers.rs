//! The harness's own OpenBao and Vault servers: what other tests rely on holds on both products.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "these are tests")]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kleidi_harness::{Authority, BaoCluster, Product, Stage, VaultServer, within};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Long enough for an answer, and for a cluster to elect another leader.
const SOON: Duration = Duration::from_secs(30);

/// Runs `test` with a development server of each product.
fn on_both(name: &str, test: impl Fn(VaultServer)) {
    for product in Product::ALL {
        let stage = Stage::new(&format!("{name} ({product:?})"));
        if let Some(server) = VaultServer::start(&stage, "server", product) {
            test(server);
        }
    }
}

/// A ciphertext of the text.
fn encrypt(server: &VaultServer, token: &str, text: &str) -> String {
    let body = json!({"plaintext": STANDARD.encode(text)});
    let answer = success(server.call_as(token, "POST", "transit/encrypt/kms", &body));
    answer["data"]["ciphertext"].as_str().unwrap().to_owned()
}

/// The text of a ciphertext.
fn decrypt(server: &VaultServer, token: &str, ciphertext: &str) -> String {
    let body = json!({"ciphertext": ciphertext});
    let answer = success(server.call_as(token, "POST", "transit/decrypt/kms", &body));
    let text = STANDARD.decode(answer["data"]["plaintext"].as_str().unwrap()).unwrap();
    String::from_utf8(text).unwrap()
}

/// The answer to an hmac call, which names the key's newest version and depends on its bytes.
fn hmac(server: &VaultServer, token: &str) -> String {
    let body = json!({"input": STANDARD.encode("the same each time")});
    let answer = success(server.call_as(token, "POST", "transit/hmac/kms", &body));
    answer["data"]["hmac"].as_str().unwrap().to_owned()
}

fn success((status, answer): (u16, Value)) -> Value {
    assert_eq!(status, 200, "{answer}");
    answer
}

#[test]
fn an_approle_may_do_what_a_plugin_needs_and_no_more() {
    on_both("approle", |server| {
        let token = server.log_in(&server.provision());
        let ciphertext = encrypt(&server, &token, "hunter2");
        assert!(ciphertext.starts_with("vault:v1:"), "{ciphertext}");
        assert_eq!(decrypt(&server, &token, &ciphertext), "hunter2");
        assert_eq!(hmac(&server, &token), hmac(&server, &token));

        let forbidden = [
            ("POST", "transit/keys/kms/rotate"),
            ("POST", "transit/encrypt/other"),
            ("POST", "sys/seal"),
        ];
        for (method, path) in forbidden {
            let (status, answer) = server.call_as(&token, method, path, &json!({}));
            assert_eq!(status, 403, "{path}: {answer}");
        }
        // Not even root makes a key by encrypting with it.
        let body = json!({"plaintext": STANDARD.encode("hunter2")});
        let (status, answer) = server.call("POST", "transit/encrypt/other", &body);
        assert_eq!(status, 400, "{answer}");
    });
}

#[test]
fn a_bad_token_is_refused() {
    on_both("bad token", |server| {
        let _ = server.provision();
        let body = json!({"plaintext": STANDARD.encode("hunter2")});
        let (status, answer) = server.call_as("bad", "POST", "transit/encrypt/kms", &body);
        assert_eq!(status, 403, "{answer}");
        assert!(answer.to_string().contains("permission denied"), "{answer}");
    });
}

#[test]
fn a_rotation_is_seen_and_what_is_older_stays_readable() {
    on_both("rotation", |server| {
        let token = server.log_in(&server.provision());
        let (older, before) = (encrypt(&server, &token, "hunter2"), hmac(&server, &token));
        server.rotate();
        let newer = encrypt(&server, &token, "hunter2");
        assert!(newer.starts_with("vault:v2:"), "{newer}");
        let after = hmac(&server, &token);
        assert!(before.starts_with("vault:v1:") && after.starts_with("vault:v2:"), "{after}");
        assert_eq!(decrypt(&server, &token, &older), "hunter2");
    });
}

#[test]
fn a_sealed_server_says_so_until_it_is_unsealed() {
    on_both("seal", |server| {
        let token = server.log_in(&server.provision());
        let ciphertext = encrypt(&server, &token, "hunter2");
        server.seal();
        let body = json!({"ciphertext": ciphertext});
        let (status, answer) = server.call_as(&token, "POST", "transit/decrypt/kms", &body);
        assert_eq!(status, 503, "{answer}");
        server.unseal();
        assert_eq!(decrypt(&server, &token, &ciphertext), "hunter2");
    });
}

#[test]
fn a_stopped_server_answers_when_it_goes_on() {
    on_both("stopped", |server| {
        let token = server.log_in(&server.provision());
        let ciphertext = encrypt(&server, &token, "hunter2");
        server.process.hang();
        let body = json!({"ciphertext": ciphertext});
        let patience = Duration::from_secs(1);
        let answer = server.try_call(patience, &token, "POST", "transit/decrypt/kms", &body);
        assert!(answer.as_ref().is_err_and(|error| error.contains("timeout")), "{answer:?}");
        server.process.signal(Signal::SIGCONT);
        assert_eq!(decrypt(&server, &token, &ciphertext), "hunter2");
    });
}

#[test]
fn a_server_that_is_started_again_has_forgotten_everything() {
    on_both("again", |mut server| {
        let ciphertext = {
            let token = server.log_in(&server.provision());
            encrypt(&server, &token, "hunter2")
        };
        server.process.kill();
        let body = json!({"ciphertext": ciphertext});
        let token = server.root_token().to_owned();
        assert!(server.try_call(SOON, &token, "POST", "transit/decrypt/kms", &body).is_err());
        server.start_again();
        let _ = server.provision();
        let (status, answer) = server.call("POST", "transit/decrypt/kms", &body);
        assert_eq!(status, 400, "{answer}");
    });
}

#[test]
fn a_server_with_tls_is_provisioned_like_one_without() {
    for product in Product::ALL {
        let stage = Stage::new(&format!("tls ({product:?})"));
        let authority = Authority::new(&stage, "authority");
        let Some(server) = VaultServer::tls(&stage, "server", product, &authority) else {
            continue;
        };
        assert!(server.address().starts_with("https://"), "{}", server.address());
        assert_eq!(server.authority(), Some(&*authority.file()));
        let token = server.log_in(&server.provision());
        assert_eq!(decrypt(&server, &token, &encrypt(&server, &token, "hunter2")), "hunter2");
    }
}

#[test]
fn a_cluster_outlives_its_leader() {
    let stage = Stage::new("cluster");
    let authority = Authority::new(&stage, "authority");
    let Some(mut cluster) = BaoCluster::start(&stage, "bao", &authority) else { return };
    let leader = cluster.leader();
    let others: Vec<_> = (0..3).filter(|node| *node != leader).collect();
    let token = {
        let leader = &cluster.nodes[leader];
        leader.log_in(&leader.provision())
    };
    let older = encrypt(&cluster.nodes[leader], &token, "hunter2");
    for node in &others {
        wait_decrypts(&cluster.nodes[*node], &token, &older);
    }

    cluster.nodes[leader].process.kill();
    for node in &others {
        // At once, or after the election if the token is too new for the node to know it.
        wait_decrypts(&cluster.nodes[*node], &token, &older);
    }
    let next = cluster.leader();
    assert_ne!(next, leader);
    within(SOON, "the next leader to rotate", || {
        match cluster.nodes[next].call("POST", "transit/keys/kms/rotate", &json!({})) {
            (200..300, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });

    // It comes back by itself, and catches up.
    cluster.nodes[leader].start_again();
    let newer = encrypt(&cluster.nodes[next], &token, "hunter2");
    assert!(newer.starts_with("vault:v2:"), "{newer}");
    wait_decrypts(&cluster.nodes[leader], &token, &newer);
}

/// Waits until the node decrypts that to "hunter2".
fn wait_decrypts(node: &VaultServer, token: &str, ciphertext: &str) {
    let body = json!({"ciphertext": ciphertext});
    let answer = within(SOON, "the node to decrypt", || {
        match node.try_call(SOON, token, "POST", "transit/decrypt/kms", &body)? {
            (200, answer) => Ok(answer),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(answer["data"]["plaintext"], STANDARD.encode("hunter2"));
}
