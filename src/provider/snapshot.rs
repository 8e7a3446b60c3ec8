//! What is known of the KMS at a moment, and how an observation changes it.
//!
//! [`State::apply`] is the only place where it changes: a plain function of the previous state, the
//! outcome of an observation and the time, so that it can be tested without a KMS and without waiting.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::Error;
use crate::backend::{BackendError, KeySet};
use crate::key_id::KeyId;

/// What Status, Encrypt and Decrypt go by.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The keys as last seen; kept through an outage, because the KMS may be back before we look.
    pub keys: Option<Arc<KeySet>>,
    /// When the KMS was last found in order.
    pub good_at: Option<Instant>,
    /// The outage that goes on, if one does.
    pub outage: Option<Outage>,
    /// Observations that have ended, good or bad.
    pub observations: u64,
}

/// An outage of the KMS.
#[derive(Debug, Clone)]
pub struct Outage {
    /// When the first observation failed.
    pub since: Instant,
    /// What failed last.
    pub error: BackendError,
}

/// What an observation changed, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The KMS was found in order for the first time.
    Ready(KeyId),
    /// The KMS failed.
    OutageBegan(BackendError),
    /// The KMS fails for another reason now.
    OutageChanged(BackendError),
    /// The KMS is back.
    OutageEnded(Duration),
    /// Another key is to be announced and used from now on.
    CurrentKeyChanged {
        /// The key so far.
        from: KeyId,
        /// The key from now on.
        to: KeyId,
    },
    /// A key is gone: what it wrapped cannot be read until it is back.
    KeyGone(String),
    /// A key is there that was not there before, not counting the current one.
    KeyAppeared(String),
    /// A key that is not used for a fault of its own.
    KeyRefused(String),
}

impl State {
    /// The keys, if the KMS is in order and was found so no longer than `stale_after` ago.
    pub fn healthy(&self, now: Instant, stale_after: Duration) -> Result<&Arc<KeySet>, Error> {
        if let Some(outage) = &self.outage {
            let since = now.saturating_duration_since(outage.since);
            return Err(Error::Outage { since, error: outage.error.clone() });
        }
        let (Some(keys), Some(good_at)) = (&self.keys, self.good_at) else {
            return Err(Error::Starting);
        };
        let age = now.saturating_duration_since(good_at);
        if age > stale_after {
            return Err(Error::Stale(age));
        }
        Ok(keys)
    }

    /// Takes in an observation that ended at `now`.
    pub fn apply(&mut self, outcome: Result<KeySet, BackendError>, now: Instant) -> Vec<Event> {
        self.observations += 1;
        match outcome {
            Err(error) => self.apply_failure(error, now),
            Ok(keys) => self.apply_keys(keys, now),
        }
    }

    fn apply_failure(&mut self, error: BackendError, now: Instant) -> Vec<Event> {
        match &mut self.outage {
            Some(outage) if outage.error == error => Vec::new(),
            Some(outage) => {
                outage.error = error.clone();
                vec![Event::OutageChanged(error)]
            }
            None => {
                self.outage = Some(Outage { since: now, error: error.clone() });
                vec![Event::OutageBegan(error)]
            }
        }
    }

    fn apply_keys(&mut self, keys: KeySet, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        if let Some(outage) = self.outage.take() {
            events.push(Event::OutageEnded(now.saturating_duration_since(outage.since)));
        }
        match &self.keys {
            None => events.push(Event::Ready(keys.current.id.clone())),
            Some(before) => events.extend(changes(before, &keys)),
        }
        let known = |reason| self.keys.as_ref().is_some_and(|keys| keys.refused.contains(reason));
        let refused = keys.refused.iter().filter(|reason| !known(reason));
        events.extend(refused.cloned().map(Event::KeyRefused));
        self.good_at = Some(now);
        self.keys = Some(Arc::new(keys));
        events
    }
}

fn changes(before: &KeySet, after: &KeySet) -> Vec<Event> {
    // Nearly always.
    if before == after {
        return Vec::new();
    }
    let mut events = Vec::new();
    events.extend(before.lost_in(after).map(Event::KeyGone));
    for key in after.older.iter().filter(|key| before.find(&key.id).is_none()) {
        events.push(Event::KeyAppeared(format!("{} ({})", key.name, key.id)));
    }
    let (from, to) = (&before.current.id, &after.current.id);
    if from != to {
        events.push(Event::CurrentKeyChanged { from: from.clone(), to: to.clone() });
    }
    events
}
