//! The versions of the key: which is current, and what each is recognised by.
//!
//! Numbers are no identity: a key that is deleted and made anew begins with 1 again, and an old backup
//! that is restored and rotated has another "version 2". So a version is recognised by what the server
//! computes with it (`hmac`), which is bound to its material.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::key_id::{Fingerprint, KeyId, Version};

/// How long a lower version than before has to be seen before it is believed: until then it is a node
/// that has not heard of the rotation yet.
const LOWER_AFTER: Duration = Duration::from_secs(60);

/// How often, besides.
const LOWER_TIMES: u32 = 3;

/// What is known of the key.
#[derive(Debug, Default)]
pub(super) struct Versions {
    known: BTreeMap<u64, Fingerprint>,
    current: Option<u64>,
    /// Since when and how often the latest version was lower than the current one.
    lower: Option<(Instant, u32)>,
}

/// What an observation of the latest version means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing new.
    Same,
    /// A version that was not there before.
    Rotated,
    /// Another key of the same name: made anew, or restored.
    AnotherKey,
    /// A node that is behind; the current version stays.
    Behind,
}

impl Versions {
    /// Takes in what the server called the latest version.
    pub(super) fn saw_latest(
        &mut self,
        version: u64,
        fingerprint: Fingerprint,
        now: Instant,
    ) -> News {
        let remembered = self.known.get(&version).copied();
        if remembered.is_some_and(|remembered| remembered != fingerprint) {
            self.known.clear();
            self.become_current(version, fingerprint);
            return News::AnotherKey;
        }
        match self.current {
            Some(current) if version == current => {
                self.lower = None;
                News::Same
            }
            Some(current) if version < current => {
                let (since, times) = self.lower.get_or_insert((now, 0));
                *times += 1;
                if *times < LOWER_TIMES || now.duration_since(*since) <= LOWER_AFTER {
                    self.known.insert(version, fingerprint);
                    return News::Behind;
                }
                // A backup has been restored: the later versions are gone.
                self.known.retain(|known, _| *known <= version);
                self.become_current(version, fingerprint);
                News::AnotherKey
            }
            before => {
                self.become_current(version, fingerprint);
                if before.is_some() { News::Rotated } else { News::Same }
            }
        }
    }

    fn become_current(&mut self, version: u64, fingerprint: Fingerprint) {
        self.known.insert(version, fingerprint);
        self.current = Some(version);
        self.lower = None;
    }

    /// Remembers a version that is not the latest.
    pub(super) fn learn(&mut self, version: u64, fingerprint: Fingerprint) {
        self.known.insert(version, fingerprint);
    }

    /// The current version.
    pub(super) fn current(&self) -> Option<(u64, KeyId)> {
        let version = self.current?;
        Some((version, self.id(version)?))
    }

    /// All other known versions, newest first.
    pub(super) fn others(&self) -> impl Iterator<Item = (u64, KeyId)> {
        let versions = self.known.keys().rev().filter(|version| Some(**version) != self.current);
        versions.filter_map(|version| Some((*version, self.id(*version)?)))
    }

    /// The id of a version, if its fingerprint is known.
    pub(super) fn id(&self, version: u64) -> Option<KeyId> {
        let fingerprint = self.known.get(&version)?;
        Some(KeyId::new(*fingerprint, &Version::of_number(version)))
    }

    /// The version with this id.
    pub(super) fn find(&self, id: &KeyId) -> Option<u64> {
        self.known.keys().copied().find(|version| self.id(*version).as_ref() == Some(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(key: &str, version: u64) -> Fingerprint {
        Fingerprint::of(key, &version.to_be_bytes())
    }

    #[test]
    fn a_rotation_moves_on_and_a_node_behind_does_not_move_back() {
        let (mut versions, now) = (Versions::default(), Instant::now());
        let mut saw = |version, seconds| {
            let at = now + Duration::from_secs(seconds);
            let news = versions.saw_latest(version, fingerprint("a", version), at);
            (news, versions.current().map(|(version, _)| version))
        };
        assert_eq!(saw(1, 0), (News::Same, Some(1)));
        assert_eq!(saw(2, 10), (News::Rotated, Some(2)));
        assert_eq!(saw(1, 20), (News::Behind, Some(2)));
        assert_eq!(saw(2, 30), (News::Same, Some(2)));
        // Again and again, but not for long enough; for long enough, but not often enough.
        assert_eq!(saw(1, 40), (News::Behind, Some(2)));
        assert_eq!(saw(1, 50), (News::Behind, Some(2)));
        assert_eq!(saw(1, 60), (News::Behind, Some(2)));
        assert_eq!(saw(2, 61), (News::Same, Some(2)));
        assert_eq!(saw(1, 62), (News::Behind, Some(2)));
        assert_eq!(saw(1, 200), (News::Behind, Some(2)));
        assert_eq!(saw(1, 210), (News::AnotherKey, Some(1)));
    }

    #[test]
    fn a_key_made_anew_has_other_ids_under_the_same_numbers() {
        let (mut versions, now) = (Versions::default(), Instant::now());
        versions.saw_latest(1, fingerprint("a", 1), now);
        versions.saw_latest(2, fingerprint("a", 2), now);
        let old = versions.id(2).unwrap();
        assert_eq!(versions.saw_latest(2, fingerprint("b", 2), now), News::AnotherKey);
        let new = versions.id(2).unwrap();
        assert_ne!(old, new);
        assert_eq!((versions.find(&old), versions.find(&new)), (None, Some(2)));
        assert_eq!(versions.others().count(), 0, "what was known of the other is forgotten");
        // Below what is known, too.
        versions.saw_latest(3, fingerprint("b", 3), now);
        versions.learn(1, fingerprint("b", 1));
        assert_eq!(versions.saw_latest(1, fingerprint("c", 1), now), News::AnotherKey);
        assert_eq!(versions.current().map(|(version, _)| version), Some(1));
    }
}
