//! EncryptionConfigurations, good and bad: the same verdict, the same fields, the same words.

mod edit;
mod generate;
mod node;
mod pools;

use kleidi_sim::config::{self, ConfigError, FieldError};
use kleidi_sim::version::Version;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::process::Oracle;
use crate::{cases, each};
use edit::{Edit, edit, edited};
use generate::{change, document, style};
use node::Style;

/// Documents whose fields are wrong.
fn configuration() -> impl Strategy<Value = String> {
    (document(), style()).prop_map(|(node, style)| node.written(style))
}

/// Documents that are wrong as such, too.
fn changed() -> impl Strategy<Value = String> {
    (document(), proptest::collection::vec((any::<Index>(), change()), 1..4), style()).prop_map(
        |(mut node, changes, style)| {
            for (at, change) in &changes {
                node.change(at.index(node.size()), change);
            }
            node.written(style)
        },
    )
}

/// Of an element with several kinds upstream shows the keys, or addresses of its memory. The model does not.
fn without_keys(text: &str) -> String {
    let mut parts = text.split("Configuration)(0xc");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown += "Configuration)(";
        shown += config::ADDRESS;
        shown += part.trim_start_matches(|digit: char| digit.is_ascii_hexdigit());
    }
    // Nor does it tell an empty list of keys from none.
    without_secrets(&shown).replace("{\"Keys\":[]}", "{\"Keys\":null}")
}

fn without_secrets(text: &str) -> String {
    const SECRET: &str = "\"Secret\":\"";
    let mut parts = text.split(SECRET);
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut escaped = false;
        let end = part.find(|character| {
            let ends = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            ends
        });
        shown += SECRET;
        shown += "REDACTED";
        shown += &part[end.unwrap_or(part.len())..];
    }
    shown
}

fn compare(
    (by, oracle): (Version, &mut Oracle),
    text: &str,
    reload: bool,
) -> Result<(), TestCaseError> {
    let upstream = oracle.ask(&json!({"do": "config", "text": text, "reload": reload}));
    let model = config::load(text.as_bytes(), by, reload);
    let load = upstream["load"].as_str().map(without_keys);
    match &model {
        Ok(_) => prop_assert!(
            upstream["ok"] == true,
            "{} only upstream refuses\n{}\n{}",
            by,
            text,
            upstream
        ),
        Err(ConfigError::Decode(faults)) => {
            let refused = upstream.get("decode").is_some() || text.is_empty();
            prop_assert!(
                refused,
                "{} only the model cannot decode\n{}\n{:?}\n{}",
                by,
                text,
                faults,
                upstream
            );
        }
        Err(error @ ConfigError::Validate(faults)) => {
            let each = |fault: &FieldError| {
                json!({
                    "field": fault.field, "type": fault.fault.name(), "detail": fault.detail, "text": fault.to_string(),
                })
            };
            let faults: Vec<_> = faults.iter().map(each).collect();
            let mut errors = upstream["errors"].as_array().cloned().unwrap_or_default();
            for error in &mut errors {
                error["text"] = without_keys(error["text"].as_str().unwrap_or_default()).into();
            }
            if load.as_ref().is_some_and(|load| load.contains("invalid host: ParseAddr")) {
                // Of addresses in brackets, which Go has looked at since 1.26, the verdict is compared alone.
                let fields = |faults: &[Value]| -> Vec<_> {
                    faults.iter().map(|f| f["field"].clone()).collect()
                };
                prop_assert_eq!(fields(&faults), fields(&errors), "{}\n{}\n{}", by, text, upstream);
                return Ok(());
            }
            prop_assert_eq!(faults, errors, "{}\n{}\n{}", by, text, upstream);
            prop_assert_eq!(Some(error.to_string()), load, "{}\n{}", by, text);
        }
        Err(error @ ConfigError::Build(_)) => {
            prop_assert!(
                upstream.get("decode").is_none(),
                "{} only upstream cannot decode\n{}\n{}",
                by,
                text,
                upstream
            );
            prop_assert_eq!(Some(error.to_string()), load, "{}\n{}", by, text);
        }
    }
    Ok(())
}

fn alike(texts: impl Strategy<Value = String>, number: u32) {
    let all = (texts, any::<bool>());
    each(|by, oracle| {
        let mut config = cases(number);
        config.max_shrink_iters = 20_000;
        proptest!(config, |((text, reload) in &all)| {
            compare((by, &mut oracle.borrow_mut()), &text, reload)?;
        });
    });
}

#[test]
fn fields_are_accepted_and_refused_alike() {
    alike(configuration(), 1500);
}

#[test]
fn documents_are_decoded_alike() {
    alike(changed(), 1500);
}

/// JSON with a few characters more or less, and YAML with something before or behind it. What is within YAML is not
/// touched: of two parsers of its two versions each has its own idea of what is almost YAML.
#[test]
fn spoilt_texts_are_decoded_alike() {
    let json = (document(), proptest::collection::vec(edit(), 1..3))
        .prop_map(|(node, edits)| edited(node.written(Style::Json), &edits));
    let outside = edit()
        .prop_filter("it is outside", |edit| matches!(edit, Edit::Before(_) | Edit::After(_)));
    let yaml = (prop_oneof![configuration(), changed()], outside)
        .prop_map(|(text, edit)| edited(text, &[edit]));
    alike(prop_oneof![json, yaml], 600);
}
