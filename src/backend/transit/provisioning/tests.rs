//! What is printed.

use super::*;
use crate::backend::transit::{Auth, ForeignFormat, Plugin, Tls};

fn settings(auth: Auth) -> Settings {
    Settings {
        addresses: vec!["https://vault.example:8200".to_owned()],
        tls: Tls::default(),
        namespace: None,
        auth_namespace: None,
        mount: "transit".to_owned(),
        key: "kms".to_owned(),
        auth,
        foreign: Vec::new(),
    }
}

fn token() -> Auth {
    Auth::Token { file: "/etc/kleidi/token".into() }
}

#[test]
fn the_policy_that_operators_are_given_is_this_one() {
    let given = include_str!("../../../../configuration/vault/policy.hcl");
    assert_eq!(policy(&settings(token())), given);
}

#[test]
fn paths_begin_at_the_namespace_of_the_login() {
    let mut settings = settings(token());
    settings.namespace = Some("team1/kms".to_owned());
    for (login, path) in [
        (None, "team1/kms/transit/hmac/kms"),
        (Some("team1"), "kms/transit/hmac/kms"),
        (Some("team1/kms"), "transit/hmac/kms"),
        (Some("team"), "team1/kms/transit/hmac/kms"),
    ] {
        settings.auth_namespace = login.map(str::to_owned);
        let policy = policy(&settings);
        assert!(policy.contains(&format!("path \"{path}\"")), "{login:?}: {policy}");
    }
}

#[test]
fn keys_of_other_plugins_are_granted_once() {
    let mut settings = settings(token());
    let format = |plugin, key: &str| ForeignFormat {
        plugin,
        mount: "transit".to_owned(),
        key: key.to_owned(),
    };
    settings.foreign = vec![
        format(Plugin::KleidiGo, "kms"),
        format(Plugin::VaultKubernetesKms, "old"),
        format(Plugin::VaultKmsProvider, "old"),
    ];
    let policy = policy(&settings);
    assert_eq!(policy.matches("transit/decrypt/kms").count(), 1, "{policy}");
    assert_eq!(policy.matches("transit/decrypt/old").count(), 1, "{policy}");
}

#[test]
fn the_scripts_of_every_method() {
    let mut all = String::new();
    for auth in [
        token(),
        Auth::AppRole {
            mount: "approle".to_owned(),
            role_id_file: "/etc/kleidi/role-id".into(),
            secret_id_file: "/etc/kleidi/it's secret".into(),
        },
        Auth::Certificate { mount: "cert".to_owned(), role: None },
        Auth::Jwt {
            mount: "jwt".to_owned(),
            role: "control-plane".to_owned(),
            file: "/etc/kleidi/jwt".into(),
        },
        Auth::Kubernetes {
            mount: "kubernetes".to_owned(),
            role: "kms".to_owned(),
            file: "/var/run/secrets/kleidi/token".into(),
        },
        Auth::WrappedAppRole {
            mount: "approle".to_owned(),
            role_id_file: "/etc/kleidi/role-id".into(),
            wrapping_token_file: "/etc/kleidi/wrapping-token".into(),
            role: None,
        },
    ] {
        let _ = writeln!(all, "===== {auth:?}\n{}", script(&settings(auth.clone())));
    }
    insta::assert_snapshot!(all);
}
