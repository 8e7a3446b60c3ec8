//! One request to one endpoint: no redirects, no proxies, no retries, and answers of a bounded size.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::backend::{BackendError, ErrorKind};
use crate::secret::Secret;

/// Longest answer in bytes that is read; a batch of 100 plaintexts has 20 KiB.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How long to connect may take: the nodes of one network.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a connection is kept that is not used.
const IDLE: Duration = Duration::from_secs(90);

/// How the server is recognised, and how we are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of the authorities that may have signed the server's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Our certificate with its chain, in PEM; the key may be in the same file.
    pub certificate_file: Option<PathBuf>,
    /// The key of our certificate, if it is not in the same file.
    pub key_file: Option<PathBuf>,
}

/// A request, for whichever endpoint.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    /// Behind `/v1/`.
    pub(super) path: &'a str,
    pub(super) namespace: Option<&'a str>,
    pub(super) token: Option<&'a Secret>,
    /// JSON.
    pub(super) body: Bytes,
    /// It holds several items, which can fail one by one.
    pub(super) batch: bool,
}

/// A status, and a body that is wiped: it may hold a seed or a token.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// A client with its connections.
pub(super) struct Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Http {
    /// Reads the files of `tls`.
    pub(super) fn new(tls: &Tls) -> Result<Self, BackendError> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(client_config(tls)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(Self(client))
    }

    /// Sends it to `address` and reads the whole answer. An error is in words, without anything secret.
    pub(super) async fn send(
        &self,
        address: &str,
        request: &Request<'_>,
    ) -> Result<Answer, String> {
        let mut message = http::Request::builder()
            .method(request.method.clone())
            .uri(format!("{address}/v1/{}", request.path))
            .header("x-vault-request", "true")
            .header(http::header::CONTENT_TYPE, "application/json");
        if let Some(namespace) = request.namespace {
            message = message.header("x-vault-namespace", namespace);
        }
        let mut message =
            message.body(Full::new(request.body.clone())).map_err(|error| error.to_string())?;
        if let Some(token) = request.token {
            let mut value = HeaderValue::from_bytes(token.expose())
                .map_err(|_| "the token has characters that no token has".to_owned())?;
            value.set_sensitive(true);
            message.headers_mut().insert(HeaderName::from_static("x-vault-token"), value);
        }
        let answer = self.0.request(message).await.map_err(|error| chain(&error))?;
        let status = answer.status().as_u16();
        let mut parts = answer.into_body();
        // As long as it says, so that nothing of it stays behind where the buffer grows.
        let said = hyper::body::Body::size_hint(&parts).lower();
        let capacity = usize::try_from(said).unwrap_or(0).clamp(4096, ANSWER_BYTES_MAX);
        let mut body = Zeroizing::new(Vec::with_capacity(capacity));
        while let Some(frame) = parts.frame().await {
            let frame = frame.map_err(|error| chain(&error))?;
            if let Some(data) = frame.data_ref() {
                if body.len() + data.len() > ANSWER_BYTES_MAX {
                    return Err(format!("its answer is longer than {ANSWER_BYTES_MAX} bytes"));
                }
                body.extend_from_slice(data);
            }
        }
        Ok(Answer { status, body })
    }
}

fn client_config(tls: &Tls) -> Result<rustls::ClientConfig, BackendError> {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(file) = &tls.ca_file {
        for certificate in certificates(file)? {
            roots.add(certificate).map_err(|error| fault(file, error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            BackendError::new(ErrorKind::Misconfigured, "set up TLS", error.to_string())
        })?
        .with_root_certificates(roots);
    let Some(file) = &tls.certificate_file else { return Ok(builder.with_no_client_auth()) };
    let key_file = tls.key_file.as_ref().unwrap_or(file);
    let pem = Zeroizing::new(fs::read(key_file).map_err(|e| fault(key_file, e.to_string()))?);
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| fault(key_file, format!("there is no private key in it: {error}")))?;
    builder
        .with_client_auth_cert(certificates(file)?, key)
        .map_err(|error| fault(file, error.to_string()))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, BackendError> {
    let pem = fs::read(file).map_err(|error| fault(file, error.to_string()))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| fault(file, error.to_string()))?;
    if certificates.is_empty() {
        return Err(fault(file, "there is no certificate in it".to_owned()));
    }
    Ok(certificates)
}

fn fault(file: &Path, reason: String) -> BackendError {
    let attempted = format!("use {} for TLS", file.display());
    BackendError::new(ErrorKind::Misconfigured, attempted, reason)
}

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
