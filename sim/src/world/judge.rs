//! What must hold of every run, judged by its history alone.
//!
//! Safety holds at every moment, whatever happens; liveness once everything is healed. Each check is a function
//! over the history, so that a run can be judged again later.

mod budget;
mod liveness;
mod safety;
#[cfg(test)]
mod tests;
mod track;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::history::{Is, Record};
use super::plan::Plan;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Invariant {
    /// What is read is what was written, byte for byte.
    S1,
    /// Nothing in clear is stored where a plugin is the first provider, and no seed is seen anywhere.
    S2,
    /// A key_id names the key that wrapped.
    S3,
    /// Status and Encrypt of one process tell one sequence of key_ids, and never go back.
    S4,
    /// A key_id means one key, and a key has one key_id.
    S5,
    /// What a plugin answers is what kube-apiserver takes.
    S6,
    /// Where the key may be used and the KMS answers, every plugin wraps and unwraps.
    S7,
    /// When the KMS or a key cannot be used, Status says so soon, and three minutes later nothing is written.
    S8,
    /// After a migration as the manual has it, the old key is not needed.
    S9,
    /// What was changed or moved in etcd does not decrypt.
    S10,
    /// A plugin does not ask the KMS more often than it may.
    S11,
    /// What has ended leaves nothing behind.
    S12,
    /// Every apiserver is healthy where nothing is wrong, and soon after all is healed.
    L1,
    /// Then everything can be written and read.
    L2,
    /// And all plugins tell the current key.
    L3,
    /// A plugin answers every call by its deadline, and ends by its own when it is asked to.
    L4,
    /// Nothing panics.
    NoPanic,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::S1,
        Self::S2,
        Self::S3,
        Self::S4,
        Self::S5,
        Self::S6,
        Self::S7,
        Self::S8,
        Self::S9,
        Self::S10,
        Self::S11,
        Self::S12,
        Self::L1,
        Self::L2,
        Self::L3,
        Self::L4,
        Self::NoPanic,
    ];

    /// In words.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::S1 => "what is read is what was written",
            Self::S2 => "nothing is stored or said in clear",
            Self::S3 => "a key_id names the key that wrapped",
            Self::S4 => "Status and Encrypt agree, and never go back",
            Self::S5 => "a key_id means one key, and a key has one key_id",
            Self::S6 => "every answer is one that kube-apiserver takes",
            Self::S7 => "every plugin wraps and unwraps with a key that may be used",
            Self::S8 => "an outage of the KMS shows in Status soon, and writes stop",
            Self::S9 => "after a migration the old key is not needed",
            Self::S10 => "what was changed in etcd does not decrypt",
            Self::S11 => "the KMS is not asked more often than it may be",
            Self::S12 => "what has ended leaves nothing behind",
            Self::L1 => "every apiserver is healthy where nothing is wrong",
            Self::L2 => "everything can be written and read where nothing is wrong",
            Self::L3 => "all plugins tell the current key once all is healed",
            Self::L4 => "every call is answered by its deadline",
            Self::NoPanic => "nothing panics",
        }
    }

    /// Whether it is one of those that hold when all is healed, and need not before.
    #[must_use]
    pub fn is_liveness(self) -> bool {
        matches!(self, Self::L1 | Self::L2 | Self::L3 | Self::L4)
    }
}

/// Something that ought not to have happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// When, in milliseconds since the beginning.
    pub at_ms: u64,
    /// What does not hold.
    pub invariant: Invariant,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.at_ms / 1000, self.at_ms % 1000);
        let (name, sentence) = (self.invariant, self.invariant.sentence());
        write!(f, "{seconds}.{millis:03} s: {name:?} ({sentence}): {}", self.what)
    }
}

/// All that does not hold, in the order in which it happened.
#[must_use]
pub fn judge(plan: &Plan, records: &[Record]) -> Vec<Violation> {
    let mut found = safety::judge(plan, records);
    found.extend(liveness::judge(plan, records));
    found.extend(budget::judge(plan, records));
    if !matches!(records.last(), Some(Record { is: Is::Tasks { .. }, .. })) {
        let at_ms = records.last().map_or(0, |record| record.at_ms);
        let what = "the history ends before everything was read again".to_owned();
        found.push(Violation { at_ms, invariant: Invariant::S7, what });
    }
    found.sort_by(|one, other| {
        let key = |violation: &Violation| (violation.at_ms, violation.invariant);
        key(one).cmp(&key(other)).then_with(|| one.what.cmp(&other.what))
    });
    // Some of what holds in the end holds before, too.
    found.dedup();
    found
}

/// Ends of a program beside 0: safety or liveness did not hold, or something panicked.
const SAFETY: u8 = 1;
const LIVENESS: u8 = 4;
const PANIC: u8 = 101;

/// How a program has to end that has found this: 0 if that is nothing.
#[must_use]
pub fn exit_code(found: &[Violation]) -> u8 {
    let invariants = || found.iter().map(|violation| violation.invariant);
    if found.is_empty() {
        0
    } else if invariants().any(|invariant| invariant == Invariant::NoPanic) {
        PANIC
    } else if invariants().all(Invariant::is_liveness) {
        LIVENESS
    } else {
        SAFETY
    }
}
