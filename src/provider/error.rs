//! What a call can fail with, above the backend.

use std::time::Duration;

use super::envelope::FrameError;
use crate::backend::BackendError;
use crate::key_id::KeyId;

/// Characters of a key_id that are repeated. One of ours has 64 at most; others send what they like, and an
/// answer with all of it may be longer than its receiver takes.
const SHOWN_MAX: usize = 128;

/// Why the provider could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The caller's fault: kube-apiserver never sends that.
    #[error("the plaintext is empty")]
    PlaintextEmpty,
    /// The caller's fault: the answer would be longer than kube-apiserver accepts.
    #[error("a plaintext of {bytes} bytes gives a ciphertext of more than {max} bytes")]
    PlaintextTooLong {
        /// Length of the plaintext.
        bytes: usize,
        /// Longest ciphertext that kube-apiserver accepts.
        max: usize,
    },
    /// What is in etcd is not a ciphertext of this plugin.
    #[error("{0}")]
    Ciphertext(#[from] FrameError),
    /// No key in the KMS has this id, looked up afresh.
    #[error("no key with id {} is in the KMS (looked up afresh); {}", shown(.key_id), if *.ours {
        "restore the key from its backup; what is in etcd is not damaged, do not delete it"
    } else {
        "restore the key from its backup, or name the format in decryptAlso if another plugin wrote this"
    })]
    KeyUnknown {
        /// As asked for.
        key_id: String,
        /// Whether it looks like one of this plugin's.
        ours: bool,
    },
    /// No key with this id is known, and there was no time to look it up afresh.
    #[error(
        "no key with id {} is known yet, and the KMS could not be looked at afresh in time; try again",
        shown(.0)
    )]
    NotLookedUp(String),
    /// The key that Status announced to this connection has gone since.
    #[error("the key {0} that Status announced is gone; the next Status names its successor")]
    AnnouncedKeyGone(KeyId),
    /// The KMS wrapped with another key than the one asked for: nothing is returned.
    #[error("the KMS wrapped with key {answered} instead of {asked}")]
    AnotherKeyAnswered {
        /// The key that was asked for.
        asked: KeyId,
        /// The key that wrapped.
        answered: KeyId,
    },
    /// The KMS has not been observed yet, and the caller's deadline is over.
    #[error("starting: the KMS has not answered yet")]
    Starting,
    /// The last observation of the KMS failed.
    #[error("the KMS is out of order since {} s: {error}", since.as_secs())]
    Outage {
        /// How long ago it began.
        since: Duration,
        /// What failed last.
        error: BackendError,
    },
    /// The last good observation of the KMS is too old to vouch for it.
    #[error("the KMS was last found in order {} s ago, which is too long", .0.as_secs())]
    Stale(Duration),
    /// The backend failed this call.
    #[error("{0}")]
    Backend(#[from] BackendError),
}

fn shown(key_id: &str) -> String {
    match key_id.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{:?}…", &key_id[..end]),
        None => format!("{key_id:?}"),
    }
}
