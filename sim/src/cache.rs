//! Unwrapped seeds, for a day (upstream `kmsv2/cache.go`).
//!
//! With its quirks: no limit of size; an entry whose time is over still answers until one is set, which
//! collects; an answer does not make the time longer, setting the same again does.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::object::Secret;
use crate::time::Time;

/// How long an entry lives.
pub const LIVES_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Seeds by [`crate::object::cache_key`].
#[derive(Default)]
pub struct Cache(BTreeMap<[u8; 32], (Secret, Time)>);

impl Cache {
    /// The seed, if it has not been collected.
    #[must_use]
    pub fn get(&self, key: &[u8; 32]) -> Option<Secret> {
        self.0.get(key).map(|(secret, _)| secret.clone())
    }

    /// Remembers a seed from now on, and forgets those whose time is over.
    pub fn set(&mut self, now: Time, key: [u8; 32], secret: Secret) {
        self.0.insert(key, (secret, now + LIVES_FOR));
        self.0.retain(|_, (_, ends)| *ends > now);
    }

    /// Entries, those included whose time is over.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets everything, as a restart does.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
