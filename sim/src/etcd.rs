//! As much of an etcd client as a store of objects needs: its JSON gateway, over HTTP without TLS.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// Longest time for an answer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// One connection to an etcd.
pub struct Etcd {
    authority: String,
    sender: SendRequest<Full<Bytes>>,
}

/// A key, its value, and the revision of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// Of its last change.
    pub revision: i64,
}

/// Why etcd gave nothing.
#[derive(Debug)]
pub struct EtcdError {
    doing: String,
    why: String,
}

impl fmt::Display for EtcdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.doing, self.why)
    }
}

impl std::error::Error for EtcdError {}

impl Etcd {
    /// Connects to `http://host:port`.
    pub async fn connect(url: &str) -> Result<Self, EtcdError> {
        let fault = |why: String| EtcdError { doing: format!("reach etcd at {url}"), why };
        let authority = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let authority = authority.ok_or_else(|| {
            fault("only http:// is supported: start an etcd without TLS, for tests".to_owned())
        })?;
        let stream = TcpStream::connect(authority).await.map_err(|e| fault(e.to_string()))?;
        let made = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = made.map_err(|error| fault(error.to_string()))?;
        // Its end shows in the requests.
        tokio::spawn(connection);
        Ok(Self { authority: authority.to_owned(), sender })
    }

    /// The pair of a key.
    pub async fn get(&mut self, key: &str) -> Result<Option<Pair>, EtcdError> {
        let answer = self.call("range", &json!({"key": STANDARD.encode(key)})).await?;
        Ok(pairs(&answer).pop())
    }

    /// All pairs whose keys begin with `prefix`, by their keys.
    pub async fn list(&mut self, prefix: &str) -> Result<Vec<Pair>, EtcdError> {
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let range = json!({"key": STANDARD.encode(prefix), "range_end": STANDARD.encode(end)});
        Ok(pairs(&self.call("range", &range).await?))
    }

    /// Sets a key unless it has changed since `revision`, 0 if it must not be there: whether it was set.
    pub async fn put(&mut self, key: &str, value: &[u8], revision: i64) -> Result<bool, EtcdError> {
        let (key, value) = (STANDARD.encode(key), STANDARD.encode(value));
        let revision = revision.to_string();
        let unchanged =
            json!({"target": "MOD", "result": "EQUAL", "key": key, "mod_revision": revision});
        let put = json!({"request_put": {"key": key, "value": value}});
        let answer = self.call("txn", &json!({"compare": [unchanged], "success": [put]})).await?;
        Ok(answer["succeeded"].as_bool().unwrap_or(false))
    }

    async fn call(&mut self, method: &str, body: &Value) -> Result<Value, EtcdError> {
        let doing = || format!("ask etcd for a {method}");
        let fault = |why: String| EtcdError { doing: doing(), why };
        let request = http::Request::post(format!("/v3/kv/{method}"))
            .header("host", &self.authority)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| fault(error.to_string()))?;
        let answer = async {
            let answer = self.sender.send_request(request).await?;
            let status = answer.status();
            Ok::<_, hyper::Error>((status, answer.into_body().collect().await?.to_bytes()))
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let answer = answer.map_err(|_| fault(format!("no answer in {PATIENCE:?}")))?;
        let (status, body) = answer.map_err(|error| fault(error.to_string()))?;
        if !status.is_success() {
            return Err(fault(format!("{status}: {}", String::from_utf8_lossy(&body))));
        }
        serde_json::from_slice(&body).map_err(|error| fault(error.to_string()))
    }
}

fn pairs(answer: &Value) -> Vec<Pair> {
    let bytes = |value: &Value| STANDARD.decode(value.as_str()?).ok();
    let pair = |pair: &Value| {
        Some(Pair {
            key: String::from_utf8(bytes(&pair["key"])?).ok()?,
            // An empty value is left out.
            value: bytes(&pair["value"]).unwrap_or_default(),
            revision: pair["mod_revision"].as_str()?.parse().ok()?,
        })
    };
    answer["kvs"].as_array().into_iter().flatten().filter_map(pair).collect()
}
