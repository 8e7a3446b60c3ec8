//! The commands that set up a login method, and those that put credentials on a node.

use std::path::Path;

use super::shell;
use crate::backend::transit::Auth;

/// The commands for a method.
pub(super) struct Login {
    /// What only the administrator knows.
    pub(super) blanks: Vec<Blank>,
    /// Once, for the server.
    pub(super) server: String,
    /// On each node, where something has to be put there.
    pub(super) node: Option<String>,
}

/// A variable of the script that has to be filled in before anything is done.
pub(super) struct Blank {
    /// Its name, in capitals.
    pub(super) name: &'static str,
    /// What belongs there.
    pub(super) meaning: &'static str,
    /// What it is already; it may be changed.
    pub(super) value: &'static str,
    /// It is the path of a file, which has to be there.
    pub(super) file: bool,
}

const fn blank(name: &'static str, meaning: &'static str) -> Blank {
    Blank { name, meaning, value: "", file: false }
}

const fn file(name: &'static str, meaning: &'static str, value: &'static str) -> Blank {
    Blank { name, meaning, value, file: true }
}

/// How long tokens live: an election of the servers is shorter than half of it.
const LIFE: &str = "token_ttl=20m token_max_ttl=24h";

/// The commands for this method; `name` is that of the policy, and of the role where none is configured.
pub(super) fn login(auth: &Auth, name: &str) -> Login {
    match auth {
        Auth::Token { file } => {
            let token =
                format!("bao token create -orphan -period=768h -policy={name} -field=token");
            let kept = "# It lives as long as it is renewed, and dies after 32 days without.\n";
            let node = Some(format!("{kept}{}", once(file, &token)));
            Login { blanks: Vec::new(), server: String::new(), node }
        }
        Auth::AppRole { mount, role_id_file, secret_id_file } => {
            let role = format!("auth/{mount}/role/{name}");
            let secret_id = format!("bao write -f -field=secret_id {role}/secret-id");
            Login {
                blanks: Vec::new(),
                server: app_role(mount, &role, name),
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
                blanks: Vec::new(),
                server: app_role(mount, &role, name),
                node: Some(role_id(role_id_file, &role) + &wrapped),
            }
        }
        Auth::Certificate { mount, role } => certificate(mount, role.as_deref(), name),
        Auth::Kubernetes { mount, role, .. } => kubernetes(mount, role, name),
        Auth::Jwt { mount, role, .. } => jwt(mount, role, name),
    }
}

fn app_role(mount: &str, role: &str, name: &str) -> String {
    format!(
        "have auth {mount} approle\n\
         ours {role} {name}\n\
         # What was made stricter since stays so.\n\
         there {role} ||\n  \
         bao write {role} token_policies={name} {LIFE} secret_id_ttl=0 secret_id_num_uses=0\n"
    )
}

fn certificate(mount: &str, role: Option<&str>, name: &str) -> Login {
    let role = format!("auth/{mount}/certs/{}", shell(role.unwrap_or(name)));
    Login {
        blanks: vec![
            blank(
                "COMMON_NAMES",
                "every control-plane node's, and nobody else's: system:node:NAME,system:node:NAME",
            ),
            file("AUTHORITY", "the authority of their certificates", "/etc/kubernetes/pki/ca.crt"),
        ],
        server: format!(
            "# All kubelets of the cluster have certificates of this authority: the names are what counts.\n\
             have auth {mount} cert\n\
             ours {role} {name}\n\
             bao write {role} certificate=@\"$AUTHORITY\" \\\n  \
             allowed_common_names=\"$COMMON_NAMES\" token_policies={name} {LIFE}\n"
        ),
        node: None,
    }
}

fn kubernetes(mount: &str, role: &str, name: &str) -> Login {
    let (config, role) =
        (format!("auth/{mount}/config"), format!("auth/{mount}/role/{}", shell(role)));
    Login {
        blanks: vec![
            blank(
                "API_SERVER",
                "the hosting cluster's, as the servers reach it: https://HOST:6443",
            ),
            file("API_SERVER_CA", "the authority of its certificate, in PEM", ""),
            blank("SERVICE_ACCOUNT", "that of the hosted control plane's pods"),
            blank("SERVICE_ACCOUNT_NAMESPACE", "its namespace in the hosting cluster"),
            blank("AUDIENCE", "of the projected token"),
        ],
        server: format!(
            "# Only where another cluster hosts this control plane: its service accounts are meant.\n\
             have auth {mount} kubernetes\n\
             if there {config}; then\n  \
             same {config} kubernetes_host \"$API_SERVER\"\n  \
             same {config} kubernetes_ca_cert \"$(cat \"$API_SERVER_CA\")\"\n\
             else\n  \
             bao write {config} kubernetes_host=\"$API_SERVER\" \\\n    \
             kubernetes_ca_cert=@\"$API_SERVER_CA\" disable_local_ca_jwt=true\n\
             fi\n\
             ours {role} {name}\n\
             bao write {role} audience=\"$AUDIENCE\" token_policies={name} {LIFE} \\\n  \
             bound_service_account_names=\"$SERVICE_ACCOUNT\" \\\n  \
             bound_service_account_namespaces=\"$SERVICE_ACCOUNT_NAMESPACE\"\n"
        ),
        node: None,
    }
}

fn jwt(mount: &str, role: &str, name: &str) -> Login {
    let (config, role) =
        (format!("auth/{mount}/config"), format!("auth/{mount}/role/{}", shell(role)));
    Login {
        blanks: vec![
            blank("ISSUER", "who issues the tokens, as in their claim iss"),
            file(
                "ISSUER_KEY",
                "a file with the public key, in PEM, that their signature is checked by",
                "",
            ),
            blank("SUBJECT", "whose tokens, as in their claim sub"),
            blank("AUDIENCE", "for whom they are, as in their claim aud"),
        ],
        server: format!(
            "have auth {mount} jwt\n\
             if there {config}; then\n  \
             same {config} bound_issuer \"$ISSUER\"\n  \
             same {config} jwt_validation_pubkeys \"$(cat \"$ISSUER_KEY\")\"\n\
             else\n  \
             bao write {config} jwt_validation_pubkeys=@\"$ISSUER_KEY\" bound_issuer=\"$ISSUER\"\n\
             fi\n\
             ours {role} {name}\n\
             bao write {role} role_type=jwt user_claim=sub bound_subject=\"$SUBJECT\" \\\n  \
             bound_audiences=\"$AUDIENCE\" token_policies={name} {LIFE}\n"
        ),
        node: None,
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
