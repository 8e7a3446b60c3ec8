//! A module that counts who is in it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::sync::AtomicUsize;

/// What all threads use.
#[derive(Default)]
pub(super) struct Module {
    calls: AtomicUsize,
    /// Most calls at a time that there ever were.
    most: AtomicUsize,
    /// Threads that have a session.
    pub(super) workers: AtomicUsize,
}

impl Module {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Runs a call in it.
    pub(super) fn call<T>(&self, call: impl FnOnce() -> T) -> T {
        let calls = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(calls, Ordering::SeqCst);
        let outcome = call();
        self.calls.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    pub(super) fn most_calls(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}
