//! Objects that the Go kleidi wrapped stay readable when kleidi takes its place, and move to kleidi's key.
//!
//! Genuine answers of the Go plugin, with their key, become Secrets in etcd as kube-apiserver would have stored
//! them. Then the manual's way: the old key stays where it is, kleidi's own beside it, `decryptAlso` names the old
//! format, and goes again. On a SoftHSM token, and in OpenBao's transit engine, there with the formats of two other
//! plugins as well.

use serde_json::Value;

use crate::cluster::Cluster;
use crate::foreign::{self, hex};
use crate::node::Node;
use crate::plan::{Kms, Plan};
use crate::scenario::{Scenario, Stage};

pub const SCENARIO: Scenario = Scenario {
    name: "takes-over-from-the-go-kleidi",
    shows: "what the Go kleidi wrapped, with SoftHSM or OpenBao, stays readable after the switch, new writes are ours, the old format can go",
    minutes: 8,
    run,
};

const VECTORS: &str = include_str!("../../../harness/vectors/foreign-plugins.json");

/// What the Go plugin calls its key on a token.
const LABEL: &str = "kleidi-kms-plugin";

/// What the other plugins' key in transit is called here; ours has the name that theirs had.
const OLD_KEY: &str = "old";

/// Plugins with a key in transit: as the vectors name them, and as `decryptAlso` does.
const IN_TRANSIT: [(&str, &str); 3] = [
    ("kleidi (Go)", "kleidi-go"),
    ("vault-kubernetes-kms (Go)", "vault-kubernetes-kms"),
    ("vault-kms-provider (Rust)", "vault-kms-provider"),
];

fn run(stage: &Stage) -> Result<(), String> {
    let vectors: Value = serde_json::from_str(VECTORS).map_err(|error| error.to_string())?;
    on_a_token(stage, &vectors["pkcs11"])?;
    in_transit(stage, &vectors["transit"])
}

fn on_a_token(stage: &Stage, vectors: &Value) -> Result<(), String> {
    let old = with(vectors, "key_label", LABEL)?;
    let cluster = stage.cluster(Plan::new(Kms::SoftHsm))?;
    cluster.step("the Go kleidi's key is on the token, and its objects are in etcd");
    import(cluster.node()?, &hex(&old["aes256_key_hex"])?)?;
    let names = foreign::store(&cluster, "old", &old["vectors"])?;
    take_over(stage, cluster, &names, "  - plugin: kleidi-go\n")
}

fn in_transit(stage: &Stage, vectors: &Value) -> Result<(), String> {
    let cluster = stage.cluster(Plan::new(Kms::OpenBao))?;
    cluster.step("the old key is in OpenBao, and the objects of three plugins are in etcd");
    let openbao = cluster.openbao.as_ref().ok_or("there is no OpenBao")?;
    openbao.restore(OLD_KEY, vectors["backup"].as_str().unwrap_or_default())?;
    let mut names = Vec::new();
    let mut formats = String::new();
    for (plugin, format) in IN_TRANSIT {
        let old = with(&vectors["plugins"], "plugin", plugin)?;
        names.extend(foreign::store(&cluster, format, &old["vectors"])?);
        formats += &["  - {plugin: ", format, ", key: ", OLD_KEY, "}\n"].concat();
    }
    take_over(stage, cluster, &names, &formats)
}

/// From old objects that nobody can read to a cluster in which all is ours; `formats` are the lines of `decryptAlso`.
fn take_over(
    stage: &Stage,
    cluster: Cluster,
    names: &[String],
    formats: &str,
) -> Result<(), String> {
    let node = cluster.node()?;
    let kms = cluster.plan.kms.name();
    let ours = cluster.key_id()?;
    let api = cluster.api()?;
    names.iter().try_for_each(|name| api.cannot_decrypt(name))?;
    stage.shown(format!("{kms}: a format that the configuration does not name is refused"));

    cluster.step("the configuration names it");
    node.bytes("cat >> /etc/kleidi/kleidi.yaml", format!("  decryptAlso:\n{formats}").as_bytes())?;
    if let Some(openbao) = &cluster.openbao {
        // The policy has to allow the other key, too.
        openbao.provision(&cluster.in_plugins_image("init --print-policy")?)?;
    }
    restart(node)?;
    cluster.create_secrets("new", 10)?;
    cluster.everything_readable()?;
    stage.shown(format!("{kms}: {} objects of other plugins read beside new ones", names.len()));

    cluster.step("everything is written anew, and the old format goes");
    cluster.rewrite_secrets()?;
    node.sh("sed -i '/decryptAlso/,$d' /etc/kleidi/kleidi.yaml")?;
    restart(node)?;
    stage.shown(format!("{kms}: {}", cluster.encrypted_at_rest(&[&ours])?));
    cluster.finish();
    Ok(())
}

/// The one in a list whose `field` is `value`.
fn with<'a>(list: &'a Value, field: &str, value: &str) -> Result<&'a Value, String> {
    let found = list.as_array().into_iter().flatten().find(|each| each[field] == value);
    found.ok_or_else(|| format!("there are no vectors of {value}"))
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

/// Starts kleidi anew, with what its configuration says now.
fn restart(node: &Node) -> Result<(), String> {
    node.restart_plugin()?;
    node.wait_healthy().map(|_| ())
}
