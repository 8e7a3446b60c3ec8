//! The plugin on a real OpenBao and a real Vault: set up by the script that it prints, and what
//! `check --live` says when a step on the way to the key is blocked.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use kleidi_harness::{
    AppRole, Authority, Plugin, PluginConfig, Product, Stage, VaultServer, on_both, within,
};
use serde_json::{Value, json};
use tonic::Code;

use crate::{SEED, foreign, wait_healthy};

on_both! {
    the_printed_script_is_all_that_is_needed,
    check_tells_where_the_way_ends,
    check_warns_of_an_unsafe_key,
    genuine_answers_of_other_plugins_are_read,
    status_notices_that_decrypt_alone_is_forbidden,
}

/// A configuration for a server with nothing in it yet, with `more` at the end of its section.
fn configure(
    test: &str,
    product: Product,
    more: &str,
) -> Option<(Stage, VaultServer, PluginConfig)> {
    let stage = Stage::new(&format!("{test} {product:?}"));
    let server = VaultServer::start(&stage, "server", product)?;
    let nobody = AppRole { role_id: "nobody".to_owned(), secret_id: "nothing".to_owned() };
    let config = Plugin::on_transit(&stage, "plugin", &server, &nobody).append(more);
    Some((stage, server, config))
}

/// Runs what `init --print-policy` prints.
fn provision(stage: &Stage, server: &VaultServer, product: Product, config: &PluginConfig) {
    let printed = config.run(&["init", "--print-policy"]);
    assert!(printed.status.success(), "{printed:?}");
    let mut script = String::from_utf8(printed.stdout).unwrap();
    if product == Product::Vault {
        // As the script itself says.
        script.insert_str(0, "bao() { vault \"$@\"; }\n");
    }
    // What is there is left as it is.
    for file in ["plugin-role-id", "plugin-secret-id"] {
        let _ = fs::remove_file(stage.path(file));
    }
    let refused = server.administrator(Command::new("sh").arg("-c").arg(&script)).output();
    assert!(!refused.unwrap().status.success(), "it makes a key only if told to");
    for argument in ["--make-key", "", "--node", "--node"] {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(&script).args(["sh", argument]).stdin(Stdio::null());
        let output = server.administrator(&mut shell).output().unwrap();
        assert!(output.status.success(), "{script}\n{output:?}");
    }
}

/// Exit code and all output of `check --live`.
fn check(config: &PluginConfig) -> (i32, String) {
    let output = config.run(&["check", "--live"]);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

fn must(server: &VaultServer, method: &str, path: &str, body: &Value) -> Value {
    let (status, answer) = server.call(method, path, body);
    assert!((200..300).contains(&status), "{path}: {status} {answer}");
    answer
}

fn the_printed_script_is_all_that_is_needed(product: Product) {
    let Some((stage, server, config)) = configure("script", product, "") else { return };
    provision(&stage, &server, product, &config);
    let (code, said) = check(&config);
    assert_eq!(code, 0, "{said}");
    for line in ["unsealed, leads", "logged in", "the policy grants", "aes256-gcm96", "all is well"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains("warning"), "{said}");
    let plugin = config.start();
    wait_healthy(&plugin);
    let ours = plugin.client().encrypt(SEED).unwrap();
    assert_eq!(plugin.client().decrypt(&ours).unwrap(), SEED);
}

fn check_tells_where_the_way_ends(product: Product) {
    let Some((stage, server, config)) = configure("blocked", product, "") else { return };
    let says = |config: &PluginConfig, wanted_code: i32, wanted: &[&str]| {
        let (code, said) = check(config);
        assert_eq!(code, wanted_code, "{wanted:?}: {said}");
        for text in wanted {
            assert!(said.contains(text), "{text}: {said}");
        }
    };
    says(&config, 78, &["unsealed, leads", "cannot log in"]);
    provision(&stage, &server, product, &config);
    says(&config, 0, &["all is well"]);

    // The address: nobody there, and one of two.
    let address = server.address().to_owned();
    let one = format!("['{address}']");
    let closed = "http://127.0.0.1:1";
    let config = config.replace(&one, &format!("['{closed}']"));
    says(&config, 69, &["cannot use the server", closed, "refused"]);
    let both = format!("['{closed}', '{address}']");
    let config = config.replace(&format!("['{closed}']"), &both);
    says(&config, 0, &["warning: cannot use the server", closed, "all is well"]);
    let config = config.replace(&both, &one);

    // TLS: another authority, and a server without.
    let authority = Authority::new(&stage, "ca");
    let another = Authority::new(&stage, "another-ca");
    if let Some(tls) = VaultServer::tls(&stage, "tls", product, &authority) {
        let secure = format!("['{}']\n  caFile: {}", tls.address(), another.file().display());
        let config = config.clone().replace(&one, &secure);
        says(&config, 78, &["certificate", "caFile"]);
        let plain = tls.address().replace("https:", "http:");
        let config = config.replace(&secure, &format!("['{plain}']"));
        says(&config, 78, &["https://"]);
        let secure = server.address().replace("http:", "https:");
        let secure = format!("['{secure}']\n  caFile: {}", authority.file().display());
        let config = config.replace(&format!("['{plain}']"), &secure);
        says(&config, 78, &["speaks no TLS"]);
        let _ = config.replace(&secure, &one);
    }

    // The policy: what is missing, and where.
    let (_, whole) = server.call("GET", "sys/policies/acl/kleidi-kms", &Value::Null);
    let policy = whole["data"]["policy"].as_str().unwrap();
    let less = policy.replace("transit/hmac/kms", "transit/hmac/other");
    must(&server, "POST", "sys/policies/acl/kleidi-kms", &json!({ "policy": less }));
    says(&config, 78, &["lack update on transit/hmac/kms;", "--print-policy"]);
    let create = policy.replacen("[\"update\"]", "[\"update\", \"create\"]", 1);
    must(&server, "POST", "sys/policies/acl/kleidi-kms", &json!({ "policy": create }));
    says(&config, 0, &["warning: the policy grants create on transit/encrypt/kms"]);
    let blind = policy.replace("[\"read\"]", "[\"deny\"]");
    must(&server, "POST", "sys/policies/acl/kleidi-kms", &json!({ "policy": blind }));
    says(&config, 0, &["warning: whether the key can be exported is not known"]);
    must(&server, "POST", "sys/policies/acl/kleidi-kms", &json!({ "policy": policy }));

    // The key: not there, of another type, and the engine gone.
    must(&server, "POST", "transit/keys/kms/config", &json!({"deletion_allowed": true}));
    says(&config, 0, &["warning", "deletion_allowed"]);
    must(&server, "DELETE", "transit/keys/kms", &Value::Null);
    says(&config, 78, &["create the key"]);
    must(&server, "POST", "transit/keys/kms", &json!({"type": "rsa-2048"}));
    says(&config, 78, &["its type rsa-2048 takes no associated data", "aes256-gcm96"]);
    must(&server, "DELETE", "sys/mounts/transit", &Value::Null);
    says(&config, 78, &["the mount is not there"]);

    server.seal();
    says(&config, 69, &["it is sealed", "unseal it"]);
}

fn check_warns_of_an_unsafe_key(product: Product) {
    let Some((stage, server, config)) = configure("unsafe", product, "") else { return };
    provision(&stage, &server, product, &config);
    let unsafe_key = json!({"exportable": true, "allow_plaintext_backup": true});
    must(&server, "POST", "transit/keys/kms/config", &unsafe_key);
    let (code, said) = check(&config);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("warning: transit/keys/kms is exportable"), "{said}");
    assert!(said.contains("warning: transit/keys/kms is allow_plaintext_backup"), "{said}");
}

/// kube-apiserver asks for Decrypt when it starts and hardly ever else: too late to hear of it.
fn status_notices_that_decrypt_alone_is_forbidden(product: Product) {
    let Some((stage, server, config)) = configure("forbidden", product, "") else { return };
    provision(&stage, &server, product, &config);
    let (_, policy) = server.call("GET", "sys/policies/acl/kleidi-kms", &Value::Null);
    let policy = policy["data"]["policy"].as_str().unwrap();
    let plugin = config.start();
    wait_healthy(&plugin);
    let less = policy.replace("transit/decrypt/kms", "transit/decrypt/other");
    must(&server, "POST", "sys/policies/acl/kleidi-kms", &json!({ "policy": less }));
    let minute = Duration::from_secs(60);
    let error = within(minute, "Status to be an error", || match plugin.client().status() {
        Ok(status) => Err(format!("{status:?}")),
        Err(error) => Ok(error),
    });
    assert!(error.message().contains("permission denied"), "{error}");
    must(&server, "POST", "sys/policies/acl/kleidi-kms", &json!({ "policy": policy }));
    wait_healthy(&plugin);
}

/// The key is restored under another name, as it is where two plugins share an engine.
fn genuine_answers_of_other_plugins_are_read(product: Product) {
    let all = "  decryptAlso:\n  - plugin: kleidi-go\n    key: old\n  - plugin: \
               vault-kubernetes-kms\n    key: old\n  - plugin: vault-kms-provider\n    key: old\n";
    let Some((stage, server, config)) = configure("foreign transit", product, all) else { return };
    provision(&stage, &server, product, &config);
    let vectors = foreign::transit_vectors();
    let backup = json!({"backup": vectors.backup});
    must(&server, "POST", "transit/restore/old", &backup);
    let file = fs::read_to_string(config.file()).unwrap();
    let plugin = config.start();
    wait_healthy(&plugin);
    let mut client = plugin.client();
    assert!(vectors.vectors.len() >= 9);
    for vector in &vectors.vectors {
        let read = client.decrypt_parts(&vector.ciphertext, &vector.key_id, &vector.annotations);
        assert_eq!(read.unwrap(), vector.plaintext, "{}", vector.plugin);
        assert_ne!(client.encrypt(SEED).unwrap().key_id, vector.key_id);
        let mut bad = vector.ciphertext.clone();
        *bad.last_mut().unwrap() ^= 1;
        let error = client.decrypt_parts(&bad, &vector.key_id, &vector.annotations).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        let nothing = client.decrypt_parts(b"", &vector.key_id, &vector.annotations).unwrap_err();
        assert_eq!(nothing.code(), Code::InvalidArgument, "{nothing}");
        // Ours are bound to their key_id, and are not read as theirs.
        let ours = client.encrypt(SEED).unwrap();
        let inner = &ours.ciphertext[2..];
        assert!(inner.starts_with(b"vault:v1:"), "{inner:?}");
        let error = client.decrypt_parts(inner, &vector.key_id, &vector.annotations).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
    // Only what is named is read.
    let mut plugin = plugin;
    plugin.process.terminate();
    fs::write(plugin.config().file(), file.replace(all, "")).unwrap();
    plugin.start_again();
    wait_healthy(&plugin);
    for vector in &vectors.vectors {
        let mut client = plugin.client();
        let error = client
            .decrypt_parts(&vector.ciphertext, &vector.key_id, &vector.annotations)
            .unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{error}");
        assert!(error.message().contains("decryptAlso"), "{error}");
    }
}
