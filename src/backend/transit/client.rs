//! One call, tried on all endpoints until it succeeds, cannot succeed, or its time is over.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::answer::{Act, Meaning, meaning, meaning_of_silence};
use super::batch::holds_results;
use super::edges::Edges;
use super::endpoints::Endpoints;
use super::files::Files;
use super::http_client::{Answer, Connection, Http, Request};
use super::pauses::Pauses;
use super::tls::{Connections, Tls};
use crate::backend::{BackendError, ErrorKind};
use crate::random::Random;

/// How long an attempt is waited for alone: after that another one is made beside it, at another endpoint
/// or on another connection. A call with little time waits for a part of it.
const PATIENCE_MAX: Duration = Duration::from_millis(700);

/// Which part.
const PATIENCE_PART: u32 = 3;

/// How long an answer that comes once is waited for when the call has no time left: it is lost otherwise,
/// and what was asked for with it.
const ONCE_GRACE: Duration = Duration::from_secs(10);

/// How long a call goes on while all endpoints say that they know no such version: one that is behind has
/// heard of a rotation by then, and what was lost stays lost.
const BEHIND: Duration = Duration::from_secs(1);

/// How long a node may take to say how it is.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

/// A round with less time than this is not begun.
const ATTEMPT_MIN: Duration = Duration::from_millis(5);

/// A Vault or OpenBao, at one or several addresses.
pub(super) struct Cluster {
    endpoints: Endpoints,
    connections: Connections,
    files: Files,
    random: Arc<dyn Random>,
    pauses: Pauses,
}

/// Why a call has no good answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server refuses our token; the error is for when a new login does not help.
    Login(BackendError),
    /// Nothing helps, or the time is over.
    Final(BackendError),
}

impl From<Failure> for BackendError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Login(error) | Failure::Final(error) => error,
        }
    }
}

impl Cluster {
    /// `addresses` as in `https://vault.example:8200`; at least one.
    pub(super) fn new(addresses: &[String], tls: Tls, random: Arc<dyn Random>) -> Self {
        let files = Files::default();
        let connections = Connections::new(tls, files.clone());
        Self::with(addresses, connections, files, random)
    }

    /// One that is reached in another way than over the network.
    pub(super) fn over(
        edges: Arc<dyn Edges>,
        addresses: &[String],
        random: Arc<dyn Random>,
    ) -> Self {
        let files = Files::new(Some(Arc::clone(&edges)));
        let connections = Connections::over(edges, files.clone());
        Self::with(addresses, connections, files, random)
    }

    fn with(
        addresses: &[String],
        connections: Connections,
        files: Files,
        random: Arc<dyn Random>,
    ) -> Self {
        let endpoints = Endpoints::new(addresses);
        Self { endpoints, connections, files, random, pauses: Pauses::default() }
    }

    /// Looks whether the files of certificates have changed.
    pub(super) async fn follow_files(&self) {
        self.connections.follow_files().await;
    }

    /// Reads credentials.
    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// All addresses, in the order in which to ask them now.
    pub(super) fn addresses(&self) -> Vec<Arc<str>> {
        self.endpoints.order()
    }

    /// This one is not asked first for a while.
    pub(super) fn avoid(&self, address: &str) {
        self.endpoints.bad(address);
    }

    /// Where the node that answered last does not know what others may know.
    pub(super) fn ask_another(&self) {
        self.endpoints.turn();
    }

    /// A good answer. `attempted` is for errors, to be read after "cannot".
    ///
    /// In a round every endpoint is asked: the next one when one has failed, or beside one that takes
    /// long; at last the same ones on new connections, in case those that were kept are dead. Whoever
    /// answers first has answered, so that slow is slow and not a failure. Then there is a [pause](super::pauses).
    pub(super) async fn call(
        &self,
        attempted: &'static str,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let http = self.connections.http(deadline).await.map_err(Failure::Final)?;
        let (begin, mut rounds, mut why) = (Instant::now(), 0, None);
        loop {
            let order = match request.only {
                Some(address) => vec![address.into()],
                None => self.endpoints.order(),
            };
            // The first failure is what the operator has to hear of; the others are its shadows.
            let (mut first, mut heals_until) = (None, begin);
            let mut under_way = FuturesUnordered::new();
            let (mut count, mut allowed) = (0, order.len());
            loop {
                if count < allowed {
                    let connection = match count / order.len() {
                        0 if !request.once => Connection::Kept,
                        _ => Connection::New,
                    };
                    let address = &order[count % order.len()];
                    under_way.push(self.attempt(&http, address, request, connection, deadline));
                    count += 1;
                }
                let end = if request.once { deadline + ONCE_GRACE } else { deadline };
                let last = request.once || count == 2 * order.len();
                let until = if last { end } else { Instant::now() + patience(deadline) };
                match timeout_at(until, under_way.next()).await {
                    Ok(Some(Ok(answer))) => {
                        self.pauses.well();
                        return Ok(answer);
                    }
                    Ok(Some(Err((address, meaning)))) => {
                        let (act, kind) = (meaning.act, meaning.kind);
                        let error = error(attempted, &request.place(address), meaning);
                        tracing::debug!(%error, "an attempt failed");
                        heals_until = heals_until.max(match act {
                            Act::Login => return Err(Failure::Login(error)),
                            Act::Refuse => return Err(Failure::Final(error)),
                            Act::Elsewhere if kind == ErrorKind::Misconfigured => begin,
                            Act::Behind => begin + BEHIND,
                            Act::Elsewhere | Act::Later => deadline,
                        });
                        first.get_or_insert(error);
                        if act == Act::Later {
                            break;
                        }
                    }
                    Ok(None) => break,
                    Err(_) if last || Instant::now() >= deadline => {
                        let reason = format!("{}: no answer in time", request.place(&order[0]));
                        let late = || BackendError::new(ErrorKind::Timeout, attempted, reason);
                        return Err(Failure::Final(first.or(why).unwrap_or_else(late)));
                    }
                    Err(_) => allowed = allowed.max(count + 1),
                }
            }
            why = first.or(why);
            rounds += 1;
            if heals_until >= deadline && request.only.is_none() {
                self.pauses.failed();
            }
            let pause = self.pauses.pause(rounds);
            let rest = heals_until.min(deadline).saturating_duration_since(Instant::now());
            if let Some(error) = why.take_if(|_| rest < pause + ATTEMPT_MIN) {
                return Err(Failure::Final(error));
            }
            sleep(self.random.jitter(pause)).await;
        }
    }

    /// What a node says of itself, in words; and whether it is a Vault that has no namespaces.
    pub(super) async fn health(
        &self,
        address: &str,
        deadline: Instant,
    ) -> Result<(String, bool), BackendError> {
        const ATTEMPTED: &str = "use the server";
        #[derive(serde::Deserialize)]
        struct Health {
            version: String,
            /// Only a Vault says so.
            enterprise: Option<bool>,
        }
        let http = self.connections.http(deadline).await?;
        let request = Request::new(http::Method::GET, "sys/health", bytes::Bytes::new());
        let until = deadline.min(Instant::now() + HEALTH_TIMEOUT);
        let refused = |meaning| error(ATTEMPTED, address, meaning);
        let answer =
            match timeout_at(until, http.send(&address.into(), &request, Connection::New)).await {
                Err(_) => {
                    let reason = format!("{address}: no answer in time");
                    return Err(BackendError::new(ErrorKind::Timeout, ATTEMPTED, reason));
                }
                Ok(Err(silence)) => return Err(refused(meaning_of_silence(silence.reason))),
                Ok(Ok(answer)) => answer,
            };
        let fault = |kind, reason: &str, advice: &'static str| {
            let reason = format!("{address}: {reason}");
            Err(BackendError::new(kind, ATTEMPTED, reason).advise(advice))
        };
        match (answer.status, serde_json::from_slice::<Health>(&answer.body)) {
            (status @ (200 | 429 | 473), Ok(Health { version, enterprise })) => {
                let role = if status == 200 { "leads" } else { "stands by" };
                Ok((format!("version {version}, unsealed, {role}"), enterprise == Some(false)))
            }
            (472, Ok(_)) => fault(
                ErrorKind::Misconfigured,
                "it is a secondary for disaster recovery, which serves nobody",
                "name the nodes of the primary cluster",
            ),
            (501, _) => fault(ErrorKind::Unavailable, "it is not initialised", "initialise it"),
            (503, Ok(_)) => fault(ErrorKind::Unavailable, "it is sealed", "unseal it"),
            (status, Ok(_)) => {
                fault(ErrorKind::Unavailable, &format!("its health is {status}"), "look at its log")
            }
            (_, Err(_)) => match meaning(answer.status, &answer.body, &[]) {
                Some(meaning) => Err(refused(meaning)),
                None => fault(
                    ErrorKind::Misconfigured,
                    "it answers, but not as Vault and OpenBao do",
                    "is the address right?",
                ),
            },
        }
    }

    /// Asks one endpoint, for as long as the caller waits, and notes how it does.
    async fn attempt<'a>(
        &self,
        http: &Http,
        address: &'a Arc<str>,
        request: &Request<'_>,
        connection: Connection,
        deadline: Instant,
    ) -> Result<Answer, (&'a Arc<str>, Meaning)> {
        let mut sending = pin!(http.send(address, request, connection));
        let outcome = if let Ok(outcome) = timeout(patience(deadline), &mut sending).await {
            outcome
        } else {
            tracing::debug!(%address, path = request.path, "no answer yet: another attempt is made beside it");
            // The next calls begin with another one, unless it answers before that one does.
            if request.only.is_none() {
                self.endpoints.bad(address);
            }
            sending.await
        };
        let secrets = [&*request.body, request.token.map_or(&[], |token| token.expose())];
        let meaning = match outcome {
            Ok(answer) => match meaning(answer.status, &answer.body, &secrets) {
                // Where a part of a batch failed, the status is 400 and the answer is good all the same.
                Some(_) if answer.status == 400 && request.batch && holds_results(&answer.body) => {
                    None
                }
                found => found,
            }
            .map_or(Ok(answer), Err),
            Err(silence) => {
                let spent = request.once && silence.arrived;
                let meaning = meaning_of_silence(silence.reason);
                Err(if spent { Meaning { act: Act::Refuse, ..meaning } } else { meaning })
            }
        };
        // Who is asked for a reason of its own is not therefore the one to be asked by others.
        match &meaning {
            _ if request.only.is_some() => {}
            Ok(answer) => self.endpoints.good(&answer.address),
            Err(meaning) if meaning.act == Act::Elsewhere => self.endpoints.bad(address),
            Err(_) => {}
        }
        meaning.map_err(|meaning| (address, meaning))
    }
}

/// How long an attempt that begins now is waited for alone.
fn patience(deadline: Instant) -> Duration {
    let rest = deadline.saturating_duration_since(Instant::now());
    PATIENCE_MAX.min(rest / PATIENCE_PART)
}

fn error(attempted: &'static str, place: &str, meaning: Meaning) -> BackendError {
    let Meaning { kind, reason, advice, .. } = meaning;
    BackendError::new(kind, attempted, format!("{place}: {reason}")).advise(advice)
}
