//! Transit in one namespace, the login in another. Vault's community edition has none.

use super::*;

/// A policy for transit of the namespace `team1`, seen from the one above it.
const POLICY_FROM_ABOVE: &str = "\
path \"team1/transit/encrypt/kms\" { capabilities = [\"update\"] }
path \"team1/transit/decrypt/kms\" { capabilities = [\"update\"] }
path \"team1/transit/hmac/kms\" { capabilities = [\"update\"] }
";

struct Names {
    world: World,
    role_id: PathBuf,
    secret_id: PathBuf,
}

/// `org/team1` has transit; `above` has AppRole and is `org/` or empty.
fn names(test: &str, above: &str) -> Option<Names> {
    let world = World::new(test, Product::OpenBao)?;
    world.root("POST", "sys/namespaces/org", &json!({}));
    world.root("POST", "org/sys/namespaces/team1", &json!({}));
    let transit = json!({"type": "transit"});
    world.root("POST", "org/team1/sys/mounts/transit", &transit);
    world.root("POST", "org/team1/transit/keys/kms", &json!({}));
    let policy = match above {
        "" => POLICY_FROM_ABOVE.replace("team1/", "org/team1/"),
        _ => POLICY_FROM_ABOVE.to_owned(),
    };
    let at = |path: &str| format!("{above}{path}");
    world.root("POST", &at("sys/policies/acl/of-team1"), &json!({ "policy": policy }));
    if !above.is_empty() {
        world.root("POST", &at("sys/auth/approle"), &json!({"type": "approle"}));
    }
    let role = json!({"token_policies": "of-team1", "token_ttl": "20m"});
    world.root("POST", &at("auth/approle/role/team1"), &role);
    let role_id = world.root("GET", &at("auth/approle/role/team1/role-id"), &json!(null));
    let secret_id = world.root("POST", &at("auth/approle/role/team1/secret-id"), &json!({}));
    let write = |name: &str, value: &serde_json::Value| {
        put(&world.stage, &format!("team1-{name}"), value.as_str().unwrap())
    };
    let role_id = write("role-id", &role_id["data"]["role_id"]);
    let secret_id = write("secret-id", &secret_id["data"]["secret_id"]);
    Some(Names { world, role_id, secret_id })
}

impl Names {
    fn look(
        &mut self,
        namespace: Option<&str>,
        auth: Option<&str>,
    ) -> Result<KeySet, BackendError> {
        let app_role = Auth::AppRole {
            mount: "approle".to_owned(),
            role_id_file: self.role_id.clone(),
            secret_id_file: self.secret_id.clone(),
        };
        let settings = Settings {
            namespace: namespace.map(ToOwned::to_owned),
            auth_namespace: auth.map(ToOwned::to_owned),
            ..settings(&self.world.server, app_role)
        };
        self.world.backend = Arc::new(Transit::new(settings, Arc::new(OsRandom)));
        self.world.observe()
    }
}

#[test]
fn a_login_in_the_namespace_above() {
    let Some(mut names) = names("namespaces", "org/") else { return };
    let keys = names.look(Some("org/team1"), Some("org")).unwrap();
    let wrapped = names.world.wrap(&keys).unwrap();
    assert_eq!(names.world.unwrap(&wrapped).unwrap(), SEED);
    // With the token renewed, and after a login anew.
    names.world.root("POST", "org/auth/approle/role/team1", &json!({"token_ttl": "2s"}));
    let keys = names.look(Some("org/team1"), Some("org")).unwrap();
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        assert_eq!(names.world.observe().unwrap().current, keys.current);
        assert_eq!(names.world.unwrap(&wrapped).unwrap(), SEED);
        std::thread::park_timeout(Duration::from_millis(300));
    }
    // Each of them wrong, in words.
    for (transit, auth, wanted) in [
        (Some("org/team1"), Some("org/team1"), ErrorKind::Credentials),
        (None, Some("org"), ErrorKind::Credentials),
    ] {
        let error = names.look(transit, auth).unwrap_err();
        assert_eq!(error.kind, wanted, "{transit:?} {auth:?}: {error}");
    }
}

/// Not there at all, or gone later: which of the two it is, and over when it is there.
#[test]
fn a_namespace_that_is_not_there_is_named() {
    let Some(mut names) = names("no namespace", "org/") else { return };
    for (transit, auth, path, named) in [
        (Some("org/team2"), Some("org"), "transit/hmac/kms", "namespace org/team2"),
        (Some("away/team1"), Some("away"), "auth/approle/login", "namespace away"),
    ] {
        let error = names.look(transit, auth).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Misconfigured, "{error}");
        for words in [path, named, "namespace not found", "is the namespace right?"] {
            assert!(error.to_string().contains(words), "{words}: {error}");
        }
    }
    assert!(names.look(Some("org/team2"), Some("org")).is_err());
    names.world.root("POST", "org/sys/namespaces/team2", &json!({}));
    names.world.root("POST", "org/team2/sys/mounts/transit", &json!({"type": "transit"}));
    names.world.root("POST", "org/team2/transit/keys/kms", &json!({}));
    let policy = POLICY_FROM_ABOVE.replace("team1/", "team2/");
    names.world.root("POST", "org/sys/policies/acl/of-team1", &json!({ "policy": policy }));
    let keys = names.world.heals();
    assert_eq!(names.world.unwrap(&names.world.wrap(&keys).unwrap()).unwrap(), SEED);
}

#[test]
fn a_login_in_the_root() {
    let Some(mut names) = names("root namespace", "") else { return };
    let keys = names.look(Some("org/team1"), None).unwrap();
    assert_eq!(names.world.unwrap(&names.world.wrap(&keys).unwrap()).unwrap(), SEED);
}
