//! What real servers answer when something is wrong with them: each kind of error, its words, and that
//! it is over when its cause is.

use kleidi_harness::{Authority, Balancer};
use nix::sys::signal::Signal;

use super::*;

on_both! {
    sealed,
    the_mount_is_gone,
    the_key_is_deleted,
    the_key_takes_no_associated_data,
    a_rate_limit,
    killed_and_started_again,
    the_audit_device_cannot_write,
    the_role_is_bound_to_another_network,
    the_login_method_is_not_there,
    too_many_wrong_secret_ids,
    a_wrong_secret_id_locks_nobody_out,
}

/// A world in which a seed is wrapped.
fn begin(test: &str, product: Product) -> Option<(World, Wrapped)> {
    let world = World::new(test, product)?;
    let wrapped = world.wrap(&world.observe().unwrap()).unwrap();
    Some((world, wrapped))
}

/// The error of a call, which has to be of that kind and to hold these words.
fn fails(world: &World, wrapped: &Wrapped, kind: ErrorKind, words: &[&str]) -> BackendError {
    let begin = Instant::now();
    let error = world.unwrap(wrapped).unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}: {error}", begin.elapsed());
    assert_eq!(error.kind, kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
    }
    error
}

/// Calls go well again.
fn heals(world: &World, wrapped: &Wrapped) {
    within(SOON, "a seed to be unwrapped", || {
        world.unwrap(wrapped).map_err(|error| error.to_string())
    });
    world.heals();
}

fn sealed(product: Product) {
    let Some((world, wrapped)) = begin("sealed", product) else { return };
    world.server.seal();
    fails(&world, &wrapped, ErrorKind::Unavailable, &["503", "sealed", "unseal it"]);
    assert_eq!(world.observe().unwrap_err().kind, ErrorKind::Unavailable);
    world.server.unseal();
    heals(&world, &wrapped);
}

fn the_mount_is_gone(product: Product) {
    let Some((world, wrapped)) = begin("mount gone", product) else { return };
    world.root("POST", "sys/remount", &json!({"from": "transit", "to": "elsewhere"}));
    within(SOON, "the mount to be gone", || match world.unwrap(&wrapped) {
        Ok(_) => Err("it is there".to_owned()),
        Err(_) => Ok(()),
    });
    let words = &["no handler for route", "correct its path, or restore it"];
    fails(&world, &wrapped, ErrorKind::Misconfigured, words);
    world.root("POST", "sys/remount", &json!({"from": "elsewhere", "to": "transit"}));
    heals(&world, &wrapped);
    world.root("DELETE", "sys/mounts/transit", &json!({}));
    fails(&world, &wrapped, ErrorKind::Misconfigured, words);
}

fn the_key_is_deleted(product: Product) {
    let Some((world, wrapped)) = begin("deleted", product) else { return };
    let body =
        json!({"allow_plaintext_backup": true, "exportable": true, "deletion_allowed": true});
    world.root("POST", "transit/keys/kms/config", &body);
    let backup = world.root("GET", "transit/backup/kms", &json!(null));
    world.root("DELETE", "transit/keys/kms", &json!({}));
    let words = &["encryption key not found", "restore it where Secrets are encrypted already"];
    fails(&world, &wrapped, ErrorKind::Misconfigured, words);
    assert_eq!(world.observe().unwrap_err().kind, ErrorKind::Misconfigured);
    world.root("POST", "transit/restore/kms", &json!({"backup": backup["data"]["backup"]}));
    heals(&world, &wrapped);
}

fn the_key_takes_no_associated_data(product: Product) {
    let Some((world, _)) = begin("key type", product) else { return };
    let body = json!({"deletion_allowed": true});
    world.root("POST", "transit/keys/kms/config", &body);
    world.root("DELETE", "transit/keys/kms", &json!({}));
    world.root("POST", "transit/keys/kms", &json!({"type": "rsa-2048"}));
    // First it is doubted.
    within(SOON, "the key's type to be told", || match world.observe() {
        Err(error) if error.to_string().contains("use aes256-gcm96") => {
            assert_eq!(error.kind, ErrorKind::Misconfigured, "{error}");
            Ok(())
        }
        other => Err(format!("{other:?}")),
    });
}

fn a_rate_limit(product: Product) {
    let Some((world, wrapped)) = begin("rate limit", product) else { return };
    let quota = json!({"rate": 1.0, "interval": "30s", "path": "transit/"});
    world.root("POST", "sys/quotas/rate-limit/tight", &quota);
    within(SOON, "the quota to be used up", || match world.unwrap(&wrapped) {
        Ok(_) => Err("not yet".to_owned()),
        Err(_) => Ok(()),
    });
    fails(&world, &wrapped, ErrorKind::Overloaded, &["429", "raise the rate limit quota"]);
    world.root("DELETE", "sys/quotas/rate-limit/tight", &json!({}));
    heals(&world, &wrapped);
}

fn killed_and_started_again(product: Product) {
    let Some((mut world, wrapped)) = begin("killed", product) else { return };
    world.server.process.signal(Signal::SIGKILL);
    world.server.process.wait();
    fails(&world, &wrapped, ErrorKind::Unavailable, &["Connection refused"]);
    // A development server has forgotten everything: another key under the same name, and another role.
    world.server.start_again();
    let role = world.server.provision();
    put(&world.stage, "role-id", &role.role_id);
    put(&world.stage, "secret-id", &role.secret_id);
    let keys = world.heals();
    assert_ne!(keys.current.id, wrapped.key);
    let words = &["version 1 of transit/keys/kms is another key now", "restore the key"];
    fails(&world, &wrapped, ErrorKind::KeyNotFound, words);
    assert_eq!(world.unwrap(&world.wrap(&keys).unwrap()).unwrap(), SEED);
}

/// Health is fine all the while: only a real call shows it.
fn the_audit_device_cannot_write(product: Product) {
    let stage = Stage::new(&format!("audit {product:?}"));
    let authority = Authority::new(&stage, "authority");
    let Some(server) = VaultServer::tls(&stage, "server", product, &authority) else { return };
    let world = World::on(stage, server);
    audit(&world);
    let wrapped = world.wrap(&world.observe().unwrap()).unwrap();
    let (log, full) = (world.stage.path("audit.log"), std::path::Path::new("/dev/full"));
    std::fs::remove_file(&log).unwrap();
    std::os::unix::fs::symlink(full, &log).unwrap();
    // It opens its file anew.
    world.server.process.signal(Signal::SIGHUP);
    within(SOON, "the audit device to fail", || match world.unwrap(&wrapped) {
        Ok(_) => Err("it writes".to_owned()),
        Err(_) => Ok(()),
    });
    let words = &["500", "internal error", "audit device cannot write"];
    fails(&world, &wrapped, ErrorKind::Unavailable, words);
    assert_eq!(world.server.call("GET", "sys/health", &json!(null)).0, 200);
    std::fs::remove_file(&log).unwrap();
    world.server.process.signal(Signal::SIGHUP);
    heals(&world, &wrapped);
}

fn audit(world: &World) {
    let file = world.stage.path("audit.log");
    // "0000": the file's mode is left as it is.
    let options = json!({"file_path": file, "mode": "0000"});
    std::fs::write(&file, "").unwrap();
    world.root("PUT", "sys/audit/file", &json!({"type": "file", "options": options}));
}

fn the_role_is_bound_to_another_network(product: Product) {
    let Some((world, wrapped)) = begin("network", product) else { return };
    let bound = |networks: &[&str]| {
        let role = json!({"secret_id_bound_cidrs": networks, "token_policies": ["kms-plugin"]});
        world.root("POST", "auth/approle/role/kms", &role);
    };
    bound(&["192.0.2.0/24"]);
    world.revoke_tokens();
    fails(&world, &wrapped, ErrorKind::Credentials, &["CIDR", "this node's address"]);
    bound(&[]);
    heals(&world, &wrapped);
}

fn the_login_method_is_not_there(product: Product) {
    let Some(mut world) = World::new("no method", product) else { return };
    world.log_in_by(Auth::AppRole {
        mount: "elsewhere".to_owned(),
        role_id_file: world.stage.path("role-id"),
        secret_id_file: world.stage.path("secret-id"),
    });
    let error = world.observe().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Credentials, "{error}");
    assert!(
        error.to_string().contains("is the login method enabled at this mount, and"),
        "{error}"
    );
    world.root("POST", "sys/remount", &json!({"from": "auth/approle", "to": "auth/elsewhere"}));
    world.heals();
}

/// Both products refuse a role's right secret_id after five wrong ones, whoever has tried them.
fn too_many_wrong_secret_ids(product: Product) {
    let Some((world, wrapped)) = begin("locked out", product) else { return };
    let wrong = json!({"role_id": world.role.role_id, "secret_id": "wrong"});
    for _ in 0..5 {
        assert_eq!(world.server.call("POST", "auth/approle/login", &wrong).0, 400);
    }
    world.revoke_tokens();
    let words = &["log in", "403", "After several wrong credentials"];
    fails(&world, &wrapped, ErrorKind::Credentials, words);
    let methods = world.root("GET", "sys/auth", &json!(null));
    let accessor = methods["data"]["approle/"]["accessor"].as_str().unwrap();
    let path = format!("sys/locked-users/{accessor}/unlock/{}", world.role.role_id);
    world.root("POST", &path, &json!({}));
    heals(&world, &wrapped);
}

/// However many addresses there are, it is one leader who counts what is wrong, and other nodes have other secret_ids
/// of the role.
fn a_wrong_secret_id_locks_nobody_out(product: Product) {
    let Some((mut world, _)) = begin("not locked out", product) else { return };
    let others = [0; 2].map(|_| Balancer::start(world.server.port()));
    let mut settings = settings(&world.server, app_role(&world));
    let address = |other: &Balancer| format!("http://127.0.0.1:{}", other.port());
    settings.addresses.extend(others.iter().map(address));
    put(&world.stage, "secret-id", "revoked");
    world.backend = Arc::new(Transit::new(settings, Arc::new(OsRandom)));
    // Until what was refused once has been tried again.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(8) {
        let error = world.observe().unwrap_err();
        assert!(error.to_string().contains("invalid role or secret ID"), "{error}");
        std::thread::park_timeout(Duration::from_millis(500));
    }
    let right = json!({"role_id": world.role.role_id, "secret_id": world.role.secret_id});
    let (status, answer) = world.server.call("POST", "auth/approle/login", &right);
    assert_eq!(status, 200, "{answer}");
}

/// OpenBao only: a key that is kept for a while after it was deleted.
#[test]
fn a_soft_deleted_key() {
    let Some((world, wrapped)) = begin("soft deleted", Product::OpenBao) else { return };
    world.root("DELETE", "transit/keys/kms/soft-delete", &json!({}));
    let words = &["soft-deleted key", "soft-delete-restore"];
    fails(&world, &wrapped, ErrorKind::Misconfigured, words);
    world.root("POST", "transit/keys/kms/soft-delete-restore", &json!({}));
    heals(&world, &wrapped);
}

/// OpenBao only: the community's Vault has no namespaces.
#[test]
fn a_locked_namespace() {
    let Some(world) = World::new("locked", Product::OpenBao) else { return };
    world.root("POST", "sys/namespaces/team1", &json!({}));
    world.root("POST", "team1/sys/mounts/transit", &json!({"type": "transit"}));
    world.root("POST", "team1/transit/keys/kms", &json!({}));
    let root = put(&world.stage, "root", world.server.root_token());
    let namespace = Some("team1".to_owned());
    let settings = Settings { namespace, ..settings(&world.server, Auth::Token { file: root }) };
    let world = World { backend: Arc::new(Transit::new(settings, Arc::new(OsRandom))), ..world };
    let wrapped = world.wrap(&world.observe().unwrap()).unwrap();
    let lock = world.root("POST", "sys/namespaces/api-lock/lock/team1", &json!({}));
    fails(&world, &wrapped, ErrorKind::Unavailable, &["locked", "unlock the namespace"]);
    let key = json!({"unlock_key": lock["data"]["unlock_key"]});
    world.root("POST", "sys/namespaces/api-lock/unlock/team1", &key);
    heals(&world, &wrapped);
}
