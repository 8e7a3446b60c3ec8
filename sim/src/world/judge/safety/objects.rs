//! What is written and read, and what may not be readable.

use std::collections::BTreeMap;

use super::{CALL_MS, Judge};
use crate::world::history::{Is, KeyState};
use crate::world::judge::Invariant;

/// How long may be written after Status was last good, in milliseconds.
const WRITES_MS: u64 = 180_000;

impl Judge<'_> {
    /// What has become of the keys, and whether somebody has done away with them who ought not to.
    pub(super) fn keys(&mut self, at_ms: u64, current: Option<&str>, changed: &[(u64, KeyState)]) {
        for (version, state) in changed {
            self.keys.insert(*version, *state);
            if *state != KeyState::Gone {
                self.lost.remove(version);
            } else if self.loses_keys {
                self.lost.insert(*version, at_ms);
            }
        }
        // What was current then is current again, and may be told again, once.
        if let (true, Some(current)) = (self.loses_keys, current) {
            for told in self.told.iter_mut().flat_map(BTreeMap::values_mut) {
                told.once_more = Some(current.to_owned());
            }
        }
    }

    pub(super) fn wrote(&mut self, at_ms: u64, is: &Is) {
        let Is::Wrote { node, object, revision, key_id, wrapped_by, truly, shows, error } = is
        else {
            return;
        };
        if let Some(error) = error.as_ref().filter(|_| self.tracks.is_settled(*node, at_ms)) {
            let what = format!("apiserver {node} cannot write object {object}: {error}");
            self.violation(at_ms, Invariant::L2, what);
        }
        if revision.is_none() {
            return;
        }
        if key_id.is_none() && self.tracks.may_write_in_clear(*node, at_ms) {
            return;
        }
        let Some(key_id) = key_id.as_ref().filter(|_| !*shows) else {
            let what = format!("object {object} can be seen in what apiserver {node} stored");
            self.violation(at_ms, Invariant::S2, what);
            return;
        };
        if !truly {
            let what = format!(
                "apiserver {node} stored object {object} under {key_id}, but {} wrapped its seed",
                wrapped_by.map_or("nobody".to_owned(), |version| format!("version {version}"))
            );
            self.violation(at_ms, Invariant::S3, what);
        }
        // With a seed of before the outage, and not for longer than that may be used.
        let began = at_ms.saturating_sub(WRITES_MS + CALL_MS);
        self.outage_is_told(*node, began, at_ms, "has its apiserver write");
        if let Some(version) = wrapped_by {
            self.means(at_ms, key_id, *version);
            let stops = self.noticed() + self.tracks.lags_ms + WRITES_MS + CALL_MS;
            if let Some(since) = self.lost.get(version).filter(|since| at_ms > *since + stops) {
                let what = format!(
                    "apiserver {node} writes under {key_id}, which has been lost since {} s",
                    since / 1000
                );
                self.violation(at_ms, Invariant::S8, what);
            }
        }
    }

    /// A key_id is one version's, and a version has one key_id.
    fn means(&mut self, at_ms: u64, key_id: &str, version: u64) {
        let known = *self.names.entry(key_id.to_owned()).or_insert(version);
        if known != version {
            let what = format!("{key_id} meant version {known}, and now version {version}");
            self.violation(at_ms, Invariant::S5, what);
        }
        let name = self.versions.entry(version).or_insert_with(|| key_id.to_owned()).clone();
        if name != key_id {
            let what = format!("version {version} was called {name}, and now {key_id}");
            self.violation(at_ms, Invariant::S5, what);
        }
    }

    pub(super) fn read(&mut self, at_ms: u64, is: &Is) {
        let Is::Read { node, object, same, tampered, wrapped_by, usable, error, .. } = is else {
            return;
        };
        let Some(error) = error else {
            if *tampered {
                let what =
                    format!("apiserver {node} read object {object}, which is not what was stored");
                self.violation(at_ms, Invariant::S10, what);
            } else if !*same {
                let what = format!("apiserver {node} read other bytes of object {object}");
                self.violation(at_ms, Invariant::S1, what);
            }
            return;
        };
        if *tampered {
            return;
        }
        if let (false, Some(version)) = (*usable, wrapped_by) {
            // Barred for now, or lost by who made the key anew or restored an old one: nobody can read it.
            let is_gone = self.keys.get(version).is_none_or(|state| *state == KeyState::Gone);
            if is_gone && !self.lost.contains_key(version) {
                let what = format!("object {object} needs version {version}, which was destroyed");
                self.violation(at_ms, Invariant::S9, what);
            }
        } else if self.tracks.is_settled(*node, at_ms.saturating_sub(CALL_MS)) {
            let what = format!("apiserver {node} cannot read object {object}: {error}");
            self.violation(at_ms, Invariant::S7, what);
        }
    }
}
