//! EncryptionConfigurations, good and bad: the same verdict, the same fields, the same words.

use kleidi_sim::config::{self, ConfigError, FieldError};
use kleidi_sim::version::Version;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::json;

use crate::process::Oracle;
use crate::{cases, each};

/// A document, before it is written as YAML or JSON.
#[derive(Debug, Clone)]
enum Node {
    /// A string, in quotes.
    Text(String),
    /// Anything, as it stands.
    Raw(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

/// How a document is written.
#[derive(Debug, Clone, Copy)]
enum Style {
    Json,
    Flow,
    Block,
}

fn text(text: &str) -> Node {
    Node::Text(text.to_owned())
}

fn one_of(texts: &[&'static str]) -> BoxedStrategy<String> {
    select(texts.to_vec()).prop_map(str::to_owned).boxed()
}

fn texts(common: &[&'static str], any: &'static str) -> BoxedStrategy<Node> {
    prop_oneof![9 => one_of(common), 1 => any].prop_map(Node::Text).boxed()
}

/// Scalars that YAML or JSON take for something else, or for nothing.
fn odd() -> BoxedStrategy<Node> {
    let odd = [
        "null",
        "~",
        "true",
        "yes",
        "No",
        "on",
        "y",
        "0",
        "7",
        "-1",
        "+1",
        "1.5",
        "1e3",
        "1e400",
        "0x10",
        "0o7",
        "010",
        "0b11",
        "1_000",
        "9223372036854775808",
        "18446744073709551616",
        "2147483648",
        ".5",
        "5.",
        ".inf",
        ".nan",
        "-.inf",
        "2001-01-01",
        "!!str 7",
        "!!int 7",
        "!!int a",
        "!!float 7",
        "!!bool yes",
        "!!null x",
        "!!binary YQ==",
        "!x 7",
        "!!timestamp 2001-01-01",
        "''",
        "\"\"",
        "'it''s'",
        "\"\\x41\\u0042\\n\"",
        "<<",
        "=",
        "a b",
        "a: b",
        "[]",
        "{}",
        "[[]]",
        "{a: 1}",
        "-",
        "?",
        "*a",
        "&a",
        "&a b",
        "!!set {a}",
        "'7'",
        "1:30",
        "0.0",
        "1.0",
        "0x",
        "0b2",
        "1__0",
        "_1",
        "+.5",
        "1e",
        "a#b",
        "a #b",
        "!",
        "! 7",
        "|",
        ">",
        "@a",
        "`a`",
        "%a",
        "\"a",
        "'a",
        "1.",
        "1.e3",
        "12345678901234567890123",
        "0.1e-2",
        "\u{e9}",
        "\"\u{7f}\"",
        "\u{feff}",
        "",
    ];
    one_of(&odd).prop_map(Node::Raw).boxed()
}

fn maybe(
    name: &'static str,
    of_ten: u32,
    value: BoxedStrategy<Node>,
) -> BoxedStrategy<Option<(String, Node)>> {
    prop_oneof![of_ten => value.prop_map(move |value| Some((name.to_owned(), value))), 10 - of_ten => Just(None)].boxed()
}

fn map(fields: Vec<BoxedStrategy<Option<(String, Node)>>>) -> BoxedStrategy<Node> {
    fields.prop_map(|fields| Node::Map(fields.into_iter().flatten().collect())).boxed()
}

fn list(item: BoxedStrategy<Node>, most: usize) -> BoxedStrategy<Node> {
    let some = proptest::collection::vec(item, 1..=most);
    prop_oneof![30 => some, 1 => Just(vec![])].prop_map(Node::List).boxed()
}

fn endpoint() -> BoxedStrategy<Node> {
    let common = [
        "unix:///run/kms.sock",
        "unix:///@kms",
        "UNIX:/a",
        "unix:",
        "",
        "unix://run/a",
        "unix:rel",
        "tcp://a",
        "http://a:1/b",
        "/a",
        "a",
        "unix:///a?b#c",
        "unix:///b%25c.sock",
        "unix:///%zz",
        "unix:///a%",
        "unix://a:b/c",
        "unix://[::1]/c",
        "unix://[::1/c",
        "unix://a b/c",
        "unix://a%2fb/c",
        "unix://u:p@h/c",
        "unix://a b@c/d",
        ":///a",
        "1:b",
        "unix:///a#%zz",
        "unix://*/a",
        "*",
        "unix:///\u{e4} b",
        "unix:///a\u{7f}",
        "unix://[fe80::1%25en0]/a",
        "unix://[::1]:80/a",
        "unix://a::1/b",
        "unix:///%2525",
        "unix:///%00",
        "unix:///a\n",
        "//a/b",
        "unix://%/a",
        "unix:///%a\u{e4}",
        "unix:///a%3F%23%25zz",
        "unix:///\u{200b}%",
        "unix:a%zz",
        "unix:?%zz",
        "?",
        "#",
        "unix://#%",
        "unix:///a;b,c=d!",
        "unix:///a<b>\"c\\d^e`f{g|h}",
        "unix://a<b>/c",
        "unix://a\"/c",
        "unix://a\\b/c",
        "unix://:1/a",
        "unix://a:/b",
        "unix://a:b:c/d",
        "unix://@/a",
        "unix://%41/a",
        "unix://[::1]b/c",
        "unix://a[b]/c",
        "unix://[1::2%25a%41]/a",
        "unix://u%zz@h/a",
        "unix://u:%zz@h/a",
    ];
    texts(&common, "(unix:)?/{0,4}[a-z@:% ?#0-9\u{e4}/]{0,9}")
}

fn kms() -> BoxedStrategy<Node> {
    let name = texts(&["a", "b", "a", "b", "c", "", "a:b", "a b"], "\\PC{1,4}");
    let version = texts(&["v2", "v2", "v2", "v2", "v2", "v2", "v1", "", "v3", "V2"], "\\PC{0,3}");
    let durations = [
        "3s",
        "1m",
        "0s",
        "-1s",
        "1h2m3.5s",
        "1",
        "0",
        "",
        "s",
        "1x",
        "-0",
        "+1ms",
        ".5s",
        "9223372036854775807ns",
        "9223372036854775808ns",
        "1us",
        "1\u{b5}s",
        "1\u{3bc}s",
        "3 s",
        "1e3s",
        "-.5ns",
        "1.s",
        "..s",
        "2562047h47m16.854775807s",
        "9999999999999999999s",
        "0.3333333333333333333h",
        "1.00000000000000000000000001s",
        "-1ns",
    ];
    let size = prop_oneof![
        select(vec!["1", "0", "-5", "1000", "2147483647", "2147483648", "1.0", "1.5", "null"])
            .prop_map(|raw| Node::Raw(raw.to_owned())),
        odd()
    ]
    .boxed();
    map(vec![
        maybe("apiVersion", 9, version),
        maybe("name", 9, name),
        maybe("endpoint", 9, endpoint()),
        maybe("timeout", 4, texts(&durations, "[-+]?[0-9.]{0,5}(ns|us|ms|s|m|h|d)?")),
        maybe("cachesize", 1, size),
    ])
}

fn keys() -> BoxedStrategy<Node> {
    let secrets = [
        "c2VjcmV0IGlzIHNlY3VyZQ==",
        "c2VjcmV0IGlzIHNlY3VyZSwgb3IgaXMgaXQ/",
        "c2VjcmV0IGlzIHNlY3VyZSwgSSB0aGluaywgaXMgaXQ=",
        "YWJj",
        "",
        "?",
        "YQ",
        "YQ==",
        "YR==",
        "c2VjcmV0IGlz\nIHNlY3VyZQ==",
        "c2VjcmV0IGlzIHNlY3VyZR==",
        "c2VjcmV0IGlzIHNlY3VyZQ=",
        " c2VjcmV0IGlzIHNlY3VyZQ==",
        "c2VjcmV0IGlzIHNlY3VyZQ==\r\n",
        "AAAAAAAAAAAAAAAAAAAAAA==",
        "c2VjcmV0IGlzIHNlY3VyZQ==A",
        "////////////////////////////////////////////",
        "__________________________________________8=",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ];
    let key = map(vec![
        maybe("name", 9, texts(&["k", "key1", "", "a:b", "k"], "\\PC{0,3}")),
        maybe("secret", 9, texts(&secrets, "[A-Za-z0-9+/]{0,44}={0,3}")),
    ]);
    map(vec![maybe("keys", 9, list(key, 3))])
}

fn provider() -> BoxedStrategy<Node> {
    let of = |name: &'static str, value: BoxedStrategy<Node>| {
        value.prop_map(move |value| (name.to_owned(), value)).boxed()
    };
    let kind = prop_oneof![
        6 => of("kms", kms()),
        1 => of("aescbc", keys()),
        1 => of("aesgcm", keys()),
        1 => of("secretbox", keys()),
        3 => of("identity", Just(Node::Map(vec![])).boxed()),
    ]
    .boxed();
    let one = kind.clone().prop_map(|kind| vec![kind]);
    prop_oneof![20 => one, 1 => proptest::collection::vec(kind, 0..4)].prop_map(Node::Map).boxed()
}

fn rule() -> BoxedStrategy<Node> {
    let common = [
        "secrets",
        "configmaps",
        "pods",
        "deployments.apps",
        "secrets",
        "pandas.awesome.bears.example",
        "*.",
        "*.apps",
        "*.*",
        "*",
        "Secrets",
        "apiserveripinfo",
        "serviceipallocations",
        "servicenodeportallocations",
        "events.events.k8s.io",
        "*.events.k8s.io",
        "events",
        "*.extensions",
        "ingresses.extensions",
        "pods.*",
        "pods.",
        "",
        ".",
        "a<b>&c",
        "\u{c4}",
        "\u{1e9e}",
        "\u{130}",
        "a.b.c",
        ".apps",
        "a\u{2028}b",
        "..",
    ];
    map(vec![
        maybe("resources", 9, list(texts(&common, "[a-c*]{0,2}(\\.[a-c*]{0,2})?"), 4)),
        maybe("providers", 9, list(provider(), 3)),
    ])
}

fn document() -> BoxedStrategy<Node> {
    let head = prop_oneof![
        30 => Just(("apiserver.config.k8s.io/v1", "EncryptionConfiguration")),
        2 => Just(("v1", "EncryptionConfig")),
        1 => Just(("v1", "EncryptionConfiguration")),
        1 => Just(("apiserver.config.k8s.io/v1", "EncryptionConfig")),
        1 => select(vec![
            ("apiserver.config.k8s.io/v1alpha1", "EncryptionConfiguration"), ("apiserver.config.k8s.io", "EncryptionConfiguration"), ("a/b/c", "EncryptionConfiguration"), ("", "EncryptionConfiguration"),
            ("apiserver.config.k8s.io/v1", ""), ("/v1", "EncryptionConfig"), ("apiserver.config.k8s.io/", "EncryptionConfiguration"), ("/", "a"), ("apiserver.config.k8s.io/v1", "AuthenticationConfiguration"), ("apiserver.config.k8s.io/v1", "AdmissionConfiguration"), ("v1", "Status"), ("v1", "WatchEvent"), ("v1", "ListOptions"),
        ]),
    ];
    (head, proptest::option::weighted(0.97, list(rule(), 3)))
        .prop_map(|((version, kind), resources)| {
            let mut fields =
                vec![("apiVersion".to_owned(), text(version)), ("kind".to_owned(), text(kind))];
            fields.extend(resources.map(|resources| ("resources".to_owned(), resources)));
            Node::Map(fields)
        })
        .boxed()
}

/// What is done to a document.
#[derive(Debug, Clone)]
enum Change {
    Remove,
    Repeat,
    Becomes(Node),
    Named(String),
    Added(String, Node),
}

fn change() -> impl Strategy<Value = Change> {
    let name = || {
        prop_oneof![
            4 => one_of(&["kms", "name", "Name", "NAME", "endpoint", "timeout", "Timeout", "cachesize", "cacheSize", "apiVersion", "kind", "metadata", "identity", "keys", "secret", "providers", "resources", "aescbc", "Identity"]),
            1 => one_of(&["1", "true", "null", "~", "", "<<", "1.5", "a.b", "\"q\"", "on", "'", "[a]", "? a", "&x y", "1e3", "!!int 3", "0x10", "\u{e9}\\"]),
        ]
    };
    let value =
        || prop_oneof![odd(), kms(), keys(), Just(Node::Map(vec![])), Just(Node::List(vec![]))];
    prop_oneof![
        2 => Just(Change::Remove),
        2 => Just(Change::Repeat),
        4 => value().prop_map(Change::Becomes),
        2 => name().prop_map(Change::Named),
        2 => (name(), value()).prop_map(|(name, value)| Change::Added(name, value)),
    ]
}

impl Node {
    fn size(&self) -> usize {
        1 + match self {
            Self::Text(_) | Self::Raw(_) => 0,
            Self::List(list) => list.iter().map(Self::size).sum(),
            Self::Map(map) => map.iter().map(|(_, value)| value.size()).sum(),
        }
    }

    /// Changes the node with this number, the document itself being 0.
    fn change(&mut self, mut at: usize, change: &Change) {
        if at == 0 {
            match change {
                Change::Becomes(node) => *self = node.clone(),
                Change::Added(name, value) => {
                    if let Self::Map(map) = self {
                        map.push((name.clone(), value.clone()));
                    }
                }
                _ => {}
            }
            return;
        }
        at -= 1;
        match self {
            Self::Text(_) | Self::Raw(_) => {}
            Self::List(list) => {
                for index in 0..list.len() {
                    let size = list[index].size();
                    if at < size {
                        match (at, change) {
                            (0, Change::Remove) => drop(list.remove(index)),
                            (0, Change::Repeat) => list.insert(index, list[index].clone()),
                            _ => list[index].change(at, change),
                        }
                        return;
                    }
                    at -= size;
                }
            }
            Self::Map(map) => {
                for index in 0..map.len() {
                    let size = map[index].1.size();
                    if at < size {
                        match (at, change) {
                            (0, Change::Remove) => drop(map.remove(index)),
                            (0, Change::Repeat) => map.push(map[index].clone()),
                            (0, Change::Named(name)) => map[index].0.clone_from(name),
                            _ => map[index].1.change(at, change),
                        }
                        return;
                    }
                    at -= size;
                }
            }
        }
    }

    fn written(&self, style: Style) -> String {
        let mut text = String::new();
        if matches!(style, Style::Block) {
            self.block(0, &mut text);
        } else {
            self.flow(style, &mut text);
        }
        text
    }

    fn flow(&self, style: Style, out: &mut String) {
        match self {
            Self::Text(text) => *out += &json!(text).to_string(),
            Self::Raw(text) => *out += text,
            Self::List(list) => {
                out.push('[');
                for (index, node) in list.iter().enumerate() {
                    *out += if index == 0 { "" } else { ", " };
                    node.flow(style, out);
                }
                out.push(']');
            }
            Self::Map(map) => {
                out.push('{');
                for (index, (name, node)) in map.iter().enumerate() {
                    *out += if index == 0 { "" } else { ", " };
                    *out += &if matches!(style, Style::Json) {
                        json!(name).to_string()
                    } else {
                        name.clone()
                    };
                    *out += ": ";
                    node.flow(style, out);
                }
                out.push('}');
            }
        }
    }

    /// Lists at the same depth as their name, as people write them.
    fn block(&self, depth: usize, out: &mut String) {
        let pad = " ".repeat(depth);
        match self {
            Self::List(list) if !list.is_empty() => {
                for node in list {
                    *out += &format!("\n{pad}- ");
                    if matches!(node, Self::Map(_)) {
                        let mut inner = String::new();
                        node.block(depth + 2, &mut inner);
                        *out += inner.trim_start();
                    } else {
                        node.block(depth + 2, out);
                    }
                }
            }
            Self::Map(map) if !map.is_empty() => {
                for (name, node) in map {
                    *out += &format!("\n{pad}{name}: ");
                    node.block(if matches!(node, Self::List(_)) { depth } else { depth + 2 }, out);
                }
            }
            _ => self.flow(Style::Flow, out),
        }
    }
}

/// What is done to the text.
#[derive(Debug, Clone)]
enum Edit {
    Insert(Index, &'static str),
    Cut(Index),
    Delete(Index),
    Before(&'static str),
    After(&'static str),
}

fn edit() -> impl Strategy<Value = Edit> {
    let pieces = vec![" ", ":", ": ", " #", ",", "{", "}", "[", "]", "'", "\"", "!!str "];
    let before = vec![
        "---\n",
        "%YAML 1.1\n---\n",
        "%YAML 1.2\n---\n",
        "# c\n",
        "\n",
        " ",
        "--- ",
        "\n\n---\n",
    ];
    let after = vec![
        "\n---\n",
        "\n---\na: b\n",
        "\n...\n",
        "\n# c",
        "\n...\nx",
        "\n[",
        "\nmetadata: {}\n",
        " ",
        "\n---\n]",
        "\u{0}",
    ];
    prop_oneof![
        4 => (any::<Index>(), select(pieces)).prop_map(|(at, piece)| Edit::Insert(at, piece)),
        1 => any::<Index>().prop_map(Edit::Cut),
        2 => any::<Index>().prop_map(Edit::Delete),
        1 => select(before).prop_map(Edit::Before),
        1 => select(after).prop_map(Edit::After),
    ]
}

fn edited(mut text: String, edits: &[Edit]) -> String {
    for edit in edits {
        let mut at = 0;
        if let Edit::Insert(index, _) | Edit::Cut(index) | Edit::Delete(index) = edit {
            at = index.index(text.len() + 1);
            while !text.is_char_boundary(at) {
                at -= 1;
            }
        }
        match edit {
            Edit::Insert(_, piece) => text.insert_str(at, piece),
            Edit::Cut(_) => text.truncate(at),
            Edit::Delete(_) if at < text.len() => drop(text.remove(at)),
            Edit::Delete(_) => {}
            Edit::Before(piece) => text.insert_str(0, piece),
            Edit::After(piece) => text.push_str(piece),
        }
    }
    text
}

fn style() -> impl Strategy<Value = Style> {
    prop_oneof![Just(Style::Flow), Just(Style::Block), Just(Style::Json)]
}

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
        shown += &format!("{SECRET}REDACTED{}", &part[end.unwrap_or(part.len())..]);
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
    alike(configuration(), 3000);
}

#[test]
fn documents_are_decoded_alike() {
    alike(changed(), 3000);
}

#[test]
fn spoilt_texts_are_decoded_alike() {
    let texts = (prop_oneof![configuration(), changed()], proptest::collection::vec(edit(), 1..3));
    alike(texts.prop_map(|(text, edits)| edited(text, &edits)), 3000);
}
