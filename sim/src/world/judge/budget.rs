//! How much a plugin asks of its KMS.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::world::history::{Is, KmsCall, Record};
use crate::world::plan::{Plan, What};

/// Looks at the KMS per minute beyond those of its period where there is trouble: tries again after a failure come
/// at growing gaps, anew after each success.
const LOOKS_MORE: u64 = 20;

/// Calls of the KMS per minute beyond what calls of the plugin account for where there is trouble: of apiservers
/// that ended meanwhile.
const CALLS_MORE: u64 = 12;

/// Requests to transit's servers for one look, with the proof that the key wraps and unwraps.
const OF_A_LOOK: u64 = 4;

/// Requests to transit's servers for one seed that is wrapped: encrypt, hmac and decrypt.
const OF_A_WRAP: u64 = 3;

/// Logins and renewals in a quiet minute.
const LOGINS: u64 = 2;

/// And in one where there is trouble: each of twelve looks may try for a second to renew a token that is about to end,
/// with five rounds of three servers, and the five eager seconds of a login have fourteen.
const LOGINS_TROUBLED: u64 = 240;

/// Requests under way at a time in a quiet minute: eight lists of seeds, and as many Encrypts, looks and logins.
const UNDER_WAY: u64 = 16;

/// And where there is trouble: 64 calls that do not travel in lists, and those lists.
const UNDER_WAY_TROUBLED: u64 = 64 + 8;

/// Where there is trouble each request may be made to each of three servers, on two connections, and again.
const TRIES: u64 = 12;

/// Of these, at the same time.
const CONNECTIONS: u64 = 6;

/// What a plugin did, and was asked, in a minute.
#[derive(Debug, Clone, Copy, Default)]
struct Minute {
    looks: u64,
    wraps: u64,
    unwraps: u64,
    /// To transit's servers: for keys, and to be let in.
    requests: u64,
    logins: u64,
    /// Of both, at a time.
    under_way: u64,
    /// Ended in this minute, as all calls.
    encrypts: u64,
    decrypts: u64,
    /// Of these two, those that failed.
    failed: u64,
    /// Changes of the keys.
    changes: u64,
    /// A call of the KMS or of the plugin failed, or something happened that makes them fail or begin anew.
    is_troubled: bool,
}

/// Minutes by node and number.
#[derive(Default)]
struct Minutes(BTreeMap<(usize, u64), Minute>);

impl Minutes {
    fn of(records: &[Record], nodes: usize) -> Self {
        let mut minutes = Self::default();
        for Record { at_ms, is } in records {
            let number = at_ms / 60_000;
            match is {
                Is::Kms { node, what, error } => {
                    let minute = minutes.get(*node, number);
                    match what {
                        KmsCall::Observe => minute.looks += 1,
                        KmsCall::Wrap => minute.wraps += 1,
                        KmsCall::Unwrap => minute.unwraps += 1,
                    }
                    minute.is_troubled |= error.is_some();
                }
                Is::Asked { node, path, under_way } => {
                    let minute = minutes.get(*node, number);
                    minute.under_way = minute.under_way.max(*under_way);
                    if path.starts_with("auth/") {
                        minute.logins += 1;
                    } else {
                        minute.requests += 1;
                    }
                }
                Is::Called { node, rpc, error, .. } if rpc != "Status" => {
                    let minute = minutes.get(*node, number);
                    match rpc.as_str() {
                        "Decrypt" => minute.decrypts += 1,
                        _ => minute.encrypts += 1,
                    }
                    minute.failed += u64::from(error.is_some());
                    minute.is_troubled |= error.is_some();
                }
                Is::Refused { node, .. } => minutes.get(*node, number).is_troubled = true,
                Is::Event(what) if disturbs(what) => {
                    for node in what.node().map_or(0..nodes, |node| node..node + 1) {
                        minutes.get(node, number).is_troubled = true;
                    }
                }
                Is::Keys { .. } => {
                    for node in 0..nodes {
                        minutes.get(node, number).changes += 1;
                    }
                }
                _ => {}
            }
        }
        minutes
    }

    fn get(&mut self, node: usize, number: u64) -> &mut Minute {
        self.0.entry((node, number)).or_default()
    }

    fn at(&self, node: usize, minute: u64) -> Minute {
        self.0.get(&(node, minute)).copied().unwrap_or_default()
    }

    /// Neither this minute nor those around it are troubled; what begins anew may be noticed a minute later.
    fn is_quiet(&self, node: usize, minute: u64) -> bool {
        (minute.saturating_sub(2)..=minute + 1).all(|near| !self.at(node, near).is_troubled)
    }
}

/// Whether calls may fail, or be made again, because of it.
fn disturbs(what: &What) -> bool {
    !matches!(
        what,
        What::Rotated
            | What::Reinstated
            | What::OldDestroyed
            | What::Rewritten { .. }
            | What::Flipped { .. }
            | What::Swapped { .. }
            | What::SeedsSwapped { .. }
            | What::RolledBack { .. }
            | What::Burst { .. }
            | What::BackedUp
    )
}

/// In a quiet minute the KMS is looked at once a period, whatever Status is asked, and once more for a key that is
/// new; and it wraps and unwraps once for each call of the plugin, or for several. Where there is trouble a Decrypt of
/// a key that is not known may cost a look, and so may any call that fails because of the KMS; a call may be made again
/// on another connection, and a Decrypt once more after a look. A call's end may fall into the next minute.
pub(super) fn judge(plan: &Plan, records: &[Record]) -> Vec<Violation> {
    // Then clients are cut off, all is healed, and in the end begun anew.
    let healed = records.iter().rfind(|record| record.is == Is::Healed);
    let healed = healed.map_or(u64::MAX, |record| record.at_ms / 60_000);
    let minutes = Minutes::of(records, plan.nodes);
    let mut found = Vec::new();
    for (&(node, minute), did) in &minutes.0 {
        let before = minutes.at(node, minute.saturating_sub(1));
        let after = minutes.at(node, minute + 1);
        // The first one is a start, too.
        let is_quiet = minute > 0 && minute + 1 < healed && minutes.is_quiet(node, minute);
        let looks = 60 / plan.period_s + 1 + before.changes + did.changes;
        let (encrypts, decrypts) = (did.encrypts + after.encrypts, did.decrypts + after.decrypts);
        let (looks, wraps, unwraps, logins, tries) = if is_quiet {
            (looks, encrypts, decrypts, LOGINS, 1)
        } else {
            let looks = looks + LOOKS_MORE + did.failed + after.failed;
            let (wraps, unwraps) = (2 * encrypts + CALLS_MORE, 4 * decrypts + CALLS_MORE);
            (looks, wraps, unwraps, LOGINS_TROUBLED, TRIES)
        };
        let requests = (looks * OF_A_LOOK + wraps * OF_A_WRAP + unwraps) * tries;
        let asked = [
            ("looked at the KMS", did.looks, looks),
            ("had the KMS wrap", did.wraps, wraps),
            ("had the KMS unwrap", did.unwraps, unwraps),
            ("asked a server", did.requests, requests),
            ("logged in or renewed a token", did.logins, logins),
        ];
        let mut violation = |what| {
            found.push(Violation { at_ms: minute * 60_000, invariant: Invariant::S11, what });
        };
        for (name, times, most) in asked.into_iter().filter(|(_, times, most)| times > most) {
            violation(format!("plugin {node} {name} {times} times in a minute, at most {most}"));
        }
        let most = if is_quiet { UNDER_WAY } else { UNDER_WAY_TROUBLED * CONNECTIONS };
        if did.under_way > most {
            let times = did.under_way;
            violation(format!("plugin {node} had {times} requests under way, at most {most}"));
        }
    }
    found
}
