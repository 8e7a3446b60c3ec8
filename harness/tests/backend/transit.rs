//! The transit backend on a real OpenBao and a real Vault.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kleidi::backend::transit::{Auth, Settings, Tls, Transit};
use kleidi::backend::{
    Backend, BackendError, ErrorKind, KeySet, UnwrapRequest, WrapRequest, Wrapped,
};
use kleidi::random::OsRandom;
use kleidi::secret::Secret;
use kleidi_harness::{AppRole, Balancer, Product, Stage, VaultServer, within, write_private};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::time::Instant;

mod batches;
mod cluster;
mod logins;
mod namespaces;
mod rows;
mod tls;
mod versions;
mod wrapped;

const SEED: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
const AAD: &[u8] = b"bound to this";

/// Longer than anything here takes to heal.
const SOON: Duration = Duration::from_secs(30);

use kleidi_harness::on_both;

on_both! {
    wraps_and_unwraps,
    follows_a_rotation,
    tells_a_key_made_anew,
    tells_another_cluster_behind_one_of_the_addresses,
    logs_in_anew_when_the_token_is_gone,
    keeps_a_short_lived_token,
    says_what_is_wrong,
    outlives_a_hang_and_a_restart,
    a_slow_line_is_no_outage,
    batches_keep_errors_apart,
}

/// A server and a backend on it.
struct World {
    runtime: Runtime,
    backend: Arc<Transit>,
    server: VaultServer,
    role: AppRole,
    stage: Stage,
}

impl World {
    /// A development server, and AppRole.
    fn new(test: &str, product: Product) -> Option<Self> {
        let stage = Stage::new(&format!("{test} {product:?}"));
        let server = VaultServer::start(&stage, "server", product)?;
        Some(Self::on(stage, server))
    }

    /// The server, which has nothing in it yet, and AppRole.
    fn on(stage: Stage, server: VaultServer) -> Self {
        let role = server.provision();
        Self::with(stage, server, role)
    }

    fn with(stage: Stage, server: VaultServer, role: AppRole) -> Self {
        let auth = Auth::AppRole {
            mount: "approle".to_owned(),
            role_id_file: put(&stage, "role-id", &role.role_id),
            secret_id_file: put(&stage, "secret-id", &role.secret_id),
        };
        let backend = Arc::new(backend(&server, auth));
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        Self { runtime, backend, server, role, stage }
    }

    /// Another backend on the same server.
    fn log_in_by(&mut self, auth: Auth) {
        self.backend = Arc::new(backend(&self.server, auth));
    }

    fn observe(&self) -> Result<KeySet, BackendError> {
        let deadline = Duration::from_secs(5);
        self.runtime.block_on(async { self.backend.observe(Instant::now() + deadline).await })
    }

    /// Every look at the key and every call goes well, all the time.
    fn works_for(&self, time: Duration, wrapped: &Wrapped) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.observe().unwrap();
            assert_eq!(self.unwrap(wrapped).unwrap(), SEED);
            std::thread::park_timeout(Duration::from_millis(300));
        }
    }

    /// Observes until all is well.
    fn heals(&self) -> KeySet {
        within(SOON, "it to heal", || self.observe().map_err(|error| error.to_string()))
    }

    fn wrap(&self, keys: &KeySet) -> Result<Wrapped, BackendError> {
        let plaintext = Secret::from(SEED.to_vec());
        let key = keys.current.id.clone();
        let request = WrapRequest { key, plaintext, aad: AAD.to_vec() };
        let deadline = Duration::from_millis(2500);
        self.runtime.block_on(async { self.backend.wrap(request, Instant::now() + deadline).await })
    }

    fn unwrap(&self, wrapped: &Wrapped) -> Result<Vec<u8>, BackendError> {
        self.unwrap_with(wrapped, AAD)
    }

    fn unwrap_with(&self, wrapped: &Wrapped, aad: &[u8]) -> Result<Vec<u8>, BackendError> {
        let request = request(wrapped, aad);
        let deadline = Duration::from_millis(2500);
        let call = async { self.backend.unwrap(request, Instant::now() + deadline).await };
        self.runtime.block_on(call).map(|seed| seed.expose().to_vec())
    }

    /// The accessors of all tokens but the root's.
    fn accessors(&self) -> BTreeSet<String> {
        let list = self.root("GET", "auth/token/accessors?list=true", &json!(null));
        let root = self.root("GET", "auth/token/lookup-self", &json!(null));
        let root = root["data"]["accessor"].as_str().unwrap().to_owned();
        let all = list["data"]["keys"].as_array().unwrap().iter();
        all.map(|accessor| accessor.as_str().unwrap().to_owned())
            .filter(|one| *one != root)
            .collect()
    }

    /// Revokes all tokens but the root's.
    fn revoke_tokens(&self) {
        for accessor in self.accessors() {
            self.root("POST", "auth/token/revoke-accessor", &json!({ "accessor": accessor }));
        }
    }

    fn root(&self, method: &str, path: &str, body: &serde_json::Value) -> serde_json::Value {
        self.server.must(method, path, body)
    }
}

fn settings(server: &VaultServer, auth: Auth) -> Settings {
    Settings {
        addresses: vec![server.address().to_owned()],
        tls: Tls { ca_file: server.authority().map(Into::into), ..Tls::default() },
        namespace: None,
        auth_namespace: None,
        mount: "transit".to_owned(),
        key: "kms".to_owned(),
        auth,
        foreign: Vec::new(),
    }
}

fn backend(server: &VaultServer, auth: Auth) -> Transit {
    Transit::new(settings(server, auth), Arc::new(OsRandom))
}

fn app_role(world: &World) -> Auth {
    Auth::AppRole {
        mount: "approle".to_owned(),
        role_id_file: world.stage.path("role-id"),
        secret_id_file: world.stage.path("secret-id"),
    }
}

/// Writes a file at once, as somebody does who replaces a credential.
fn put(stage: &Stage, name: &str, content: &str) -> PathBuf {
    let path = stage.path(name);
    write_private(&path, format!("{content}\n"));
    path
}

fn request(wrapped: &Wrapped, aad: &[u8]) -> Arc<UnwrapRequest> {
    let (key, payload) = (wrapped.key.clone(), wrapped.payload.clone());
    Arc::new(UnwrapRequest { key, payload, aad: aad.to_vec() })
}

fn wraps_and_unwraps(product: Product) {
    let Some(world) = World::new("wraps", product) else { return };
    let keys = world.observe().unwrap();
    assert!(keys.current.id.as_str().ends_with("-1"), "{keys:?}");
    let wrapped = world.wrap(&keys).unwrap();
    assert_eq!(wrapped.key, keys.current.id);
    assert!(wrapped.payload.starts_with(b"vault:v1:"));
    assert_eq!(world.unwrap(&wrapped).unwrap(), SEED);
    let other = world.unwrap_with(&wrapped, b"bound to that").unwrap_err();
    assert_eq!(other.kind, ErrorKind::BadCiphertext, "{other}");
    let mut tampered = wrapped.clone();
    let last = tampered.payload.len() - 5;
    tampered.payload[last] = if tampered.payload[last] == b'A' { b'B' } else { b'A' };
    assert_eq!(world.unwrap(&tampered).unwrap_err().kind, ErrorKind::BadCiphertext);
    let garbage = Wrapped { payload: b"\xff\"}".to_vec(), ..wrapped.clone() };
    assert_eq!(world.unwrap(&garbage).unwrap_err().kind, ErrorKind::BadCiphertext);
}

fn follows_a_rotation(product: Product) {
    let Some(world) = World::new("rotation", product) else { return };
    let before = world.observe().unwrap();
    let old = world.wrap(&before).unwrap();
    world.server.rotate();
    // What was announced is what wraps, until the next observation.
    let same = world.wrap(&before).unwrap();
    assert_eq!(same.key, before.current.id);
    assert!(same.payload.starts_with(b"vault:v1:"));
    let after = world.observe().unwrap();
    assert!(after.current.id.as_str().ends_with("-2"));
    assert!(after.find(&before.current.id).is_some(), "{after:?}");
    let new = world.wrap(&after).unwrap();
    assert!(new.payload.starts_with(b"vault:v2:"));
    for wrapped in [&old, &same, &new] {
        assert_eq!(world.unwrap(wrapped).unwrap(), SEED);
    }
    // The old version is forbidden: said in words, with the setting.
    world.root("POST", "transit/keys/kms/config", &json!({"min_decryption_version": 2}));
    let error = world.unwrap(&old).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Misconfigured, "{error}");
    assert!(error.to_string().contains("min_decryption_version"), "{error}");
    world.root("POST", "transit/keys/kms/config", &json!({"min_decryption_version": 1}));
    assert_eq!(world.unwrap(&old).unwrap(), SEED);
}

fn tells_a_key_made_anew(product: Product) {
    let Some(world) = World::new("made anew", product) else { return };
    let before = world.observe().unwrap();
    let wrapped = world.wrap(&before).unwrap();
    world.root("POST", "transit/keys/kms/config", &json!({"deletion_allowed": true}));
    world.root("DELETE", "transit/keys/kms", &json!({}));
    let error = world.observe().unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Misconfigured), "{error}");
    world.root("POST", "transit/keys/kms", &json!({"type": "aes256-gcm96"}));
    // Nobody has looked yet: it says which key it was all the same.
    let mislabelled = world.wrap(&before).unwrap();
    assert_ne!(mislabelled.key, before.current.id);
    let error = world.observe().unwrap_err();
    assert!(error.to_string().contains("another key under the name"), "{error}");
    let after = world.heals();
    assert_eq!(after.current.id, mislabelled.key);
    assert_eq!(world.wrap(&before).unwrap_err().kind, ErrorKind::KeyNotFound);
    let error = world.unwrap(&wrapped).unwrap_err();
    assert_eq!(error.kind, ErrorKind::KeyNotFound, "{error}");
    assert!(error.to_string().contains("do not touch it"), "{error}");
}

/// A copy of the cluster takes the same tokens; its key was made anew, and not yet rotated as often.
fn tells_another_cluster_behind_one_of_the_addresses(product: Product) {
    let Some(mut world) = World::new("another", product) else { return };
    let Some(other) = VaultServer::start(&world.stage, "other", product) else { return };
    world.server.rotate();
    let _ = other.provision();
    let token = json!({"id": world.server.root_token(), "policies": ["root"]});
    let (status, said) = other.call("POST", "auth/token/create", &token);
    assert_eq!(status, 200, "{said}");
    let file = world.stage.path("token");
    write_private(&file, world.server.root_token());
    let mut settings = settings(&world.server, Auth::Token { file });
    settings.addresses.push(other.address().to_owned());
    world.backend = Arc::new(Transit::new(settings, Arc::new(OsRandom)));
    let told = |world: &World| {
        let error = world.observe().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Misconfigured, "{error}");
        let named =
            format!("{} holds another key under the name transit/keys/kms", other.address());
        assert!(error.to_string().contains(&named), "{error}");
    };
    told(&world);
    // While ours does not answer, what the other one shows of version 1 is not taken for ours.
    world.server.process.hang();
    world.observe().unwrap_err();
    world.server.process.signal(Signal::SIGCONT);
    told(&world);
}

/// Each answer takes long, but not too long: a seed is read back, and nothing is asked a second time that takes no
/// longer than what was asked before.
fn a_slow_line_is_no_outage(product: Product) {
    let Some(mut world) = World::new("slow", product) else { return };
    let line = Balancer::start(world.server.port());
    let mut settings = settings(&world.server, app_role(&world));
    settings.addresses = vec![format!("http://127.0.0.1:{}", line.port())];
    world.backend = Arc::new(Transit::new(settings, Arc::new(OsRandom)));
    let keys = world.observe().unwrap();
    for millis in [0, 800] {
        line.delay(millis);
        let wrapped = world.wrap(&keys).unwrap_or_else(|error| panic!("{millis} ms: {error}"));
        assert_eq!(wrapped.key, keys.current.id);
    }
    line.delay(300);
    // This machine may be busy.
    let once = (0..5).any(|_| {
        let before = line.connections();
        world.wrap(&keys).unwrap();
        line.connections() == before
    });
    assert!(once, "it was asked again beside what was under way");
}

fn logs_in_anew_when_the_token_is_gone(product: Product) {
    let Some(world) = World::new("token gone", product) else { return };
    let keys = world.observe().unwrap();
    let wrapped = world.wrap(&keys).unwrap();
    world.revoke_tokens();
    assert_eq!(world.unwrap(&wrapped).unwrap(), SEED);
    assert_eq!(world.wrap(&keys).unwrap().key, keys.current.id);
}

fn keeps_a_short_lived_token(product: Product) {
    let Some(world) = World::new("short lived", product) else { return };
    let change =
        json!({"token_ttl": "2s", "token_max_ttl": "5s", "token_policies": ["kms-plugin"]});
    world.root("POST", "auth/approle/role/kms", &change);
    let keys = world.observe().unwrap();
    let wrapped = world.wrap(&keys).unwrap();
    world.works_for(Duration::from_secs(9), &wrapped);
}

fn says_what_is_wrong(product: Product) {
    let Some(world) = World::new("wrong", product) else { return };
    let keys = world.observe().unwrap();
    let wrapped = world.wrap(&keys).unwrap();
    let token = |name: &str, content: &str| {
        let file = world.stage.path(name);
        write_private(&file, content);
        Auth::Token { file }
    };
    let look = |auth: Auth| {
        let backend = backend(&world.server, auth);
        let deadline = Duration::from_secs(5);
        world.runtime.block_on(async { backend.observe(Instant::now() + deadline).await })
    };
    let bogus = look(token("bogus", "s.bogus-canary-77ab")).unwrap_err();
    assert_eq!(bogus.kind, ErrorKind::Credentials, "{bogus}");
    assert!(!bogus.to_string().contains("canary"), "{bogus}");
    let missing = look(Auth::Token { file: world.stage.path("nowhere") }).unwrap_err();
    assert_eq!(missing.kind, ErrorKind::Credentials, "{missing}");
    assert!(missing.to_string().contains("cannot read the token from"), "{missing}");
    look(token("root", world.server.root_token())).expect("a token in a file will do");

    world.root(
        "POST",
        "sys/policies/acl/kms-plugin",
        &json!({"policy": "path \"nothing\" { capabilities = [\"deny\"] }"}),
    );
    let forbidden = world.unwrap(&wrapped).unwrap_err();
    assert_eq!(forbidden.kind, ErrorKind::Credentials, "{forbidden}");
    assert!(forbidden.to_string().contains("policy lacks"), "{forbidden}");

    world.server.seal();
    let begin = Instant::now();
    let sealed = world.unwrap(&wrapped).unwrap_err();
    assert_eq!(sealed.kind, ErrorKind::Unavailable, "{sealed}");
    assert!(sealed.to_string().contains("sealed"), "{sealed}");
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

fn outlives_a_hang_and_a_restart(product: Product) {
    let Some(world) = World::new("hang", product) else { return };
    let keys = world.observe().unwrap();
    let wrapped = world.wrap(&keys).unwrap();
    world.server.process.hang();
    let begin = Instant::now();
    let error = world.unwrap(&wrapped).unwrap_err();
    assert!(error.kind.retryable(), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    world.server.process.signal(Signal::SIGCONT);
    kleidi_harness::eventually("it to unwrap again", || {
        world.unwrap(&wrapped).map_err(|error| error.to_string())
    });
}

fn batches_keep_errors_apart(product: Product) {
    let Some(world) = World::new("batches", product) else { return };
    let keys = world.observe().unwrap();
    let wrapped = world.wrap(&keys).unwrap();
    let outcomes = world.runtime.block_on(async {
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..500 {
            let backend = Arc::clone(&world.backend);
            let aad: &[u8] = if number % 3 == 0 { b"another" } else { AAD };
            let request = request(&wrapped, aad);
            calls.spawn(async move {
                let deadline = Instant::now() + Duration::from_millis(2500);
                (number, backend.unwrap(request, deadline).await)
            });
        }
        calls.join_all().await
    });
    assert_eq!(outcomes.len(), 500);
    for (number, outcome) in outcomes {
        match outcome {
            Ok(seed) => assert!(number % 3 != 0 && seed.expose() == SEED, "{number}"),
            Err(error) => {
                assert!(
                    number % 3 == 0 && error.kind == ErrorKind::BadCiphertext,
                    "{number}: {error}"
                );
            }
        }
    }
}
