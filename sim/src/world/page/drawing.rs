//! The drawing on the page: time from left to right, what is everybody's on top, a lane per node.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::escaped;
use super::lasting::{Row, Span, spans};
use crate::world::history::{Is, KeyState, KmsCall, Record};
use crate::world::judge::Violation;
use crate::world::plan::{Plan, What};
use crate::world::words::{clock, words};

/// Of the drawing, in pixels.
const WIDTH: u64 = 1260;
const LEFT: u64 = 110;
const TOP: u64 = 108;
const LANE: u64 = 156;

/// What is everybody's, from the top.
const EVENTS: u64 = 14;
const KEYS: u64 = 42;
/// Keys that are gone.
const GONE: u64 = 58;
const SERVERS: u64 = 82;

/// Rows of a lane, from its top.
const APISERVER: u64 = 18;
const PLUGIN: u64 = 38;
const WAY: u64 = 58;
const KMS: u64 = 78;
const CALLS: u64 = 108;
const OBJECTS: u64 = 130;

const WELL: &str = "#2e8b57";
const WRONG: &str = "#c62828";
const FAULT: &str = "#f6c177";

/// Keys, one after another.
const KEY_COLOURS: [&str; 6] = ["#4e79a7", "#b07aa1", "#59a14f", "#9c755f", "#76b7b2", "#8067b7"];

pub(super) struct Drawing {
    from: u64,
    to: u64,
    nodes: usize,
    transit: bool,
    text: String,
    /// Colours of keys, by their key_id.
    colours: BTreeMap<String, usize>,
}

impl Drawing {
    pub(super) fn new(plan: &Plan, from: u64, to: u64) -> Self {
        let transit = plan.kms != crate::world::plan::Kms::Simulated;
        let (text, colours) = (String::new(), BTreeMap::new());
        Self { from, to, nodes: plan.nodes, transit, text, colours }
    }

    pub(super) fn draw(mut self, records: &[Record], violation: &Violation) -> String {
        let height = TOP + LANE * count(self.nodes) + 26;
        let _ = writeln!(
            self.text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"system-ui, DejaVu Sans, sans-serif\" font-size=\"11\">"
        );
        self.axis(height);
        for span in spans(records, self.to) {
            self.span(&span);
        }
        let shown = |record: &&Record| (self.from..=self.to).contains(&record.at_ms);
        let shown: Vec<_> = records.iter().filter(shown).collect();
        let mut free = 0;
        for record in &shown {
            if let Is::Event(what) = &record.is {
                self.event(record.at_ms, what, &mut free);
            }
        }
        for record in shown {
            match &record.is {
                Is::Healed => self.everybodys(record.at_ms, EVENTS, "all faults end", "#2e8b57"),
                Is::Keys { changed, .. } => self.gone(record.at_ms, changed),
                _ => self.mark(record),
            }
        }
        self.violation(violation, height);
        self.text + "</svg>"
    }

    /// Where a moment is.
    fn x(&self, at_ms: u64) -> u64 {
        let room = WIDTH - LEFT - 20;
        let at = at_ms.clamp(self.from, self.to) - self.from;
        LEFT + at * room / (self.to - self.from)
    }

    fn axis(&mut self, height: u64) {
        let bottom = height - 22;
        for step in 0..=10 {
            let at = self.from + (self.to - self.from) * step / 10;
            let x = self.x(at);
            let _ = writeln!(
                self.text,
                "<line x1=\"{x}\" y1=\"{}\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"#eee\"/>\
                 <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" fill=\"#777\">{}</text>",
                EVENTS + 10,
                bottom + 16,
                clock(at / 1000 * 1000)
            );
        }
        self.name(EVENTS, "events");
        self.name(KEYS, "keys");
        if self.transit {
            self.name(SERVERS, "transit");
        }
        for node in 0..self.nodes {
            let top = TOP + LANE * count(node);
            let _ = writeln!(
                self.text,
                "<line x1=\"0\" y1=\"{top}\" x2=\"{WIDTH}\" y2=\"{top}\" stroke=\"#bbb\"/>\
                 <text x=\"2\" y=\"{}\" font-size=\"13\" font-weight=\"bold\">node {node}</text>",
                top + 14
            );
            for (row, name) in [
                (APISERVER, "apiserver"),
                (PLUGIN, "plugin"),
                (WAY, "way to it"),
                (KMS, "its KMS"),
                (CALLS, "calls"),
                (OBJECTS, "objects"),
            ] {
                self.name(top + row, name);
                let y = top + row + 6;
                let end = WIDTH - 20;
                let _ = writeln!(
                    self.text,
                    "<line x1=\"{LEFT}\" y1=\"{y}\" x2=\"{end}\" y2=\"{y}\" stroke=\"#f2f2f2\"/>"
                );
            }
        }
    }

    /// The name of a row.
    fn name(&mut self, y: u64, name: &str) {
        let _ = writeln!(
            self.text,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#555\">{name}</text>",
            LEFT - 8,
            y + 10
        );
    }

    /// Which colour a key has: in the order in which they are seen.
    fn colour(&mut self, key_id: &str) -> (&'static str, usize) {
        let next = self.colours.len();
        let number = *self.colours.entry(key_id.to_owned()).or_insert(next);
        (KEY_COLOURS[number % KEY_COLOURS.len()], number)
    }

    fn span(&mut self, span: &Span) {
        let Span { row, from_ms, to_ms, name } = span;
        let of_key = (*row == Row::Keys).then(|| self.colour(name));
        if *to_ms < self.from {
            return;
        }
        let lane = |node: usize| TOP + LANE * count(node);
        let y = match row {
            Row::Plugin(node) => lane(*node) + PLUGIN,
            Row::Way(node) => lane(*node) + WAY,
            Row::Kms(node) => lane(*node) + KMS,
            Row::Servers => SERVERS,
            Row::Keys => KEYS,
        };
        let (fill, ink, label) = match of_key {
            Some((colour, number)) => {
                let version = name.rsplit('-').next().unwrap_or_default();
                (colour, "#fff", format!("key {} (version {version})", number + 1))
            }
            None => (FAULT, "#5a3a00", short(name).to_owned()),
        };
        let (x, end) = (self.x(*from_ms), self.x(*to_ms));
        let width = (end - x).max(2);
        let title = escaped(&format!("{name}, {} to {}", clock(*from_ms), clock(*to_ms)));
        let _ = writeln!(
            self.text,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"14\" rx=\"2\" fill=\"{fill}\">\
             <title>{title}</title></rect>"
        );
        // What has no room for its name has it where the pointer rests.
        let letters = width.saturating_sub(8) / 6;
        if letters >= 5 {
            let label: String =
                label.chars().take(usize::try_from(letters).unwrap_or(usize::MAX)).collect();
            let _ = writeln!(
                self.text,
                "<text x=\"{}\" y=\"{}\" fill=\"{ink}\">{}</text>",
                x + 4,
                y + 11,
                escaped(&label)
            );
        }
    }

    /// An event that does not last, or is everybody's; `free` is where there is room for the next name.
    fn event(&mut self, at: u64, what: &What, free: &mut u64) {
        let x = self.x(at);
        let title = escaped(&format!("{}: {}", clock(at), words(what)));
        if let Some(node) = what.node() {
            let row = match what {
                What::ApiserverRestarted { .. }
                | What::Configured { .. }
                | What::Rewritten { .. }
                | What::Burst { .. } => APISERVER,
                What::Cut { .. } | What::HalfClosed { .. } => WAY,
                _ => return,
            };
            let y = TOP + LANE * count(node) + row;
            let label = match what {
                What::ApiserverRestarted { .. } => "begins anew",
                What::Configured { .. } => "configured",
                What::Rewritten { .. } => "rewrites all",
                What::Burst { .. } => "burst",
                What::HalfClosed { .. } => "half closed",
                _ => "cut",
            };
            let _ = writeln!(
                self.text,
                "<g fill=\"#a60\"><title>{title}</title><text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">▼</text>\
                 <text x=\"{}\" y=\"{}\">{label}</text></g>",
                y + 11,
                x + 8,
                y + 11
            );
            return;
        }
        let name = if x >= *free { what.name() } else { "" };
        let _ = writeln!(
            self.text,
            "<g fill=\"#a60\"><title>{title}</title>\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">▼</text>\
             <text x=\"{}\" y=\"{}\">{name}</text></g>",
            EVENTS + 10,
            x + 8,
            EVENTS + 10
        );
        if !name.is_empty() {
            *free = x + 22 + 6 * count(name.len());
        }
    }

    /// Keys that are gone from now on.
    fn gone(&mut self, at: u64, changed: &[(u64, KeyState)]) {
        let gone = changed.iter().filter(|(_, state)| *state == KeyState::Gone);
        let gone: Vec<_> = gone.map(|(number, _)| (number + 1).to_string()).collect();
        if !gone.is_empty() {
            let text = format!("gone: key {}", gone.join(", "));
            self.everybodys(at, GONE, &text, WRONG);
        }
    }

    /// Something that is everybody's.
    fn everybodys(&mut self, at: u64, row: u64, text: &str, colour: &str) {
        let (x, y) = (self.x(at), row + 10);
        let _ = writeln!(
            self.text,
            "<g fill=\"{colour}\"><title>{}: {text}</title><text x=\"{x}\" y=\"{y}\" \
             text-anchor=\"middle\">▼</text><text x=\"{}\" y=\"{y}\">{text}</text></g>",
            clock(at),
            x + 8
        );
    }

    fn mark(&mut self, record: &Record) {
        let at = record.at_ms;
        let said = |error: &Option<String>| error.clone().unwrap_or_else(|| "ok".to_owned());
        let colour = |error: &Option<String>| if error.is_some() { WRONG } else { WELL };
        match &record.is {
            Is::Called { node, rpc, error, key_id, .. } => {
                let sign = match rpc.as_str() {
                    "Status" => "●",
                    "Encrypt" => "▲",
                    _ => "◆",
                };
                let key_id = key_id.as_deref().unwrap_or_default();
                let text = format!("{rpc}: {} {key_id}", said(error));
                self.sign((*node, CALLS), at, colour(error), sign, &text);
            }
            Is::Kms { node, what, error } => {
                let sign = match what {
                    KmsCall::Observe => "·",
                    KmsCall::Wrap => "▴",
                    KmsCall::Unwrap => "▾",
                };
                let text = format!("KMS {what:?}: {}", said(error));
                // Below what the KMS does.
                self.sign((*node, KMS + 13), at, colour(error), sign, &text);
            }
            Is::Wrote { node, object, key_id, error, .. } => {
                let name = key_id.as_deref().unwrap_or("no key");
                let text = format!("object {object} written under {name}: {}", said(error));
                let colour = match (key_id, error) {
                    (Some(key_id), None) => self.colour(key_id).0,
                    _ => WRONG,
                };
                self.bar((*node, OBJECTS), at, colour, &text);
            }
            Is::Read { node, object, error, same, .. } => {
                let well = error.is_none() && *same;
                let bytes = if error.is_none() && !same { ", other bytes" } else { "" };
                let text = format!("object {object} read: {}{bytes}", said(error));
                let colour = if well { WELL } else { WRONG };
                self.bar((*node, OBJECTS + 10), at, colour, &text);
            }
            Is::Health { node, error: Some(error) } => {
                let text = format!("/healthz: {error}");
                self.sign((*node, APISERVER), at, WRONG, "✕", &text);
            }
            _ => {}
        }
    }

    fn sign(&mut self, (node, row): (usize, u64), at: u64, colour: &str, sign: &str, text: &str) {
        let (x, y) = (self.x(at), TOP + LANE * count(node) + row + 11);
        let title = escaped(&format!("{}: {text}", clock(at)));
        let _ = writeln!(
            self.text,
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" fill=\"{colour}\">{sign}<title>{title}</title></text>"
        );
    }

    fn bar(&mut self, (node, row): (usize, u64), at: u64, colour: &str, text: &str) {
        let (x, y) = (self.x(at), TOP + LANE * count(node) + row);
        // What went wrong is seen among the rest.
        let (width, height) = if colour == WRONG { (3, 10) } else { (2, 8) };
        let title = escaped(&format!("{}: {text}", clock(at)));
        let _ = writeln!(
            self.text,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{colour}\"><title>{title}</title></rect>"
        );
    }

    fn violation(&mut self, violation: &Violation, height: u64) {
        let x = self.x(violation.at_ms);
        let _ = writeln!(
            self.text,
            "<line x1=\"{x}\" y1=\"12\" x2=\"{x}\" y2=\"{}\" stroke=\"{WRONG}\" stroke-width=\"1.5\" \
             stroke-dasharray=\"5 3\"/>\n<text x=\"{}\" y=\"11\" fill=\"{WRONG}\" \
             text-anchor=\"middle\" font-weight=\"bold\">{:?}</text>",
            height - 22,
            x,
            violation.invariant
        );
    }
}

/// Without what the name of the row says.
fn short(name: &str) -> &str {
    let said = ["the plugin's socket ", "the plugin ", "the KMS ", "the way to the plugin "];
    said.iter().find_map(|said| name.strip_prefix(said)).unwrap_or(name)
}

fn count(nodes: usize) -> u64 {
    u64::try_from(nodes).unwrap_or(u64::MAX)
}
