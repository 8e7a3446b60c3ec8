//! Clients of transit as they are written where nobody has thought of lag, lies and lists: what the judge has
//! to catch.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use kleidi::backend::transit::edges::Edges as _;
use kleidi::backend::{
    Backend, BackendError, ErrorKind, Key, KeySet, Reply, Scheme, UnwrapRequest, WrapRequest,
    Wrapped,
};
use kleidi::key_id::{Fingerprint, KeyId, Version};
use kleidi::secret::Secret;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::ring::{FINGERPRINT_DOMAIN, FINGERPRINT_INPUT};
use super::wire::Wire;
use super::{KEY, ROLE_ID, SECRET_ID};
use crate::world::mutant::Mutant;
use crate::world::plan::SERVERS;

/// Versions before the latest that it knows.
const OLDER: u64 = 5;

/// A client, broken.
pub(super) struct Naive {
    wire: Arc<Wire>,
    mutant: Mutant,
    token: Mutex<String>,
    /// The key that was current at the last look.
    current: Mutex<Option<KeyId>>,
    /// What was unwrapped before.
    before: Mutex<Option<Arc<UnwrapRequest>>>,
}

fn fault(kind: ErrorKind, reason: impl Into<String>) -> BackendError {
    BackendError::new(kind, "use transit", reason.into())
}

impl Naive {
    pub(super) fn new(wire: Arc<Wire>, mutant: Mutant) -> Self {
        let (token, current, before) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { wire, mutant, token, current, before }
    }

    /// Asks one server after another; logs in where the token is refused.
    async fn post(
        &self,
        operation: &str,
        body: Value,
        deadline: Instant,
    ) -> Result<Value, BackendError> {
        let path = format!("transit/{operation}/{KEY}");
        let asking = async {
            for _ in 0..2 {
                let (status, answer) = self.ask(&path, &body).await?;
                match status {
                    StatusCode::FORBIDDEN => {
                        let login = json!({ "role_id": ROLE_ID, "secret_id": SECRET_ID });
                        let (_, answer) = self.ask("auth/approle/login", &login).await?;
                        let token = answer["auth"]["client_token"].as_str().unwrap_or_default();
                        token.clone_into(&mut self.token.lock());
                    }
                    _ if answer["data"].is_object() => return Ok(answer["data"].clone()),
                    _ => return Err(fault(ErrorKind::Misconfigured, answer.to_string())),
                }
            }
            Err(fault(ErrorKind::Credentials, "permission denied"))
        };
        let late = |_| Err(fault(ErrorKind::Timeout, "no answer in time"));
        timeout_at(deadline, asking).await.unwrap_or_else(late)
    }

    async fn ask(&self, path: &str, body: &Value) -> Result<(StatusCode, Value), BackendError> {
        for server in 0..SERVERS {
            match self.ask_at(server, path, body).await {
                Some((status, answer)) if !status.is_server_error() && !status.is_redirection() => {
                    return Ok((status, answer));
                }
                _ => {}
            }
        }
        Err(fault(ErrorKind::Unavailable, "no server answers"))
    }

    async fn ask_at(&self, server: usize, path: &str, body: &Value) -> Option<(StatusCode, Value)> {
        let stream = self.wire.dial(&format!("bao-{server}:8200")).await.ok()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let request = Request::post(format!("/v1/{path}"))
            .header("host", "bao")
            .header("x-vault-token", self.token.lock().as_str())
            .body(Full::<Bytes>::from(body.to_string()))
            .ok()?;
        let response = sender.send_request(request).await.ok()?;
        let status = response.status();
        let bytes = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    async fn key(
        &self,
        version: Option<u64>,
        deadline: Instant,
    ) -> Result<(u64, Key), BackendError> {
        let mut body = json!({ "input": STANDARD.encode(FINGERPRINT_INPUT) });
        if let Some(version) = version {
            body["key_version"] = json!(version);
        }
        let answer = self.post("hmac", body, deadline).await?;
        let strange = || fault(ErrorKind::Unavailable, "a strange answer");
        let (number, mac) = answer["hmac"]
            .as_str()
            .and_then(|text| text.strip_prefix("vault:v")?.split_once(':'))
            .ok_or_else(strange)?;
        let mac = STANDARD.decode(mac).map_err(|_| strange())?;
        let number = number.parse().map_err(|_| strange())?;
        let fingerprint = Fingerprint::of(FINGERPRINT_DOMAIN, &mac);
        let id = KeyId::new(fingerprint, &Version::of_number(number));
        Ok((number, Key { id, name: format!("version {number}"), facts: Arc::new([]) }))
    }

    async fn look(&self, deadline: Instant) -> Result<KeySet, BackendError> {
        let (latest, current) = self.key(None, deadline).await?;
        let mut older = Vec::new();
        for version in (latest.saturating_sub(OLDER).max(1)..latest).rev() {
            if let Ok((_, key)) = self.key(Some(version), deadline).await {
                older.push(key);
            }
        }
        *self.current.lock() = Some(current.id.clone());
        let (without_id, refused, facts) = (Vec::new(), Vec::new(), Arc::new([]));
        Ok(KeySet { current, older, without_id, refused, facts })
    }

    /// The number of the version with this id, which ends in it.
    fn number(id: &KeyId) -> Option<u64> {
        id.to_string().rsplit('-').next()?.parse().ok()
    }
}

impl Backend for Naive {
    fn scheme(&self) -> Scheme {
        Scheme::TRANSIT
    }

    fn observe(&self, deadline: Instant) -> Reply<'_, KeySet> {
        Box::pin(self.look(deadline))
    }

    fn wrap(&self, request: WrapRequest, deadline: Instant) -> Reply<'_, Wrapped> {
        Box::pin(async move {
            let WrapRequest { mut key, plaintext, aad } = request;
            let mut body = json!({
                "plaintext": STANDARD.encode(plaintext.expose()),
                "associated_data": STANDARD.encode(&aad),
            });
            if self.mutant == Mutant::LabelsWithObserved {
                key = self.current.lock().clone().unwrap_or(key);
            } else if let Some(number) = Self::number(&key) {
                body["key_version"] = json!(number);
            }
            let answer = self.post("encrypt", body, deadline).await?;
            let payload = answer["ciphertext"].as_str().unwrap_or_default().into();
            Ok(Wrapped { key, payload })
        })
    }

    fn unwrap(&self, request: Arc<UnwrapRequest>, deadline: Instant) -> Reply<'_, Secret> {
        Box::pin(async move {
            let mut all = vec![Arc::clone(&request)];
            if self.mutant == Mutant::MixesAnswers {
                all.extend(self.before.lock().replace(request));
            }
            let items = all.iter().map(|request| {
                json!({
                    "ciphertext": String::from_utf8_lossy(&request.payload),
                    "associated_data": STANDARD.encode(&request.aad),
                })
            });
            let body = json!({ "batch_input": items.collect::<Vec<_>>() });
            let answer = self.post("decrypt", body, deadline).await?;
            let results = answer["batch_results"].as_array();
            let seed = results.and_then(|results| results.last()?["plaintext"].as_str());
            let seed = seed.and_then(|seed| STANDARD.decode(seed).ok());
            let seed = seed.filter(|seed| !seed.is_empty());
            let refused = || fault(ErrorKind::BadCiphertext, "it is refused");
            seed.map(Secret::from).ok_or_else(refused)
        })
    }
}
