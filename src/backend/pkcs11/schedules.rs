//! The pool's threads and the renewal of the module, in every order of steps that chance finds.
//!
//! `pool.rs` and `renewed.rs` are compiled here a second time, letter for letter, with locks, atomics, threads,
//! queue and clock of [`shuttle`], which runs one thread at a time and chooses at each step which. Whoever
//! waits for something that never comes is a deadlock to it, and so is a thread that does not end. The session
//! and the module are stand-ins: their own faults are met in tests with real modules.
//!
//! A schedule that fails is printed; `shuttle::replay` runs it again.

mod module;
#[allow(clippy::duplicate_mod, reason = "with other locks, threads and clock")]
#[path = "pool.rs"]
mod pool;
mod queue;
mod renewal;
#[allow(clippy::duplicate_mod, reason = "with other locks, threads and clock")]
#[path = "renewed.rs"]
mod renewed;
mod sync;
mod worker;

use std::time::Duration;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};

/// What the pool reads of the real ones.
struct Settings {
    workers: usize,
    queue: usize,
    call_timeout: Duration,
}

/// Schedules per test, of each kind, unless `KLEIDI_SCHEDULES` says otherwise.
const SCHEDULES: usize = 100;

/// Runs `test` with orders of two kinds: each next step by chance, and few changes at bad moments.
fn in_many_orders(test: impl Fn() + Send + Sync + Clone + 'static) {
    let told = std::env::var("KLEIDI_SCHEDULES").ok().and_then(|number| number.parse().ok());
    let schedules = told.unwrap_or(SCHEDULES);
    run(RandomScheduler::new(schedules), test.clone());
    run(PctScheduler::new(3, schedules), test);
}

fn run(scheduler: impl Scheduler + 'static, test: impl Fn() + Send + Sync + 'static) {
    shuttle::Runner::new(scheduler, shuttle::Config::new()).run(test);
}
