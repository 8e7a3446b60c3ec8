//! Every way to log in, and what becomes of the token.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use kleidi_harness::{ApiServer, Authority, Etcd, JwtIssuer};

use super::*;

on_both! {
    a_token_in_a_file_is_renewed_and_its_successor_taken_over,
    a_certificate_in_two_files,
    a_token_outlives_the_certificate_of_its_login,
    a_certificate_and_its_key_in_one_file,
    a_jwt,
    a_garbled_token_is_told,
    a_token_is_renewed_rather_than_replaced,
    a_wrong_secret_id_is_mended_in_the_file,
    sixty_four_calls_with_a_revoked_token_log_in_once,
    a_revoked_token_fails_no_call,
    what_the_policy_forbids_does_not_cause_login_after_login,
}

/// A token as an operator makes it for a file.
fn token(world: &World, period: &str) -> String {
    let body = json!({"policies": ["kms-plugin"], "period": period, "no_parent": true});
    let answer = world.root("POST", "auth/token/create", &body);
    answer["auth"]["client_token"].as_str().unwrap().to_owned()
}

fn revoke(world: &World, token: &str) {
    world.root("POST", "auth/token/revoke", &json!({ "token": token }));
}

fn a_token_in_a_file_is_renewed_and_its_successor_taken_over(product: Product) {
    let Some(mut world) = World::new("token file", product) else { return };
    let first = token(&world, "3s");
    world.log_in_by(Auth::Token { file: put(&world.stage, "token", &first) });
    let keys = world.observe().unwrap();
    let wrapped = world.wrap(&keys).unwrap();
    // Three of its lives.
    world.works_for(Duration::from_secs(9), &wrapped);
    // Seen by an observation, before the server refuses the other.
    let second = token(&world, "1h");
    put(&world.stage, "token", &second);
    world.observe().unwrap();
    revoke(&world, &first);
    assert_eq!(world.unwrap(&wrapped).unwrap(), SEED);
    // And without an observation, when the server refuses the other.
    put(&world.stage, "token", &token(&world, "1h"));
    revoke(&world, &second);
    assert_eq!(world.unwrap(&wrapped).unwrap(), SEED);
}

/// Vault calls it an error of its own.
fn a_garbled_token_is_told(product: Product) {
    let Some(mut world) = World::new("garbled", product) else { return };
    let right = token(&world, "1h");
    let (kind, rest) = right.split_once('.').unwrap();
    for garbled in
        [format!("{kind}.{}", "d".repeat(rest.len())), right[..right.len() - 5].to_owned()]
    {
        world.log_in_by(Auth::Token { file: put(&world.stage, "token", &garbled) });
        let error = world.observe().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Credentials, "{error}");
        assert!(error.to_string().contains("none of this server's"), "{error}");
        put(&world.stage, "token", &right);
        world.heals();
    }
}

/// A server with TLS that takes certificates of the authority `clients`; the name in them is `node-0`.
fn certificates(test: &str, product: Product) -> Option<(World, Authority)> {
    let stage = Stage::new(&format!("{test} {product:?}"));
    let authority = Authority::new(&stage, "authority");
    let server = VaultServer::tls(&stage, "server", product, &authority)?;
    let world = World::on(stage, server);
    let clients = Authority::new(&world.stage, "clients");
    world.root("POST", "sys/auth/cert", &json!({"type": "cert"}));
    let role = json!({
        "certificate": fs::read_to_string(clients.file()).unwrap(),
        "allowed_common_names": "node-0",
        "token_policies": "kms-plugin",
        "token_ttl": "20m",
    });
    world.root("POST", "auth/cert/certs/kms", &role);
    Some((world, clients))
}

fn by_certificate(world: &mut World, certificate: PathBuf, key: Option<PathBuf>) {
    let auth = Auth::Certificate { mount: "cert".to_owned(), role: Some("kms".to_owned()) };
    let mut settings = settings(&world.server, auth);
    (settings.tls.certificate_file, settings.tls.key_file) = (Some(certificate), key);
    world.backend = Arc::new(Transit::new(settings, Arc::new(OsRandom)));
}

fn a_certificate_in_two_files(product: Product) {
    let Some((mut world, clients)) = certificates("certificate", product) else { return };
    let (certificate, key) = (world.stage.path("client.crt"), world.stage.path("client.key"));
    let node = clients.issue("node-0");
    fs::copy(&node.certificate, &certificate).unwrap();
    fs::copy(&node.key, &key).unwrap();
    by_certificate(&mut world, certificate.clone(), Some(key.clone()));
    let keys = world.observe().unwrap();
    let wrapped = world.wrap(&keys).unwrap();
    assert_eq!(world.unwrap(&wrapped).unwrap(), SEED);
    let before = serials(&world);

    // Renewed, the certificate first: what is in between fails no call, not even a login.
    let renewed = clients.issue("node-0");
    fs::copy(&renewed.certificate, &certificate).unwrap();
    world.observe().unwrap();
    world.revoke_tokens();
    assert_eq!(world.unwrap(&wrapped).unwrap(), SEED);
    assert_eq!(serials(&world), before, "with the certificate from before");
    fs::copy(&renewed.key, &key).unwrap();
    world.observe().unwrap();
    world.revoke_tokens();
    within(SOON, "another login", || world.unwrap(&wrapped).map_err(|error| error.to_string()));
    let after = serials(&world);
    assert!(after.len() == 1 && after != before, "{after:?}");

    // One of another node.
    let other = clients.issue("node-1");
    by_certificate(&mut world, other.certificate, Some(other.key));
    let error = world.observe().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Credentials, "{error}");
    assert!(error.to_string().contains("no role of the cert method fits"), "{error}");
}

/// OpenBao renews a token only over a connection with the certificate of its login: after that was
/// replaced it refuses, with a 500, and a login helps. Vault goes on renewing for whoever has the same
/// name. No call fails with either.
fn a_token_outlives_the_certificate_of_its_login(product: Product) {
    let Some((mut world, clients)) = certificates("rotated", product) else { return };
    world.root("POST", "auth/cert/certs/kms", &json!({"token_ttl": "4s", "token_max_ttl": "1h"}));
    let (certificate, key) = (world.stage.path("client.crt"), world.stage.path("client.key"));
    let replace = || {
        let node = clients.issue("node-0");
        fs::copy(&node.certificate, &certificate).unwrap();
        fs::copy(&node.key, &key).unwrap();
    };
    replace();
    by_certificate(&mut world, certificate.clone(), Some(key.clone()));
    let keys = world.observe().unwrap();
    let wrapped = world.wrap(&keys).unwrap();
    let before = (world.accessors(), serials(&world));
    // Two of its lives: the server renews it.
    world.works_for(Duration::from_secs(9), &wrapped);
    assert_eq!((world.accessors(), serials(&world)), before, "one token, renewed");

    replace();
    if product == Product::OpenBao {
        within(SOON, "another login", || {
            world.observe().unwrap();
            let accessors = world.accessors();
            if accessors == before.0 { Err(format!("{accessors:?}")) } else { Ok(()) }
        });
        // When a renewal was due, not when the token was gone.
        assert!(world.accessors().is_superset(&before.0), "the old one still lives");
    }
    // Again two lives, the last calls with nothing left of the first token.
    world.works_for(Duration::from_secs(9), &wrapped);
    let after = (world.accessors(), serials(&world));
    assert_eq!(after.0.len(), 1, "{after:?}");
    match product {
        Product::OpenBao => assert!(after.1.is_disjoint(&before.1), "another login: {after:?}"),
        Product::Vault => assert_eq!(after, before, "the same token, renewed"),
    }
}

/// Serial numbers of the certificates that tokens were got with.
fn serials(world: &World) -> BTreeSet<String> {
    let serial = |accessor: &String| {
        let body = json!({ "accessor": accessor });
        let token = world.root("POST", "auth/token/lookup-accessor", &body);
        Some(token["data"]["meta"]["serial_number"].as_str()?.to_owned())
    };
    world.accessors().iter().filter_map(serial).collect()
}

/// As the kubelet keeps them: the certificate, then the key in its own ("SEC 1") form.
fn a_certificate_and_its_key_in_one_file(product: Product) {
    let Some((mut world, clients)) = certificates("one file", product) else { return };
    let node = clients.issue("node-0");
    let certificate = fs::read_to_string(&node.certificate).unwrap();
    let key = sec1(&fs::read_to_string(&node.key).unwrap());
    let file = put(&world.stage, "kubelet-client-current.pem", &format!("{certificate}{key}"));
    by_certificate(&mut world, file, None);
    let keys = world.observe().unwrap();
    assert_eq!(world.unwrap(&world.wrap(&keys).unwrap()).unwrap(), SEED);
}

/// A P-256 key in PKCS #8 without what PKCS #8 puts around it.
fn sec1(pem: &str) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(body).unwrap();
    // SEQUENCE { INTEGER, SEQUENCE of the algorithm, OCTET STRING { here } }
    let around = 29;
    assert_eq!(der[around], 0x30);
    let inside = STANDARD.encode(&der[around..]);
    format!("-----BEGIN EC PRIVATE KEY-----\n{inside}\n-----END EC PRIVATE KEY-----\n")
}

fn a_jwt(product: Product) {
    let Some(mut world) = World::new("jwt", product) else { return };
    let issuer = JwtIssuer::new();
    world.root("POST", "sys/auth/jwt", &json!({"type": "jwt"}));
    let config = json!({
        "jwt_validation_pubkeys": [issuer.public_key()],
        "bound_issuer": "https://issuer.example",
        "jwt_supported_algs": ["EdDSA"],
    });
    world.root("POST", "auth/jwt/config", &config);
    let role = json!({
        "role_type": "jwt",
        "bound_audiences": ["vault"],
        "user_claim": "sub",
        "bound_subject": "kleidi",
        "token_policies": ["kms-plugin"],
        "token_ttl": "20m",
    });
    world.root("POST", "auth/jwt/role/kms", &role);
    let claims =
        |audience: &str| json!({"iss": "https://issuer.example", "sub": "kleidi", "aud": audience});
    let file = put(&world.stage, "jwt", &issuer.sign(claims("vault"), -600));
    let (mount, role) = ("jwt".to_owned(), "kms".to_owned());
    world.log_in_by(Auth::Jwt { mount, role, file });
    for (what, jwt) in [
        ("expired", issuer.sign(claims("vault"), -600)),
        ("for somebody else", issuer.sign(claims("other"), 600)),
        ("of another issuer", JwtIssuer::new().sign(claims("vault"), 600)),
    ] {
        put(&world.stage, "jwt", &jwt);
        std::thread::park_timeout(Duration::from_millis(1100));
        let error = world.observe().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Credentials, "{what}: {error}");
        assert!(!error.to_string().contains(&jwt), "{what}: {error}");
    }
    put(&world.stage, "jwt", &issuer.sign(claims("vault"), 600));
    let keys = world.heals();
    let wrapped = world.wrap(&keys).unwrap();
    world.revoke_tokens();
    assert_eq!(world.unwrap(&wrapped).unwrap(), SEED);
}

/// Method `kubernetes`, of a cluster that runs elsewhere: its API server reviews the token. OpenBao
/// only: the tests' Vault is built without this method.
#[test]
fn a_service_account_of_a_kube_apiserver() {
    let Some(mut world) = World::new("kubernetes", Product::OpenBao) else { return };
    let Some(etcd) = Etcd::start(&world.stage) else { return };
    let Some(config) = ApiServer::new(&world.stage, "apiserver", "1.37.2", &etcd) else { return };
    let mut apiserver = config.start();
    let jwt = apiserver.service_account_token("kleidi");
    world.root("POST", "sys/auth/kubernetes", &json!({"type": "kubernetes"}));
    let config = json!({
        "kubernetes_host": apiserver.config().url(),
        "kubernetes_ca_cert": fs::read_to_string(apiserver.config().certificate()).unwrap(),
        "disable_local_ca_jwt": true,
    });
    world.root("POST", "auth/kubernetes/config", &config);
    let role = json!({
        "bound_service_account_names": ["kleidi"],
        "bound_service_account_namespaces": ["default"],
        "audience": "https://kubernetes.default.svc",
        "token_policies": ["kms-plugin"],
        "token_ttl": "20m",
    });
    world.root("POST", "auth/kubernetes/role/kms", &role);
    let file = put(&world.stage, "service-account", &jwt);
    let (mount, role) = ("kubernetes".to_owned(), "kms".to_owned());
    world.log_in_by(Auth::Kubernetes { mount, role, file });
    let keys = world.observe().unwrap();
    let wrapped = world.wrap(&keys).unwrap();
    assert_eq!(world.unwrap(&wrapped).unwrap(), SEED);

    // Away: said as it is seen, and over when it is back.
    apiserver.stop();
    world.revoke_tokens();
    let error = world.unwrap(&wrapped).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Credentials, "{error}");
    assert!(error.to_string().contains("does the API server answer that it asks"), "{error}");
    apiserver.start_again();
    world.heals();
    assert_eq!(world.unwrap(&wrapped).unwrap(), SEED);

    // Of another issuer: an API server's has a list of audiences.
    let claims = json!({"sub": "kleidi", "aud": "https://kubernetes.default.svc"});
    put(&world.stage, "service-account", &JwtIssuer::new().sign_as("RS256", claims, 600));
    world.revoke_tokens();
    let error = world.unwrap(&wrapped).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Credentials, "{error}");
    assert!(error.to_string().contains("jwtFile has no token of a service account"), "{error}");
}

fn a_token_is_renewed_rather_than_replaced(product: Product) {
    let Some(world) = World::new("renewed", product) else { return };
    let role = json!({"token_ttl": "2s", "token_max_ttl": "1h", "token_policies": ["kms-plugin"]});
    world.root("POST", "auth/approle/role/kms", &role);
    world.observe().unwrap();
    let first = world.accessors();
    assert_eq!(first.len(), 1);
    let end = Instant::now() + Duration::from_secs(6);
    while Instant::now() < end {
        world.observe().unwrap();
        std::thread::park_timeout(Duration::from_millis(200));
    }
    assert_eq!(world.accessors(), first);
}

fn a_wrong_secret_id_is_mended_in_the_file(product: Product) {
    let Some(world) = World::new("wrong secret_id", product) else { return };
    let right = fs::read_to_string(world.stage.path("secret-id")).unwrap();
    put(&world.stage, "secret-id", "00000000-0000-4000-8000-00000000cafe");
    let end = Instant::now() + Duration::from_secs(12);
    while Instant::now() < end {
        let error = world.observe().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Credentials, "{error}");
        let text = error.to_string();
        assert!(text.contains("issue a new secret_id") && !text.contains("cafe"), "{text}");
        std::thread::park_timeout(Duration::from_millis(1000));
    }
    put(&world.stage, "secret-id", right.trim());
    let keys = world.heals();
    assert_eq!(world.unwrap(&world.wrap(&keys).unwrap()).unwrap(), SEED);
}

/// Many calls at once, each on its own: decrypts would travel together.
fn burst(world: &World, keys: &KeySet, calls: usize) -> Vec<Result<Wrapped, BackendError>> {
    world.runtime.block_on(async {
        let mut set = tokio::task::JoinSet::new();
        for _ in 0..calls {
            let (backend, key) = (Arc::clone(&world.backend), keys.current.id.clone());
            set.spawn(async move {
                let plaintext = Secret::from(SEED.to_vec());
                let request = WrapRequest { key, plaintext, aad: AAD.to_vec() };
                backend.wrap(request, Instant::now() + Duration::from_millis(2500)).await
            });
        }
        set.join_all().await
    })
}

fn sixty_four_calls_with_a_revoked_token_log_in_once(product: Product) {
    let Some(world) = World::new("single flight", product) else { return };
    let keys = world.observe().unwrap();
    world.revoke_tokens();
    for outcome in burst(&world, &keys, 64) {
        assert_eq!(outcome.unwrap().key, keys.current.id);
    }
    assert_eq!(world.accessors().len(), 1, "one for all");
}

fn a_revoked_token_fails_no_call(product: Product) {
    let Some(world) = World::new("under load", product) else { return };
    let wrapped = world.wrap(&world.observe().unwrap()).unwrap();
    let calls = AtomicU32::new(0);
    let end = Instant::now() + Duration::from_secs(12);
    std::thread::scope(|scope| {
        // With a backend of its own: connections belong to the runtime that made them.
        let load = scope.spawn(|| {
            let auth = app_role(&world);
            let backend = Arc::new(backend(&world.server, auth));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let worker = async || {
                    while Instant::now() < end {
                        let deadline = Instant::now() + Duration::from_millis(2500);
                        let outcome = backend.unwrap(request(&wrapped, AAD), deadline).await;
                        assert!(outcome.is_ok(), "{:?}", outcome.err());
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                };
                tokio::join!(worker(), worker(), worker(), worker());
            });
        });
        // Twice, with more than the shortest time between two such logins between.
        for _ in 0..2 {
            std::thread::park_timeout(Duration::from_millis(5300));
            world.revoke_tokens();
        }
        load.join().unwrap();
    });
    let calls = calls.into_inner();
    assert!(calls > 500, "{calls}");
}

fn what_the_policy_forbids_does_not_cause_login_after_login(product: Product) {
    let Some(world) = World::new("forbidden", product) else { return };
    let keys = world.observe().unwrap();
    let wrapped = world.wrap(&keys).unwrap();
    let policy = |text: &str| {
        world.root("POST", "sys/policies/acl/kms-plugin", &json!({ "policy": text }));
    };
    let right = world.root("GET", "sys/policies/acl/kms-plugin", &json!(null));
    policy("path \"nothing\" { capabilities = [\"deny\"] }");
    for outcome in (0..10).flat_map(|_| burst(&world, &keys, 20)) {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Credentials, "{error}");
    }
    assert_eq!(world.accessors().len(), 2, "one at the start, one to try");
    policy(right["data"]["policy"].as_str().unwrap());
    assert_eq!(world.unwrap(&wrapped).unwrap(), SEED, "the token was right all the while");
}
