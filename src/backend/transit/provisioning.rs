//! What an administrator has to set up, as a script: transit, the key, the least policy, the login.
//!
//! For `kleidi init --print-policy`. kleidi itself is not given the rights to do any of it.

use std::fmt::Write as _;
use std::path::Path;

use super::{Auth, Settings};

/// The policy that is needed, and no more, in the server's language.
///
/// Paths begin at the namespace of the login: that is where the policy is.
#[must_use]
pub fn policy(settings: &Settings) -> String {
    let below = match (&settings.auth_namespace, &settings.namespace) {
        (Some(login), Some(transit)) if login == transit => String::new(),
        (Some(login), Some(transit)) => {
            let inner =
                transit.strip_prefix(login.as_str()).and_then(|rest| rest.strip_prefix('/'));
            format!("{}/", inner.unwrap_or(transit))
        }
        (None, Some(transit)) => format!("{transit}/"),
        (_, None) => String::new(),
    };
    let path = |operation| format!("{below}{}", settings.path(operation));
    let mut also: Vec<_> = settings
        .foreign
        .iter()
        .map(|format| format!("{below}{}/decrypt/{}", format.mount, format.key))
        .filter(|foreign| *foreign != path("decrypt"))
        .collect();
    also.sort();
    also.dedup();

    let mut policy = format!(
        "# What kleidi needs of transit, for a key named {:?}, and no more. Never grant create on \
         encrypt: the\n# server would make a key where there is none.\n",
        settings.key
    );
    let mut grant = |comment: &str, path: &str, capability: &str| {
        let _ = write!(
            policy,
            "{comment}path \"{path}\" {{\n  capabilities = [\"{capability}\"]\n}}\n"
        );
    };
    grant("", &path("encrypt"), "update");
    grant("", &path("decrypt"), "update");
    for path in &also {
        grant("# What another plugin wrote.\n", path, "update");
    }
    grant("# What the key_id is computed from.\n", &path("hmac"), "update");
    grant(
        "# Only for kleidi check --live, which warns of a key that can be taken away.\n",
        &path("keys"),
        "read",
    );
    grant("", "auth/token/renew-self", "update");
    policy
}

/// A script for `sh` that does all of it; it can be run again.
#[must_use]
pub fn script(settings: &Settings) -> String {
    let Settings { mount, key, namespace, auth_namespace, .. } = settings;
    let name = format!("kleidi-{key}");
    let Login { server, node } = login(&settings.auth, &name);
    let within = |namespace: &Option<String>| match namespace {
        Some(namespace) => {
            format!("export BAO_NAMESPACE={namespace} VAULT_NAMESPACE={namespace}\n")
        }
        None => "unset BAO_NAMESPACE VAULT_NAMESPACE\n".to_owned(),
    };
    let mut script = String::from(
        "#!/bin/sh\n\
         # By an administrator, where BAO_ADDR, BAO_CACERT and BAO_TOKEN are set:\n\
         #   sh setup.sh --make-key   the first time: the mount, the key, the policy, the login\n\
         #   sh setup.sh              again, for instance to mend the policy; makes no key\n",
    );
    if node.is_some() {
        script
            .push_str("#   sh setup.sh --node       on each node, as root: kleidi's credentials\n");
    }
    script.push_str(
        "# With HashiCorp Vault, and VAULT_ADDR and so on, put this line first:   bao() { vault \"$@\"; }\n\
         set -eu\n\n",
    );
    let at_node = if node.is_some() {
        "--node) ;;"
    } else {
        "--node) echo 'this login needs nothing on the node that kleidi could put there' >&2; exit ;;"
    };
    let _ = write!(
        script,
        "case \"${{1:-}}\" in\n  '' | --make-key) ;;\n  {at_node}\n  \
         *) echo \"$1 is not known; the first lines say what is\" >&2; exit 64 ;;\nesac\n\n"
    );
    if let Some(node) = node {
        let namespace = within(auth_namespace);
        let _ = write!(
            script,
            "if [ \"${{1:-}}\" = --node ]; then\n{namespace}umask 077\n{node}exit\nfi\n\n"
        );
    }
    let _ = write!(
        script,
        "{}\
         # The key cannot be exported or deleted. Never made again where Secrets are encrypted already:\n\
         # there another key is no help, and the lost one has to be restored.\n\
         if ! found=$(bao read {mount}/keys/{key} 2>&1); then\n  \
         case $found in\n    \
         *'No value found'* | *'no handler for route'*) ;;\n    \
         *) echo \"$found\" >&2\n       \
         echo 'cannot look at {mount}/keys/{key} (why is above); nothing was changed' >&2\n       \
         exit 1 ;;\n  \
         esac\n  \
         if [ \"${{1:-}}\" != --make-key ]; then\n    \
         echo '{mount}/keys/{key} is not there. Where Secrets are encrypted already, restore it; the first time: --make-key' >&2\n    \
         exit 1\n  fi\n  \
         bao read sys/mounts/{mount} >/dev/null 2>&1 || bao secrets enable -path={mount} transit\n  \
         bao write -f {mount}/keys/{key} type=aes256-gcm96\n\
         fi\n\
         # No key is made by a slip in its name; this concerns all keys of the mount.\n\
         bao write {mount}/config/keys disable_upsert=true\n\n",
        within(namespace),
    );
    if auth_namespace != namespace {
        script.push_str(&within(auth_namespace));
    }
    let policy = policy(settings);
    let _ = write!(script, "bao policy write {name} - <<'POLICY'\n{policy}POLICY\n\n{server}");
    script
}

/// The commands for a method.
struct Login {
    /// Once, for the server.
    server: String,
    /// On each node, where something has to be put there.
    node: Option<String>,
}

/// In capitals is what only the administrator knows.
#[allow(clippy::too_many_lines, reason = "one arm per method")]
fn login(auth: &Auth, name: &str) -> Login {
    let enable = |mount: &str, method: &str| {
        format!(
            "bao read sys/auth/{mount} >/dev/null 2>&1 || bao auth enable -path={mount} {method}\n"
        )
    };
    // What is configured already may be others', too.
    let enable_with = |mount: &str, method: &str, config: &str| {
        format!(
            "if ! bao read sys/auth/{mount} >/dev/null 2>&1; then\n  \
             bao auth enable -path={mount} {method}\n  \
             bao write auth/{mount}/config {config}\nfi\n"
        )
    };
    let policies = format!("token_policies={name} token_ttl=20m token_max_ttl=24h");
    let alone = |server| Login { server, node: None };
    match auth {
        Auth::Token { file } => {
            let token =
                format!("bao token create -orphan -period=768h -policy={name} -field=token");
            let kept = "# It lives as long as it is renewed, and dies after 32 days without.\n";
            Login { server: String::new(), node: Some(format!("{kept}{}", once(file, &token))) }
        }
        Auth::AppRole { mount, role_id_file, secret_id_file } => {
            let role = format!("auth/{mount}/role/{name}");
            let secret_id = format!("bao write -f -field=secret_id {role}/secret-id");
            Login {
                server: format!(
                    "{}bao write {role} {policies} secret_id_ttl=0 secret_id_num_uses=0\n",
                    enable(mount, "approle")
                ),
                node: Some(role_id(role_id_file, &role) + &once(secret_id_file, &secret_id)),
            }
        }
        Auth::WrappedAppRole { mount, role_id_file, wrapping_token_file, role } => {
            let role = format!("auth/{mount}/role/{}", shell(role.as_deref().unwrap_or(name)));
            let file = quoted(wrapping_token_file);
            let wrapped = format!(
                "# Again before each start of kleidi: a wrapped secret_id opens once.\n\
                 bao write -f -wrap-ttl=10m -field=wrapping_token {role}/secret-id > {file}\n{}",
                belongs(&file)
            );
            Login {
                server: format!(
                    "{}bao write {role} {policies} secret_id_ttl=0 secret_id_num_uses=0\n",
                    enable(mount, "approle")
                ),
                node: Some(role_id(role_id_file, &role) + &wrapped),
            }
        }
        Auth::Certificate { mount, role } => alone(format!(
            "# Name every control-plane node: all kubelets of the cluster have certificates of this authority.\n\
             {}\
             bao write auth/{mount}/certs/{} certificate=@/etc/kubernetes/pki/ca.crt \\\n  \
             allowed_common_names=system:node:NODE_1,system:node:NODE_2 {policies}\n",
            enable(mount, "cert"),
            shell(role.as_deref().unwrap_or(name)),
        )),
        Auth::Kubernetes { mount, role, .. } => alone(format!(
            "# Only where another cluster hosts this control plane: its service accounts are meant.\n\
             {}\
             bao write auth/{mount}/role/{} audience=AUDIENCE {policies} \\\n  \
             bound_service_account_names=SERVICE_ACCOUNT bound_service_account_namespaces=NAMESPACE\n",
            enable_with(
                mount,
                "kubernetes",
                "kubernetes_host=https://HOSTING_API_SERVER:6443 kubernetes_ca_cert=@HOSTING_CA.pem \
                 disable_local_ca_jwt=true"
            ),
            shell(role),
        )),
        Auth::Jwt { mount, role, .. } => alone(format!(
            "{}\
             bao write auth/{mount}/role/{} role_type=jwt user_claim=sub bound_subject=SUBJECT \\\n  \
             bound_audiences=AUDIENCE {policies}\n",
            enable_with(mount, "jwt", "jwt_validation_pubkeys=@ISSUER_KEY.pem bound_issuer=ISSUER"),
            shell(role),
        )),
    }
}

fn role_id(file: &Path, role: &str) -> String {
    once(file, &format!("bao read -field=role_id {role}/role-id"))
}

/// Puts what a command says into a file that is not there yet: what is there may be in use.
fn once(file: &Path, command: &str) -> String {
    let file = quoted(file);
    format!("[ -s {file} ] || {command} > {file}\n{}", belongs(&file))
}

fn belongs(file: &str) -> String {
    format!("! id kleidi >/dev/null 2>&1 || chown kleidi: {file}\n")
}

fn quoted(file: &Path) -> String {
    shell(&file.display().to_string())
}

/// A word that a shell takes as it is.
fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::transit::{ForeignFormat, Plugin, Tls};

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
        let given = include_str!("../../../configuration/vault/policy.hcl");
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
                role: "control plane".to_owned(),
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
}
