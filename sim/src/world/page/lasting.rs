//! What lasts: faults from the event that begins them to the one that ends them, and keys while they are current.

use std::collections::BTreeMap;

use crate::world::history::{Is, Record};
use crate::world::plan::{Gate, Machine, Trouble, What};
use crate::world::words::words;

/// Where something is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Row {
    /// Of a node, from its top.
    Plugin(usize),
    /// The way from the apiserver to the plugin.
    Way(usize),
    /// The KMS as this node has it.
    Kms(usize),
    /// Servers of transit.
    Servers,
    /// The keys of all.
    Keys,
}

/// Something that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) row: Row,
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
    pub(super) name: String,
}

/// All that lasts until `end_ms` at most, in the order in which it begins; keys by their number.
pub(super) fn spans(records: &[Record], end_ms: u64) -> Vec<Span> {
    // By where it is and what ends it.
    let mut open: BTreeMap<(Row, u64), (u64, String)> = BTreeMap::new();
    let mut spans = Vec::new();
    let mut change = |at_ms: u64, row: Row, which: u64, name: Option<String>| {
        if let Some((from_ms, name)) = open.remove(&(row, which)) {
            spans.push(Span { row, from_ms, to_ms: at_ms, name });
        }
        if let Some(name) = name {
            open.insert((row, which), (at_ms, name));
        }
    };
    let mut last = Vec::new();
    for Record { at_ms, is } in records.iter().filter(|record| record.at_ms <= end_ms) {
        match is {
            Is::Event(what) => {
                if let Some((row, which, begins)) = fault(what) {
                    change(*at_ms, row, which, begins.then(|| words(what)));
                    last.push((row, which));
                }
            }
            Is::Keys { current: Some(current), .. } => {
                change(*at_ms, Row::Keys, 0, Some(current.clone()));
            }
            Is::Healed => last.drain(..).for_each(|(row, which)| change(*at_ms, row, which, None)),
            _ => {}
        }
    }
    for (row, which) in last.into_iter().chain([(Row::Keys, 0)]) {
        change(end_ms, row, which, None);
    }
    spans.sort_by_key(|span| span.from_ms);
    spans
}

/// Where a fault is, which one it is there, and whether it begins.
fn fault(what: &What) -> Option<(Row, u64, bool)> {
    let number = |server: usize| u64::try_from(server).unwrap_or(u64::MAX);
    Some(match what {
        What::PluginKilled { node } | What::PluginStopped { node } => (Row::Plugin(*node), 0, true),
        What::PluginStarted { node } => (Row::Plugin(*node), 0, false),
        What::Socket { node, is } => (Row::Way(*node), 0, *is != Gate::Open),
        What::Slow { node, delay_ms, piece } => {
            (Row::Way(*node), 1, *delay_ms > 0 || *piece < 1 << 15)
        }
        What::Kms { node, does } => (Row::Kms(*node), 0, *does != Trouble::None),
        What::KmsTakes { node, ms } => (Row::Kms(*node), 1, *ms > 50),
        What::KmsLag { node, ms } => (Row::Kms(*node), 2, *ms > 0),
        What::Route { node, server, is } => {
            (Row::Kms(*node), 3 + number(*server), *is != Gate::Open)
        }
        What::Server { server, is } => (Row::Servers, number(*server), *is != Machine::Up),
        What::OldDisabled | What::OldEnabled => (Row::Servers, 9, *what == What::OldDisabled),
        _ => return None,
    })
}
