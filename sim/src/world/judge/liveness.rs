//! What holds once everything is healed.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::world::history::{Is, Record};
use crate::world::plan::{Kms, Plan};
use crate::world::run::HEALS_IN;

/// Tasks of a node when nothing is under way: of its plugin, ...
const TASKS_OF_PLUGIN: usize = 3;

/// ... of each provider of its apiserver, with both ends of a connection and what carries it between them, ...
const TASKS_OF_PROVIDER: usize = 6;

/// ... and with transit of renewing a token and of up to six connections to the servers, three each.
const TASKS_OF_TRANSIT: usize = 1 + 6 * 3;

/// How many may be left on all nodes.
fn tasks(plan: &Plan) -> usize {
    // Where the configuration has ever been changed it has both providers in the end.
    let providers = if plan.changes_configuration() { 2 } else { 1 };
    let of_transit = match plan.kms {
        Kms::Simulated => 0,
        Kms::Transit | Kms::TransitForwarding => TASKS_OF_TRANSIT,
    };
    (TASKS_OF_PLUGIN + TASKS_OF_PROVIDER * providers + of_transit) * plan.nodes
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
            Is::Tasks { count } if *count > tasks(plan) => {
                (Invariant::S12, format!("{count} tasks are left, at most {}", tasks(plan)))
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
