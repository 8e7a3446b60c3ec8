//! One call, tried on all endpoints until it succeeds, cannot succeed, or its time is over.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use super::answer::{Act, Meaning, meaning};
use super::endpoints::Endpoints;
use super::http_client::{Answer, Http, Request, Tls};
use crate::backend::{BackendError, ErrorKind};
use crate::random::Random;

/// Longest time for one attempt at one endpoint, while there are others: a node that hangs must leave
/// time for them.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(700);

/// First pause after all endpoints have failed; doubles.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// An attempt with less time than this is not begun.
const ATTEMPT_MIN: Duration = Duration::from_millis(5);

/// A Vault or OpenBao, at one or several addresses.
pub(super) struct Cluster {
    endpoints: Endpoints,
    tls: Tls,
    /// Made anew when the files of `tls` are to be read again.
    http: Mutex<Option<Arc<Http>>>,
    random: Arc<dyn Random>,
}

/// Why a call has no good answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server refuses our token; the error is for when a new login does not help.
    Login(BackendError),
    /// Nothing helps, or the time is over.
    Final(BackendError),
}

impl Cluster {
    /// `addresses` as in `https://vault.example:8200`; at least one.
    pub(super) fn new(addresses: &[String], tls: Tls, random: Arc<dyn Random>) -> Self {
        Self { endpoints: Endpoints::new(addresses), tls, http: Mutex::new(None), random }
    }

    /// Reads the files of certificates anew with the next call.
    pub(super) fn forget_tls(&self) {
        *self.http.lock() = None;
    }

    fn http(&self) -> Result<Arc<Http>, BackendError> {
        let mut http = self.http.lock();
        if let Some(http) = &*http {
            return Ok(Arc::clone(http));
        }
        let new = Arc::new(Http::new(&self.tls)?);
        *http = Some(Arc::clone(&new));
        Ok(new)
    }

    /// The body of a good answer. `attempted` is for errors, to be read after "cannot".
    pub(super) async fn call(
        &self,
        attempted: &'static str,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let http = self.http().map_err(Failure::Final)?;
        let mut pause = PAUSE_MIN;
        loop {
            let mut last = None;
            let order = self.endpoints.order();
            for address in &order {
                let now = Instant::now();
                if deadline.saturating_duration_since(now) < ATTEMPT_MIN {
                    break;
                }
                let alone = order.len() == 1;
                let until = if alone { deadline } else { deadline.min(now + ATTEMPT_TIMEOUT) };
                let meaning = match self.attempt(&http, address, request, until).await {
                    Ok(answer) => return Ok(answer),
                    Err(meaning) => meaning,
                };
                tracing::debug!(attempted, address, reason = meaning.reason, "an attempt failed");
                match meaning.act {
                    Act::Login => return Err(Failure::Login(error(attempted, address, meaning))),
                    Act::Refuse => return Err(Failure::Final(error(attempted, address, meaning))),
                    Act::Elsewhere => self.endpoints.bad(address),
                    Act::Later => {
                        last = Some(error(attempted, address, meaning));
                        break;
                    }
                }
                // The first is what the operator has to hear of; the others are its shadows.
                last.get_or_insert_with(|| error(attempted, address, meaning));
            }
            let now = Instant::now();
            let rest = deadline.saturating_duration_since(now);
            if rest < pause + ATTEMPT_MIN {
                let late = || BackendError::new(ErrorKind::Timeout, attempted, "no answer in time");
                return Err(Failure::Final(last.unwrap_or_else(late)));
            }
            sleep(self.random.jitter(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn attempt(
        &self,
        http: &Http,
        address: &str,
        request: &Request<'_>,
        until: Instant,
    ) -> Result<Answer, Meaning> {
        let elsewhere = |kind, reason| Meaning { act: Act::Elsewhere, kind, reason, advice: "" };
        let answer = match timeout_at(until, http.send(address, request)).await {
            Err(_) => return Err(elsewhere(ErrorKind::Timeout, "no answer in time".to_owned())),
            Ok(Err(reason)) => return Err(elsewhere(ErrorKind::Unavailable, reason)),
            Ok(Ok(answer)) => answer,
        };
        // Where a part of a batch failed, the status is 400 and the answer is good all the same.
        if answer.status == 400 && request.batch && super::batch::holds_results(&answer.body) {
            self.endpoints.good(address);
            return Ok(answer);
        }
        match meaning(answer.status, &answer.body) {
            None => {
                self.endpoints.good(address);
                Ok(answer)
            }
            Some(meaning) => Err(meaning),
        }
    }
}

fn error(attempted: &'static str, address: &str, meaning: Meaning) -> BackendError {
    let Meaning { kind, reason, advice, .. } = meaning;
    BackendError::new(kind, attempted, format!("{address}: {reason}")).advise(advice)
}
