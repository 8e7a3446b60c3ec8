//! The HTTP client for etcd, kube-apiserver, OpenBao and Vault.

use std::time::Duration;

use serde_json::Value;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server and how to speak to it.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    agent: ureq::Agent,
    base: String,
    port: u16,
    token: Option<String>,
    /// Sent with every request.
    header: Option<(&'static str, String)>,
}

/// A status and the body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Http {
    /// A server on 127.0.0.1; with TLS if a certificate to trust is given.
    pub(crate) fn new(port: u16, trusted: Option<&[u8]>, token: Option<String>) -> Self {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A server that names another one in its place has to be seen doing so.
            .max_redirects(0);
        let scheme = match trusted {
            None => "http",
            Some(certificate) => {
                let roots = vec![Certificate::from_der(certificate).to_owned()];
                let roots = RootCerts::new_with_certs(&roots);
                config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
                "https"
            }
        };
        let base = format!("{scheme}://127.0.0.1:{port}");
        Self { agent: config.build().into(), base, port, token, header: None }
    }

    /// The same server, spoken to with another token.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same server, spoken to with one more header.
    pub(crate) fn with_header(&self, name: &'static str, value: &str) -> Self {
        Self { header: Some((name, value.to_owned())), ..self.clone() }
    }

    /// The port of its address.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The address that requests go to.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request; an error is a connection that failed.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, String> {
        self.send_within(PATIENCE, method, path, body)
    }

    /// The same; no answer in that time is an error, too.
    pub(crate) fn send_within(
        &self,
        patience: Duration,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, String> {
        let mut request =
            ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some((name, value)) = &self.header {
            request = request.header(*name, value);
        }
        let text = |error: ureq::http::Error| error.to_string();
        let sent = if let Some(body) = body {
            let request = request.header("content-type", "application/json");
            let request = request.body(body.to_string()).map_err(text)?;
            let request = self.agent.configure_request(request);
            self.agent.run(request.timeout_global(Some(patience)).build())
        } else {
            let request = request.body(()).map_err(text)?;
            let request = self.agent.configure_request(request);
            self.agent.run(request.timeout_global(Some(patience)).build())
        };
        let mut answer = sent.map_err(|error| error.to_string())?;
        let body = answer
            .body_mut()
            .with_config()
            .limit(64 << 20)
            .read_to_string()
            .map_err(|error| error.to_string())?;
        Ok(Answer { status: answer.status().as_u16(), body })
    }
}
