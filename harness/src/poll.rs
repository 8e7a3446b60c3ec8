//! Waiting for a stated condition.

use std::time::Duration;
use tokio::time::Instant;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// How long [`eventually`] waits: far longer than anything should take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `look` gives a value; `Err` says what is seen instead.
///
/// # Panics
///
/// With `what` and the last thing seen, when the condition has not come true in a minute.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    within(PATIENCE, what, look)
}

/// The same for another time.
///
/// # Panics
///
/// With `what` and the last thing seen, when the condition has not come true in `patience`.
#[allow(clippy::disallowed_methods, clippy::panic, reason = "this is the place that waits")]
pub fn within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let begin = Instant::now();
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if begin.elapsed() > patience => {
                panic!("waited {patience:?} for: {what}; last seen: {seen}")
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
