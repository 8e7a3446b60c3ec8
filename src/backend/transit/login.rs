//! The token: how it is got, kept and got anew.
//!
//! A login needs the cluster's leader, so none may be needed at the wrong moment: a token is renewed
//! when half of its time is over, and one that cannot be renewed is replaced then. Meanwhile calls go on
//! with the token that there is; only where it is gone do they wait. Nothing here ends the process:
//! without a token, calls fail with the reason, and the next try may succeed.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use tokio::sync::{Mutex as Flight, OwnedMutexGuard};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::answer::{WRONG_SECRET_ID, forbids, never_renews};
use super::auth::Auth;
use super::client::{Cluster, Failure};
use super::files::Readers;
use super::http_client::{Answer, Request};
use super::json::Object;
use super::lease::{Lease, Ticket};
use super::refused::Refused;
use super::wrapped::{self, Wrapped};
use crate::backend::{BackendError, ErrorKind};
use crate::random::Random;
use crate::secret::Secret;

/// Shortest time between two logins because an operation is refused: a policy that forbids it looks like a
/// token that is gone. Doubles while it is refused again.
const REPLACE_GAP_MIN: Duration = Duration::from_secs(5);

/// Longest.
const REPLACE_GAP_MAX: Duration = Duration::from_secs(60);

/// How long a login that has failed answers for others.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// How long a renewal or a replacement may take while the token is still good: an observation has other
/// things to do.
const KEEP_PATIENCE: Duration = Duration::from_secs(1);

/// How long others wait for a login: then the next one is made beside it, at another node.
const HELD_FOR: Duration = Duration::from_secs(3);

/// How long before a call's deadline its login gives up, so that its reason is still told.
const MARGIN: Duration = Duration::from_millis(5);

/// When a found token is looked at again that could not be renewed, for a reason that may pass.
const FOUND_AGAIN: Duration = Duration::from_secs(30);

const LOG_IN: &str = "log in";
const LOGIN_FORBIDDEN: &str = "is the login method enabled at this mount, and the namespace right? After several \
                               wrong credentials a server refuses right ones, too, for some minutes";
const KUBERNETES_FORBIDDEN: &str = "is the login method enabled at this mount, and does the API server answer that \
                                    it asks about tokens?";

#[derive(Default)]
struct State {
    lease: Option<Lease>,
    /// Logins so far, those among them that are under way.
    number: u64,
    /// When and how the last login failed, if it did.
    failed: Option<(Instant, BackendError)>,
    /// By operation, because one that is forbidden says nothing of others: when a token was last replaced
    /// because it was refused there, and how long until the next time. There are as many as are configured.
    replaced: BTreeMap<String, (Instant, Duration)>,
    /// Why the token cannot be kept; it is said once.
    fault: Option<BackendError>,
}

/// The login, shared by all calls.
pub(super) struct Login {
    cluster: Arc<Cluster>,
    auth: Auth,
    namespace: Option<String>,
    random: Arc<dyn Random>,
    wrapped: Option<Wrapped>,
    refused: Refused,
    state: Mutex<State>,
    /// Held by whoever logs in or renews: one at a time.
    flight: Arc<Flight<()>>,
}

type InFlight = OwnedMutexGuard<()>;

impl Login {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        auth: Auth,
        namespace: Option<String>,
        random: Arc<dyn Random>,
    ) -> Self {
        let wrapped = match &auth {
            Auth::WrappedAppRole { mount, wrapping_token_file, role, .. } => {
                let (file, mount) = (wrapping_token_file.clone(), mount.clone());
                let (role, namespace) = (role.clone(), namespace.clone());
                let settings = wrapped::Settings { file, mount, role, namespace };
                Some(Wrapped::new(settings, Arc::clone(&cluster)))
            }
            _ => None,
        };
        let (refused, state, flight) = (Refused::default(), Mutex::default(), Arc::default());
        Self { cluster, auth, namespace, random, wrapped, refused, state, flight }
    }

    /// A token, by a login if there is none.
    pub(super) async fn ticket(
        self: &Arc<Self>,
        deadline: Instant,
    ) -> Result<Ticket, BackendError> {
        if let Some(ticket) = self.good() {
            return Ok(ticket);
        }
        let flight = self.take_off(deadline).await?;
        match self.good() {
            Some(ticket) => Ok(ticket),
            None => self.log_in(flight, None, deadline).await,
        }
    }

    fn good(&self) -> Option<Ticket> {
        let state = self.state.lock();
        let lease = state.lease.as_ref()?;
        lease.is_good().then(|| lease.ticket.clone())
    }

    /// Another token, after the server has refused this one with `refusal` for the operation at `path`; the
    /// refusal itself if a new login is too soon.
    pub(super) async fn replace(
        self: &Arc<Self>,
        refused: &Ticket,
        path: &str,
        refusal: BackendError,
        deadline: Instant,
    ) -> Result<Ticket, BackendError> {
        let flight = self.take_off(deadline).await?;
        let gap = {
            let state = self.state.lock();
            match &state.lease {
                // Another call has logged in meanwhile.
                Some(lease) if lease.ticket.number != refused.number => {
                    return Ok(lease.ticket.clone());
                }
                _ => {}
            }
            match state.replaced.get(path) {
                Some((at, gap)) if at.elapsed() < *gap => return Err(refusal),
                Some((at, gap)) if at.elapsed() < *gap * 2 => (*gap * 2).min(REPLACE_GAP_MAX),
                _ => REPLACE_GAP_MIN,
            }
        };
        self.log_in(flight, Some((path.to_owned(), gap)), deadline).await
    }

    /// Renews or replaces the token when it is due, and takes over what others have put into the files.
    /// A failure is not one yet: the token is still good, or the next call says why there is none.
    pub(super) async fn keep(self: &Arc<Self>, deadline: Instant) {
        // Whoever else has it is about to log in.
        let Ok(flight) = Arc::clone(&self.flight).try_lock_owned() else { return };
        let Some(lease) = self.state.lock().lease.clone() else { return };
        let until = || deadline.min(Instant::now() + KEEP_PATIENCE);
        let outcome = match self.keep_now(&flight, &lease, until).await {
            Err(error) => Err(error),
            Ok(true) => Ok(()),
            Ok(false) => self.log_in(flight, None, until()).await.map(|_| ()),
        };
        let mut state = self.state.lock();
        if outcome.is_err()
            && let Some(kept) = state.lease.as_mut().filter(|kept| kept.is_due())
        {
            kept.put_off();
        }
        match outcome {
            Ok(()) => state.fault = None,
            Err(error) if state.fault.as_ref() == Some(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "the token cannot be kept; it is still good for a while");
                state.fault = Some(error);
            }
        }
    }

    /// Whether the token can be gone on with.
    async fn keep_now(
        &self,
        flight: &InFlight,
        lease: &Lease,
        until: impl Fn() -> Instant,
    ) -> Result<bool, BackendError> {
        match (&self.auth, &self.wrapped) {
            // One that cannot be read is a matter for the next login.
            (Auth::Token { file }, _) => {
                let found = self.credential(file, "the token", until()).await;
                if found.is_ok_and(|token| token.as_bytes() != lease.ticket.token.expose()) {
                    return Ok(false);
                }
            }
            // A wrapping token does not live until the next login. What is wrong with it is logged.
            (_, Some(wrapped)) => {
                let _ = wrapped.secret_id(until()).await;
            }
            _ => {}
        }
        if !lease.is_due() {
            return Ok(true);
        }
        if !lease.renewable {
            return Ok(false);
        }
        self.renew(flight, lease, until()).await
    }

    async fn take_off(&self, deadline: Instant) -> Result<InFlight, BackendError> {
        timeout_at(deadline, Arc::clone(&self.flight).lock_owned()).await.map_err(|_| {
            BackendError::new(ErrorKind::Timeout, LOG_IN, "another call's login takes too long")
        })
    }

    /// Logs in, on behalf of a call that was refused if `because` says of which operation, and how long
    /// until the next time.
    ///
    /// It goes on when the caller does not: a login may have used up the secret_id. But a node that hangs must
    /// not keep others from logging in at another one.
    async fn log_in(
        self: &Arc<Self>,
        flight: InFlight,
        because: Option<(String, Duration)>,
        deadline: Instant,
    ) -> Result<Ticket, BackendError> {
        let (login, begin) = (Arc::clone(self), Instant::now());
        let under_way = tokio::spawn(async move {
            let until = deadline.checked_sub(MARGIN).unwrap_or(deadline);
            let mut logging_in = pin!(login.log_in_once(until, because.is_some()));
            let outcome = if let Ok(outcome) = timeout_at(begin + HELD_FOR, &mut logging_in).await {
                outcome
            } else {
                drop(flight);
                logging_in.await
            };
            if let (Ok(_), Some((path, gap))) = (&outcome, because) {
                login.state.lock().replaced.insert(path, (Instant::now(), gap));
            }
            outcome
        });
        let ended = |reason| BackendError::new(ErrorKind::Timeout, LOG_IN, reason);
        match timeout_at(deadline, under_way).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(ended("the login has ended by a bug")),
            Err(_) => Err(ended("no answer in time; it is still waited for")),
        }
    }

    async fn log_in_once(&self, deadline: Instant, refused: bool) -> Result<Ticket, BackendError> {
        let number = {
            let mut state = self.state.lock();
            match &state.failed {
                Some((at, error)) if at.elapsed() < FAILED_FOR => return Err(error.clone()),
                _ => state.number += 1,
            }
            state.number
        };
        let outcome = self.log_in_now(number, deadline, refused).await;
        let mut state = self.state.lock();
        if let Some(lease) = &state.lease
            && lease.ticket.number > number
            && lease.is_good()
        {
            // A later login was faster.
            return Ok(lease.ticket.clone());
        }
        // Not that this caller had too little time: the next may have more.
        let failed = outcome.as_ref().err().filter(|error| error.kind != ErrorKind::Timeout);
        state.failed = failed.map(|error| (Instant::now(), error.clone()));
        let lease = outcome?;
        let ticket = lease.ticket.clone();
        let (mount, namespace) = (self.auth.mount(), self.namespace.as_deref());
        let for_seconds = lease.whole.map(|whole| whole.as_secs());
        if let Auth::Token { file } = &self.auth {
            tracing::info!(file = %file.display(), for_seconds, "the token in the file is used");
        } else {
            tracing::info!(mount, namespace, for_seconds, "logged in");
        }
        state.lease = Some(lease);
        Ok(ticket)
    }

    /// `refused`: the token that there is is of no use any more.
    async fn log_in_now(
        &self,
        number: u64,
        deadline: Instant,
        refused: bool,
    ) -> Result<Lease, BackendError> {
        let mut tried = None;
        let body = match (&self.auth, &self.wrapped) {
            (Auth::Token { file }, _) => {
                let token = self.credential(file, "the token", deadline).await?;
                let token = Secret::from(token.as_bytes().to_vec());
                return self.found(token, number, deadline, refused).await;
            }
            (Auth::AppRole { role_id_file, secret_id_file, .. }, _) => {
                let role_id = self.role_id(role_id_file, deadline).await?;
                let secret_id = self.credential(secret_id_file, "the secret_id", deadline).await?;
                let stamp = self.cluster.files().stamp(secret_id_file, deadline).await;
                tried = Some(self.refused.untried(&role_id, &secret_id, &stamp)?);
                app_role(&role_id, &secret_id)
            }
            (Auth::WrappedAppRole { role_id_file, .. }, Some(wrapped)) => {
                let role_id = self.role_id(role_id_file, deadline).await?;
                let secret_id = wrapped.secret_id(deadline).await?;
                let secret_id = String::from_utf8_lossy(secret_id.expose());
                tried = Some(self.refused.untried(&role_id, &secret_id, &[])?);
                app_role(&role_id, &secret_id)
            }
            (Auth::Certificate { role, .. }, _) => {
                // It may have been replaced on the disk.
                self.cluster.follow_files().await;
                let body = Object::with_capacity(64);
                if let Some(role) = role { body.text("name", role) } else { body }
            }
            (Auth::Jwt { role, file, .. } | Auth::Kubernetes { role, file, .. }, _) => {
                // A kubelet lets everybody in the container read it, and it does not live long.
                let files = self.cluster.files();
                let jwt = files.credential(file, "the JWT", Readers::Everybody, deadline).await?;
                Object::with_capacity(jwt.len() + role.len()).text("role", role).text("jwt", &jwt)
            }
            (Auth::WrappedAppRole { .. }, None) => Object::with_capacity(0),
        };
        let path = format!("auth/{}/login", self.auth.mount().unwrap_or_default());
        let (mut wrong, most) = (0, tried.map_or(0, |tried| tried.most));
        let answer = self.log_in_anywhere(&path, body, (&mut wrong, most), deadline).await;
        let answer = answer.map_err(|error| self.explain(error)).inspect_err(|error| {
            if let Some(tried) = tried.filter(|_| wrong > 0) {
                self.refused.add(tried, wrong, error);
            }
        })?;
        self.refused.clear();
        Lease::granted(LOG_IN, &answer, number, &*self.random)
    }

    async fn credential(
        &self,
        file: &Path,
        what: &'static str,
        deadline: Instant,
    ) -> Result<Zeroizing<String>, BackendError> {
        self.cluster.files().credential(file, what, Readers::Group, deadline).await
    }

    /// It is a name and no secret.
    async fn role_id(
        &self,
        file: &Path,
        deadline: Instant,
    ) -> Result<Zeroizing<String>, BackendError> {
        self.cluster.files().credential(file, "the role_id", Readers::Everybody, deadline).await
    }

    /// A refused login, with what can be done about it.
    fn explain(&self, error: BackendError) -> BackendError {
        match &self.auth {
            Auth::WrappedAppRole { wrapping_token_file, .. }
                if error.reason.contains(WRONG_SECRET_ID) =>
            {
                let file = wrapping_token_file.display();
                error.advise(format!(
                    "the secret_id that was opened is expired or used up, or not of this role: put a \
                     new wrapped one into {file}"
                ))
            }
            _ => error,
        }
    }

    /// The lease of a token that somebody else has put there. How long it lives is told by renewing it;
    /// where its policies or its kind forbid that, it is somebody else's care, too. One that no server knows
    /// does not take the place of one that is good. Any other error may pass, and the token must not die of that
    /// later.
    async fn found(
        &self,
        token: Secret,
        number: u64,
        deadline: Instant,
        refused: bool,
    ) -> Result<Lease, BackendError> {
        let mut lease = Lease::unknown(token, number);
        let deadline = deadline.min(Instant::now() + KEEP_PATIENCE);
        match self.renewed(&lease, deadline).await {
            Ok(renewed) => lease = renewed,
            Err(error) if forbids(&error) || never_renews(&error) => {}
            Err(error) if !refused && !error.kind.retryable() && self.good().is_some() => {
                return Err(match error.kind {
                    ErrorKind::Credentials => error.advise(
                        "the token in the file is expired, revoked or of another server; the one from \
                         before is used on",
                    ),
                    _ => error,
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a token is not renewed yet");
                (lease.renewable, lease.due) = (true, Some(Instant::now() + FOUND_AGAIN));
            }
        }
        Ok(lease)
    }

    /// Whether the token has been renewed for long enough to go on with it.
    async fn renew(
        &self,
        _flight: &InFlight,
        lease: &Lease,
        deadline: Instant,
    ) -> Result<bool, BackendError> {
        match self.renewed(lease, deadline).await {
            Ok(mut renewed) => {
                // Near the end of its longest life a renewal gives less and less.
                let enough = match (renewed.whole, lease.whole) {
                    (Some(now), Some(whole)) => now * 3 >= whole * 2,
                    _ => true,
                };
                renewed.whole = lease.whole.or(renewed.whole);
                if !enough {
                    renewed.due = lease.due;
                }
                self.state.lock().lease = Some(renewed);
                Ok(enough)
            }
            // A login needs the leader as well.
            Err(error) if error.kind.retryable() => Err(error),
            // For instance because the certificate of its login has been replaced.
            Err(error) => {
                tracing::debug!(%error, "a token is not renewed");
                Ok(false)
            }
        }
    }

    async fn renewed(&self, lease: &Lease, deadline: Instant) -> Result<Lease, BackendError> {
        const ATTEMPTED: &str = "renew the token";
        let (path, body) = ("auth/token/renew-self", Object::with_capacity(0).finish());
        let token = Some(&*lease.ticket.token);
        let answer = self.call(ATTEMPTED, path, token, body, None, deadline).await?;
        Lease::granted(ATTEMPTED, &answer, lease.ticket.number, &*self.random)
    }

    /// Logs in at one node, and at each other one where it refuses a secret_id: standbys judge by themselves,
    /// and one that has not heard of a new secret_id, or that has locked the role out, is wrong. `wrong` is how many
    /// have called it wrong, and no more than `most` are asked to: a leader whom they all ask counts them.
    async fn log_in_anywhere(
        &self,
        path: &str,
        body: Object,
        (wrong, most): (&mut u32, u32),
        deadline: Instant,
    ) -> Result<Answer, BackendError> {
        let is_wrong = |error: &BackendError| u32::from(error.reason.contains(WRONG_SECRET_ID));
        let body = body.finish();
        let first = self.call(LOG_IN, path, None, body.clone(), None, deadline).await;
        let Err(error) = first else { return first };
        if !self.auth.has_secret_id() || error.kind != ErrorKind::Credentials {
            return Err(error);
        }
        *wrong = is_wrong(&error);
        for address in self.cluster.addresses() {
            if error.reason.starts_with(&*address) {
                self.cluster.avoid(&address);
                continue;
            }
            if *wrong >= most {
                break;
            }
            let only = Some(&*address);
            match self.call(LOG_IN, path, None, body.clone(), only, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(other) => *wrong += is_wrong(&other),
            }
            // The next time begins with one that was not asked.
            self.cluster.avoid(&address);
        }
        Err(error)
    }

    async fn call(
        &self,
        attempted: &'static str,
        path: &str,
        token: Option<&Secret>,
        body: Bytes,
        only: Option<&str>,
        deadline: Instant,
    ) -> Result<Answer, BackendError> {
        let request = Request {
            only,
            namespace: self.namespace.as_deref(),
            token,
            // A login with a secret_id may use it up, and then a second one is refused, for good. A node
            // that hangs costs the login its time instead; the next one begins with another node.
            once: token.is_none() && self.auth.has_secret_id(),
            ..Request::new(Method::POST, path, body)
        };
        self.cluster.call(attempted, &request, deadline).await.map_err(|failure| match failure {
            Failure::Final(error) => error,
            // There is no token to be got anew here.
            Failure::Login(error) if matches!(self.auth, Auth::Kubernetes { .. }) => {
                error.advise(KUBERNETES_FORBIDDEN)
            }
            Failure::Login(error) => error.advise(LOGIN_FORBIDDEN),
        })
    }
}

fn app_role(role_id: &str, secret_id: &str) -> Object {
    Object::with_capacity(role_id.len() + secret_id.len())
        .text("role_id", role_id)
        .text("secret_id", secret_id)
}
