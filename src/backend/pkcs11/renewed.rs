//! Something that all threads use, and that has to be made anew now and then, while nobody uses it.

use std::time::Duration;

use super::sync::{Instant, RwLock, RwLockReadGuard, pause_for};
use crate::backend::{BackendError, ErrorKind};

/// Shortest time between two renewals: they cost the token a login.
const GAP: Duration = Duration::from_secs(1);

/// How long a renewal waits for those who use it.
const EXCLUSIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// A value that is there or not, and which one it is.
pub(super) struct Renewed<T>(RwLock<State<T>>);

struct State<T> {
    /// Counts renewals: what was had of an earlier one is dead.
    generation: u64,
    value: Option<T>,
    last_attempt: Option<(Instant, Option<BackendError>)>,
}

impl<T> State<T> {
    /// How long to wait before it may be made anew, if it was a moment ago and with success.
    fn too_soon_after_success(&self) -> Option<Duration> {
        match &self.last_attempt {
            Some((at, None)) => GAP.checked_sub(at.elapsed()),
            _ => None,
        }
    }
}

/// In use: as long as this lives, it is not made anew.
pub(super) struct InUse<'a, T>(RwLockReadGuard<'a, State<T>>);

impl<T> InUse<'_, T> {
    /// Which one it is.
    pub(super) fn generation(&self) -> u64 {
        self.0.generation
    }

    /// The value; it is there.
    pub(super) fn value(&self) -> Option<&T> {
        self.0.value.as_ref()
    }
}

impl<T> Renewed<T> {
    /// Nothing is there yet.
    pub(super) fn new() -> Self {
        Self(RwLock::new(State { generation: 0, value: None, last_attempt: None }))
    }

    /// Begins to use it; `None` if it is not there.
    pub(super) fn enter(&self) -> Option<InUse<'_, T>> {
        let state = self.0.read();
        state.value.is_some().then_some(InUse(state))
    }

    /// Whether it was last made, or tried to be, longer than `time` ago. Whoever renews for no other reason
    /// does so no oftener than that, however many threads there are: the others' generation is not the
    /// present one any more.
    pub(super) fn is_older_than(&self, time: Duration) -> bool {
        self.0.read().last_attempt.as_ref().is_some_and(|(at, _)| at.elapsed() > time)
    }

    /// Makes it, and anew if generation `seen` has turned out to be dead; `make` is told whether it is the
    /// first time.
    ///
    /// Does nothing if another thread has done so in the meantime. At most once per [`GAP`]: in between it
    /// repeats the last error; after a success, whoever is `patient` waits, and others are told `false`.
    pub(super) fn renew(
        &self,
        seen: u64,
        patient: bool,
        make: impl FnOnce(bool) -> Result<T, BackendError>,
    ) -> Result<bool, BackendError> {
        let pause = self.0.read().too_soon_after_success();
        if let Some(pause) = pause.filter(|_| patient) {
            pause_for(pause);
        }
        let Some(mut state) = self.0.try_write_for(EXCLUSIVE_TIMEOUT) else {
            return Err(BackendError::new(
                ErrorKind::Unavailable,
                "initialise the PKCS#11 module anew",
                "a call into it does not return",
            )
            .advise("if it never does, restart the plugin"));
        };
        if state.generation != seen && state.value.is_some() {
            return Ok(true);
        }
        if state.too_soon_after_success().is_some() {
            return Ok(false);
        }
        if let Some((at, Some(error))) = &state.last_attempt
            && at.elapsed() < GAP
        {
            return Err(error.clone());
        }
        let first = state.last_attempt.is_none();
        state.value = None;
        state.generation += 1;
        let outcome = make(first);
        state.last_attempt = Some((Instant::now(), outcome.as_ref().err().cloned()));
        state.value = Some(outcome?);
        Ok(true)
    }
}
