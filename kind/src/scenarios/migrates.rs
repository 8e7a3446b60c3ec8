//! A cluster moves to kleidi from no encryption and from `aescbc`, and leaves again: leaving is a right.
//!
//! Each move is the manual's: the new provider first in the EncryptionConfiguration, the old one behind it,
//! kube-apiserver reloads by itself, everything is written anew.

use crate::cluster::Cluster;
use crate::plan::{IDENTITY, KMS, Kms, Plan, encryption};
use crate::scenario::{Scenario, Stage, ensure};

pub const SCENARIO: Scenario = Scenario {
    name: "migrates",
    shows: "from identity and from aescbc to kleidi and back, all objects rewritten, nothing lost, no restart",
    minutes: 8,
    run,
};

/// The way, and how what each provider writes begins in etcd; protobuf in clear with `k8s`.
const MOVES: [(&str, &str); 5] = [
    (KMS, "k8s:enc:kms:v2:kleidi:"),
    (AESCBC, "k8s:enc:aescbc:v1:old:"),
    (KMS, "k8s:enc:kms:v2:kleidi:"),
    (IDENTITY, "k8s\0"),
    (KMS, "k8s:enc:kms:v2:kleidi:"),
];

/// A key for this test alone.
const AESCBC: &str =
    "aescbc: {keys: [{name: old, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}";

fn run(stage: &Stage) -> Result<(), String> {
    let cluster = stage.cluster(Plan::new(Kms::SoftHsm).providers(&[IDENTITY]))?;
    cluster.create_secrets("before", 20)?;
    let apiserver = apiserver(&cluster)?;
    let mut from = IDENTITY;
    for (number, (to, prefix)) in MOVES.into_iter().enumerate() {
        move_to(&cluster, from, to, prefix, number)?;
        cluster.create_secrets(&format!("after-{number}"), 5)?;
        cluster.readable_through(cluster.node()?)?;
        stage.shown(format!("moved to {}", word(to)));
        from = to;
    }
    // Last: without a way back to what is in clear. Values from before the moves are still in etcd's history.
    cluster.configure_encryption(&encryption(&[KMS]))?;
    let key_id = cluster.key_id()?;
    let still = self::apiserver(&cluster)?;
    ensure(still == apiserver, || format!("kube-apiserver was started anew: {still}"))?;
    stage.shown("the same kube-apiserver all the time");
    stage.shown(cluster.encrypted_since(&[&key_id], "after-4")?);
    cluster.finish();
    Ok(())
}

/// The provider `to` writes, `from` still reads; then everything is written anew.
fn move_to(
    cluster: &Cluster,
    from: &str,
    to: &str,
    prefix: &str,
    number: usize,
) -> Result<(), String> {
    cluster.step(&format!("from {} to {}", word(from), word(to)));
    cluster.configure_encryption(&encryption(&[to, from]))?;
    let begins = |key: &str, value: &[u8]| {
        ensure(value.starts_with(prefix.as_bytes()), || {
            format!("{key} does not begin with {prefix:?}")
        })
    };
    cluster.wait_until_written(cluster.node()?, &format!("probe-{number}"), begins)?;
    cluster.rewrite_secrets()?;
    let values = cluster.node()?.etcd("/registry/secrets/")?;
    values.iter().try_for_each(|(key, value)| begins(key, value))
}

/// Its process, by its pid on the node and when it was started.
fn apiserver(cluster: &Cluster) -> Result<String, String> {
    cluster.node()?.sh("ps -o pid=,lstart= -p \"$(pgrep -xo kube-apiserver)\"")
}

/// The name of a provider.
fn word(provider: &str) -> &str {
    provider.split(':').next().unwrap_or(provider)
}
