//! What the threads of the pool and its callers share, and how they wait.
//!
//! Taken from here and from nowhere else by `pool.rs` and `renewed.rs`, so that the tests can run these
//! files as they are with threads and a clock that they hold in their hands (`schedules.rs`).

pub(super) use std::hint::spin_loop;
pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
pub(super) use std::thread;

/// Bounded, with several consumers.
pub(super) use crossbeam_channel::{Receiver, Sender, bounded};
/// The lock for reading and writing can be tried for a while.
pub(super) use parking_lot::{Mutex, RwLock, RwLockReadGuard};
pub(super) use tokio::task::yield_now;
pub(super) use tokio::time::{Instant, timeout_at};

use std::time::Duration;

/// Pauses this thread, for no shorter: a stale token of `unpark` is not the end.
pub(super) fn pause_for(pause: Duration) {
    let begin = Instant::now();
    while let Some(rest) = pause.checked_sub(begin.elapsed()).filter(|rest| !rest.is_zero()) {
        thread::park_timeout(rest);
    }
}
