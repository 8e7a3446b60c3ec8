//! How much a plugin asks of its KMS.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::world::history::{Is, KmsCall, Record};
use crate::world::plan::Plan;

/// Looks at the KMS per minute beyond those of its period: tries again after a failure come at growing gaps.
const LOOKS_MORE: u64 = 20;

/// Calls of the KMS per minute beyond what calls of the plugin account for: of apiservers that ended meanwhile.
const CALLS_MORE: u64 = 12;

pub(super) fn judge(plan: &Plan, records: &[Record]) -> Vec<Violation> {
    let mut found = looks(plan, records);
    found.extend(calls(records));
    found
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

/// Has the KMS wrap at most twice for an Encrypt, and unwrap at most four times for a Decrypt: a call may be made
/// again on another connection, and a Decrypt of a key that is not known is tried again after a look.
fn calls(records: &[Record]) -> Vec<Violation> {
    let (mut asked, mut made) = (BTreeMap::new(), BTreeMap::new());
    for Record { at_ms, is } in records {
        let minute = at_ms / 60_000;
        match is {
            Is::Called { node, rpc, .. } if rpc != "Status" => {
                *asked.entry((*node, minute, rpc == "Decrypt")).or_insert(0_u64) += 1;
            }
            Is::Kms { node, what: what @ (KmsCall::Wrap | KmsCall::Unwrap), .. } => {
                *made.entry((*node, minute, *what == KmsCall::Unwrap)).or_insert(0_u64) += 1;
            }
            _ => {}
        }
    }
    let asked = |node, minute, decrypt| asked.get(&(node, minute, decrypt)).copied().unwrap_or(0);
    let mut found = Vec::new();
    for ((node, minute, unwraps), count) in made {
        let (times, name) = if unwraps { (4, "unwrap") } else { (2, "wrap") };
        let calls = asked(node, minute, unwraps) + asked(node, minute + 1, unwraps);
        let most = calls * times + CALLS_MORE;
        if count > most {
            let what = format!(
                "plugin {node} had the KMS {name} {count} times in a minute, for {calls} calls"
            );
            found.push(Violation { at_ms: minute * 60_000, invariant: Invariant::S11, what });
        }
    }
    found
}
