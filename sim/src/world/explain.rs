//! A run for those who were not there: a line per node, a column per while, what happened around a moment.

use std::fmt::Write as _;

use super::history::{Is, KeyState, Record};
use super::judge::Violation;
use super::plan::Plan;
use super::words::words;

/// How long it goes on after what went wrong, in milliseconds.
const AFTER_MS: u64 = 5_000;

/// What happened to each node around a violation, in the order in which it happened: one column per node.
#[must_use]
pub fn timeline(plan: &Plan, records: &[Record], violation: &Violation, before_ms: u64) -> String {
    let from = violation.at_ms.saturating_sub(before_ms);
    let to = violation.at_ms + AFTER_MS;
    let mut text = format!(
        "{violation}\n\n{} nodes, {} events; what follows begins {} s before it.\n\n",
        plan.nodes,
        plan.events.len(),
        (violation.at_ms - from) / 1000
    );
    let width = 40;
    let _ = write!(text, "{:>10}  {:<24}", "seconds", "all");
    for node in 0..plan.nodes {
        let _ = write!(text, "{:<width$}", format!("node {node}"));
    }
    text.push('\n');
    let (mut last, mut times) = (String::new(), 0_u64);
    for record in records.iter().filter(|record| (from..=to).contains(&record.at_ms)) {
        let Some((node, what)) = told(&record.is) else { continue };
        let line = format!("{node:?}{what}");
        if line == last {
            times += 1;
            continue;
        }
        if times > 0 {
            let _ = writeln!(text, "{:>10}  (the same {times} times more)", "");
        }
        (last, times) = (line, 0);
        let seconds = format!("{}.{:03}", record.at_ms / 1000, record.at_ms % 1000);
        let column = node.map_or(0, |node| 24 + node * width);
        let mark = if record.at_ms == violation.at_ms { " ◄" } else { "" };
        let _ = writeln!(text, "{seconds:>10}  {:column$}{what}{mark}", "");
    }
    text
}

/// What to say of a record, and of which node.
fn told(is: &Is) -> Option<(Option<usize>, String)> {
    Some(match is {
        Is::Event(what) => (what.node(), format!("■ {}", words(what))),
        Is::Healed => (None, "■ all is healed".to_owned()),
        Is::Wrote { node, object, error: None, key_id, .. } => {
            let short = key_id.as_deref().map_or("in clear".to_owned(), short);
            (Some(*node), format!("writes {object} under {short}"))
        }
        Is::Wrote { node, object, error: Some(error), .. } => {
            (Some(*node), format!("cannot write {object}: {}", brief(error)))
        }
        Is::Read { node, object, error: None, same, .. } => {
            (Some(*node), format!("reads {object}{}", if *same { "" } else { ": other bytes" }))
        }
        Is::Read { node, object, error: Some(error), .. } => {
            (Some(*node), format!("cannot read {object}: {}", brief(error)))
        }
        Is::Called { node, rpc, error, key_id, .. } => {
            let outcome = match (error, key_id) {
                (Some(error), _) => brief(error),
                (None, Some(key_id)) => short(key_id),
                (None, None) => "ok".to_owned(),
            };
            (Some(*node), format!("{rpc}: {outcome}"))
        }
        Is::Kms { node, what, error } => {
            let outcome = error.as_deref().map_or("ok".to_owned(), brief);
            (Some(*node), format!("  kms {what:?}: {outcome}"))
        }
        Is::Refused { node, server, path, status, said } => {
            (Some(*node), format!("  bao-{server} {path}: {status} {}", brief(said.trim())))
        }
        Is::Health { node, error } => {
            let outcome = error.as_deref().map_or("healthy".to_owned(), brief);
            (Some(*node), format!("/healthz: {outcome}"))
        }
        Is::Keys { current, changed } => {
            let current = current.as_deref().map_or("none".to_owned(), short);
            let of = |state| changed.iter().filter(|(_, is)| *is == state).count();
            let changes = [(KeyState::Gone, "gone"), (KeyState::Barred, "barred")];
            let changes = changes.map(|(state, name)| (of(state), name));
            let told = changes.iter().filter(|(count, _)| *count > 0);
            let told =
                told.fold(String::new(), |text, (count, name)| text + &format!(", {count} {name}"));
            (None, format!("  current key {current}{told}"))
        }
        Is::Ended { node, took_ms } => (Some(*node), format!("  the plugin ended in {took_ms} ms")),
        Is::Panicked { what } => (None, format!("PANIC {}", brief(what))),
        Is::Shown { at } => (None, format!("a seed is seen in {at}")),
        Is::Current { .. } | Is::Tasks { .. } => return None,
    })
}

fn short(key_id: &str) -> String {
    let version = key_id.rsplit('-').next().unwrap_or_default();
    format!("{}…-{version}", key_id.chars().take(6).collect::<String>())
}

fn brief(error: &str) -> String {
    let last = error.rsplit("desc = ").next().unwrap_or(error);
    last.chars().take(72).collect()
}
