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

/// How long another key under a known number has to be the only one that is seen before it is believed:
/// until then it may be another cluster's, behind one of the addresses.
const DOUBTED_FOR: Duration = Duration::from_secs(15);

/// How often, besides.
const DOUBTED_TIMES: u32 = 3;

/// What is known of the key.
#[derive(Debug, Default)]
pub(super) struct Versions {
    /// Those that were current once.
    known: BTreeMap<u64, Fingerprint>,
    current: Option<u64>,
    /// Since when and how often the latest version was lower than the current one.
    lower: Option<(Instant, u32)>,
    /// A higher version than the current one, and when it was first seen.
    higher: Option<(u64, Fingerprint, Instant)>,
    /// Another key that has been seen, since when, and how often.
    doubted: Option<(Fingerprint, Instant, u32)>,
}

/// What an observation of the latest version means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing new.
    Same,
    /// A version that was not there before: it is for the caller to make sure that the one before is
    /// still the `known` key, and then to say [`Versions::become_current`] or [`Versions::doubt`].
    Higher {
        /// The current version.
        than: u64,
        /// What it is recognised by.
        known: Fingerprint,
    },
    /// A node that is behind; the current version stays.
    Behind,
    /// Another key of the same name, not believed yet.
    Doubtful,
    /// Another key of the same name: made anew, or restored.
    AnotherKey,
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
            return self.doubt(version, fingerprint, now);
        }
        let before = self.current.and_then(|current| Some((current, *self.known.get(&current)?)));
        match before {
            Some((current, known)) if version > current => News::Higher { than: current, known },
            Some((current, _)) if version < current => {
                let (since, times) = self.lower.get_or_insert((now, 0));
                *times += 1;
                if *times < LOWER_TIMES || now.duration_since(*since) <= LOWER_AFTER {
                    // Not remembered: it may be another cluster's.
                    return News::Behind;
                }
                // A backup has been restored: the later versions are gone.
                self.known.retain(|known, _| *known <= version);
                self.become_current(version, fingerprint);
                News::AnotherKey
            }
            _ => {
                self.become_current(version, fingerprint);
                News::Same
            }
        }
    }

    /// Takes in another key under the number of a known one; it is believed when no other was seen for a
    /// while.
    pub(super) fn doubt(&mut self, version: u64, fingerprint: Fingerprint, now: Instant) -> News {
        let (since, times) = match self.doubted {
            Some((doubted, since, times)) if doubted == fingerprint => (since, times + 1),
            _ => (now, 1),
        };
        if times < DOUBTED_TIMES || now.duration_since(since) < DOUBTED_FOR {
            self.doubted = Some((fingerprint, since, times));
            return News::Doubtful;
        }
        self.known.clear();
        self.become_current(version, fingerprint);
        News::AnotherKey
    }

    /// When this version, which is higher than the current one, was first seen: now, unless it was before.
    pub(super) fn known_since(&mut self, version: u64, fingerprint: Fingerprint) -> Instant {
        match self.higher {
            Some((seen, same, since)) if (seen, same) == (version, fingerprint) => since,
            _ => {
                let now = Instant::now();
                self.higher = Some((version, fingerprint, now));
                now
            }
        }
    }

    /// From now on this is the current version.
    pub(super) fn become_current(&mut self, version: u64, fingerprint: Fingerprint) {
        self.known.insert(version, fingerprint);
        self.current = Some(version);
        self.lower = None;
        self.higher = None;
        self.doubted = None;
    }

    /// What a version is recognised by, if it was current once.
    pub(super) fn fingerprint(&self, version: u64) -> Option<Fingerprint> {
        self.known.get(&version).copied()
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
    fn id(&self, version: u64) -> Option<KeyId> {
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

    /// Versions of the key "a", which are believed, or of another, which is not.
    fn see(versions: &mut Versions, key: &str, version: u64, now: Instant) -> News {
        let fingerprint = fingerprint(key, version);
        let news = versions.saw_latest(version, fingerprint, now);
        if key == "a" && matches!(news, News::Higher { .. }) {
            versions.become_current(version, fingerprint);
        }
        news
    }

    #[test]
    fn a_rotation_moves_on_and_a_node_behind_does_not_move_back() {
        let (mut versions, now) = (Versions::default(), Instant::now());
        let mut saw = |version, seconds| {
            let news = see(&mut versions, "a", version, now + Duration::from_secs(seconds));
            (news, versions.current().map(|(version, _)| version))
        };
        assert_eq!(saw(1, 0), (News::Same, Some(1)));
        let known = fingerprint("a", 1);
        assert_eq!(saw(2, 10), (News::Higher { than: 1, known }, Some(2)));
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

    /// It may be another cluster's: what is remembered is compared with.
    #[test]
    fn what_is_behind_is_not_remembered() {
        let (mut versions, now) = (Versions::default(), Instant::now());
        assert_eq!(see(&mut versions, "a", 2, now), News::Same);
        assert_eq!(see(&mut versions, "b", 1, now), News::Behind);
        assert_eq!(versions.fingerprint(1), None);
        assert_eq!(see(&mut versions, "a", 1, now), News::Behind);
        assert_eq!(versions.others().count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_higher_version_is_known_since_it_was_first_seen() {
        let mut versions = Versions::default();
        see(&mut versions, "a", 1, Instant::now());
        let first = versions.known_since(2, fingerprint("a", 2));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(versions.known_since(2, fingerprint("a", 2)), first);
        assert_eq!(versions.known_since(3, fingerprint("a", 3)), Instant::now());
        assert_eq!(versions.known_since(2, fingerprint("a", 2)), Instant::now());
        versions.become_current(2, fingerprint("a", 2));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(versions.known_since(2, fingerprint("a", 2)), Instant::now());
    }

    #[test]
    fn another_key_is_believed_when_it_is_the_only_one_for_a_while() {
        let (mut versions, now) = (Versions::default(), Instant::now());
        let mut saw = |key, version, seconds| {
            let news = see(&mut versions, key, version, now + Duration::from_secs(seconds));
            (news, versions.current().unwrap().1)
        };
        let (_, old) = saw("a", 1, 0);
        // Behind a balancer of two clusters neither is ever believed but the first.
        for seconds in (1..100).step_by(2) {
            assert_eq!(saw("b", 1, seconds), (News::Doubtful, old.clone()));
            assert_eq!(saw("a", 1, seconds + 1), (News::Same, old.clone()));
        }
        assert_eq!(saw("b", 1, 101), (News::Doubtful, old.clone()));
        assert_eq!(saw("b", 1, 102), (News::Doubtful, old.clone()));
        assert_eq!(saw("b", 1, 115), (News::Doubtful, old.clone()));
        let (news, new) = saw("b", 1, 116);
        assert_eq!(news, News::AnotherKey);
        assert_ne!(old, new);
        assert_eq!((versions.find(&old), versions.find(&new)), (None, Some(1)));
        assert_eq!(versions.others().count(), 0, "what was known of the other is forgotten");
    }

    #[test]
    fn another_key_with_a_higher_number_is_doubted_too() {
        let (mut versions, now) = (Versions::default(), Instant::now());
        see(&mut versions, "a", 1, now);
        let (_, old) = versions.current().unwrap();
        let doubt = |versions: &mut Versions, seconds| {
            let at = now + Duration::from_secs(seconds);
            let known = fingerprint("a", 1);
            assert_eq!(see(versions, "b", 5, at), News::Higher { than: 1, known });
            versions.doubt(5, fingerprint("b", 5), at)
        };
        assert_eq!(doubt(&mut versions, 1), News::Doubtful);
        assert_eq!(doubt(&mut versions, 2), News::Doubtful);
        assert_eq!(versions.current().unwrap().1, old);
        assert_eq!(doubt(&mut versions, 20), News::AnotherKey);
        assert_eq!(versions.current().unwrap().0, 5);
        assert_eq!(versions.find(&old), None);
    }
}
