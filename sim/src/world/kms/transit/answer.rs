//! What a server answers, in the words of the real ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::super::another;
use super::ring::Ring;
use super::{Cluster, KEY, ROLE_ID, SECRET_ID, State};
use crate::world::history::Is;
use crate::world::plan::{Machine, Trouble};

/// A request.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) node: usize,
    pub(super) server: usize,
    /// Behind `/v1/`.
    pub(super) path: &'a str,
    pub(super) token: Option<&'a str>,
    pub(super) body: &'a [u8],
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: String,
}

/// What stands in the way of a request.
enum Stop {
    /// An answer that is no success.
    Refused(Answer),
    /// Nobody answers.
    Silence,
}

impl Stop {
    fn new(status: StatusCode, text: &str) -> Self {
        Self::Refused(Answer { status, body: json!({ "errors": [text] }).to_string() })
    }
}

impl From<String> for Stop {
    fn from(text: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, &text)
    }
}

impl From<&str> for Stop {
    fn from(text: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }
}

/// A request of a node, until it is answered or nobody waits any more.
struct UnderWay<'a>(&'a AtomicU64);

impl<'a> UnderWay<'a> {
    /// One more, and how many there are now.
    fn begin(of: &'a AtomicU64) -> (Self, u64) {
        let before = of.fetch_add(1, Ordering::Relaxed);
        (Self(of), before + 1)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cluster {
    /// Answers after the time that it takes; `None` if never.
    pub(super) async fn answer(self: &Arc<Self>, asked: Asked<'_>) -> Option<Answer> {
        let (node, path) = (asked.node, asked.path.to_owned());
        let (_this, under_way) = UnderWay::begin(&self.under_way[node]);
        self.history.push(Is::Asked { node, path, under_way });
        let takes = self.state.lock().views[asked.node].takes;
        sleep(takes + Duration::from_micros(300 + self.random.below(1500))).await;
        let trouble = self.state.lock().views[asked.node].trouble;
        let answer = match self.reply(asked) {
            Ok(_) if trouble == Trouble::SaysNothing => {
                Answer { status: StatusCode::OK, body: data(&json!({})) }
            }
            Ok(mut body) => {
                if trouble == Trouble::Truncates {
                    body.truncate(body.len() / 2);
                }
                Answer { status: StatusCode::OK, body }
            }
            Err(Stop::Refused(answer)) => answer,
            Err(Stop::Silence) => return None,
        };
        if answer.status != StatusCode::OK {
            self.history.push(Is::Refused {
                node: asked.node,
                server: asked.server,
                path: asked.path.to_owned(),
                status: answer.status.as_u16(),
                said: errors(&answer.body),
            });
        }
        Some(answer)
    }

    fn reply(&self, asked: Asked<'_>) -> Result<String, Stop> {
        let mut state = self.state.lock();
        let state = &mut *state;
        self.go_on(state);
        let trouble = state.views[asked.node].trouble;
        is_well(state.servers[asked.server].machine, trouble)?;
        if trouble == Trouble::Throttled {
            let text = format!("request path \"{}\": rate limit quota exceeded", asked.path);
            return Err(Stop::new(StatusCode::TOO_MANY_REQUESTS, &text));
        }
        let writes = asked.path.starts_with("auth/");
        let serves = if writes || self.forwards {
            let leader = self.led(state, asked.server)?;
            is_well(state.servers[leader].machine, trouble)?;
            leader
        } else {
            asked.server
        };
        if asked.path == "auth/approle/login" {
            return self.login(state, asked.body);
        }
        let token = asked.token.unwrap_or_default();
        self.check_token(state, serves, token)?;
        if asked.path == "auth/token/renew-self" {
            let seconds = state.tokens.renew(token).ok_or("token not found")?;
            return Ok(granted(token, seconds));
        }
        let policy = |denied: &[Trouble]| {
            if denied.contains(&trouble) {
                let text = "1 error occurred:\n\t* permission denied\n\n";
                return Err(Stop::new(StatusCode::FORBIDDEN, text));
            }
            Ok(())
        };
        let body: Value = serde_json::from_slice(asked.body)
            .map_err(|_| "failed to parse JSON input: invalid character")?;
        let (operation, key) = asked
            .path
            .strip_prefix("transit/")
            .unwrap_or_default()
            .split_once('/')
            .unwrap_or_default();
        policy(&[Trouble::Forbidden])?;
        if key != KEY {
            policy(&[trouble])?;
        }
        match operation {
            "hmac" => {
                let mac = state.ring(serves).hmac(number(&body), &bytes(&body, "input")?)?;
                Ok(data(&json!({ "hmac": mac })))
            }
            "encrypt" => {
                policy(&[Trouble::WrapDenied])?;
                self.encrypt(state, serves, trouble, &body)
            }
            "decrypt" => {
                policy(&[Trouble::UnwrapDenied])?;
                let wrongly = trouble == Trouble::UnwrapsWrongly;
                decrypt(state.ring(serves), &body, wrongly)
            }
            _ => Err(Stop::new(
                StatusCode::NOT_FOUND,
                "no handler for route. route entry not found.",
            )),
        }
    }

    /// Who leads: that server, or the one that it passes a request on to.
    fn led(&self, state: &State, server: usize) -> Result<usize, Stop> {
        match state.election.leader() {
            Ok(leader) => Ok(leader),
            // It is passed on to one that hangs.
            Err(Some(believed)) if believed != server => Err(Stop::Silence),
            Err(_) if self.random.chance(50) => {
                let status = StatusCode::TEMPORARY_REDIRECT;
                Err(Stop::Refused(Answer { status, body: String::new() }))
            }
            Err(_) => Err(Stop::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "local node not active but active cluster node not found",
            )),
        }
    }

    fn check_token(&self, state: &State, server: usize, token: &str) -> Result<(), Stop> {
        let made = state.tokens.made(token);
        let heard = |made: Instant| made + state.servers[server].lag <= Instant::now();
        if made.is_none_or(|made| !heard(made)) {
            // Whoever does not know it asks the leader.
            self.led(state, server)?;
        }
        let text = if self.forwards {
            "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"
        } else {
            "permission denied"
        };
        made.map(|_| ()).ok_or_else(|| Stop::new(StatusCode::FORBIDDEN, text))
    }

    fn login(&self, state: &mut State, body: &[u8]) -> Result<String, Stop> {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if (&body["role_id"], &body["secret_id"]) != (&json!(ROLE_ID), &json!(SECRET_ID)) {
            return Err("invalid role or secret ID".into());
        }
        let (token, seconds) = state.tokens.issue(&self.random);
        Ok(granted(&token, seconds))
    }

    fn encrypt(
        &self,
        state: &mut State,
        server: usize,
        trouble: Trouble,
        body: &Value,
    ) -> Result<String, Stop> {
        let (plaintext, aad) = (bytes(body, "plaintext")?, bytes(body, "associated_data")?);
        let ring = state.ring(server);
        let mut asked = number(body);
        if trouble == Trouble::WrapsWithPrevious {
            asked = Some(asked.unwrap_or(ring.latest()).saturating_sub(1).max(1));
        }
        let (mut ciphertext, version) = ring.encrypt(asked, &plaintext, &aad, &self.random)?;
        let (serial, used) = (version.serial, asked.unwrap_or(ring.latest()));
        if trouble == Trouble::DamagesCiphertexts {
            ciphertext = damaged(&ciphertext);
        }
        state.wrapped.insert(ciphertext.clone(), serial);
        Ok(data(&json!({ "ciphertext": ciphertext, "key_version": used })))
    }
}

/// What a refusal says: of a list of which only some are refused, not what the others are.
fn errors(body: &str) -> String {
    let answer: Value = serde_json::from_str(body).unwrap_or_default();
    let Some(results) = answer["data"]["batch_results"].as_array() else { return body.to_owned() };
    let errors = results.iter().filter_map(|result| result["error"].as_str());
    errors.collect::<Vec<_>>().join("; ")
}

/// With another last letter before the padding: the tag is not what it was.
fn damaged(ciphertext: &str) -> String {
    let end = ciphertext.trim_end_matches('=').len();
    let (head, tail) = ciphertext.split_at(end.saturating_sub(4));
    let other = if tail.starts_with('A') { "B" } else { "A" };
    [head, other, &tail[1..]].concat()
}

/// What a server says to everybody.
fn is_well(machine: Machine, trouble: Trouble) -> Result<(), Stop> {
    match (machine, trouble) {
        (Machine::Sealed, _) | (_, Trouble::Sealed) => {
            Err(Stop::new(StatusCode::SERVICE_UNAVAILABLE, "Vault is sealed"))
        }
        (Machine::Failing, _) => {
            Err(Stop::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error"))
        }
        _ => Ok(()),
    }
}

/// One ciphertext, or several, of which each can fail by itself: then the status is 400, and the body is that
/// of a success. What comes out is something else if it does so wrongly.
fn decrypt(ring: &Ring, body: &Value, wrongly: bool) -> Result<String, Stop> {
    let one = |item: &Value| -> Result<String, String> {
        let ciphertext = item["ciphertext"].as_str().filter(|text| !text.is_empty());
        let ciphertext = ciphertext.ok_or("missing ciphertext to decrypt")?;
        let aad = bytes(item, "associated_data")?;
        let mut seed = ring.decrypt(ciphertext, &aad)?;
        if wrongly {
            another(&mut seed);
        }
        Ok(STANDARD.encode(seed))
    };
    let Some(items) = body["batch_input"].as_array() else {
        return Ok(data(&json!({ "plaintext": one(body)? })));
    };
    let mut failed = false;
    let results: Vec<_> = items
        .iter()
        .map(|item| {
            let reference = &item["reference"];
            match one(item) {
                Ok(plaintext) => json!({ "plaintext": plaintext, "reference": reference }),
                Err(error) => {
                    failed = true;
                    json!({ "plaintext": "", "error": error, "reference": reference })
                }
            }
        })
        .collect();
    let body = data(&json!({ "batch_results": results }));
    if failed {
        return Err(Stop::Refused(Answer { status: StatusCode::BAD_REQUEST, body }));
    }
    Ok(body)
}

fn number(body: &Value) -> Option<u64> {
    body["key_version"].as_u64()
}

/// What base64 stands for; nothing if it is not there.
fn bytes(body: &Value, name: &str) -> Result<Vec<u8>, String> {
    let text = body[name].as_str().unwrap_or_default();
    STANDARD.decode(text).map_err(|_| "could not decode base64".to_owned())
}

/// What is around every success.
fn envelope(data: &Value, auth: &Value) -> String {
    json!({
        "request_id": "00000000-0000-0000-0000-000000000000", "lease_id": "", "renewable": false,
        "lease_duration": 0, "data": data, "wrap_info": null, "warnings": null, "auth": auth,
    })
    .to_string()
}

fn data(data: &Value) -> String {
    envelope(data, &Value::Null)
}

/// What a login or a renewal gives.
fn granted(token: &str, seconds: u64) -> String {
    let auth = json!({
        "client_token": token, "accessor": "accessor", "policies": ["default", "kms-plugin"],
        "token_policies": ["default", "kms-plugin"], "metadata": { "role_name": "kms" },
        "lease_duration": seconds, "renewable": true, "entity_id": "entity",
        "token_type": "service", "orphan": true, "mfa_requirement": null, "num_uses": 0,
    });
    envelope(&Value::Null, &auth)
}
