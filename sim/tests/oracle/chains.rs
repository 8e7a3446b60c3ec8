//! Chains of providers: what one writes the other reads, whole and spoilt, with the same verdict and words.

use std::time::Duration;

use kleidi_proto::kms::{EncryptResponse, StatusResponse};
use kleidi_sim::cache::Cache;
use kleidi_sim::config::{self, GroupResource, Plan};
use kleidi_sim::envelope::Read;
use kleidi_sim::probe::Probe;
use kleidi_sim::time::Time;
use kleidi_sim::transform::{Chain, Entry, Next, RANDOM_BYTES};
use kleidi_sim::version::Version;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::process::{Oracle, bytes, hex};
use crate::{cases, each};

const NOW: Time = Time(Duration::from_secs(1_800_000_000));

/// A provider as it stands in a file.
#[derive(Debug, Clone)]
enum Provider {
    Identity,
    /// Its kind, and names and contents of its keys.
    Keyed(&'static str, Vec<(&'static str, u8)>),
    Kms(&'static str),
}

fn provider() -> impl Strategy<Value = Provider> {
    let names = select(vec!["k", "key", "k:a", "a", "k"]);
    let keys = proptest::collection::vec((names, 0..3_u8), 1..4);
    prop_oneof![
        2 => Just(Provider::Identity),
        6 => (select(vec!["aescbc", "aesgcm", "secretbox"]), keys).prop_map(|(kind, keys)| Provider::Keyed(kind, keys)),
        2 => select(vec!["a", "b"]).prop_map(Provider::Kms),
    ]
}

/// Providers of `secrets`, in one rule or two.
fn chain() -> impl Strategy<Value = Vec<Provider>> {
    proptest::collection::vec(provider(), 1..5).prop_map(|mut chain| {
        // Names of plugins are unique.
        let mut names = Vec::new();
        chain.retain(|provider| match provider {
            Provider::Kms(name) if names.contains(name) => false,
            Provider::Kms(name) => {
                names.push(*name);
                true
            }
            _ => true,
        });
        chain
    })
}

/// Key material: 32 bytes, or fewer for what takes fewer.
fn material(kind: &str, content: u8) -> &'static str {
    match (kind, content) {
        (_, 0) => "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        ("secretbox", _) => "c2VjcmV0IGlzIHNlY3VyZSwgSSB0aGluaywgaXMgaXQ=",
        (_, 1) => "c2VjcmV0IGlzIHNlY3VyZQ==",
        _ => "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB",
    }
}

fn file(chain: &[Provider], second: usize) -> String {
    let provider = |provider: &Provider| match provider {
        Provider::Identity => json!({"identity": {}}),
        Provider::Keyed(kind, keys) => {
            let keys: Vec<_> = keys
                .iter()
                .map(|(name, content)| json!({"name": name, "secret": material(kind, *content)}))
                .collect();
            json!({*kind: {"keys": keys}})
        }
        Provider::Kms(name) => {
            json!({"kms": {"apiVersion": "v2", "name": name, "endpoint": "unix:///a"}})
        }
    };
    let (first, second) = chain.split_at(second.clamp(1, chain.len()));
    let rules: Vec<_> = [first, second]
        .iter()
        .filter(|providers| !providers.is_empty())
        .map(|providers| json!({"resources": ["secrets"], "providers": providers.iter().map(provider).collect::<Vec<_>>()}))
        .collect();
    json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": rules})
        .to_string()
}

/// The entries of a plan, as the oracle's plugins have them: key_id `1`, wrapped by appending.
fn entries(plan: &Plan, by: Version) -> Vec<Entry> {
    let entry = |plugin: &config::Plugin| {
        let mut probe = Probe::new(&plugin.name, by);
        let healthy =
            StatusResponse { version: "v2".into(), healthz: "ok".into(), key_id: "1".into() };
        probe.status(NOW, Ok(healthy));
        let seed = [7; 32];
        let wrapped = EncryptResponse {
            ciphertext: [b"wrapped:".as_slice(), &seed].concat(),
            key_id: "1".to_owned(),
            annotations: std::collections::BTreeMap::new(),
        };
        assert_eq!(
            probe.encrypt(NOW, &seed, "uid", Ok(wrapped)),
            kleidi_sim::probe::Step::Done(Ok(()))
        );
        Entry { probe, cache: Cache::default() }
    };
    plan.plugins.iter().map(entry).collect()
}

/// An apiserver of the model.
struct Model {
    chain: Chain,
    entries: Vec<Entry>,
}

impl Model {
    fn new(text: &str, resource: &str, by: Version) -> Self {
        let plan = config::load(text.as_bytes(), by, false).unwrap();
        let chain = Chain::new(&plan, &GroupResource::parse(resource));
        Self { chain, entries: entries(&plan, by) }
    }

    fn read(&mut self, value: &[u8], aad: &[u8]) -> Result<Read, String> {
        match self.chain.begin(&self.entries, value, aad) {
            Next::Done(read) => read,
            Next::Decrypt(plugin, asked) => {
                let source = &asked.record.encrypted_dek_source;
                let seed = Zeroizing::new(source[source.len().saturating_sub(32)..].to_vec());
                self.chain.finish(&mut self.entries, NOW, value, (plugin, &asked), Ok(seed), aad)
            }
        }
    }
}

fn request(text: &str, resource: &str, aad: &str) -> Value {
    json!({"do": "chain", "text": text, "resource": resource, "aad": aad})
}

fn compare_read(
    oracle: &mut Oracle,
    model: &mut Model,
    mut request: Value,
    value: &[u8],
) -> Result<(), TestCaseError> {
    request["value"] = hex(value).into();
    let upstream = oracle.ask(&request);
    let read = model.read(value, request["aad"].as_str().unwrap().as_bytes());
    if upstream.get("panic").is_some() {
        let wanted = "the stored data is an initialization vector alone";
        prop_assert!(read.as_ref().is_err_and(|error| error.contains(wanted)), "{:?}", read);
        return Ok(());
    }
    match (read, upstream["error"].as_str()) {
        (Err(model), Some(upstream)) => {
            // Words of protobuf's libraries are not ours.
            let ours = model.contains("failed to decode the stored object");
            prop_assert!(ours || model == upstream, "{} / {}", model, upstream);
        }
        (Ok(read), None) => {
            prop_assert_eq!(read.plaintext, bytes(&upstream["plaintext"]));
            prop_assert_eq!(read.stale, upstream["stale"].as_bool().unwrap_or(false));
        }
        (read, _) => prop_assert!(false, "model: {:?}, upstream: {}", read, upstream),
    }
    Ok(())
}

/// What becomes of a value.
#[derive(Debug, Clone)]
enum Spoilt {
    Not,
    Flipped(Index, u8),
    Cut(Index),
    Last(usize),
    Prefix(&'static str),
}

fn spoilt() -> impl Strategy<Value = Spoilt> {
    let prefixes = vec![
        "",
        "k8s:enc:",
        "k8s:enc:aescbc:v1:",
        "k8s:enc:aescbc:v1:k:",
        "k8s:enc:aesgcm:v1:k:",
        "k8s:enc:secretbox:v1:k:",
        "k8s:enc:kms:v2:a:",
        "k8s:enc:kms:v1:a:",
        "k8s",
    ];
    prop_oneof![
        3 => Just(Spoilt::Not),
        2 => (any::<Index>(), 1..=u8::MAX).prop_map(|(at, bits)| Spoilt::Flipped(at, bits)),
        1 => any::<Index>().prop_map(Spoilt::Cut),
        2 => (1..70_usize).prop_map(Spoilt::Last),
        1 => select(prefixes).prop_map(Spoilt::Prefix),
    ]
}

impl Spoilt {
    fn apply(&self, mut value: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Not => {}
            Self::Flipped(at, bits) => {
                let at = at.index(value.len().max(1));
                value.get_mut(at).into_iter().for_each(|byte| *byte ^= bits);
            }
            Self::Cut(at) => value.truncate(at.index(value.len() + 1)),
            Self::Last(bytes) => value.truncate(value.len().saturating_sub(*bytes)),
            Self::Prefix(prefix) => value.splice(..0, prefix.bytes()).for_each(drop),
        }
        value
    }
}

#[test]
fn what_either_writes_both_read_alike() {
    let all = (
        (chain(), 1..5_usize),
        (chain(), 1..5_usize),
        select(vec!["secrets", "secrets", "secrets", "pods"]),
        proptest::collection::vec(any::<u8>(), 0..70),
        (proptest::collection::vec(any::<u8>(), RANDOM_BYTES), any::<bool>()),
        spoilt(),
    );
    each(|by, oracle| {
        proptest!(cases(700), |((writer, reader, resource, plaintext, (random, moved), spoilt) in &all)| {
            let oracle = &mut oracle.borrow_mut();
            let (writer, same) = (file(&writer.0, writer.1), reader.1 % 2 == 0);
            let reader = if same { writer.clone() } else { file(&reader.0, reader.1) };
            let mut model = Model::new(&writer, resource, by);
            let random: [u8; RANDOM_BYTES] = random.try_into().unwrap();
            let value = model.chain.write(&mut model.entries, NOW, &random, &plaintext, b"/a").unwrap();

            // What upstream writes with the same random bytes.
            let used = match &value {
                value if value.starts_with(b"k8s:enc:aescbc:") => 16,
                value if value.starts_with(b"k8s:enc:aesgcm:") => 12,
                value if value.starts_with(b"k8s:enc:secretbox:") => 24,
                _ => 0,
            };
            let kms = value.starts_with(b"k8s:enc:kms:");
            let mut write = request(&writer, resource, "/a");
            write["plaintext"] = hex(&plaintext).into();
            write["random"] = hex(&random[..used]).into();
            let upstream = bytes(&oracle.ask(&write)["value"]);
            if kms {
                prop_assert_eq!(upstream.len(), value.len());
            } else {
                prop_assert_eq!(&upstream, &value);
            }
            // A plugin's seed is upstream's own: the model has to read that, too.
            let value = if kms && same { upstream } else { value };
            let value = spoilt.apply(value);
            let mut model = Model::new(&reader, resource, by);
            let aad = if moved { "/b" } else { "/a" };
            compare_read(oracle, &mut model, request(&reader, resource, aad), &value)?;
        });
    });
}
