//! What holds once everything is healed.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::world::history::{Is, Record};
use crate::world::plan::{Kms, Plan};
use crate::world::run::HEALS_IN;

/// Tasks of a node when nothing is under way: of its plugin, its apiserver and the connections between.
const TASKS_PER_NODE: usize = 24;

/// Further ones with transit: of connections to three servers and their other ends.
const TASKS_OF_TRANSIT: usize = 24;

fn tasks_per_node(plan: &Plan) -> usize {
    match plan.kms {
        Kms::Simulated => TASKS_PER_NODE,
        Kms::Transit | Kms::TransitForwarding => TASKS_PER_NODE + TASKS_OF_TRANSIT,
    }
}

pub(super) fn judge(plan: &Plan, records: &[Record]) -> Vec<Violation> {
    let mut found = Vec::new();
    let healed = records.iter().rposition(|record| record.is == Is::Healed);
    let Some(healed) = healed else { return found };
    let settled = records[healed].at_ms + u64::try_from(HEALS_IN.as_millis()).unwrap_or(u64::MAX);
    let after = records[healed..].iter().filter(|record| record.at_ms >= settled);
    let mut key_ids = BTreeMap::new();
    for Record { at_ms, is } in after {
        let (invariant, what) = match is {
            Is::Health { node, error: Some(error) } => {
                (Invariant::L1, format!("apiserver {node} is not healthy: {error}"))
            }
            Is::Wrote { node, object, error: Some(error), .. } => {
                (Invariant::L2, format!("apiserver {node} cannot write object {object}: {error}"))
            }
            Is::Read {
                node, object, error: Some(error), tampered: false, usable: true, ..
            } => (Invariant::S7, format!("apiserver {node} cannot read object {object}: {error}")),
            Is::Tasks { count } if *count > tasks_per_node(plan) * plan.nodes => {
                (Invariant::S12, format!("{count} tasks are left"))
            }
            Is::Wrote { node, key_id: Some(key_id), error: None, .. } => {
                key_ids.insert(*node, (*at_ms, key_id.clone()));
                continue;
            }
            _ => continue,
        };
        found.push(Violation { at_ms: *at_ms, invariant, what });
    }
    let current = records.iter().rev().find_map(|record| match &record.is {
        Is::Current { key_id } => key_id.clone(),
        _ => None,
    });
    let Some(current) = current else { return found };
    for (node, (at_ms, key_id)) in key_ids.into_iter().filter(|(_, (_, key_id))| *key_id != current)
    {
        let what = format!("apiserver {node} writes under {key_id}, and {current} is current");
        found.push(Violation { at_ms, invariant: Invariant::L3, what });
    }
    found
}
