//! Randomness, handed in so that a simulation can replay it.

/// A source of random bytes.
pub trait Random: Send + Sync + 'static {
    /// Fills `bytes`, or says that the source failed; they are not to be used then.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError>;

    /// A duration between half of `base` and `base`: keeps plugins of a cluster from retrying in
    /// step. `base` itself if the source failed.
    fn jitter(&self, base: std::time::Duration) -> std::time::Duration {
        let mut byte = [0];
        match self.fill(&mut byte) {
            Ok(()) => base / 2 + base / 2 * u32::from(byte[0]) / 255,
            Err(RandomError) => base,
        }
    }
}

/// The source of random bytes failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct RandomError;

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        getrandom::fill(bytes).map_err(|_| RandomError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn jitter_stays_between_half_and_whole() {
        let base = Duration::from_millis(400);
        for _ in 0..1000 {
            let drawn = OsRandom.jitter(base);
            assert!((base / 2..=base).contains(&drawn), "{drawn:?}");
        }
    }
}
