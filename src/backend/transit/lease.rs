//! How long a token lives, and when something has to be done for it.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::http_client::Answer;
use super::json::parse;
use crate::backend::{BackendError, ErrorKind};
use crate::random::Random;
use crate::secret::Secret;

/// A longer life is not believed: no sum with it overflows.
const LIFE_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Which part of a token's rest passes until something is done for it again that has failed, and how long at most:
/// not each look has to ask for it, and there are some more tries before the end.
const AGAIN_PART: u32 = 8;
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// A token for calls.
#[derive(Clone)]
pub(super) struct Ticket {
    pub(super) token: Arc<Secret>,
    /// Which login it is from.
    pub(super) number: u64,
}

#[derive(Clone)]
pub(super) struct Lease {
    pub(super) ticket: Ticket,
    /// How long the login gave it; `None` if for ever.
    pub(super) whole: Option<Duration>,
    pub(super) renewable: bool,
    /// When it is to be renewed or replaced.
    pub(super) due: Option<Instant>,
    /// When it ends.
    ends: Option<Instant>,
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

impl Lease {
    /// Of a token of which no more is known.
    pub(super) fn unknown(token: Secret, number: u64) -> Self {
        let ticket = Ticket { token: Arc::new(token), number };
        Self { ticket, whole: None, renewable: false, due: None, ends: None }
    }

    /// What the answer to a login or a renewal grants.
    pub(super) fn granted(
        attempted: &'static str,
        answer: &Answer,
        number: u64,
        random: &dyn Random,
    ) -> Result<Self, BackendError> {
        let Granted { auth } = parse(attempted, answer)?;
        if auth.client_token.is_empty() {
            let reason = format!("{}: the answer has no token", answer.address);
            return Err(BackendError::new(ErrorKind::Unavailable, attempted, reason));
        }
        let token = Secret::from(auth.client_token.as_bytes().to_vec());
        let life = Duration::from_secs(auth.lease_duration).min(LIFE_MAX);
        let whole = (!life.is_zero()).then_some(life);
        let now = Instant::now();
        Ok(Self {
            whole,
            renewable: auth.renewable,
            due: whole.map(|whole| now + random.jitter(whole / 2)),
            ends: whole.map(|whole| now + whole),
            ..Self::unknown(token, number)
        })
    }

    /// Whether calls can use the token.
    pub(super) fn is_good(&self) -> bool {
        self.ends.is_none_or(|ends| ends > Instant::now())
    }

    /// It could not be renewed or replaced, for a reason that may pass.
    pub(super) fn put_off(&mut self) {
        let now = Instant::now();
        let rest = self.ends.map_or(LIFE_MAX, |ends| ends.saturating_duration_since(now));
        self.due = Some(now + (rest / AGAIN_PART).min(AGAIN_MAX));
    }

    /// Whether it is to be renewed or replaced.
    pub(super) fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }
}
