//! What holds at every moment.

use std::collections::BTreeMap;

use super::track::Tracks;
use super::{Invariant, Violation};
use crate::world::history::{Is, KmsCall, Record};
use crate::world::plan::{Kms, Plan, Trouble, What};

/// How long a plugin may take for one look at the KMS, in milliseconds.
const LOOK_MS: u64 = 5_000;

/// How long the client of transit believes that a key wraps and unwraps, in milliseconds.
const PROOF_MS: u64 = 30_000;

/// How long a call may take, in milliseconds.
const CALL_MS: u64 = 3_000;

/// Looks at the KMS per minute beyond those of its period: tries again after a failure come at growing gaps.
const LOOKS_MORE: u64 = 20;

pub(super) fn judge(plan: &Plan, records: &[Record]) -> Vec<Violation> {
    let mut judge = Judge {
        plan,
        tracks: Tracks::new(plan),
        told: vec![BTreeMap::new(); plan.nodes],
        names: BTreeMap::new(),
        found: Vec::new(),
    };
    for record in records {
        judge.record(record);
    }
    judge.found.extend(looks(plan, records));
    judge.found
}

/// What a plugin's process has told one entry.
#[derive(Default, Clone)]
struct Told {
    /// All key_ids, in their order.
    key_ids: Vec<String>,
}

struct Judge<'a> {
    plan: &'a Plan,
    tracks: Tracks,
    /// By node, by provider: what its plugin has told since it was started.
    told: Vec<BTreeMap<String, Told>>,
    /// Which version a key_id was seen for.
    names: BTreeMap<String, u64>,
    found: Vec<Violation>,
}

impl Judge<'_> {
    fn violation(&mut self, at_ms: u64, invariant: Invariant, what: String) {
        self.found.push(Violation { at_ms, invariant, what });
    }

    fn record(&mut self, Record { at_ms, is }: &Record) {
        let at_ms = *at_ms;
        match is {
            Is::Event(what) => {
                self.tracks.event(at_ms, what);
                match what {
                    What::PluginKilled { node } | What::PluginStopped { node } => {
                        self.told[*node].clear();
                    }
                    // What was current then is current again.
                    What::Restored => self.told.iter_mut().for_each(BTreeMap::clear),
                    _ => {}
                }
            }
            Is::Healed => self.heal(at_ms),
            Is::Wrote { .. } => self.wrote(at_ms, is),
            Is::Read { .. } => self.read(at_ms, is),
            Is::Called { node, provider, rpc, key_id, error, took_ms } => {
                let began = at_ms.saturating_sub(*took_ms);
                if rpc == "Status" && error.is_none() {
                    self.outage_is_told(*node, began, at_ms);
                }
                if let (Some(error), "Encrypt") = (error, rpc.as_str())
                    && self.tracks.is_settled(*node, began)
                    && self.tracks.is_settled(*node, at_ms)
                {
                    let what = format!("plugin {node} does not wrap: {error}");
                    self.violation(at_ms, Invariant::S7, what);
                }
                if let (Some(key_id), None) = (key_id, error) {
                    self.told(at_ms, *node, provider, rpc, key_id);
                }
            }
            Is::Kms { .. }
            | Is::Refused { .. }
            | Is::Health { .. }
            | Is::Current { .. }
            | Is::Tasks { .. } => {}
        }
    }

    fn heal(&mut self, at_ms: u64) {
        for node in 0..self.plan.nodes {
            self.tracks.event(at_ms, &What::Kms { node, does: Trouble::None });
            self.tracks.event(at_ms, &What::PluginStarted { node });
        }
        self.tracks.heal(at_ms);
        self.tracks.event(at_ms, &What::OldEnabled);
    }

    fn wrote(&mut self, at_ms: u64, is: &Is) {
        let Is::Wrote { node, object, revision, key_id, wrapped_by, truly, shows, .. } = is else {
            return;
        };
        if revision.is_none() {
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
        if let Some(version) = wrapped_by {
            let known = *self.names.entry(key_id.clone()).or_insert(*version);
            if known != *version {
                let what = format!("{key_id} meant version {known}, and now version {version}");
                self.violation(at_ms, Invariant::S5, what);
            }
        }
    }

    fn read(&mut self, at_ms: u64, is: &Is) {
        let Is::Read { node, object, same, tampered, wrapped_by, usable, error, .. } = is else {
            return;
        };
        let Some(error) = error else {
            if !*same {
                let invariant = if *tampered { Invariant::S10 } else { Invariant::S1 };
                let what = format!("apiserver {node} read other bytes of object {object}");
                self.violation(at_ms, invariant, what);
            }
            return;
        };
        if *tampered {
            return;
        }
        // Who makes the key anew or restores an old one has lost what was wrapped since.
        if !*usable && self.tracks.old_enabled && !self.tracks.lost {
            let version = wrapped_by.unwrap_or_default();
            let what = format!("object {object} needs version {version}, which was destroyed");
            self.violation(at_ms, Invariant::S9, what);
        } else if *usable && self.tracks.is_settled(*node, at_ms.saturating_sub(CALL_MS)) {
            let what = format!("apiserver {node} cannot read object {object}: {error}");
            self.violation(at_ms, Invariant::S7, what);
        }
    }

    fn outage_is_told(&mut self, node: usize, began: u64, at_ms: u64) {
        let track = &self.tracks.nodes[node];
        let out_of_order = !matches!(track.trouble, Trouble::None | Trouble::WrapsWithPrevious);
        let mut noticed = self.plan.period_s * 1000 + LOOK_MS + CALL_MS;
        // What the look of each period does not show, the proof of each half minute does.
        if self.plan.kms != Kms::Simulated {
            noticed += PROOF_MS;
        }
        if out_of_order && began > track.trouble_since + noticed {
            let (trouble, since) = (track.trouble, track.trouble_since / 1000);
            let what = format!(
                "plugin {node} says ok, and its KMS has had trouble ({trouble:?}) since {since} s"
            );
            self.violation(at_ms, Invariant::S8, what);
        }
        if let Some(since) = self.tracks.nobody_serves.filter(|since| began > since + noticed) {
            let since = since / 1000;
            let what =
                format!("plugin {node} says ok, and no server has been well since {since} s");
            self.violation(at_ms, Invariant::S8, what);
        }
    }

    fn told(&mut self, at_ms: u64, node: usize, provider: &str, rpc: &str, key_id: &str) {
        // Two generations of a configuration have connections of their own under one name.
        let track = &self.tracks.nodes[node];
        let alone = track.configured.is_none_or(|at| at_ms > at + 300_000);
        let told = self.told[node].entry(provider.to_owned()).or_default();
        if told.key_ids.last().is_some_and(|last| last == key_id) {
            return;
        }
        let before = told.key_ids.last().cloned().unwrap_or_default();
        let back = told.key_ids.iter().any(|known| known == key_id);
        told.key_ids.push(key_id.to_owned());
        if back && alone {
            let what = format!("plugin {node} told {key_id} again, after {before}");
            self.violation(at_ms, Invariant::S4, what);
        } else if rpc == "Encrypt" && !before.is_empty() && alone {
            let what =
                format!("plugin {node} wrapped with {key_id} after Status had told {before}");
            self.violation(at_ms, Invariant::S4, what);
        }
    }
}

/// Looks at the KMS, by node and minute. A Decrypt of a key that is not known may cost one, and so may any call
/// that fails because of the KMS; its end may fall into the next minute.
fn looks(plan: &Plan, records: &[Record]) -> Vec<Violation> {
    let (mut looks, mut failed) = (BTreeMap::new(), BTreeMap::new());
    for Record { at_ms, is } in records {
        let minute = at_ms / 60_000;
        match is {
            Is::Kms { node, what: KmsCall::Observe, .. } => {
                *looks.entry((*node, minute)).or_insert(0_u64) += 1;
            }
            Is::Called { node, rpc, error: Some(_), .. } if rpc != "Status" => {
                *failed.entry((*node, minute)).or_insert(0_u64) += 1;
            }
            _ => {}
        }
    }
    let failed = |node, minute| failed.get(&(node, minute)).copied().unwrap_or(0);
    let base = 60 / plan.period_s + LOOKS_MORE;
    let mut found = Vec::new();
    for ((node, minute), count) in looks {
        let most = base + failed(node, minute) + failed(node, minute + 1);
        if count > most {
            let what = format!(
                "plugin {node} looked at the KMS {count} times in a minute, at most {most}"
            );
            let (at_ms, invariant) = (minute * 60_000, Invariant::S11);
            found.push(Violation { at_ms, invariant, what });
        }
    }
    found
}
