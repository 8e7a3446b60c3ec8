//! Waiting for a stated condition, and what time it took.

#![allow(
    clippy::disallowed_methods,
    reason = "clusters live by the real clock; nothing else here asks it"
)]

use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// Waits until `look` gives a value; `Err` says what is seen instead. The error after `patience` has the last of
/// these.
pub fn within<T>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let watch = Stopwatch::start();
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(seen) if watch.elapsed() > patience => {
                return Err(format!("waited {patience:?} for {what}; last seen: {seen}"));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Makes sure that `look` succeeds again and again for that long.
pub fn throughout(
    time: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<(), String>,
) -> Result<(), String> {
    let watch = Stopwatch::start();
    while watch.elapsed() < time {
        look().map_err(|error| format!("{what}: not so after {:?}: {error}", watch.elapsed()))?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// The pace of writers.
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// How long something took.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Since the start.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_is_told() {
        let error = within(Duration::ZERO, "rain", || Err::<(), _>("sun".into())).unwrap_err();
        assert_eq!(error, "waited 0ns for rain; last seen: sun");
        let mut looks = 0;
        let value = within(Duration::from_secs(10), "a second look", || {
            looks += 1;
            if looks == 2 { Ok(looks) } else { Err("the first".to_owned()) }
        });
        assert_eq!(value, Ok(2));
    }
}
