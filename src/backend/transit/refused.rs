//! Credentials that a server has called wrong are not tried again and again.
//!
//! After five wrong ones within 15 minutes, of whatever node, both products refuse right ones of that
//! AppRole, too, for another 15. Standbys may all ask one leader, who counts, so what counts here is how often they
//! were called wrong and not in how many rounds: three times within the 15 minutes at most.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::files::{self, Digest};
use crate::backend::BackendError;

/// How often they may be called wrong in one round: a standby may not have heard of a new secret_id.
const AT_ONCE: u32 = 2;

/// And in all, until the server has forgotten.
const IN_ALL: u32 = 3;

/// How long what was refused once is not tried again: that standby may have heard of it by then.
const ONCE: Duration = Duration::from_secs(5);

/// And what was refused again: then the server has forgotten.
const AGAIN: Duration = Duration::from_secs(15 * 60);

/// What was refused last.
#[derive(Default)]
pub(super) struct Refused(Mutex<Option<Last>>);

struct Last {
    credentials: Digest,
    /// How often, as far as the server will remember it when they are tried next.
    times: u32,
    /// Until when they are not tried.
    until: Instant,
    error: BackendError,
}

/// Credentials that may be tried.
#[derive(Clone, Copy)]
pub(super) struct Untried {
    /// What they are remembered by.
    credentials: Digest,
    /// How often they may be called wrong in this round.
    pub(super) most: u32,
}

impl Refused {
    /// Whether these may be tried now; what the server said of them if not.
    ///
    /// `stamp` is of the file: the same in a file that was written again is tried again.
    pub(super) fn untried(
        &self,
        role_id: &str,
        secret_id: &str,
        stamp: &[u8],
    ) -> Result<Untried, BackendError> {
        let credentials = files::digest([role_id.as_bytes(), secret_id.as_bytes(), stamp]);
        let most = match &*self.0.lock() {
            Some(last) if last.credentials == credentials => {
                if last.until > Instant::now() {
                    return Err(last.error.clone());
                }
                IN_ALL.saturating_sub(last.times).min(AT_ONCE)
            }
            _ => AT_ONCE,
        };
        Ok(Untried { credentials, most })
    }

    /// The server takes what we have: what was refused before was another matter.
    pub(super) fn clear(&self) {
        *self.0.lock() = None;
    }

    /// These have been called wrong so many times in a round.
    pub(super) fn add(&self, tried: Untried, times: u32, error: &BackendError) {
        let mut last = self.0.lock();
        let credentials = tried.credentials;
        let again = last.as_ref().is_some_and(|last| last.credentials == credentials);
        let (times, pause) = if again { (0, AGAIN) } else { (times, ONCE) };
        let until = Instant::now() + pause;
        *last = Some(Last { credentials, times, until, error: error.clone() });
    }
}
