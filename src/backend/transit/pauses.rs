//! How long calls pause between their tries while the servers answer none of them.
//!
//! A call knows only its own few seconds, and begins eagerly, because most troubles are over in a moment: an election,
//! a quota that is used up. One call after another that does so is a load that lasts as long as the trouble, and on
//! servers that refuse because they are asked too much it prolongs it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// First pause of a call; doubles.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// Longest pause at first.
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// Trouble that has lasted so long is no election any more.
const LASTING: Duration = Duration::from_secs(5);

/// Each pause then. What is over is noticed by the next call at once, and by those that wait after this.
const PAUSE_LASTING: Duration = Duration::from_secs(2);

/// Since when no call has had a good answer, if the last one had none.
#[derive(Debug, Default)]
pub(super) struct Pauses(Mutex<Option<Instant>>);

impl Pauses {
    /// A server has answered well.
    pub(super) fn well(&self) {
        *self.0.lock() = None;
    }

    /// All have been asked, and none has answered well.
    pub(super) fn failed(&self) {
        self.0.lock().get_or_insert_with(Instant::now);
    }

    /// How long a call pauses that has asked all of them so often.
    pub(super) fn pause(&self, rounds: u32) -> Duration {
        match *self.0.lock() {
            Some(since) if since.elapsed() >= LASTING => PAUSE_LASTING,
            _ => PAUSE_MIN
                .saturating_mul(2_u32.saturating_pow(rounds.saturating_sub(1)))
                .min(PAUSE_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_within_a_call_and_with_a_trouble_that_lasts() {
        let pauses = Pauses::default();
        let all = |of: &Pauses| (1..=5).map(|rounds| of.pause(rounds).as_millis()).collect();
        let eager: Vec<u128> = all(&pauses);
        assert_eq!(eager, [50, 100, 200, 400, 400]);
        pauses.failed();
        advance(LASTING / 2).await;
        // What began the trouble counts, and not what failed last.
        pauses.failed();
        assert_eq!(all(&pauses), eager);
        advance(LASTING / 2).await;
        assert_eq!(all(&pauses), [2000; 5]);
        pauses.well();
        assert_eq!(all(&pauses), eager);
        pauses.failed();
        assert_eq!(all(&pauses), eager);
    }
}
