//! The same as [`super::explain`], drawn: a page with a lane per node, for a browser.

use std::fmt::Write as _;

use super::history::{Is, KmsCall, Record};
use super::judge::Violation;
use super::plan::{Gate, Plan, Trouble, What};

/// Of the drawing, in pixels.
const WIDTH: u64 = 1240;
const LEFT: u64 = 130;
const TOP: u64 = 60;
const LANE: u64 = 150;

/// Rows of a lane, from its top.
const PLUGIN: u64 = 22;
const SOCKET: u64 = 44;
const KMS: u64 = 66;
const CALLS: u64 = 94;
const OBJECTS: u64 = 122;

/// A page with what happened from `before_ms` before a violation until a little after it.
#[must_use]
pub fn page(plan: &Plan, records: &[Record], violation: &Violation, before_ms: u64) -> String {
    let from = violation.at_ms.saturating_sub(before_ms);
    let to = violation.at_ms + before_ms / 20 + 1000;
    let drawing = Drawing { from, to, nodes: plan.nodes, text: String::new() };
    let title = escaped(&violation.to_string());
    let svg = drawing.draw(records, violation);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n{LEGEND}\n{svg}\n\
         <p>Seed {}, profile {}, {} events in the plan. Names appear where the pointer rests.</p>\n\
         </body></html>\n",
        plan.seed,
        escaped(&plan.profile),
        plan.events.len(),
    )
}

const STYLE: &str = "body{font:14px system-ui,sans-serif;margin:24px;color:#222;background:#fff}\
h1{font-size:17px;max-width:1240px}p,ul{color:#555}ul{list-style:none;padding:0;display:flex;gap:20px;\
flex-wrap:wrap}i{display:inline-block;width:12px;height:12px;margin-right:6px;border-radius:2px}";

const LEGEND: &str = "<ul><li><i style=\"background:#2e8b57\"></i>went well</li>\
<li><i style=\"background:#c62828\"></i>failed, or went wrong</li>\
<li><i style=\"background:#f0a030\"></i>a fault that the plan makes</li>\
<li><i style=\"background:#9ab\"></i>the plugin runs</li>\
<li>calls: ● Status ▲ Encrypt ◆ Decrypt · looks at the KMS</li><li>objects: ┃ written │ read</li></ul>";

const WELL: &str = "#2e8b57";
const WRONG: &str = "#c62828";
const FAULT: &str = "#f0a030";

/// What lasts on a node: since when, and what it is called.
#[derive(Clone, Default)]
struct Lasting {
    away: Option<u64>,
    gate: Option<(u64, &'static str)>,
    trouble: Option<(u64, String)>,
}

struct Drawing {
    from: u64,
    to: u64,
    nodes: usize,
    text: String,
}

impl Drawing {
    fn draw(mut self, records: &[Record], violation: &Violation) -> String {
        let height = TOP + LANE * count(self.nodes) + 40;
        let _ = writeln!(
            self.text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">"
        );
        self.axis(height);
        let mut lasting = vec![Lasting::default(); self.nodes];
        let to = self.to;
        for record in records.iter().filter(|record| record.at_ms <= to) {
            match &record.is {
                Is::Event(what) => self.event(&mut lasting, record.at_ms, what),
                Is::Healed => {
                    for node in 0..self.nodes {
                        self.end(&mut lasting, node, record.at_ms);
                    }
                }
                _ if record.at_ms >= self.from => self.mark(record),
                _ => {}
            }
        }
        for node in 0..self.nodes {
            self.end(&mut lasting, node, to);
        }
        let x = self.x(violation.at_ms);
        let _ = writeln!(
            self.text,
            "<line x1=\"{x}\" y1=\"{}\" x2=\"{x}\" y2=\"{}\" stroke=\"{WRONG}\" stroke-width=\"2\" \
             stroke-dasharray=\"5 3\"/>\n<text x=\"{x}\" y=\"{}\" fill=\"{WRONG}\" \
             text-anchor=\"end\" font-weight=\"bold\">{:?}</text>\n</svg>",
            TOP - 12,
            height - 36,
            TOP - 16,
            violation.invariant
        );
        self.text
    }

    /// Where a moment is.
    fn x(&self, at_ms: u64) -> u64 {
        let room = WIDTH - LEFT - 20;
        LEFT + at_ms.clamp(self.from, self.to).saturating_sub(self.from) * room
            / (self.to - self.from)
    }

    fn axis(&mut self, height: u64) {
        let bottom = height - 36;
        for step in 0..=10 {
            let at = self.from + (self.to - self.from) * step / 10;
            let x = self.x(at);
            let _ = writeln!(
                self.text,
                "<line x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"#eee\"/>\
                 <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" fill=\"#777\">{} s</text>",
                bottom + 16,
                at / 1000
            );
        }
        for node in 0..self.nodes {
            let top = TOP + LANE * count(node);
            let _ = writeln!(
                self.text,
                "<line x1=\"0\" y1=\"{top}\" x2=\"{WIDTH}\" y2=\"{top}\" stroke=\"#ccc\"/>\
                 <text x=\"4\" y=\"{}\" font-size=\"13\" font-weight=\"bold\">node {node}</text>",
                top + 16
            );
            let names = [
                (PLUGIN, "plugin"),
                (SOCKET, "socket"),
                (KMS, "KMS"),
                (CALLS, "calls"),
                (OBJECTS, "objects"),
            ];
            for (row, name) in names {
                let _ = writeln!(
                    self.text,
                    "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#555\">{name}</text>",
                    LEFT - 8,
                    top + row + 9
                );
            }
            self.bar((node, PLUGIN), (self.from, self.to), "#9ab", "the plugin runs");
        }
    }

    fn event(&mut self, lasting: &mut [Lasting], at: u64, what: &What) {
        let Some(node) = what.node() else {
            // It is everybody's.
            let x = self.x(at);
            if at >= self.from {
                let name = what.name();
                let _ = writeln!(
                    self.text,
                    "<text x=\"{x}\" y=\"{}\" fill=\"{FAULT}\" text-anchor=\"middle\">▼<title>{name}</title></text>\
                     <text x=\"{x}\" y=\"{}\" fill=\"#a60\" text-anchor=\"middle\">{name}</text>",
                    TOP - 2,
                    TOP - 30 + 12 * (at / 1000 % 2)
                );
            }
            return;
        };
        match what {
            What::PluginKilled { .. } | What::PluginStopped { .. } => {
                lasting[node].away.get_or_insert(at);
            }
            What::PluginStarted { .. } => self.end_away(lasting, node, at),
            What::Socket { is, .. } => {
                self.end_gate(lasting, node, at);
                let name = match is {
                    Gate::Open => return,
                    Gate::Missing => "no file",
                    Gate::Refusing => "refuses",
                    Gate::Mute => "says nothing",
                    Gate::Frozen => "hangs",
                };
                lasting[node].gate = Some((at, name));
            }
            What::Kms { does, .. } => {
                self.end_trouble(lasting, node, at);
                if *does != Trouble::None {
                    lasting[node].trouble = Some((at, format!("{does:?}")));
                }
            }
            _ if at >= self.from => {
                let text = format!("■ {}", what.name());
                self.sign((node, SOCKET), at, FAULT, "■", &text);
            }
            _ => {}
        }
    }

    fn end(&mut self, lasting: &mut [Lasting], node: usize, at: u64) {
        self.end_away(lasting, node, at);
        self.end_gate(lasting, node, at);
        self.end_trouble(lasting, node, at);
    }

    fn end_away(&mut self, lasting: &mut [Lasting], node: usize, at: u64) {
        if let Some(since) = lasting[node].away.take() {
            self.bar((node, PLUGIN), (since, at), "#fff", "");
            self.bar((node, PLUGIN), (since, at), FAULT, "the plugin does not run");
        }
    }

    fn end_gate(&mut self, lasting: &mut [Lasting], node: usize, at: u64) {
        if let Some((since, name)) = lasting[node].gate.take() {
            self.bar((node, SOCKET), (since, at), FAULT, name);
        }
    }

    fn end_trouble(&mut self, lasting: &mut [Lasting], node: usize, at: u64) {
        if let Some((since, name)) = lasting[node].trouble.take() {
            self.bar((node, KMS), (since, at), FAULT, &name);
        }
    }

    fn bar(
        &mut self,
        (node, row): (usize, u64),
        (since, until): (u64, u64),
        colour: &str,
        name: &str,
    ) {
        if until < self.from {
            return;
        }
        let (x, y) = (self.x(since), TOP + LANE * count(node) + row);
        let width = (self.x(until) - x).max(2);
        let name = escaped(name);
        let _ = writeln!(
            self.text,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"12\" rx=\"2\" fill=\"{colour}\">\
             <title>{name}, {}–{} s</title></rect>",
            since / 1000,
            until / 1000
        );
        if width > 60 && colour == FAULT {
            let _ = writeln!(
                self.text,
                "<text x=\"{}\" y=\"{}\" fill=\"#422\">{name}</text>",
                x + 4,
                y + 10
            );
        }
    }

    fn mark(&mut self, record: &Record) {
        let at = record.at_ms;
        let colour = |error: &Option<String>| if error.is_some() { WRONG } else { WELL };
        let said = |error: &Option<String>| error.clone().unwrap_or_else(|| "ok".to_owned());
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
                let row = if *what == KmsCall::Observe { KMS } else { KMS + 10 };
                let text = format!("KMS {what:?}: {}", said(error));
                self.sign((*node, row), at, colour(error), "·", &text);
            }
            Is::Wrote { node, object, key_id, error, .. } => {
                let key_id = key_id.as_deref().unwrap_or("no key");
                let text = format!("object {object} written under {key_id}: {}", said(error));
                self.sign((*node, OBJECTS), at, colour(error), "┃", &text);
            }
            Is::Read { node, object, error, same, .. } => {
                let well = error.is_none() && *same;
                let text = format!("object {object} read: {}", said(error));
                self.sign((*node, OBJECTS), at, if well { WELL } else { WRONG }, "│", &text);
            }
            _ => {}
        }
    }

    fn sign(&mut self, (node, row): (usize, u64), at: u64, colour: &str, sign: &str, text: &str) {
        let (x, y) = (self.x(at), TOP + LANE * count(node) + row + 10);
        let _ = writeln!(
            self.text,
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" fill=\"{colour}\">{sign}\
             <title>{}.{:03} s: {}</title></text>",
            at / 1000,
            at % 1000,
            escaped(text)
        );
    }
}

fn count(nodes: usize) -> u64 {
    u64::try_from(nodes).unwrap_or(u64::MAX)
}

/// For HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
