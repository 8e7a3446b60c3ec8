//! Documents, good and bad, and what is done to them.

use proptest::prelude::*;
use proptest::sample::select;

use super::node::{Change, Node, Style};
use super::pools;

pub fn text(text: &str) -> Node {
    Node::Text(text.to_owned())
}

pub fn one_of(texts: &[&'static str]) -> BoxedStrategy<String> {
    select(texts.to_vec()).prop_map(str::to_owned).boxed()
}

pub fn texts(common: &[&'static str], any: &'static str) -> BoxedStrategy<Node> {
    prop_oneof![9 => one_of(common), 1 => any].prop_map(Node::Text).boxed()
}

/// Scalars that YAML or JSON take for something else, or for nothing.
pub fn odd() -> BoxedStrategy<Node> {
    one_of(pools::ODD).prop_map(Node::Raw).boxed()
}

pub fn maybe(
    name: &'static str,
    of_ten: u32,
    value: BoxedStrategy<Node>,
) -> BoxedStrategy<Option<(String, Node)>> {
    prop_oneof![of_ten => value.prop_map(move |value| Some((name.to_owned(), value))), 10 - of_ten => Just(None)].boxed()
}

pub fn map(fields: Vec<BoxedStrategy<Option<(String, Node)>>>) -> BoxedStrategy<Node> {
    fields.prop_map(|fields| Node::Map(fields.into_iter().flatten().collect())).boxed()
}

pub fn list(item: BoxedStrategy<Node>, most: usize) -> BoxedStrategy<Node> {
    let some = proptest::collection::vec(item, 1..=most);
    prop_oneof![30 => some, 1 => Just(vec![])].prop_map(Node::List).boxed()
}

pub fn endpoint() -> BoxedStrategy<Node> {
    texts(pools::ENDPOINTS, "(unix:)?/{0,4}[a-z@:% ?#0-9\u{e4}/]{0,9}")
}

pub fn kms() -> BoxedStrategy<Node> {
    let name = texts(&["a", "b", "a", "b", "c", "", "a:b", "a b"], "\\PC{1,4}");
    let version = texts(&["v2", "v2", "v2", "v2", "v2", "v2", "v1", "", "v3", "V2"], "\\PC{0,3}");
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
        maybe("timeout", 4, texts(pools::DURATIONS, "[-+]?[0-9.]{0,5}(ns|us|ms|s|m|h|d)?")),
        maybe("cachesize", 1, size),
    ])
}

pub fn keys() -> BoxedStrategy<Node> {
    let key = map(vec![
        maybe("name", 9, texts(&["k", "key1", "", "a:b", "k"], "\\PC{0,3}")),
        maybe("secret", 9, texts(pools::SECRETS, "[A-Za-z0-9+/]{0,44}={0,3}")),
    ]);
    map(vec![maybe("keys", 9, list(key, 3))])
}

pub fn provider() -> BoxedStrategy<Node> {
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

pub fn rule() -> BoxedStrategy<Node> {
    map(vec![
        maybe("resources", 9, list(texts(pools::RESOURCES, "[a-c*]{0,2}(\\.[a-c*]{0,2})?"), 4)),
        maybe("providers", 9, list(provider(), 3)),
    ])
}

pub fn document() -> BoxedStrategy<Node> {
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

pub fn change() -> impl Strategy<Value = Change> {
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

pub fn style() -> impl Strategy<Value = Style> {
    prop_oneof![Just(Style::Flow), Just(Style::Block), Just(Style::Json)]
}
