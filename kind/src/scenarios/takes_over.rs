//! Objects that the Go kleidi wrapped stay readable when kleidi takes its place, and move to kleidi's key.
//!
//! Genuine answers of the Go plugin, with their key, become Secrets in etcd as kube-apiserver would have stored
//! them. Then the manual's way: the old key stays on the token, kleidi's own beside it, `decryptAlso` names the old
//! format, and goes again.

use kleidi_proto::encryption::{EncryptedDekSourceType, EncryptedObject};
use kleidi_sim::object::{self, Secret};
use kleidi_sim::version::Version;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::cluster::Cluster;
use crate::node::Node;
use crate::plan::{Kms, PROVIDER, Plan};
use crate::scenario::{Scenario, Stage, ensure};

pub const SCENARIO: Scenario = Scenario {
    name: "takes-over-from-the-go-kleidi",
    shows: "what the Go kleidi wrapped stays readable after the switch, new writes are ours, the old format can go",
    minutes: 3,
    run,
};

const VECTORS: &str = include_str!("../../../harness/vectors/foreign-plugins.json");

/// What the Go plugin calls its key.
const LABEL: &str = "kleidi-kms-plugin";

fn run(stage: &Stage) -> Result<(), String> {
    let cluster = stage.cluster(Plan::new(Kms::SoftHsm))?;
    let node = cluster.node()?;
    let ours = cluster.key_id()?;
    let vectors: Value = serde_json::from_str(VECTORS).map_err(|error| error.to_string())?;
    let old =
        vectors["pkcs11"].as_array().into_iter().flatten().find(|each| each["key_label"] == LABEL);
    let old = old.ok_or("there are no vectors of the Go kleidi")?;

    cluster.step("the Go kleidi's key is on the token, and its objects are in etcd");
    import(node, &hex(&old["aes256_key_hex"])?)?;
    let mut count = 0;
    for vector in old["vectors"].as_array().into_iter().flatten() {
        // Not all that was wrapped is a seed.
        if let Ok(seed) = <[u8; 32]>::try_from(hex(&vector["plaintext_hex"])?) {
            store(&cluster, &format!("old-{count}"), vector, &seed)?;
            count += 1;
        }
    }
    ensure(count > 0, || "no vector has a seed".to_owned())?;
    let refused = cluster.api()?.read_secret("old-0");
    ensure(refused.is_err(), || "a format that nobody named is read".to_owned())?;
    stage.shown("a format that the configuration does not name is refused");

    cluster.step("the configuration names it");
    configure(
        node,
        "printf '  decryptAlso:\\n  - plugin: kleidi-go\\n' >> /etc/kleidi/kleidi.yaml",
    )?;
    cluster.create_secrets("new", 10)?;
    cluster.everything_readable()?;
    stage.shown(format!("{count} objects of the Go kleidi read beside new ones"));

    cluster.step("everything is written anew, and the old format goes");
    cluster.rewrite_secrets()?;
    configure(node, "sed -i '/decryptAlso/,$d' /etc/kleidi/kleidi.yaml")?;
    stage.shown(cluster.encrypted_at_rest(&[&ours], "new")?);
    cluster.finish();
    Ok(())
}

/// Puts the key onto the token, with SoftHSM's own tool.
fn import(node: &Node, key: &[u8]) -> Result<(), String> {
    let script = format!(
        "command -v softhsm2-util >/dev/null \
         || {{ apt-get update -qq && apt-get install -y -qq --no-install-recommends softhsm2; }}\n\
         export SOFTHSM2_CONF=/etc/kleidi/softhsm2.conf\n\
         cat > /root/key\n\
         softhsm2-util --import /root/key --aes --token kleidi --label {LABEL} --id 61 --pin \"$(cat /etc/kleidi/pin)\"\n\
         rm /root/key"
    );
    node.bytes(&script, key).map(|_| ())
}

/// Changes kleidi's configuration by a script, and starts it anew.
fn configure(node: &Node, script: &str) -> Result<(), String> {
    node.sh(script)?;
    node.restart_plugin()?;
    node.wait_healthy().map(|_| ())
}

/// Stores a Secret whose seed the Go plugin has wrapped, past kube-apiserver.
fn store(cluster: &Cluster, name: &str, vector: &Value, seed: &[u8]) -> Result<(), String> {
    let value = cluster.value(name);
    let plain = kleidi_sim::secret::Secret {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        uid: format!("00000000-0000-4000-8000-{:012}", name.len()),
        created: 1_760_000_000,
        data: [("value".to_owned(), value.clone().into_bytes())].into(),
        kind: "Opaque".to_owned(),
        manager: None,
    };
    let key = format!("/registry/secrets/default/{name}");
    let source_type = EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed;
    let secret = Secret::new(source_type, Zeroizing::new(seed.to_vec()))
        .map_err(|error| error.to_string())?;
    let mut random = [0; 44];
    getrandom::fill(&mut random).map_err(|error| error.to_string())?;
    let (info, nonce) = random.split_first_chunk().ok_or("too few random bytes")?;
    let nonce = nonce.try_into().map_err(|_| "too few random bytes")?;
    let sealed = secret.seal(info, nonce, &plain.encode(), key.as_bytes());
    let annotations = vector["annotations_hex"].as_object().into_iter().flatten();
    let object = EncryptedObject {
        encrypted_data: sealed.ok_or("a seed that seals nothing")?,
        key_id: vector["key_id"].as_str().unwrap_or_default().to_owned(),
        encrypted_dek_source: hex(&vector["ciphertext_hex"])?,
        annotations: annotations
            .map(|(name, value)| Ok((name.clone(), hex(value)?)))
            .collect::<Result<_, String>>()?,
        encrypted_dek_source_type: source_type.into(),
    };
    cluster.node()?.put(&key, &object::to_value(PROVIDER, &object, Version::default()))?;
    cluster.secrets.borrow_mut().insert(name.to_owned(), value);
    Ok(())
}

/// The bytes of a string in hex.
fn hex(text: &Value) -> Result<Vec<u8>, String> {
    let text = text.as_str().ok_or("a vector lacks a field")?;
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).map_err(|error| format!("{text}: {error}")))
        .collect()
}
