//! The token: how it is got, kept and got anew.
//!
//! A login needs the cluster's leader, so none may be needed at the wrong moment: a token is renewed
//! when half of its time is over, and one that cannot be renewed is replaced then. Credentials are read
//! from their files at each login. Nothing here ends the process: without a token, calls fail with the
//! reason, and the next try may succeed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::client::{Cluster, Failure};
use super::http_client::{Answer, Request};
use super::json::Object;
use crate::backend::{BackendError, ErrorKind};
use crate::random::Random;
use crate::secret::Secret;

/// Shortest time between two logins: a policy that forbids looks like a token that is gone.
const LOGIN_GAP: Duration = Duration::from_secs(5);

/// Longest file with a credential in bytes.
const CREDENTIAL_BYTES_MAX: u64 = 64 * 1024;

/// Who we are to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// A token in a file, which somebody else puts there.
    Token {
        /// The file, with nothing but the token.
        file: PathBuf,
    },
    /// AppRole.
    AppRole {
        /// Where the method is mounted, `approle` usually.
        mount: String,
        /// A file with the role_id.
        role_id_file: PathBuf,
        /// A file with the secret_id.
        secret_id_file: PathBuf,
    },
    /// The client certificate of the connection.
    Certificate {
        /// Where the method is mounted, `cert` usually.
        mount: String,
        /// The role; the server looks for one that fits if there is none.
        role: Option<String>,
    },
    /// A JWT in a file, which somebody else keeps fresh: methods `jwt` and `kubernetes`.
    Jwt {
        /// Where the method is mounted, `jwt` or `kubernetes` usually.
        mount: String,
        /// The role.
        role: String,
        /// The file, with nothing but the JWT.
        file: PathBuf,
    },
}

/// A token for calls.
#[derive(Clone)]
pub(super) struct Ticket {
    pub(super) token: Arc<Secret>,
    /// Which login it is from.
    number: u64,
}

struct Lease {
    ticket: Ticket,
    /// How long the login gave it; `None` if for ever.
    whole: Option<Duration>,
    renewable: bool,
    /// When it is to be renewed or replaced.
    due: Option<Instant>,
    /// When it ends.
    ends: Option<Instant>,
}

#[derive(Default)]
struct State {
    lease: Option<Lease>,
    /// Logins so far.
    number: u64,
    /// When the last login began, and how it failed if it did.
    last: Option<(Instant, Option<BackendError>)>,
}

/// The login, shared by all calls: one at a time is under way.
pub(super) struct Login {
    cluster: Arc<Cluster>,
    auth: Auth,
    namespace: Option<String>,
    random: Arc<dyn Random>,
    state: Mutex<State>,
}

/// What a login or a renewal gives.
#[derive(Deserialize)]
struct Granted<'a> {
    #[serde(borrow)]
    auth: Grant<'a>,
}

#[derive(Deserialize)]
struct Grant<'a> {
    client_token: &'a str,
    /// In seconds; 0 is for ever.
    lease_duration: u64,
    renewable: bool,
}

impl Login {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        auth: Auth,
        namespace: Option<String>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self { cluster, auth, namespace, random, state: Mutex::default() }
    }

    /// A token, by a login if there is none.
    pub(super) async fn ticket(&self, deadline: Instant) -> Result<Ticket, BackendError> {
        let mut state = self.lock(deadline).await?;
        match &state.lease {
            Some(lease) if lease.ends.is_none_or(|ends| ends > Instant::now()) => {
                Ok(lease.ticket.clone())
            }
            _ => self.log_in(&mut state, deadline).await,
        }
    }

    /// Another token, after the server has refused this one with `refusal`; the refusal itself if a new
    /// login is too soon.
    pub(super) async fn replace(
        &self,
        refused: &Ticket,
        refusal: BackendError,
        deadline: Instant,
    ) -> Result<Ticket, BackendError> {
        let mut state = self.lock(deadline).await?;
        match &state.lease {
            // Another call has logged in meanwhile.
            Some(lease) if lease.ticket.number != refused.number => Ok(lease.ticket.clone()),
            _ if state.too_soon() => Err(refusal),
            _ => self.log_in(&mut state, deadline).await,
        }
    }

    /// Renews or replaces the token when it is due. A failure is not one yet: the token is still good.
    pub(super) async fn keep(&self, deadline: Instant) -> Result<(), BackendError> {
        let mut state = self.lock(deadline).await?;
        let Some(lease) = &state.lease else { return Ok(()) };
        if lease.due.is_none_or(|due| due > Instant::now()) {
            return Ok(());
        }
        if lease.renewable && self.renew(&mut state, deadline).await {
            return Ok(());
        }
        // Near the end of its longest life a renewal gives less and less, and for a certificate that
        // has been replaced it is refused.
        if state.too_soon() {
            return Ok(());
        }
        match self.log_in(&mut state, deadline).await {
            Ok(_) => Ok(()),
            Err(error) => match state.lease.as_ref().and_then(|lease| lease.ends) {
                Some(ends) if ends <= Instant::now() => Err(error),
                _ => {
                    tracing::warn!(%error, "cannot replace the token, which is still good");
                    Ok(())
                }
            },
        }
    }

    async fn lock(
        &self,
        deadline: Instant,
    ) -> Result<tokio::sync::MutexGuard<'_, State>, BackendError> {
        timeout_at(deadline, self.state.lock()).await.map_err(|_| {
            BackendError::new(ErrorKind::Timeout, "log in", "another call's login takes too long")
        })
    }

    async fn log_in(&self, state: &mut State, deadline: Instant) -> Result<Ticket, BackendError> {
        if let Some((at, Some(error))) = &state.last
            && at.elapsed() < LOGIN_GAP / 5
        {
            return Err(error.clone());
        }
        let begin = Instant::now();
        let outcome = self.log_in_now(state.number + 1, deadline).await;
        state.last = Some((begin, outcome.as_ref().err().cloned()));
        let lease = outcome?;
        state.number += 1;
        let ticket = lease.ticket.clone();
        tracing::info!(for_seconds = lease.whole.map(|whole| whole.as_secs()), "logged in");
        state.lease = Some(lease);
        Ok(ticket)
    }

    async fn log_in_now(&self, number: u64, deadline: Instant) -> Result<Lease, BackendError> {
        let (mount, body) = match &self.auth {
            Auth::Token { file } => {
                let token = Secret::from(credential(file, "the token")?);
                return Ok(self.found(token, number, deadline).await);
            }
            Auth::AppRole { mount, role_id_file, secret_id_file } => {
                let role_id = credential(role_id_file, "the role_id")?;
                let secret_id = credential(secret_id_file, "the secret_id")?;
                let body = Object::with_capacity(role_id.len() + secret_id.len())
                    .text("role_id", text(role_id_file, &role_id)?)
                    .text("secret_id", text(secret_id_file, &secret_id)?);
                (mount, body)
            }
            Auth::Certificate { mount, role } => {
                // It may have been replaced on the disk.
                self.cluster.forget_tls();
                let body = Object::with_capacity(64);
                (mount, if let Some(role) = role { body.text("name", role) } else { body })
            }
            Auth::Jwt { mount, role, file } => {
                let jwt = credential(file, "the JWT")?;
                let body = Object::with_capacity(jwt.len() + role.len())
                    .text("role", role)
                    .text("jwt", text(file, &jwt)?);
                (mount, body)
            }
        };
        let path = format!("auth/{mount}/login");
        let answer = self.call("log in", &path, None, body, deadline).await?;
        let granted: Granted<'_> = parse("log in", &answer)?;
        Ok(self.lease(&granted.auth, number))
    }

    /// The lease of a token that somebody else has put there. How long it lives is told by renewing it;
    /// where it may not be renewed, that is somebody else's care, too.
    async fn found(&self, token: Secret, number: u64, deadline: Instant) -> Lease {
        let ticket = Ticket { token: Arc::new(token), number };
        let mut lease = Lease { ticket, whole: None, renewable: false, due: None, ends: None };
        let path = "auth/token/renew-self";
        let body = Object::with_capacity(0);
        let renewed = self.call("renew the token", path, Some(&lease.ticket.token), body, deadline);
        if let Ok(answer) = renewed.await
            && let Ok(granted) = parse::<Granted<'_>>("renew the token", &answer)
        {
            let granted = self.lease(&granted.auth, number);
            (lease.whole, lease.renewable) = (granted.whole, granted.renewable);
            (lease.due, lease.ends) = (granted.due, granted.ends);
        }
        lease
    }

    /// Whether the token has been renewed for long enough to go on with it.
    async fn renew(&self, state: &mut State, deadline: Instant) -> bool {
        let Some(lease) = &state.lease else { return false };
        let (path, body) = ("auth/token/renew-self", Object::with_capacity(0));
        let token = Arc::clone(&lease.ticket.token);
        let answer = self.call("renew the token", path, Some(&token), body, deadline).await;
        let renewed = answer.and_then(|answer| {
            let granted: Granted<'_> = parse("renew the token", &answer)?;
            Ok(self.lease(&granted.auth, lease.ticket.number))
        });
        match (renewed, lease.whole) {
            (Ok(renewed), Some(whole)) if renewed.whole.is_some_and(|now| now * 3 >= whole * 2) => {
                let renewed = Lease { whole: Some(whole), ..renewed };
                state.lease = Some(renewed);
                true
            }
            (Ok(renewed), None) => {
                state.lease = Some(renewed);
                true
            }
            (Ok(_), Some(_)) => false,
            (Err(error), _) => {
                tracing::debug!(%error, "a token is not renewed");
                false
            }
        }
    }

    fn lease(&self, grant: &Grant<'_>, number: u64) -> Lease {
        let token = Secret::from(grant.client_token.as_bytes().to_vec());
        let whole = (grant.lease_duration > 0).then(|| Duration::from_secs(grant.lease_duration));
        let now = Instant::now();
        Lease {
            ticket: Ticket { token: Arc::new(token), number },
            whole,
            renewable: grant.renewable,
            due: whole.map(|whole| now + self.random.jitter(whole / 2)),
            ends: whole.map(|whole| now + whole),
        }
    }

    async fn call(
        &self,
        attempted: &'static str,
        path: &str,
        token: Option<&Secret>,
        body: Object,
        deadline: Instant,
    ) -> Result<Answer, BackendError> {
        let namespace = self.namespace.as_deref();
        let body = body.finish();
        let request = Request { method: Method::POST, path, namespace, token, body, batch: false };
        self.cluster.call(attempted, &request, deadline).await.map_err(|failure| match failure {
            Failure::Login(error) | Failure::Final(error) => error,
        })
    }
}

impl State {
    fn too_soon(&self) -> bool {
        self.last.as_ref().is_some_and(|(at, _)| at.elapsed() < LOGIN_GAP)
    }
}

/// Reads an answer. What is wrong with it is said without repeating any of it.
pub(super) fn parse<'a, T: Deserialize<'a>>(
    attempted: &'static str,
    answer: &'a Answer,
) -> Result<T, BackendError> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let reason = format!("the answer is not what it should be (line {line}, column {column})");
        BackendError::new(ErrorKind::Unavailable, attempted, reason)
            .advise("is something else than Vault or OpenBao at this address, or between?")
    })
}

/// The content of a file without blanks around it.
fn credential(file: &Path, what: &str) -> Result<Zeroizing<Vec<u8>>, BackendError> {
    use std::io::Read as _;
    let fail = |reason: String| {
        let attempted = format!("read {what} from {}", file.display());
        BackendError::new(ErrorKind::Credentials, attempted, reason)
    };
    let mut content = Zeroizing::new(Vec::with_capacity(4096));
    let opened = std::fs::File::open(file).map_err(|error| fail(error.to_string()))?;
    opened
        .take(CREDENTIAL_BYTES_MAX + 1)
        .read_to_end(&mut content)
        .map_err(|error| fail(error.to_string()))?;
    let trimmed = Zeroizing::new(content.trim_ascii().to_vec());
    if trimmed.is_empty() {
        return Err(fail("the file is empty".to_owned()));
    }
    if content.len() > usize::try_from(CREDENTIAL_BYTES_MAX).unwrap_or(usize::MAX) {
        return Err(fail(format!("it is longer than {CREDENTIAL_BYTES_MAX} bytes")));
    }
    Ok(trimmed)
}

fn text<'a>(file: &Path, bytes: &'a [u8]) -> Result<&'a str, BackendError> {
    std::str::from_utf8(bytes).map_err(|_| {
        let attempted = format!("use {}", file.display());
        BackendError::new(ErrorKind::Credentials, attempted, "it is not UTF-8")
    })
}
