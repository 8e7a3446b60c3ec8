//! The plugin on a real OpenBao and a real Vault: set up by the script that it prints, and what
//! `check --live` says when a step on the way to the key is blocked.

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use kleidi_harness::{
    AppRole, Authority, JwtIssuer, Plugin, PluginConfig, Product, Stage, VaultServer, on_both,
    within, write_private,
};
use serde_json::{Value, json};
use tonic::Code;

use crate::{SEED, foreign, wait_healthy};

on_both! {
    the_printed_script_is_all_that_is_needed,
    check_tells_where_the_way_ends,
    check_warns_of_an_unsafe_key,
    check_judges_the_token,
    check_says_that_a_namespace_is_passed_over,
    a_script_with_blanks_does_nothing,
    a_script_leaves_what_others_have_configured,
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

/// What `init --print-policy` prints.
fn printed(product: Product, config: &PluginConfig) -> String {
    let printed = config.run(&["init", "--print-policy"]);
    assert!(printed.status.success(), "{printed:?}");
    let mut script = String::from_utf8(printed.stdout).unwrap();
    if product == Product::Vault {
        // As the script itself says.
        script.insert_str(0, "bao() { vault \"$@\"; }\n");
    }
    script
}

/// Runs it as an administrator.
fn sh(server: &VaultServer, script: &str, argument: &str) -> Output {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).args(["sh", argument]).stdin(Stdio::null());
    server.administrator(&mut shell).output().unwrap()
}

fn provision(stage: &Stage, server: &VaultServer, product: Product, config: &PluginConfig) {
    let script = printed(product, config);
    // What is there is left as it is.
    for file in ["plugin-role-id", "plugin-secret-id"] {
        let _ = fs::remove_file(stage.path(file));
    }
    assert!(!sh(server, &script, "").status.success(), "it makes a key only if told to");
    for argument in ["--make-key", "", "--node", "--node"] {
        let output = sh(server, &script, argument);
        assert!(output.status.success(), "{script}\n{output:?}");
    }
}

/// Exit code and all output of `check --live`.
fn check(config: &PluginConfig) -> (i32, String) {
    let output = config.run(&["check", "--live"]);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
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
    // What the manual adds to the role is left when the script is run again.
    let role = "auth/approle/role/kleidi-kms";
    let networks =
        json!({"secret_id_bound_cidrs": "127.0.0.0/8", "token_bound_cidrs": "127.0.0.0/8"});
    server.must("POST", role, &networks);
    let before = server.must("GET", role, &Value::Null)["data"].clone();
    assert!(sh(&server, &printed(product, &config), "").status.success());
    assert_eq!(server.must("GET", role, &Value::Null)["data"], before);
    let plugin = config.start();
    wait_healthy(&plugin);
    let ours = plugin.client().encrypt(SEED).unwrap();
    assert_eq!(plugin.client().decrypt(&ours).unwrap(), SEED);

    // A key of the same name at another mount of the same server takes nothing away from this one.
    let nobody = AppRole { role_id: String::new(), secret_id: String::new() };
    let second = Plugin::on_transit(&stage, "second", &server, &nobody)
        .replace("key: kms", "key: kms\n  mount: transit-b");
    for file in ["second-role-id", "second-secret-id"] {
        let _ = fs::remove_file(stage.path(file));
    }
    for argument in ["--make-key", "--node"] {
        let output = sh(&server, &printed(product, &second), argument);
        assert!(output.status.success(), "{output:?}");
    }
    let (code, said) = check(&second);
    assert_eq!(code, 0, "{said}");
    let (code, said) = check(plugin.config());
    assert_eq!(code, 0, "{said}");
    // And a policy of that name that is for something else stays.
    let other = json!({"policy": "path \"transit/encrypt/other\" { capabilities = [\"update\"] }"});
    server.must("POST", "sys/policies/acl/kleidi-kms", &other);
    let output = sh(&server, &printed(product, plugin.config()), "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the policy kleidi-kms is there, and for something else"), "{said}");
    let policy = server.must("GET", "sys/policies/acl/kleidi-kms", &Value::Null);
    assert_eq!(policy["data"]["policy"], other["policy"]);
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
    server.must("POST", "sys/policies/acl/kleidi-kms", &json!({ "policy": less }));
    says(&config, 78, &["lack update on transit/hmac/kms;", "--print-policy"]);
    let create = policy.replacen("[\"update\"]", "[\"update\", \"create\"]", 1);
    server.must("POST", "sys/policies/acl/kleidi-kms", &json!({ "policy": create }));
    says(&config, 0, &["warning: the policy grants create on transit/encrypt/kms"]);
    let blind = policy.replace("[\"read\"]", "[\"deny\"]");
    server.must("POST", "sys/policies/acl/kleidi-kms", &json!({ "policy": blind }));
    says(&config, 0, &["warning: whether the key can be exported or deleted is not known"]);
    server.must("POST", "sys/policies/acl/kleidi-kms", &json!({ "policy": policy }));

    // The key: not there, of another type, and the engine gone.
    server.must("POST", "transit/keys/kms/config", &json!({"deletion_allowed": true}));
    says(&config, 0, &["warning", "deletion_allowed"]);
    server.must("DELETE", "transit/keys/kms", &Value::Null);
    says(&config, 78, &["create the key"]);
    server.must("POST", "transit/keys/kms", &json!({"type": "rsa-2048"}));
    says(&config, 78, &["its type rsa-2048 takes no associated data", "aes256-gcm96"]);
    server.must("DELETE", "sys/mounts/transit", &Value::Null);
    says(&config, 78, &["the mount is not there"]);

    server.seal();
    says(&config, 69, &["it is sealed", "unseal it"]);
}

fn check_warns_of_an_unsafe_key(product: Product) {
    let Some((stage, server, config)) = configure("unsafe", product, "") else { return };
    provision(&stage, &server, product, &config);
    let unsafe_key = json!({"exportable": true, "allow_plaintext_backup": true});
    server.must("POST", "transit/keys/kms/config", &unsafe_key);
    let (code, said) = check(&config);
    assert_eq!(code, 0, "{said}");
    for words in [
        "warning: transit/keys/kms can be exported (exportable=true): whoever",
        "warning: transit/keys/kms can be backed up in clear (allow_plaintext_backup=true): whoever",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// Vault's community edition passes over a namespace, which is said; OpenBao has them.
fn check_says_that_a_namespace_is_passed_over(product: Product) {
    let namespace = "  namespace: team1\n";
    let Some((stage, server, config)) = configure("namespace", product, namespace) else { return };
    if product == Product::OpenBao {
        server.must("POST", "sys/namespaces/team1", &json!({}));
    }
    provision(&stage, &server, product, &config);
    let (code, said) = check(&config);
    assert_eq!(code, 0, "{said}");
    let warned = said.contains("is a Vault without namespaces: it passes over team1");
    assert_eq!(warned, product == Product::Vault, "{said}");
}

/// A token in a file, as operators make them: each in words that say what is the matter with it.
fn check_judges_the_token(product: Product) {
    let Some((stage, server, config)) = configure("token", product, "") else { return };
    provision(&stage, &server, product, &config);
    let file = stage.path("token");
    let role = stage.path("plugin-role-id").display().to_string();
    let secret = stage.path("plugin-secret-id").display().to_string();
    let config = config
        .replace(&role, "/nowhere")
        .replace(&secret, "/nowhere")
        .replace("method: appRole", "method: token")
        .replace("roleIdFile: /nowhere", &format!("tokenFile: {}", file.display()))
        .replace("    secretIdFile: /nowhere\n", "");
    let make = |settings: Value| {
        let mut body = json!({"policies": ["kleidi-kms"], "no_parent": true});
        body.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let made = server.must("POST", "auth/token/create", &body);
        let token = made["auth"]["client_token"].as_str().unwrap().to_owned();
        write_private(&file, &token);
        token
    };
    let says = |wanted_code: i32, wanted: &[&str], not: &[&str]| {
        let (code, said) = check(&config);
        assert_eq!(code, wanted_code, "{wanted:?}: {said}");
        for text in wanted {
            assert!(said.contains(text), "{text}: {said}");
        }
        for text in not {
            assert!(!said.contains(text), "{text}: {said}");
        }
    };
    let well = "all is well";

    make(json!({"period": "1h"}));
    says(0, &["periodic, 1 h with each renewal", well], &["warning"]);
    make(json!({"ttl": "1h"}));
    says(0, &["warning: the token is not periodic", "max_lease_ttl", well], &[]);
    make(json!({"ttl": "1h", "renewable": false}));
    says(0, &["warning: the token cannot be renewed: it ends in ", well], &[]);
    make(json!({"ttl": "1h", "explicit_max_ttl": "2h"}));
    says(0, &["has a maximum life (explicit_max_ttl) of 2 h", "it ends at 20", well], &[]);
    make(json!({"period": "1h", "num_uses": 500}));
    says(0, &["warning: the token ends after some uses", well], &[]);
    make(json!({"period": "1h", "no_parent": false}));
    says(0, &["warning: the token is not an orphan", well], &[]);

    // Without the policy named default it may not ask about itself, which is not its end.
    make(json!({"period": "1h", "no_default_policy": true}));
    let asks =
        ["lack read on auth/token/lookup-self", "lack update on sys/capabilities-self", well];
    says(0, &asks, &["expired", "revoked"]);
    // With it, but without the right to renew.
    let mut policy = server.call("GET", "sys/policies/acl/kleidi-kms", &Value::Null).1;
    let policy = policy["data"]["policy"].take();
    let ask = "path \"auth/token/lookup-self\" { capabilities = [\"read\"] }\n\
               path \"sys/capabilities-self\" { capabilities = [\"update\"] }\n";
    let less = policy.as_str().unwrap().replace("renew-self", "renew-other") + ask;
    server.must("POST", "sys/policies/acl/kleidi-kms", &json!({ "policy": less }));
    says(
        0,
        &["may not renew itself", "lack update on auth/token/renew-self", "it ends in", well],
        &[],
    );
    server.must("POST", "sys/policies/acl/kleidi-kms", &json!({ "policy": policy }));

    let token = make(json!({"period": "1h"}));
    server.must("POST", "auth/token/revoke", &json!({ "token": token }));
    let name = file.display().to_string();
    says(
        78,
        &[&format!("the token in {name} is expired, revoked or of another server")],
        &[&token],
    );
}

/// A configuration with a login by JWT, and the files that its script needs.
fn by_jwt(test: &str, product: Product) -> Option<(Stage, VaultServer, String)> {
    let (stage, server, config) = configure(test, product, "")?;
    fs::write(stage.path("issuer.pem"), JwtIssuer::new().public_key()).unwrap();
    let files = ["plugin-role-id", "plugin-secret-id"].map(|name| stage.path(name));
    let [role, secret] = files.map(|file| file.display().to_string());
    let config = config
        .replace("method: appRole", "method: jwt\n    role: control-plane")
        .replace(&format!("roleIdFile: {role}"), "jwtFile: /etc/kleidi/jwt")
        .replace(&format!("    secretIdFile: {secret}\n"), "");
    let script = printed(product, &config);
    Some((stage, server, script))
}

/// The script with its blanks filled in.
fn filled_in(script: &str, stage: &Stage, issuer: &str) -> String {
    let key = stage.path("issuer.pem").display().to_string();
    [("ISSUER", issuer), ("ISSUER_KEY", &key), ("SUBJECT", "kleidi"), ("AUDIENCE", "vault")]
        .iter()
        .fold(script.to_owned(), |script, (name, value)| {
            let blank = format!("\n{name}=''\n");
            assert!(script.contains(&blank), "{name}: {script}");
            script.replace(&blank, &format!("\n{name}='{value}'\n"))
        })
}

fn a_script_with_blanks_does_nothing(product: Product) {
    let Some((stage, server, script)) = by_jwt("blanks", product) else { return };
    let refused = |script: &str, wanted: &[&str], not: &str| {
        let output = sh(&server, script, "--make-key");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(wanted.iter().all(|name| said.contains(name)), "{wanted:?}: {said}");
        assert!(not.is_empty() || !said.contains(not), "{said}");
        assert_ne!(
            server.call("GET", "sys/mounts/transit", &Value::Null).0,
            200,
            "nothing is done"
        );
    };
    refused(&script, &[" ISSUER ", "ISSUER_KEY", "SUBJECT", "AUDIENCE", "nothing was done"], "");
    let whole = filled_in(&script, &stage, "https://issuer.example");
    refused(&whole.replace("SUBJECT='kleidi'", "SUBJECT=''"), &["SUBJECT"], "AUDIENCE");
    refused(&whole.replace("issuer.pem", "elsewhere.pem"), &["ISSUER_KEY (no file /"], "SUBJECT");
    let output = sh(&server, &whole, "--make-key");
    assert!(output.status.success(), "{output:?}");
}

/// Run twice it is harmless; where a login method is configured for others it stops.
fn a_script_leaves_what_others_have_configured(product: Product) {
    let Some((stage, server, script)) = by_jwt("others", product) else { return };
    let whole = filled_in(&script, &stage, "https://issuer.example");
    // Stopped between enabling and configuring, it can be run again.
    server.must("POST", "sys/auth/jwt", &json!({"type": "jwt"}));
    for argument in ["--make-key", "", ""] {
        let output = sh(&server, &whole, argument);
        assert!(output.status.success(), "{output:?}");
    }
    let read = |path: &str| server.must("GET", path, &Value::Null)["data"].clone();
    let (config, role) = (read("auth/jwt/config"), read("auth/jwt/role/control-plane"));
    assert_eq!(config["bound_issuer"], "https://issuer.example");
    assert_eq!(role["token_policies"], json!(["kleidi-kms"]));

    let stops = |script: &str, wanted: &[&str]| {
        let output = sh(&server, script, "");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(wanted.iter().all(|words| said.contains(words)), "{wanted:?}: {said}");
        assert_eq!(read("auth/jwt/config"), config, "as it was");
    };
    let other = filled_in(&script, &stage, "https://other.example");
    stops(&other, &["auth/jwt/config is there with another bound_issuer (https://issuer.example)"]);
    let key = fs::read_to_string(stage.path("issuer.pem")).unwrap();
    fs::write(stage.path("issuer.pem"), JwtIssuer::new().public_key()).unwrap();
    stops(&whole, &["auth/jwt/config is there with another jwt_validation_pubkeys"]);
    fs::write(stage.path("issuer.pem"), key).unwrap();
    // A role of that name which is for something else.
    let mut foreign =
        json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["others"]});
    foreign["token_policies"] = json!(["of-others"]);
    server.must("POST", "auth/jwt/role/control-plane", &foreign);
    stops(&whole, &["auth/jwt/role/control-plane is there, for the policies [of-others]"]);
    let found = read("auth/jwt/role/control-plane");
    assert_eq!(found["token_policies"], foreign["token_policies"], "as it was");
    // And a mount of another type.
    server.must("DELETE", "sys/auth/jwt", &Value::Null);
    server.must("POST", "sys/auth/jwt", &json!({"type": "approle"}));
    let output = sh(&server, &whole, "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("sys/auth/jwt is there and of type approle, not jwt"), "{said}");
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
    server.must("POST", "sys/policies/acl/kleidi-kms", &json!({ "policy": less }));
    let minute = Duration::from_secs(60);
    let error = within(minute, "Status to be an error", || match plugin.client().status() {
        Ok(status) => Err(format!("{status:?}")),
        Err(error) => Ok(error),
    });
    assert!(error.message().contains("permission denied"), "{error}");
    server.must("POST", "sys/policies/acl/kleidi-kms", &json!({ "policy": policy }));
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
    server.must("POST", "transit/restore/old", &backup);
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
