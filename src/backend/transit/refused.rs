//! Credentials that a server has called wrong are not tried again and again.
//!
//! After five wrong ones within 15 minutes, of whatever node, both products refuse right ones of that
//! AppRole, too, for another 15.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::files::{self, Digest};
use crate::backend::BackendError;

/// How long what was refused once is not tried again: a standby may not have heard of a new secret_id.
const ONCE: Duration = Duration::from_secs(5);

/// And what was refused again.
const AGAIN: Duration = Duration::from_secs(15 * 60);

/// What was refused last.
#[derive(Default)]
pub(super) struct Refused(Mutex<Option<Last>>);

struct Last {
    credentials: Digest,
    /// Until when they are not tried.
    until: Instant,
    error: BackendError,
}

impl Refused {
    /// What these are remembered by; what the server said of them if they are not to be tried now.
    ///
    /// `stamp` is of the file: the same in a file that was written again is tried again.
    pub(super) fn untried(
        &self,
        role_id: &str,
        secret_id: &str,
        stamp: &[u8],
    ) -> Result<Digest, BackendError> {
        let credentials = files::digest([role_id.as_bytes(), secret_id.as_bytes(), stamp]);
        match &*self.0.lock() {
            Some(last) if last.credentials == credentials && last.until > Instant::now() => {
                Err(last.error.clone())
            }
            _ => Ok(credentials),
        }
    }

    /// The server takes what we have: what was refused before was another matter.
    pub(super) fn clear(&self) {
        *self.0.lock() = None;
    }

    /// These have been refused.
    pub(super) fn add(&self, credentials: Digest, error: &BackendError) {
        let mut last = self.0.lock();
        let again = last.as_ref().is_some_and(|last| last.credentials == credentials);
        let until = Instant::now() + if again { AGAIN } else { ONCE };
        *last = Some(Last { credentials, until, error: error.clone() });
    }
}
