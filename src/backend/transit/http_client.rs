//! One request to one endpoint: no redirects, no proxies, no retries, and answers of a bounded size.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::ServerName;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Longest answer in bytes that is read; a batch of 100 plaintexts has 20 KiB.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Bytes of an answer to a batch of seeds, and some.
const BATCH_ANSWER_BYTES: usize = 64 * 1024;

/// How long to connect may take: the nodes of one network.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a connection is kept that is not used.
const IDLE: Duration = Duration::from_secs(90);

/// When a connection that is not used is asked whether it is still there, how often, and how many times:
/// what a firewall or a load balancer has forgotten is gone after half a minute.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);

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
    /// The answer comes once: an attempt is waited for, and not made again when it may have arrived.
    pub(super) once: bool,
    /// The one address that may be asked, because what is asked about is known there.
    pub(super) only: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// Where it goes at that address, as operators write it.
    pub(super) fn place(&self, address: &str) -> String {
        let namespace = self.namespace.map(|namespace| format!(" (namespace {namespace})"));
        format!("{address}/v1/{}{}", self.path, namespace.unwrap_or_default())
    }

    /// One that anybody may answer, and any number of times.
    pub(super) fn new(method: Method, path: &'a str, body: Bytes) -> Self {
        Self {
            method,
            path,
            namespace: None,
            token: None,
            body,
            batch: false,
            once: false,
            only: None,
        }
    }
}

/// A status, and a body that is wiped: it may hold a seed or a token.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Who gave it.
    pub(super) address: Arc<str>,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// Which connection a request takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    /// One that is kept, if there is one.
    Kept,
    /// A new one, for one request: what is kept may be dead, and nothing tells before the time is over.
    New,
}

/// Why there is no answer.
pub(super) struct Silence {
    /// In words, without anything secret.
    pub(super) reason: String,
    /// The server may have got the request.
    pub(super) arrived: bool,
}

/// A client, whatever it connects by.
type Ask = Box<dyn Fn(http::Request<Full<Bytes>>) -> ResponseFuture + Send + Sync>;

/// A client with its connections.
pub(super) struct Http {
    kept: Ask,
    new: Ask,
}

impl Http {
    /// A client that recognises servers by `config`, and under `server_name` where that is not the
    /// address's.
    pub(super) fn new(
        config: rustls::ClientConfig,
        server_name: Option<ServerName<'static>>,
    ) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let (idle, interval, retries) = KEEPALIVE;
        connector.set_keepalive(Some(idle));
        connector.set_keepalive_interval(Some(interval));
        connector.set_keepalive_retries(Some(retries));
        let mut builder = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
        if let Some(name) = server_name {
            builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        Self::over(builder.enable_http1().wrap_connector(connector))
    }

    /// A client that connects like this.
    pub(super) fn over(connector: impl Connect + Clone + Send + Sync + 'static) -> Self {
        let kept = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector.clone());
        let new = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self {
            kept: Box::new(move |message| kept.request(message)),
            new: Box::new(move |message| new.request(message)),
        }
    }

    /// Sends it to `address` and reads the whole answer.
    pub(super) async fn send(
        &self,
        address: &Arc<str>,
        request: &Request<'_>,
        connection: Connection,
    ) -> Result<Answer, Silence> {
        let unsent = |reason| Silence { reason, arrived: false };
        let cut_off = |reason| Silence { reason, arrived: true };
        let mut message = http::Request::builder()
            .method(request.method.clone())
            .uri(format!("{address}/v1/{}", request.path))
            .header("x-vault-request", "true")
            .header(http::header::CONTENT_TYPE, "application/json");
        if let Some(namespace) = request.namespace {
            message = message.header("x-vault-namespace", namespace);
        }
        let mut message =
            message.body(Full::new(request.body.clone())).map_err(|e| unsent(e.to_string()))?;
        if let Some(token) = request.token {
            let mut value = HeaderValue::from_bytes(token.expose())
                .map_err(|_| unsent("the token has characters that no token has".to_owned()))?;
            value.set_sensitive(true);
            message.headers_mut().insert(HeaderName::from_static("x-vault-token"), value);
        }
        let ask = match connection {
            Connection::Kept => &self.kept,
            Connection::New => &self.new,
        };
        let answer = ask(message)
            .await
            .map_err(|error| Silence { reason: chain(&error), arrived: !error.is_connect() })?;
        let status = answer.status().as_u16();
        let mut parts = answer.into_body();
        // As long as it says, so that nothing of it stays behind where the buffer grows; an answer to a
        // batch comes in chunks and does not say.
        let said = hyper::body::Body::size_hint(&parts).lower();
        let least = if request.batch { BATCH_ANSWER_BYTES } else { 4096 };
        let capacity = usize::try_from(said).unwrap_or(0).clamp(least, ANSWER_BYTES_MAX);
        let mut body = Zeroizing::new(Vec::with_capacity(capacity));
        while let Some(frame) = parts.frame().await {
            let frame = frame.map_err(|error| cut_off(chain(&error)))?;
            if let Some(data) = frame.data_ref() {
                if body.len() + data.len() > ANSWER_BYTES_MAX {
                    let reason = format!("its answer is longer than {ANSWER_BYTES_MAX} bytes");
                    return Err(cut_off(reason));
                }
                body.extend_from_slice(data);
            }
        }
        Ok(Answer { status, address: Arc::clone(address), body })
    }
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
