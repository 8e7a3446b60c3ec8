//! As much of an etcd client as a store of objects needs: its JSON gateway, over HTTP without TLS.

use std::error::Error;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// Longest time for an answer, and for the connection if there is none.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// An etcd. A connection that has ended is made again.
pub struct Etcd {
    /// `http://host:port`
    url: String,
    client: Client<HttpConnector, Full<Bytes>>,
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

impl Error for EtcdError {}

impl Etcd {
    /// The etcd at `http://host:port`, if it answers.
    pub async fn connect(url: &str) -> Result<Self, EtcdError> {
        if !url.starts_with("http://") {
            let why = "only http:// is supported: start an etcd without TLS, for tests".to_owned();
            return Err(EtcdError { doing: format!("reach etcd at {url}"), why });
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        let etcd = Self { url: url.trim_end_matches('/').to_owned(), client };
        etcd.call("maintenance/status", &json!({})).await?;
        Ok(etcd)
    }

    /// The pair of a key.
    pub async fn get(&self, key: &str) -> Result<Option<Pair>, EtcdError> {
        let answer = self.call("kv/range", &json!({"key": STANDARD.encode(key)})).await?;
        Ok(pairs(&answer).pop())
    }

    /// All pairs whose keys begin with `prefix`, by their keys.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Pair>, EtcdError> {
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let range = json!({"key": STANDARD.encode(prefix), "range_end": STANDARD.encode(end)});
        Ok(pairs(&self.call("kv/range", &range).await?))
    }

    /// Sets a key unless it has changed since `revision`, 0 if it must not be there: whether it was set.
    ///
    /// After an error it may have been.
    pub async fn put(&self, key: &str, value: &[u8], revision: i64) -> Result<bool, EtcdError> {
        let (key, value) = (STANDARD.encode(key), STANDARD.encode(value));
        let revision = revision.to_string();
        let unchanged =
            json!({"target": "MOD", "result": "EQUAL", "key": key, "mod_revision": revision});
        let put = json!({"request_put": {"key": key, "value": value}});
        let txn = json!({"compare": [unchanged], "success": [put]});
        let answer = self.call("kv/txn", &txn).await?;
        Ok(answer["succeeded"].as_bool().unwrap_or(false))
    }

    async fn call(&self, method: &str, body: &Value) -> Result<Value, EtcdError> {
        let doing = || format!("ask etcd at {} for {method}", self.url);
        let fault = |why: String| EtcdError { doing: doing(), why };
        let request = http::Request::post(format!("{}/v3/{method}", self.url))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| fault(error.to_string()))?;
        let answer = async {
            let answer = self.client.request(request).await.map_err(|error| whole(&error))?;
            let status = answer.status();
            let body = answer.into_body().collect().await.map_err(|error| whole(&error))?;
            Ok::<_, String>((status, body.to_bytes()))
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let answer = answer.map_err(|_| fault(format!("no answer in {PATIENCE:?}")))?;
        let (status, body) = answer.map_err(fault)?;
        if !status.is_success() {
            return Err(fault(format!("{status}: {}", String::from_utf8_lossy(&body))));
        }
        serde_json::from_slice(&body).map_err(|error| fault(error.to_string()))
    }
}

/// An error and what has caused it.
fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
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
