//! A run for those who were not there: what the plan did, what became of the object that it is about, and what
//! happened around the moment, a column per node. What goes as it always does is counted.

mod routine;

use std::fmt::Write as _;

use super::history::{Is, KeyState, Record};
use super::judge::Violation;
use super::plan::Plan;
use super::words::words;
use routine::{Known, Routine};

/// How long it goes on after what went wrong, in milliseconds.
const AFTER_MS: u64 = 5_000;

/// Events of the plan that are told at most, the last ones.
const EVENTS: usize = 40;

/// Width of a node's column.
const WIDTH: usize = 40;

/// What happened until a violation, and around it.
#[must_use]
pub fn timeline(plan: &Plan, records: &[Record], violation: &Violation, before_ms: u64) -> String {
    let mut text = format!("{violation}\n\n");
    text += &events(plan, records, violation);
    text += &object(records, violation);
    let from = violation.at_ms.saturating_sub(before_ms);
    let seconds = (violation.at_ms - from) / 1000;
    let _ = writeln!(text, "From {seconds} s before it:\n");
    let _ = write!(text, "{:>10}  {:<24}", "seconds", "all");
    for node in 0..plan.nodes {
        let _ = write!(text, "{:<WIDTH$}", format!("node {node}"));
    }
    text.push('\n');
    let (mut known, mut routine) = (Known::default(), Routine::default());
    let (mut last, mut times) = (String::new(), 0_u64);
    for record in records.iter().filter(|record| record.at_ms <= violation.at_ms + AFTER_MS) {
        let as_before = known.has(&record.is);
        if record.at_ms < from {
            continue;
        }
        if as_before {
            routine.count(&record.is);
            continue;
        }
        let Some((node, what)) = told(&record.is) else { continue };
        let line = format!("{node:?}{what}");
        if line == last && routine.is_empty() {
            times += 1;
            continue;
        }
        text += &again(times);
        text += &routine.take();
        (last, times) = (line, 0);
        let column = node.map_or(0, |node| 24 + node * WIDTH);
        let mark = if record.at_ms == violation.at_ms { " ◄" } else { "" };
        let _ = writeln!(text, "{}  {:column$}{what}{mark}", seconds_of(record), "");
    }
    text + &again(times) + &routine.take()
}

/// A line for those that were as the one before.
fn again(times: u64) -> String {
    if times == 0 {
        return String::new();
    }
    format!("{:>10}  (the same {times} times more)\n", "")
}

fn seconds_of(record: &Record) -> String {
    format!("{:>10}", format!("{}.{:03}", record.at_ms / 1000, record.at_ms % 1000))
}

/// What the plan did until then, and that all faults ended.
pub(super) fn done<'a>(records: &'a [Record], violation: &Violation) -> Vec<&'a Record> {
    let before = records.iter().filter(|record| record.at_ms <= violation.at_ms);
    before.filter(|record| matches!(record.is, Is::Event(_) | Is::Healed)).collect()
}

/// The last of it.
fn events(plan: &Plan, records: &[Record], violation: &Violation) -> String {
    let all = done(records, violation);
    let mut text = format!(
        "{} nodes ({}). Until then the plan did:\n\n",
        plan.nodes,
        plan.versions.join(", ")
    );
    if all.len() > EVENTS {
        let _ = writeln!(text, "{:>10}  … {} events before", "", all.len() - EVENTS);
    }
    for record in &all[all.len().saturating_sub(EVENTS)..] {
        if let Some((node, what)) = told(&record.is) {
            let node = node.map(|node| format!(" (node {node})")).unwrap_or_default();
            let _ = writeln!(text, "{}  {what}{node}", seconds_of(record));
        }
    }
    text + "\n"
}

/// What became of the object that was read or written then, if one was.
pub(super) fn object(records: &[Record], violation: &Violation) -> String {
    let then = records.iter().filter(|record| record.at_ms == violation.at_ms);
    let about = then.filter_map(|record| match &record.is {
        Is::Read { object, error, same, .. } if error.is_some() || !same => Some(*object),
        Is::Wrote { object, error, truly, shows, .. } if error.is_some() || !truly || *shows => {
            Some(*object)
        }
        _ => None,
    });
    let Some(about) = about.min() else { return String::new() };
    let before = records.iter().filter(|record| record.at_ms <= violation.at_ms);
    let is_it = |is: &Is| match is {
        Is::Wrote { object, .. } | Is::Read { object, .. } => *object == about,
        _ => false,
    };
    let mut text = format!("Object {about} until then, the last of each node and kind:\n\n");
    let mut seen = Vec::new();
    let mut lines = Vec::new();
    for record in before.filter(|record| is_it(&record.is)).rev() {
        let Some((Some(node), what)) = told(&record.is) else { continue };
        let kind = (node, what.split(' ').take(2).collect::<Vec<_>>().join(" "));
        if !seen.contains(&kind) {
            seen.push(kind);
            lines.push(format!("{}  node {node} {what}\n", seconds_of(record)));
        }
    }
    lines.iter().rev().for_each(|line| text += line);
    text + "\n"
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
        Is::Asked { .. } | Is::Current { .. } | Is::Tasks { .. } => return None,
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
