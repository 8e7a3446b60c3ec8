//! The way to the key, step by step: addresses, login, token, policy, key. For `kleidi check --live`.
//!
//! A server tells little in the answer to an operation: a policy that forbids, a mount that is not there
//! and a token that is gone all look the same. Here each step is asked about by itself.

use http::Method;
use tokio::time::Instant;

use super::http_client::{Answer, Request};
use super::json::Object;
use super::lease::Ticket;
use super::{Auth, Inner};
use crate::backend::{BackendError, Finding};

mod key;
mod policy;
mod token;

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
    let settings = &inner.settings;
    findings.push(Finding::Good(match &settings.auth {
        Auth::Token { file } => format!("there is a token in {}", file.display()),
        auth => format!(
            "logged in at auth/{}{}",
            auth.mount().unwrap_or_default(),
            within(settings.auth_namespace.as_deref())
        ),
    }));
    let way = Way { inner, ticket: &ticket, deadline };
    token::token(&way, findings).await?;
    policy::policy(&way, findings).await?;
    key::key(&way, findings).await?;
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
    let settings = &inner.settings;
    let namespace = settings.namespace.as_ref().or(settings.auth_namespace.as_ref());
    for address in &settings.addresses {
        match inner.cluster.health(address, deadline).await {
            Ok((state, no_namespaces)) => {
                findings.push(Finding::Good(format!("{address}: {state}")));
                if let Some(namespace) = namespace.filter(|_| no_namespaces) {
                    findings.push(Finding::Warning(format!(
                        "{address} is a Vault without namespaces: it passes over {namespace} without a \
                         word, and everything is looked for in the root"
                    )));
                }
            }
            Err(fault) => faults.push(fault),
        }
    }
    if faults.len() == settings.addresses.len() && !faults.is_empty() {
        let first = faults.remove(0);
        findings.extend(faults.into_iter().map(|fault| Finding::Warning(fault.to_string())));
        return Err(first);
    }
    findings.extend(faults.into_iter().map(|fault| Finding::Warning(fault.to_string())));
    Ok(())
}

/// A token, and how long there is for asking about what it opens.
struct Way<'a> {
    inner: &'a Inner,
    ticket: &'a Ticket,
    deadline: Instant,
}

impl Way<'_> {
    async fn ask(
        &self,
        attempted: &'static str,
        method: Method,
        (namespace, path): (Option<&str>, &str),
        body: Object,
    ) -> Result<Answer, BackendError> {
        let body = if method == Method::GET { bytes::Bytes::new() } else { body.finish() };
        let token = Some(&*self.ticket.token);
        let request = Request { namespace, token, ..Request::new(method, path, body) };
        Ok(self.inner.cluster.call(attempted, &request, self.deadline).await?)
    }
}

/// How a namespace is named behind a path.
fn within(namespace: Option<&str>) -> String {
    namespace.map(|namespace| format!(" in the namespace {namespace}")).unwrap_or_default()
}
