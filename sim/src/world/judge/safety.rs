//! What holds at every moment.

mod objects;

use std::collections::{BTreeMap, VecDeque};

use super::track::{LOOK_MS, Tracks};
use super::{Invariant, Violation};
use crate::world::history::{Is, KeyState, Record};
use crate::world::plan::{Kms, Plan, Trouble, What};

/// How long the client of transit believes that a key wraps and unwraps, in milliseconds.
const PROOF_MS: u64 = 30_000;

/// How long a call may take, in milliseconds.
const CALL_MS: u64 = 3_000;

/// How long the product may be held up at a point of its own, in milliseconds.
const POINT_MS: u64 = 400;

/// How long a plugin has for a call, and a moment, in milliseconds.
const ANSWERS_MS: u64 = 2_600;

/// How long a plugin has to end, with its calls and their answers, in milliseconds.
const ENDS_MS: u64 = 5_600;

pub(super) fn judge(plan: &Plan, records: &[Record]) -> Vec<Violation> {
    let mut judge = Judge {
        plan,
        tracks: Tracks::new(plan),
        told: vec![BTreeMap::new(); plan.nodes],
        names: BTreeMap::new(),
        versions: BTreeMap::new(),
        keys: BTreeMap::new(),
        lost: BTreeMap::new(),
        loses_keys: false,
        ending: vec![VecDeque::new(); plan.nodes],
        found: Vec::new(),
    };
    for record in records {
        judge.record(record);
    }
    judge.all_have_ended(records.last().map_or(0, |record| record.at_ms));
    judge.found
}

/// What a plugin's process has told one entry.
#[derive(Default, Clone)]
struct Told {
    /// All key_ids, in their order.
    key_ids: Vec<String>,
    /// What may be told once more, because the operator has made it current again.
    once_more: Option<String>,
}

struct Judge<'a> {
    plan: &'a Plan,
    tracks: Tracks,
    /// By node, by provider: what its plugin has told since it was started.
    told: Vec<BTreeMap<String, Told>>,
    /// Which version a key_id was seen for.
    names: BTreeMap<String, u64>,
    /// Which key_id a version was seen under.
    versions: BTreeMap<u64, String>,
    /// What has become of each version.
    keys: BTreeMap<u64, KeyState>,
    /// Those that the operator has done away with though they were in use, and when.
    lost: BTreeMap<u64, u64>,
    /// The last event was such.
    loses_keys: bool,
    /// By node: when its processes were asked to end that have not yet.
    ending: Vec<VecDeque<u64>>,
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
                if let What::PluginStopped { node } = what
                    && self.tracks.nodes[*node].plugin
                {
                    self.ending[*node].push_back(at_ms);
                }
                self.tracks.event(at_ms, what);
                if let What::PluginKilled { node } | What::PluginStopped { node } = what {
                    self.told[*node].clear();
                }
                self.loses_keys = matches!(what, What::KeyMadeAnew | What::Restored);
            }
            Is::Keys { current, changed } => self.keys(at_ms, current.as_deref(), changed),
            Is::Healed => {
                self.tracks.heal(at_ms);
                self.loses_keys = false;
            }
            Is::Wrote { .. } => self.wrote(at_ms, is),
            Is::Read { .. } => self.read(at_ms, is),
            Is::Called { .. } => self.called(at_ms, is),
            Is::Health { node, error: Some(error) } if self.tracks.is_settled(*node, at_ms) => {
                let what = format!("apiserver {node} is not healthy: {error}");
                self.violation(at_ms, Invariant::L1, what);
            }
            Is::Ended { node, took_ms } => {
                self.ending[*node].pop_front();
                if *took_ms > ENDS_MS + self.held_up() {
                    let what = format!("plugin {node} took {took_ms} ms to end");
                    self.violation(at_ms, Invariant::L4, what);
                }
            }
            Is::Panicked { what } => self.violation(at_ms, Invariant::NoPanic, what.clone()),
            Is::Shown { at } => {
                self.violation(at_ms, Invariant::S2, format!("a seed can be seen in {at}"));
            }
            Is::Kms { .. }
            | Is::Asked { .. }
            | Is::Refused { .. }
            | Is::Health { .. }
            | Is::Current { .. }
            | Is::Tasks { .. } => {}
        }
    }

    /// Whoever was asked to end has done so.
    fn all_have_ended(&mut self, at_ms: u64) {
        for node in 0..self.ending.len() {
            let Some(asked) = self.ending[node].front() else { continue };
            let what = format!("plugin {node} was asked to end at {} s, and has not", asked / 1000);
            if at_ms > asked + ENDS_MS + self.held_up() {
                self.violation(at_ms, Invariant::L4, what);
            }
        }
    }

    fn called(&mut self, at_ms: u64, is: &Is) {
        let Is::Called { node, provider, rpc, key_id, error, illegal, took_ms } = is else {
            return;
        };
        let began = at_ms.saturating_sub(*took_ms);
        if let Some(why) = illegal {
            let what = format!("kube-apiserver does not take plugin {node}'s {rpc}: {why}");
            self.violation(at_ms, Invariant::S6, what);
        }
        if *took_ms > ANSWERS_MS && self.tracks.is_connected(*node, began) {
            let what = format!("plugin {node} had not answered {rpc} after {took_ms} ms");
            self.violation(at_ms, Invariant::L4, what);
        }
        if rpc == "Status" && error.is_none() {
            self.outage_is_told(*node, began, at_ms, "says ok");
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

    /// How long a plugin may take to notice that its KMS or its key cannot be used, in milliseconds.
    fn noticed(&self) -> u64 {
        let looks = self.plan.period_s * 1000 + LOOK_MS + CALL_MS;
        // What the look of each period does not show, the proof of each half minute does.
        let proof = if self.plan.kms == Kms::Simulated { 0 } else { PROOF_MS };
        looks + proof + self.held_up()
    }

    /// How long the product may be held up between two of its steps, in milliseconds.
    fn held_up(&self) -> u64 {
        if self.plan.points { POINT_MS } else { 0 }
    }

    /// What began then must not go well any more if the KMS has been away for long enough.
    fn outage_is_told(&mut self, node: usize, began: u64, at_ms: u64, does: &str) {
        let track = &self.tracks.nodes[node];
        let noticed = self.noticed();
        let out_of_order = !matches!(track.trouble, Trouble::None | Trouble::WrapsWithPrevious);
        let outages = [
            (out_of_order.then_some(track.trouble_since), format!("{:?}", track.trouble)),
            (track.late_since, "slower than a look".to_owned()),
            (track.unserved_since, "no server within reach".to_owned()),
        ];
        for (since, outage) in outages {
            let Some(since) = since.filter(|since| began > since + noticed) else { continue };
            let since = since / 1000;
            let what = format!(
                "plugin {node} {does}, and its KMS has had trouble ({outage}) since {since} s"
            );
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
        let back = told.key_ids.iter().any(|known| known == key_id)
            && told.once_more.take_if(|again| again == key_id).is_none();
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
