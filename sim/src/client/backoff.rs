//! grpc-go's exponential backoff (`internal/backoff/backoff.go`, `backoff.DefaultConfig`).

use std::time::Duration;

const BASE: f64 = 1.0;
const FACTOR: f64 = 1.6;
const JITTER: f64 = 0.2;
const MAX: f64 = 120.0;

/// How long an attempt to connect may take, if the backoff is not longer (`minConnectTimeout`).
pub(super) const ATTEMPT: Duration = Duration::from_secs(20);

/// How long to wait after so many failures before this one; `random` is from 0 to 1.
///
/// 1 s after the first, then 1.6 times as much each time, up to 120 s, and then a fifth more or less.
#[must_use]
pub fn backoff(failures: u32, random: f64) -> Duration {
    if failures == 0 {
        return Duration::from_secs_f64(BASE);
    }
    let exact = FACTOR.powi(i32::try_from(failures).unwrap_or(i32::MAX)).min(MAX / BASE) * BASE;
    Duration::from_secs_f64(exact * (1.0 + JITTER * (random * 2.0 - 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_two_minutes() {
        let exact: Vec<_> =
            (0..13).map(|failures| backoff(failures, 0.5).as_millis() / 100).collect();
        assert_eq!(exact, [10, 16, 25, 40, 65, 104, 167, 268, 429, 687, 1099, 1200, 1200]);
        assert_eq!(backoff(u32::MAX, 1.0), Duration::from_secs(144));
        assert_eq!(backoff(1, 0.0), Duration::from_millis(1280));
        assert_eq!(backoff(0, 1.0), Duration::from_secs(1));
    }
}
