//! What the server's answers teach: how long a request takes, and how much it may hold.

use std::time::Duration;

use tokio::time::Instant;

use crate::backend::ErrorKind;

/// Most items of a request: OpenBao refuses JSON of more than 1000 texts, and an item has six.
pub(super) const ITEMS_MAX: usize = 100;

/// Bounds of what a call waits for the request before it.
const PATIENCE_MIN: Duration = Duration::from_millis(10);
const PATIENCE_MAX: Duration = Duration::from_millis(250);

/// How long it is believed that larger requests are refused.
const SIZE_FOR: Duration = Duration::from_secs(600);

/// How long requests take of late.
#[derive(Default)]
pub(super) struct Pace(Duration);

impl Pace {
    /// One was answered after that time.
    pub(super) fn saw(&mut self, took: Duration) {
        self.0 = (self.0 * 7 + took) / 8;
    }

    /// How long a call waits for the request before it: a usual round trip. Less would send single
    /// calls to a slow server; more would make them wait for one that is slower than usual.
    pub(super) fn patience(&self) -> Duration {
        self.0.clamp(PATIENCE_MIN, PATIENCE_MAX)
    }
}

/// How many items a request may have.
#[derive(Default)]
pub(super) struct Size(Option<(usize, Instant)>);

impl Size {
    /// None: the plain form, without a list.
    pub(super) fn most(&self) -> usize {
        match self.0 {
            Some((most, until)) if Instant::now() < until => most,
            _ => ITEMS_MAX,
        }
    }

    /// A request of so many was refused as a whole, though a plain one is taken.
    pub(super) fn refused(&mut self, count: usize, kind: ErrorKind) {
        // Where it is not too long, it is the list that is forbidden.
        let most = if kind == ErrorKind::TooLarge { count / 2 } else { 0 };
        self.0 = Some((most.min(self.most()), Instant::now() + SIZE_FOR));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[test]
    fn patience_is_a_usual_round_trip_within_bounds() {
        let mut pace = Pace::default();
        for (millis, patience) in [(1, 10), (100, 100), (2000, 250), (1, 10)] {
            for _ in 0..100 {
                pace.saw(Duration::from_millis(millis));
            }
            let error = pace.patience().abs_diff(Duration::from_millis(patience));
            assert!(error < Duration::from_millis(1), "{millis}: {:?}", pace.patience());
        }
        pace.saw(Duration::from_secs(1));
        assert!(pace.patience() < Duration::from_millis(130), "one is no rule");
    }

    #[tokio::test(start_paused = true)]
    async fn a_size_that_was_refused_is_tried_again_later() {
        let mut size = Size::default();
        assert_eq!(size.most(), ITEMS_MAX);
        for (count, most) in [(80, 40), (60, 30), (100, 30), (1, 0)] {
            size.refused(count, ErrorKind::TooLarge);
            assert_eq!(size.most(), most);
        }
        advance(SIZE_FOR).await;
        assert_eq!(size.most(), ITEMS_MAX);
        size.refused(80, ErrorKind::Credentials);
        assert_eq!(size.most(), 0);
    }
}
