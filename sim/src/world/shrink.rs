//! A smaller plan that fails alike: fewer events, then less time, then fewer nodes.

use super::judge::{Invariant, judge};
use super::mutant::Mutant;
use super::plan::Plan;
use super::run::run;

/// What a plan does not fulfil; nothing if it cannot be played.
#[must_use]
pub fn broken(plan: &Plan, mutant: Option<Mutant>) -> Vec<Invariant> {
    let records = run(plan, mutant).unwrap_or_default();
    judge(plan, &records).into_iter().map(|violation| violation.invariant).collect()
}

/// The smallest plan that was found which breaks `invariant` too; `tried` is told each time one is smaller.
#[must_use]
pub fn shrink(
    plan: &Plan,
    mutant: Option<Mutant>,
    invariant: Invariant,
    mut smaller: impl FnMut(&Plan),
) -> Plan {
    let mut best = plan.clone();
    let fails = |plan: &Plan| broken(plan, mutant).contains(&invariant);
    let mut accept = |best: &mut Plan, candidate: Plan| {
        let fine = fails(&candidate);
        if fine {
            smaller(&candidate);
            *best = candidate;
        }
        fine
    };
    // Nothing after what failed is needed.
    loop {
        let before = best.clone();
        let mut chunk = best.events.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < best.events.len() {
                let mut candidate = best.clone();
                let end = (at + chunk).min(candidate.events.len());
                candidate.events.drain(at..end);
                if !accept(&mut best, candidate) {
                    at += chunk;
                }
            }
            if chunk == 1 {
                break;
            }
            chunk = chunk.div_ceil(2);
        }
        for lasts_s in [best.lasts_s / 8, best.lasts_s / 2, best.lasts_s * 3 / 4] {
            let mut candidate = Plan { lasts_s, ..best.clone() };
            candidate.events.retain(|event| event.at_ms < lasts_s * 1000);
            if lasts_s >= 60 && accept(&mut best, candidate) {
                break;
            }
        }
        let needed =
            best.events.iter().filter_map(|event| event.what.node()).max().unwrap_or(0) + 1;
        if needed < best.nodes {
            let candidate = Plan { nodes: needed, ..best.clone() };
            accept(&mut best, candidate);
        }
        if best == before {
            return best;
        }
    }
}
