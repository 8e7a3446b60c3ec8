//! What the token may do.

use std::collections::BTreeMap;

use http::Method;
use serde::Deserialize;

use super::super::answer::forbids;
use super::{Way, within};
use crate::backend::transit::Data;
use crate::backend::transit::json::Object;
use crate::backend::transit::json::parse;
use crate::backend::{BackendError, ErrorKind, Finding};

const ATTEMPTED: &str = "ask what the token may do";

/// By path.
#[derive(Deserialize)]
pub(super) struct Capabilities(BTreeMap<String, Vec<String>>);

impl Capabilities {
    /// Whether it may do that.
    pub(super) fn may(&self, path: &str, capability: &str) -> bool {
        let capabilities = self.0.get(path).into_iter().flatten();
        capabilities.into_iter().any(|found| found == capability || found == "root")
    }
}

/// What the token may do with these paths, which begin at that namespace.
pub(super) async fn capabilities(
    way: &Way<'_>,
    namespace: Option<&str>,
    paths: &[String],
) -> Result<Capabilities, BackendError> {
    let body = Object::with_capacity(256).texts("paths", paths.iter().map(String::as_str));
    let at = (namespace, "sys/capabilities-self");
    let answer = way.ask(ATTEMPTED, Method::POST, at, body).await?;
    Ok(parse::<Data<Capabilities>>(ATTEMPTED, &answer)?.data)
}

/// Whether it may do what calls need, and no more.
pub(super) async fn policy(way: &Way<'_>, findings: &mut Vec<Finding>) -> Result<(), BackendError> {
    let settings = &way.inner.settings;
    let namespace = settings.namespace.as_deref();
    let encrypt = settings.path("encrypt");
    let mut needed = vec![encrypt.clone(), settings.path("decrypt"), settings.path("hmac")];
    let foreign = settings.foreign.iter();
    needed.extend(foreign.map(|format| format!("{}/decrypt/{}", format.mount, format.key)));
    let found = match capabilities(way, namespace, &needed).await {
        Ok(found) => found,
        Err(error) if forbids(&error) => {
            findings.push(Finding::Warning(
                "whether the token may do what is needed is not known yet: its policies lack update on \
                 sys/capabilities-self, which the policy named default has"
                    .to_owned(),
            ));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let lacking: Vec<_> = needed.iter().filter(|path| !found.may(path, "update")).collect();
    if !lacking.is_empty() {
        let paths = lacking.iter().map(|path| path.as_str()).collect::<Vec<_>>().join(", ");
        let reason = format!("the token's policies lack update on {paths}{}", within(namespace));
        let attempted = format!("use {}", settings.path("keys"));
        return Err(BackendError::new(ErrorKind::Credentials, attempted, reason).advise(
            "are transit.key, transit.mount and transit.namespace right, as on the other nodes? then \
             kleidi init --print-policy prints the policy that is needed",
        ));
    }
    findings.push(Finding::Good("the policy grants what is needed".to_owned()));
    if found.may(&encrypt, "root") {
        findings.push(Finding::Warning(
            "the token may do everything: give kleidi one with the policy that kleidi init \
             --print-policy prints, and no other"
                .to_owned(),
        ));
    } else if found.may(&encrypt, "create") {
        findings.push(Finding::Warning(format!(
            "the policy grants create on {encrypt}: where the key is missing, the server makes a new \
             one, and nobody notices that the old one is gone"
        )));
    }
    Ok(())
}
