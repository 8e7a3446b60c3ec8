//! YAML as upstream reads it (`sigs.k8s.io/yaml`, `go.yaml.in/yaml/v2`): the first document, with YAML 1.1's
//! words for true and false, made into JSON.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser, ScalarStyle, StrInput, Tag};

use super::keys;
use super::value::Value;

/// Most values of a document, aliases resolved: upstream also refuses documents that multiply.
const VALUES_MAX: usize = 100_000;

/// Deepest nesting.
const DEPTH_MAX: usize = 100;

/// Where tags like `!!str` are from.
const TAGS: &str = "tag:yaml.org,2002:";

/// Those that change what a scalar is (`resolve.go`, `resolvableTag`); with any other it is text.
const RESOLVED: [&str; 5] = ["bool", "int", "float", "null", "timestamp"];

/// The first document.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let head = text.lines().take_while(|line| line.is_empty() || line.starts_with(['#', '%']));
    for directive in head.filter_map(|line| line.strip_prefix('%')) {
        let mut words = directive.split_whitespace();
        match words.next() {
            Some("TAG") => {}
            Some("YAML") if words.next() == Some("1.1") => {}
            Some("YAML") => return Err("yaml: found incompatible YAML document".to_owned()),
            _ => return Err("yaml: found unknown directive name".to_owned()),
        }
    }
    let mut composer =
        Composer { events: Parser::new_from_str(text), anchors: BTreeMap::new(), left: VALUES_MAX };
    let document = match composer.next()? {
        None => Value::Null,
        Some(event) => composer.value(event, 0)?,
    };
    if is_json(&document) { Ok(document) } else { Err("json: unsupported value".to_owned()) }
}

/// Whether JSON has a way to write it: it has none for what is not finite. What is overridden does not count.
fn is_json(value: &Value) -> bool {
    match value {
        Value::Float(number) => number.is_finite(),
        Value::List(list) => list.iter().all(is_json),
        Value::Map(map) => map.iter().enumerate().all(|(at, (name, value))| {
            is_json(value) || map[at + 1..].iter().any(|(later, _)| later == name)
        }),
        _ => true,
    }
}

struct Composer<'a> {
    events: Parser<'a, StrInput<'a>>,
    anchors: BTreeMap<usize, Value>,
    left: usize,
}

impl<'a> Composer<'a> {
    /// The next event of the content of the first document.
    fn next(&mut self) -> Result<Option<Event<'a>>, String> {
        loop {
            match self.events.next_event() {
                Some(Err(error)) => return Err(format!("yaml: {error}")),
                None | Some(Ok((Event::StreamEnd | Event::DocumentEnd, _))) => return Ok(None),
                Some(Ok((event, _))) if event.is_node() => return Ok(Some(event)),
                Some(Ok((event @ (Event::SequenceEnd | Event::MappingEnd), _))) => {
                    return Ok(Some(event));
                }
                Some(Ok(_)) => {}
            }
        }
    }

    fn inside(&mut self) -> Result<Event<'a>, String> {
        self.next()?.ok_or_else(|| "yaml: the document ends inside a value".to_owned())
    }

    fn value(&mut self, event: Event<'a>, depth: usize) -> Result<Value, String> {
        if depth > DEPTH_MAX {
            return Err("yaml: exceeded max depth".to_owned());
        }
        self.count(1)?;
        let anchor = event.anchor_id();
        let value = match event {
            Event::Scalar(text, style, _, tag) => scalar(&text, style, tag.as_deref())?,
            Event::SequenceStart(..) => self.list(depth)?,
            Event::MappingStart(..) => self.map(depth)?,
            Event::Alias(id) => {
                let value = self.anchors.get(&id).ok_or("yaml: anchor contains itself")?.clone();
                self.count(size(&value))?;
                value
            }
            _ => return Err("yaml: there is no value where one is expected".to_owned()),
        };
        if let Some(id) = anchor {
            self.anchors.insert(id, value.clone());
        }
        Ok(value)
    }

    fn count(&mut self, values: usize) -> Result<(), String> {
        self.left = self
            .left
            .checked_sub(values)
            .ok_or("yaml: document contains excessive aliasing or is too large")?;
        Ok(())
    }

    fn list(&mut self, depth: usize) -> Result<Value, String> {
        let mut list = Vec::new();
        loop {
            match self.inside()? {
                Event::SequenceEnd => return Ok(Value::List(list)),
                event => list.push(self.value(event, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, String> {
        let mut map = Vec::new();
        loop {
            let event = self.inside()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Value::Map(map));
            }
            let merges =
                matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.value(event, depth + 1)?;
            let event = self.inside()?;
            let value = self.value(event, depth + 1)?;
            if merges {
                merge(value, &mut map)?;
            } else {
                map.push((key_text(key)?, value));
            }
        }
    }
}

fn size(value: &Value) -> usize {
    1 + match value {
        Value::List(list) => list.iter().map(size).sum(),
        Value::Map(map) => map.iter().map(|(_, value)| size(value)).sum(),
        _ => 0,
    }
}

/// `<<`: where it stands, like keys written there; of several maps the first counts most.
fn merge(value: Value, into: &mut Vec<(String, Value)>) -> Result<(), String> {
    const FAULT: &str = "yaml: map merge requires map or sequence of maps as the value";
    match value {
        Value::Map(map) => into.extend(map),
        Value::List(list) => {
            for item in list.into_iter().rev() {
                let Value::Map(map) = item else { return Err(FAULT.to_owned()) };
                into.extend(map);
            }
        }
        _ => return Err(FAULT.to_owned()),
    }
    Ok(())
}

/// JSON's keys are strings.
fn key_text(key: Value) -> Result<String, String> {
    Ok(match key {
        Value::String(text) => text,
        Value::Int(number) => number.to_string(),
        Value::Float(number) if number.is_nan() => ".nan".to_owned(),
        Value::Float(f64::INFINITY) => ".inf".to_owned(),
        Value::Float(f64::NEG_INFINITY) => "-.inf".to_owned(),
        Value::Float(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        other => return Err(format!("unsupported map key of type: {}", other.kind())),
    })
}

/// `resolve.go`: what a scalar without quotes is.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let tag = tag.map(|tag| tag.suffix_in_namespace(TAGS).unwrap_or("other".into()));
    let tag = tag.as_deref();
    if tag == Some("binary") {
        let bytes = keys::bytes(text).ok_or("yaml: !!binary value contains invalid base64 data")?;
        return Ok(Value::String(go_text(&bytes)));
    }
    let is_text = match tag {
        None => style != ScalarStyle::Plain,
        Some(tag) => !RESOLVED.contains(&tag),
    };
    if is_text {
        return Ok(Value::String(text.to_owned()));
    }
    let value = plain(text);
    let fits = matches!(
        (tag, &value),
        (None, _)
            | (Some("null"), Value::Null)
            | (Some("bool"), Value::Bool(_))
            | (Some("int"), Value::Int(_))
            | (Some("float"), Value::Int(_) | Value::Float(_))
            | (Some("timestamp"), Value::String(_))
    );
    if fits { Ok(value) } else { Err(format!("yaml: cannot decode `{text}` by its tag")) }
}

/// Bytes as Go writes them into JSON: U+FFFD for each that is no UTF-8.
fn go_text(bytes: &[u8]) -> String {
    bytes.utf8_chunks().fold(String::new(), |text, chunk| {
        text + chunk.valid() + &"\u{fffd}".repeat(chunk.invalid().len())
    })
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Value::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        ".nan" | ".NaN" | ".NAN" => Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Value::Float(f64::NEG_INFINITY),
        _ if text.starts_with(['+', '-', '.'])
            || text.starts_with(|c: char| c.is_ascii_digit()) =>
        {
            number(text).unwrap_or_else(|| Value::String(text.to_owned()))
        }
        _ => Value::String(text.to_owned()),
    }
}

fn number(text: &str) -> Option<Value> {
    let digits = text.replace('_', "");
    if let Some(number) = integer(&digits) {
        return Some(Value::Int(number));
    }
    let float = digits.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let number: f64 = digits.parse().ok().filter(|number: &f64| float && number.is_finite())?;
    // JSON writes 1000.0 as 1000.
    #[allow(clippy::cast_possible_truncation, reason = "it is an integer below 1e18")]
    Some(if number.fract() == 0.0 && number.abs() < 1e18 {
        Value::Int(number as i128)
    } else {
        Value::Float(number)
    })
}

/// Go's `ParseInt` with base 0: `0x`, `0o`, `0b` and a leading `0` for octal; 64 bits.
fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = if let Some(rest) = lower.strip_prefix("0x") {
        (rest, 16)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (rest, 2)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (rest, 8)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (&lower[1..], 8)
    } else {
        (lower.as_str(), 10)
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let number = sign * i128::from_str_radix(digits, radix).ok()?;
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&number).then_some(number)
}
