//! A run for those who were not there, drawn: a page for a browser that says what went wrong, what had happened
//! before, and what each node did meanwhile.

mod drawing;
mod lasting;

use std::fmt::Write as _;

use super::explain::{done, object};
use super::history::{Is, Record};
use super::judge::Violation;
use super::plan::Plan;
use super::words::{clock, roughly, words};
use drawing::Drawing;

/// Events that are listed at most: the last ones.
const EVENTS: usize = 24;

/// A page with what happened from `before_ms` before a violation until a little after it.
#[must_use]
pub fn page(plan: &Plan, records: &[Record], violation: &Violation, before_ms: u64) -> String {
    let from = violation.at_ms.saturating_sub(before_ms);
    let to = violation.at_ms + (violation.at_ms - from) / 12 + 1000;
    let svg = Drawing::new(plan, from, to).draw(records, violation);
    let name = format!("{:?}", violation.invariant);
    let sentence = escaped(violation.invariant.sentence());
    let what = escaped(&violation.what);
    let events = listed(records, violation);
    let object = match escaped(&object(records, violation)) {
        none if none.is_empty() => none,
        story => format!("<h2>What became of the object</h2>\n<pre>{story}</pre>\n"),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{name}: {what}</title>\n\
         <style>{STYLE}</style></head><body>\n\
         <h1><b>{name}</b> does not hold: {sentence}</h1>\n\
         <p class=\"what\">At <b>{}</b> into the run: {what}.</p>\n\
         <h2>What the plan had done before</h2>\n{events}\n\
         {object}<h2>What the nodes did, from {} before it</h2>\n{svg}\n{LEGEND}\n\
         <p>Seed {}, profile {}, {} nodes, {} events in the plan; a look at the KMS each {} s. More is said where the \
         pointer rests.</p>\n\
         </body></html>\n",
        clock(violation.at_ms),
        roughly(violation.at_ms - from),
        plan.seed,
        escaped(&plan.profile),
        plan.nodes,
        plan.events.len(),
        plan.period_s,
    )
}

/// The events before it, the last ones first seen last.
fn listed(records: &[Record], violation: &Violation) -> String {
    let events: Vec<_> = done(records, violation)
        .into_iter()
        .filter_map(|record| match &record.is {
            Is::Event(what) => {
                let to = what.node().map_or("all".to_owned(), |node| format!("node {node}"));
                Some((record.at_ms, to, words(what)))
            }
            Is::Healed => Some((record.at_ms, "all".to_owned(), "all faults end".to_owned())),
            _ => None,
        })
        .collect();
    if events.is_empty() {
        return "<p>Nothing.</p>".to_owned();
    }
    let left_out = events.len().saturating_sub(EVENTS);
    let mut text = "<table>".to_owned();
    if left_out > 0 {
        let _ =
            write!(text, "<tr><td></td><td></td><td></td><td>({left_out} earlier ones)</td></tr>");
    }
    for (at_ms, to, what) in &events[left_out..] {
        let _ = write!(
            text,
            "<tr><td>{}</td><td>{} before</td><td>{to}</td><td>{}</td></tr>",
            clock(*at_ms),
            roughly(violation.at_ms - at_ms),
            escaped(what)
        );
    }
    text + "</table>"
}

const STYLE: &str = "body{font:14px system-ui,sans-serif;margin:24px;color:#222;background:#fff;max-width:1280px}\
h1{font-size:20px;font-weight:normal;margin-bottom:4px}h1 b{color:#c62828}h2{font-size:15px;margin-top:22px}\
.what{font-size:15px;background:#fdecea;border-left:4px solid #c62828;padding:8px 12px}\
table{border-collapse:collapse}td{padding:2px 14px 2px 0;color:#444;white-space:nowrap}\
td:first-child{font-variant-numeric:tabular-nums}td:nth-child(2){color:#888}td:nth-child(3){font-weight:bold}\
p,ul{color:#555}ul{list-style:none;padding:0;display:flex;gap:8px 20px;flex-wrap:wrap}\
i{display:inline-block;width:12px;height:12px;margin-right:6px;border-radius:2px;vertical-align:-1px}";

const LEGEND: &str = "<ul><li><i style=\"background:#2e8b57\"></i>went well</li>\
<li><i style=\"background:#c62828\"></i>failed, or went wrong</li>\
<li><i style=\"background:#f6c177\"></i>a fault that the plan makes, for as long as it lasts</li>\
<li>calls of the plugin: ● Status, ▲ Encrypt, ◆ Decrypt</li>\
<li>KMS: · a look, ▴ wraps, ▾ unwraps</li>\
<li>objects: a bar above is written, in the colour of the key that wrapped; a bar below is read</li>\
<li>keys: the current one, by its number and colour</li></ul>";

/// For HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
