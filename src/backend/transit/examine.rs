//! The way to the key, step by step: addresses, login, policy, key. For `kleidi check --live`.
//!
//! A server tells little in the answer to an operation: a policy that forbids, a mount that is not there
//! and a token that is gone all look the same. Here each step is asked about by itself.

use http::Method;
use serde::Deserialize;
use std::collections::BTreeMap;
use tokio::time::Instant;

use super::http_client::{Answer, Request};
use super::json::{Object, parse};
use super::lease::Ticket;
use super::{Auth, Data, Inner};
use crate::backend::{BackendError, ErrorKind, Finding};

/// Types of keys that take associated data.
const TYPES: [&str; 4] =
    ["aes256-gcm96", "aes128-gcm96", "chacha20-poly1305", "xchacha20-poly1305"];

/// All findings in order; the last is a fault if the way ends there.
pub(super) async fn examine(inner: &Inner, deadline: Instant) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(fault) = steps(inner, &mut findings, deadline).await {
        findings.push(Finding::Fault(fault));
    }
    findings
}

async fn steps(
    inner: &Inner,
    findings: &mut Vec<Finding>,
    deadline: Instant,
) -> Result<(), BackendError> {
    addresses(inner, findings, deadline).await?;
    let ticket = inner.login.ticket(deadline).await?;
    let what = match &inner.settings.auth {
        Auth::Token { .. } => "there is a token",
        _ => "logged in",
    };
    findings.push(Finding::Good(what.to_owned()));
    match policy(inner, &ticket, findings, deadline).await? {
        Some(true) => key(inner, &ticket, findings, deadline).await?,
        Some(false) => {
            let path = inner.settings.path("keys");
            findings.push(Finding::Warning(format!(
                "whether the key can be exported is not known: the policy lacks read on {path}"
            )));
        }
        None => {}
    }
    // That there is none, or none that may be looked at, is told with the next step.
    if let Ok(seen) = inner.fingerprint(None, None, deadline).await {
        inner.compare(seen.version, seen.fingerprint, deadline).await?;
    }
    Ok(())
}

/// One node that can serve is enough; what is wrong with the others is a warning.
async fn addresses(
    inner: &Inner,
    findings: &mut Vec<Finding>,
    deadline: Instant,
) -> Result<(), BackendError> {
    let mut faults = Vec::new();
    for address in &inner.settings.addresses {
        match inner.cluster.health(address, deadline).await {
            Ok(state) => findings.push(Finding::Good(format!("{address}: {state}"))),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.len() == inner.settings.addresses.len() && !faults.is_empty() {
        let first = faults.remove(0);
        findings.extend(faults.into_iter().map(|fault| Finding::Warning(fault.to_string())));
        return Err(first);
    }
    findings.extend(faults.into_iter().map(|fault| Finding::Warning(fault.to_string())));
    Ok(())
}

/// What our token may do. Says whether it may read the key's settings, if that can be told.
async fn policy(
    inner: &Inner,
    ticket: &Ticket,
    findings: &mut Vec<Finding>,
    deadline: Instant,
) -> Result<Option<bool>, BackendError> {
    const ATTEMPTED: &str = "ask what the token may do";
    let settings = &inner.settings;
    let (encrypt, keys) = (settings.path("encrypt"), settings.path("keys"));
    let mut needed = vec![encrypt.clone(), settings.path("decrypt"), settings.path("hmac")];
    let foreign = settings.foreign.iter();
    needed.extend(foreign.map(|format| format!("{}/decrypt/{}", format.mount, format.key)));
    let asked = needed.iter().chain([&keys]).map(String::as_str);
    let body = Object::with_capacity(256).texts("paths", asked);
    let path = "sys/capabilities-self";
    let answer = match ask(inner, ATTEMPTED, Method::POST, path, ticket, body, deadline).await {
        Ok(answer) => answer,
        // Of a fresh login it is the policy; of a token that was found, most likely the token.
        Err(error) if matches!(settings.auth, Auth::Token { .. }) => {
            return Err(error.advise(
                "the token is expired, revoked or of another server: put a new one into the file, no \
                 restart; or it lacks the policy named default",
            ));
        }
        Err(error) => {
            findings.push(Finding::Warning(format!(
                "what the token may do cannot be told ({error}); the policy named default lets it ask"
            )));
            return Ok(None);
        }
    };
    let answer: Data<BTreeMap<String, Vec<String>>> = parse(ATTEMPTED, &answer)?;
    let may = |path: &str, capability: &str| {
        let capabilities = answer.data.get(path).into_iter().flatten();
        capabilities.into_iter().any(|found| found == capability || found == "root")
    };
    let lacking: Vec<_> = needed.iter().filter(|path| !may(path, "update")).collect();
    if !lacking.is_empty() {
        let paths = lacking.iter().map(|path| path.as_str()).collect::<Vec<_>>().join(", ");
        let reason = format!("the token's policies lack update on {paths}");
        return Err(BackendError::new(ErrorKind::Credentials, "use the key", reason).advise(
            "are key, mount and namespace right, as on the other nodes? then kleidi init \
                 --print-policy prints the policy that is needed",
        ));
    }
    findings.push(Finding::Good("the policy grants what is needed".to_owned()));
    if may(&encrypt, "root") {
        findings.push(Finding::Warning(
            "the token may do everything: give the plugin one with the policy of \
             kleidi init --print-policy"
                .to_owned(),
        ));
    } else if may(&encrypt, "create") {
        findings.push(Finding::Warning(format!(
            "the policy grants create on {encrypt}: where the key is missing, the server makes a new \
             one, and nobody notices that the old one is gone"
        )));
    }
    Ok(Some(may(&keys, "read")))
}

/// What `transit/keys/<name>` says.
#[derive(Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "it is the server's answer")]
struct KeySettings {
    #[serde(rename = "type")]
    kind: String,
    latest_version: u64,
    #[serde(default)]
    min_decryption_version: u64,
    #[serde(default)]
    exportable: bool,
    #[serde(default)]
    allow_plaintext_backup: bool,
    #[serde(default)]
    deletion_allowed: bool,
    #[serde(default)]
    derived: bool,
    #[serde(default)]
    soft_deleted: bool,
}

/// Whether the key is of the right kind, and safe.
async fn key(
    inner: &Inner,
    ticket: &Ticket,
    findings: &mut Vec<Finding>,
    deadline: Instant,
) -> Result<(), BackendError> {
    const ATTEMPTED: &str = "look at the transit key";
    let path = inner.settings.path("keys");
    let body = Object::with_capacity(0);
    let answer = ask(inner, ATTEMPTED, Method::GET, &path, ticket, body, deadline).await?;
    let Data { data: key } = parse::<Data<KeySettings>>(ATTEMPTED, &answer)?;
    let wrong = |reason: String, advice: &'static str| {
        Err(BackendError::new(ErrorKind::Misconfigured, format!("use {path}"), reason)
            .advise(advice))
    };
    if !TYPES.contains(&key.kind.as_str()) {
        let advice = "make a key of type aes256-gcm96";
        return wrong(format!("its type {} takes no associated data", key.kind), advice);
    }
    if key.derived {
        return wrong("it is a derived key".to_owned(), "make a key with derived=false");
    }
    if key.soft_deleted {
        let advice = "restore it: transit/keys/…/soft-delete-restore";
        return wrong("it is soft-deleted".to_owned(), advice);
    }
    let KeySettings { kind, latest_version, min_decryption_version, .. } = &key;
    findings.push(Finding::Good(format!(
        "{path}: {kind}, latest version {latest_version}, decrypts from version {}",
        min_decryption_version.max(&1)
    )));
    for (set, what) in [
        (
            key.exportable,
            "exportable: whoever may read transit/export takes it away. This cannot be undone; make \
             another key",
        ),
        (
            key.allow_plaintext_backup,
            "allow_plaintext_backup: whoever may read transit/backup takes it away. This cannot be \
             undone; make another key",
        ),
        (
            key.deletion_allowed,
            "deletion_allowed: one call makes all Secrets unreadable. Set it to false",
        ),
    ] {
        if set {
            findings.push(Finding::Warning(format!("{path} is {what}")));
        }
    }
    Ok(())
}

async fn ask(
    inner: &Inner,
    attempted: &'static str,
    method: Method,
    path: &str,
    ticket: &Ticket,
    body: Object,
    deadline: Instant,
) -> Result<Answer, BackendError> {
    let request = Request {
        namespace: inner.settings.namespace.as_deref(),
        token: Some(&ticket.token),
        ..Request::new(method, path, body.finish())
    };
    Ok(inner.cluster.call(attempted, &request, deadline).await?)
}
