//! What an administrator has to set up, as a script: transit, the key, the least policy, the login.
//!
//! For `kleidi init --print-policy`. kleidi itself is not given the rights to do any of it.

use std::fmt::Write as _;

mod login;
#[cfg(test)]
mod tests;

use super::Settings;
use login::{Blank, Login, login};

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

/// What the commands of the script are written in terms of: what is there is left as it is, or is what is
/// wanted, or ends the script.
const FUNCTIONS: &str = r#"fail() {
  echo "$1" >&2
  exit 1
}

# have mounts|auth PATH TYPE: enables it where there is nothing.
have() {
  if found=$(bao read -field=type "sys/$1/$2" 2>/dev/null); then
    [ "$found" = "$3" ] || fail "sys/$1/$2 is there and of type $found, not $3: it was left as it is; name another mount"
  elif [ "$1" = auth ]; then
    bao auth enable -path="$2" "$3"
  else
    bao secrets enable -path="$2" "$3"
  fi
}

# free POLICY RULE: ends where the policy is there and has no such rule: it is another key's.
free() {
  if found=$(bao policy read "$1" 2>&1); then
    case $found in
      *"$2"*) ;;
      *) fail "the policy $1 is there, and for something else than $2: it was left as it is" ;;
    esac
  else
    case $found in
      *'No policy named'*) ;;
      *) fail "cannot look at the policy $1, which was left as it is: $found" ;;
    esac
  fi
}
"#;

/// And those of the login.
const FUNCTIONS_OF_LOGIN: &str = r#"
# there PATH: whether something is there; ends where that cannot be told.
there() {
  if found=$(bao read "$1" 2>&1); then
    return 0
  fi
  case $found in
    *'No value found'*) return 1 ;;
    *) fail "cannot look at $1, which was left as it is: $found" ;;
  esac
}

# ours ROLE POLICY: ends where the role is there for another policy.
ours() {
  if there "$1"; then
    found=$(bao read -field=token_policies "$1")
    case $(echo " $found " | tr '[],' '   ') in
      *" $2 "*) ;;
      *) fail "$1 is there, for the policies $found: it was left as it is; name another role or mount" ;;
    esac
  fi
}
"#;

/// And those of a login method whose configuration others may use as well.
const FUNCTION_OF_CONFIG: &str = r#"
# same PATH FIELD VALUE: ends where it is another one; blanks, line ends and the brackets of a list do not count.
same() {
  found=$(bao read -field="$2" "$1" | tr -d '[] \n')
  wanted=$(printf %s "$3" | tr -d '[] \n')
  [ "$found" = "$wanted" ] || fail "$1 is there with another $2 ($found): it was left as it is, others may use it; name another mount"
}
"#;

/// A script for `sh` that does all of it; it can be run again, and does nothing before all is filled in.
#[must_use]
pub fn script(settings: &Settings) -> String {
    let Settings { namespace, auth_namespace, .. } = settings;
    let name = settings.name();
    let Login { blanks, server, node } = login(&settings.auth, &name);
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
    script.push_str(&to_fill_in(&blanks));
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
        let namespace = within(auth_namespace.as_deref());
        let _ = write!(
            script,
            "if [ \"${{1:-}}\" = --node ]; then\n{namespace}umask 077\n{node}exit\nfi\n\n"
        );
    }
    script.push_str(&filled_in(&blanks));
    script.push_str(FUNCTIONS);
    if !server.is_empty() {
        script.push_str(FUNCTIONS_OF_LOGIN);
    }
    if server.contains("\n  same ") {
        script.push_str(FUNCTION_OF_CONFIG);
    }
    let _ = write!(script, "\n{}{}", within(namespace.as_deref()), key_and_mount(settings));
    if auth_namespace != namespace {
        script.push_str(&within(auth_namespace.as_deref()));
    }
    let policy = policy(settings);
    let encrypt = policy.lines().find(|line| line.contains("/encrypt/")).unwrap_or_default();
    let encrypt = encrypt.trim_end_matches([' ', '{']);
    let _ = write!(
        script,
        "free {name} '{encrypt}'\n\
         bao policy write {name} - <<'POLICY'\n{policy}POLICY\n\n{server}"
    );
    script
}

fn within(namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => {
            format!("export BAO_NAMESPACE={namespace} VAULT_NAMESPACE={namespace}\n")
        }
        None => "unset BAO_NAMESPACE VAULT_NAMESPACE\n".to_owned(),
    }
}

/// The variables, for the administrator.
fn to_fill_in(blanks: &[Blank]) -> String {
    let mut lines = String::new();
    for Blank { name, meaning, value, .. } in blanks {
        let _ = writeln!(lines, "# {meaning}\n{name}='{value}'");
    }
    if lines.is_empty() {
        lines
    } else {
        format!("# To be filled in, between the quotes:\n{lines}\n")
    }
}

/// Ends where one is not filled in, or names a file that is not there: before anything is done.
fn filled_in(blanks: &[Blank]) -> String {
    if blanks.is_empty() {
        return String::new();
    }
    let mut checks = String::from("empty=\n");
    for Blank { name, file, .. } in blanks {
        let _ = writeln!(checks, "[ -n \"${name}\" ] || empty=\"$empty {name}\"");
        if *file {
            let _ = writeln!(
                checks,
                "[ -z \"${name}\" ] || [ -r \"${name}\" ] || empty=\"$empty {name} (no file ${name})\""
            );
        }
    }
    checks.push_str(
        "if [ -n \"$empty\" ]; then\n  \
         echo \"to be filled in at the top of this script:$empty; nothing was done\" >&2\n  \
         exit 64\nfi\n\n",
    );
    checks
}

fn key_and_mount(settings: &Settings) -> String {
    let Settings { mount, key, .. } = settings;
    format!(
        "# The key cannot be exported or deleted. Never made again where Secrets are encrypted already:\n\
         # there another key is no help, and the lost one has to be restored.\n\
         if ! found=$(bao read {mount}/keys/{key} 2>&1); then\n  \
         case $found in\n    \
         *'No value found'* | *'no handler for route'*) ;;\n    \
         *) echo \"$found\" >&2\n       \
         fail 'cannot look at {mount}/keys/{key} (why is above); nothing was changed' ;;\n  \
         esac\n  \
         [ \"${{1:-}}\" = --make-key ] ||\n    \
         fail '{mount}/keys/{key} is not there. Where Secrets are encrypted already, restore it; the first time: --make-key'\n  \
         have mounts {mount} transit\n  \
         bao write -f {mount}/keys/{key} type=aes256-gcm96\n\
         fi\n\
         # No key is made by a slip in its name; this concerns all keys of the mount.\n\
         bao write {mount}/config/keys disable_upsert=true\n\n"
    )
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
