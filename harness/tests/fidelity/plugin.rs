//! A plugin that acts by a script and records what it sees.
//!
//! It wraps by prefixing, so that any of its kind unwraps what another wrapped, whatever is appended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kleidi_proto::kms::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusResponse,
};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::http2::{Input, Reader, answer, unavailable};
use crate::recording::{By, Call, Connection, Outcome, Recording};
use crate::script::{Does, Script};

const WRAPPED: &[u8] = b"wrapped:";

/// How long a Decrypt takes, so that it is seen how many are under way at a time.
const DECRYPT_TAKES: Duration = Duration::from_millis(20);

/// A plugin. Connections are given to it.
pub struct Plugin {
    script: Script,
    /// What `:authority` would be of a path.
    socket: String,
    seen: Mutex<Seen>,
    /// What it does now.
    does: watch::Sender<Does>,
}

/// Times are moments yet.
#[derive(Default)]
struct Seen {
    first_status: Option<Instant>,
    connections: Vec<SeenConnection>,
    under_way: usize,
}

struct SeenConnection {
    at: Instant,
    ended: Option<(Instant, By)>,
    calls: Vec<(Instant, Call)>,
}

/// A call on a connection: their places in what was seen.
#[derive(Clone, Copy)]
struct Place(usize, usize);

impl Plugin {
    /// One that begins its script with its first Status.
    pub fn new(script: Script, socket: &str) -> Arc<Self> {
        let does = watch::Sender::new(script.0[0].1);
        let socket = socket.replace('/', "%2F");
        Arc::new(Self { script, socket, seen: Mutex::default(), does })
    }

    /// When the first Status came.
    pub fn first_status(&self) -> Option<Instant> {
        self.seen().first_status
    }

    /// What was seen in that many seconds.
    pub fn recording(&self, version: &str, scenario: &str, script: &str, lasts: u64) -> Recording {
        let seen = self.seen();
        let zero = seen.first_status.expect("there was a Status");
        let until = zero + Duration::from_secs(lasts);
        let time = |at: Instant| millis(zero, at);
        let connections = seen
            .connections
            .iter()
            .filter(|connection| connection.at < until)
            .map(|connection| Connection {
                at: time(connection.at),
                ended: connection
                    .ended
                    .filter(|(at, _)| *at < until)
                    .map(|(at, by)| (time(at), by)),
                calls: connection
                    .calls
                    .iter()
                    .filter(|(at, _)| *at < until)
                    .map(|(at, call)| Call { at: time(*at), ..call.clone() })
                    .collect(),
            })
            .collect();
        Recording {
            version: version.to_owned(),
            scenario: scenario.to_owned(),
            script: script.to_owned(),
            until: time(until),
            connections,
        }
    }

    /// Serves one connection to its end.
    pub async fn serve<S>(self: Arc<Self>, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let place = {
            let mut seen = self.seen();
            let connection = SeenConnection { at: Instant::now(), ended: None, calls: Vec::new() };
            seen.connections.push(connection);
            seen.connections.len() - 1
        };
        let mut does = self.does.subscribe();
        let now = *does.borrow_and_update();
        let cut = async {
            while does.changed().await.is_ok() {
                if does.borrow_and_update().cuts() {
                    break;
                }
            }
        };
        let by = if now == Does::Slams {
            By::Plugin
        } else {
            tokio::select! {
                biased;
                () = cut => By::Plugin,
                () = self.talk(place, stream, now == Does::SaysNothing) => By::Apiserver,
            }
        };
        let mut seen = self.seen();
        let connection = &mut seen.connections[place];
        connection.ended = Some((Instant::now(), by));
        let calls = &connection.calls;
        let lost = calls.iter().filter(|(_, call)| call.outcome == Outcome::Unanswered).count();
        seen.under_way = seen.under_way.saturating_sub(lost);
    }

    /// Until the client ends the connection.
    async fn talk<S>(self: &Arc<Self>, connection: usize, stream: S, mute: bool)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reading, mut writing) = tokio::io::split(stream);
        let (out, mut frames) = mpsc::unbounded_channel::<Vec<u8>>();
        let write = async {
            while let Some(frame) = frames.recv().await {
                if !mute && writing.write_all(&frame).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        let read = async {
            let Some(mut reader) = Reader::open(reading, out.clone()).await else { return };
            let mut open = BTreeMap::new();
            while let Some(input) = reader.next().await {
                match input {
                    Input::Headers(stream, headers) => {
                        open.insert(stream, (headers, Vec::new(), None));
                    }
                    Input::Data(stream, data, last) => {
                        let (headers, body, place) = open.get_mut(&stream).expect("a call");
                        body.extend(data);
                        if last {
                            let called = self.called(connection, headers, body);
                            *place = Some(called);
                            self.act(called, stream, &body[5..], out.clone());
                        }
                    }
                    Input::Reset(stream) => {
                        if let Some((_, _, Some(place))) = open.get(&stream) {
                            self.given_up(*place);
                        }
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = read => {}
            () = write => {}
        }
    }

    /// Notes a call.
    fn called(
        self: &Arc<Self>,
        connection: usize,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Place {
        let now = Instant::now();
        let header = |name: &str| {
            let of_name = headers.iter().find(|(n, _)| n == name);
            of_name.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let method = header(":path").rsplit('/').next().unwrap_or_default().to_owned();
        let message = &body[5..];
        let uid = match method.as_str() {
            "Encrypt" => EncryptRequest::decode(message).expect("a request").uid,
            "Decrypt" => DecryptRequest::decode(message).expect("a request").uid,
            _ => String::new(),
        };
        let of_grpc = ["content-type", "user-agent", "te", "grpc-timeout", "grpc-accept-encoding"];
        let metadata = headers
            .iter()
            .filter(|(name, _)| !name.starts_with(':') && !of_grpc.contains(&name.as_str()))
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        let mut seen = self.seen();
        if method == "Status" && seen.first_status.is_none() {
            seen.first_status = Some(now);
            tokio::spawn(Arc::clone(self).follow_the_script());
        }
        seen.under_way += 1;
        let call = Call {
            at: 0,
            method,
            authority: header(":authority").replace(&self.socket, "<socket>"),
            timeout: timeout(&header("grpc-timeout")),
            bytes: message.len(),
            uid: shape(&uid),
            at_once: seen.under_way,
            metadata,
            outcome: Outcome::Unanswered,
        };
        let calls = &mut seen.connections[connection].calls;
        calls.push((now, call));
        Place(connection, calls.len() - 1)
    }

    /// Answers a call as the script has it.
    fn act(
        self: &Arc<Self>,
        place: Place,
        stream: u32,
        message: &[u8],
        out: mpsc::UnboundedSender<Vec<u8>>,
    ) {
        let does = *self.does.borrow();
        let (status_id, encrypt_id) = match does {
            Does::Answers(id) | Does::Restarts(id) | Does::IsSick(id) => (id, id),
            Does::Disagrees(status, encrypt) => (status, encrypt),
            Does::Fails => {
                self.end(place, Outcome::Failed);
                let _ = out.send(unavailable(stream, "down"));
                return;
            }
            Does::Hangs | Does::Slams | Does::SaysNothing => return,
        };
        let method = self.seen().connections[place.0].calls[place.1].1.method.clone();
        let answered = match method.as_str() {
            "Status" => {
                let healthz = if matches!(does, Does::IsSick(_)) { "sick" } else { "ok" };
                StatusResponse {
                    version: "v2".into(),
                    healthz: healthz.into(),
                    key_id: status_id.into(),
                }
                .encode_to_vec()
            }
            "Encrypt" => {
                let request = EncryptRequest::decode(message).expect("a request");
                EncryptResponse {
                    ciphertext: [WRAPPED, &request.plaintext].concat(),
                    key_id: encrypt_id.into(),
                    annotations: BTreeMap::new(),
                }
                .encode_to_vec()
            }
            "Decrypt" => {
                let request = DecryptRequest::decode(message).expect("a request");
                let seed = request.ciphertext.strip_prefix(WRAPPED).expect("it was wrapped here");
                DecryptResponse { plaintext: seed[..32].to_vec().into() }.encode_to_vec()
            }
            other => panic!("there is no method {other}"),
        };
        let plugin = Arc::clone(self);
        tokio::spawn(async move {
            if method == "Decrypt" {
                tokio::time::sleep(DECRYPT_TAKES).await;
            }
            plugin.end(place, Outcome::Answered);
            let _ = out.send(answer(stream, &answered));
        });
    }

    fn given_up(&self, place: Place) {
        let began = self.seen().connections[place.0].calls[place.1].0;
        self.end(place, Outcome::GivenUp(millis(began, Instant::now())));
    }

    fn end(&self, place: Place, outcome: Outcome) {
        let mut seen = self.seen();
        seen.under_way = seen.under_way.saturating_sub(1);
        seen.connections[place.0].calls[place.1].1.outcome = outcome;
    }

    async fn follow_the_script(self: Arc<Self>) {
        let Some(zero) = self.first_status() else { return };
        for (since, does) in &self.script.0[1..] {
            tokio::time::sleep_until(zero + Duration::from_millis(*since)).await;
            self.does.send_replace(*does);
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds from `zero` to `at`, which may be earlier.
fn millis(zero: Instant, at: Instant) -> i64 {
    let of = |duration: Duration| i64::try_from(duration.as_millis()).expect("not for ever");
    if at >= zero { of(at - zero) } else { -of(zero - at) }
}

/// Milliseconds of a `grpc-timeout`, rounded up.
fn timeout(text: &str) -> i64 {
    let (digits, unit) = text.split_at(text.len().saturating_sub(1));
    let number: i64 = digits.parse().unwrap_or(-1);
    match unit {
        "n" => (number + 999_999) / 1_000_000,
        "u" => (number + 999) / 1_000,
        "m" => number,
        "S" => number * 1_000,
        _ => -1,
    }
}

/// `none`, `uuid4`, or the uid itself.
fn shape(uid: &str) -> String {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_uuid4 = uid.len() == 36
        && uid.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            14 => byte == b'4',
            19 => b"89ab".contains(&byte),
            _ => hex(byte),
        });
    match uid {
        "" => "none".to_owned(),
        _ if is_uuid4 => "uuid4".to_owned(),
        other => other.to_owned(),
    }
}
