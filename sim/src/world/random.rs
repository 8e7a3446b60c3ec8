//! Randomness by name: what one part draws does not move what another gets.

use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

/// A stream of random numbers.
pub struct Stream(Mutex<ChaCha8Rng>);

impl Stream {
    /// The stream of this name, of a run with this seed.
    #[must_use]
    pub fn of(seed: u64, name: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_be_bytes());
        hash.update(name);
        Self(Mutex::new(ChaCha8Rng::from_seed(hash.finalize().into())))
    }

    /// Fills `bytes`.
    pub fn bytes(&self, bytes: &mut [u8]) {
        self.0.lock().fill_bytes(bytes);
    }

    /// A number below `end`, which is not 0.
    pub fn below(&self, end: u64) -> u64 {
        // Not quite even, by less than anybody could see.
        self.0.lock().next_u64() % end.max(1)
    }

    /// An index below `length`, which is not 0.
    pub fn index(&self, length: usize) -> usize {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        usize::try_from(self.below(length)).unwrap_or(0)
    }

    /// Whether something happens that does so in `percent` of all cases.
    pub fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A time between these, of all sizes alike: short ones as often as long ones.
    pub fn time(&self, least: Duration, most: Duration) -> Duration {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        let (least, most) = (millis(least), millis(most));
        let doublings = u64::from((most / least).max(1).ilog2()) + 1;
        let base = least << self.below(doublings);
        Duration::from_millis((base + self.below(base)).min(most))
    }
}

impl kleidi::random::Random for Stream {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), kleidi::random::RandomError> {
        self.bytes(bytes);
        Ok(())
    }
}

impl crate::edges::Random for Stream {
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.bytes(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_their_own_and_stay_the_same() {
        let draw = |seed, name| Stream::of(seed, name).below(u64::MAX);
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
    }

    #[test]
    fn times_are_between_and_of_all_sizes() {
        let stream = Stream::of(1, "times");
        let (least, most) = (Duration::from_millis(10), Duration::from_secs(600));
        let times: Vec<_> = (0..1000).map(|_| stream.time(least, most)).collect();
        assert!(times.iter().all(|time| (least..=most).contains(time)));
        for bound in [100, 1000, 10_000, 100_000].map(Duration::from_millis) {
            let below = times.iter().filter(|time| **time < bound).count();
            assert!((100..950).contains(&below), "{below} below {bound:?}");
        }
    }
}
