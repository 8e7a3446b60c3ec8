//! Stories of an apiserver and its plugin: which calls are made when, what health says, what is written and
//! read. The oracle tells a story with upstream's code; the twin, with the model, has to tell the same.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::twin::Twin;
use crate::{cases, each};

/// A step, as the oracle takes it. `Read` is of the last value written before it.
#[derive(Debug, Clone)]
enum Step {
    Plugin(Value),
    Wait(u64),
    Check,
    Write,
    Read,
    Restart,
}

fn weighted(good: &[&'static str], bad: &[&'static str]) -> impl Strategy<Value = String> + use<> {
    let (good, bad) = (good.to_vec(), bad.to_vec());
    prop_oneof![4 => proptest::sample::select(good), 1 => proptest::sample::select(bad)]
        .prop_map(str::to_owned)
}

fn key_id() -> impl Strategy<Value = String> {
    let short = weighted(&["1", "1", "1", "2"], &["", "3"]);
    prop_oneof![9 => short, 1 => Just("k".repeat(1025))]
}

fn error() -> impl Strategy<Value = Option<String>> {
    prop_oneof![4 => Just(None), 1 => "[a-z]{1,3}".prop_map(Some)]
}

fn takes(slow: bool) -> impl Strategy<Value = u64> {
    let some = prop_oneof![Just(1_u64), Just(2_500), Just(20_000), 1..240_000_u64];
    (any::<bool>(), some).prop_map(move |(at_once, takes)| if at_once || !slow { 0 } else { takes })
}

fn with_error(mut answer: Value, error: Option<String>) -> Value {
    if let Some(error) = error {
        answer["error"] = error.into();
    }
    answer
}

fn status(slow: bool) -> impl Strategy<Value = Value> {
    let version = weighted(&["v2", "v2", "v2", "v2beta1"], &["v1", ""]);
    let healthz = weighted(&["ok"], &["", "OK", "starting"]);
    (version, healthz, key_id(), error(), takes(slow)).prop_map(
        |(version, healthz, key_id, error, takes)| {
            let answer = json!({"version": version, "healthz": healthz, "key_id": key_id, "takes_ms": takes});
            with_error(answer, error)
        },
    )
}

fn encrypt(slow: bool) -> impl Strategy<Value = Value> {
    let shape = prop_oneof![
        8 => Just((json!("77"), true)),
        1 => Just((json!(""), false)),
        1 => Just((json!("77".repeat(1000)), true)),
    ];
    let annotations = prop_oneof![
        6 => Just(json!({})),
        3 => Just(json!({"kek.example.io": "01ff"})),
        1 => Just(json!({"kms.example.io/x": ""})),
    ];
    (shape, key_id(), annotations, error(), takes(slow)).prop_map(
        |((ciphertext, wraps), key_id, annotations, error, takes)| {
            let answer = json!({
                "ciphertext": ciphertext, "wraps": wraps, "key_id": key_id,
                "annotations": annotations, "takes_ms": takes,
            });
            with_error(answer, error)
        },
    )
}

fn decrypt(slow: bool) -> impl Strategy<Value = Value> {
    let shape = prop_oneof![
        8 => Just((json!(""), true)),
        1 => Just((json!("00"), false)),
        1 => Just((json!("11".repeat(32)), false)),
    ];
    (shape, error(), takes(slow)).prop_map(|((plaintext, unwraps), error, takes)| {
        with_error(json!({"plaintext": plaintext, "unwraps": unwraps, "takes_ms": takes}), error)
    })
}

fn step(slow: bool) -> impl Strategy<Value = Step> {
    let plugin = prop_oneof![
        3 => status(slow).prop_map(|status| json!({"status": status})),
        2 => encrypt(slow).prop_map(|encrypt| json!({"encrypt": encrypt})),
        2 => (key_id(), status(slow), encrypt(slow)).prop_map(|(key_id, mut status, mut encrypt)| {
            status["key_id"] = key_id.clone().into();
            encrypt["key_id"] = key_id.into();
            json!({"status": status, "encrypt": encrypt})
        }),
        1 => decrypt(slow).prop_map(|decrypt| json!({"decrypt": decrypt})),
    ];
    let wait = prop_oneof![
        4 => 0..25_000_u64,
        2 => proptest::sample::select(vec![1, 2_999, 3_000, 10_000, 19_999, 20_000, 60_000, 179_999, 180_000, 180_001]),
        2 => 25_000..400_000_u64,
        1 => if slow { 86_000_000..90_000_000_u64 } else { 0..1_u64 }, // a day of polls is long
    ];
    prop_oneof![
        4 => plugin.prop_map(Step::Plugin),
        4 => wait.prop_map(Step::Wait),
        4 => Just(Step::Check),
        3 => Just(Step::Write),
        3 => Just(Step::Read),
        1 => Just(Step::Restart),
    ]
}

fn story(slow: bool) -> impl Strategy<Value = (Value, Vec<Step>)> {
    let good = json!({
        "status": {"version": "v2", "healthz": "ok", "key_id": "1"},
        "encrypt": {"ciphertext": "77", "wraps": true, "key_id": "1", "annotations": {}},
        "decrypt": {"plaintext": "", "unwraps": true},
    });
    let any = (status(slow), encrypt(slow), decrypt(slow)).prop_map(
        |(status, encrypt, decrypt)| json!({"status": status, "encrypt": encrypt, "decrypt": decrypt}),
    );
    let plugin = prop_oneof![1 => Just(good), 1 => any];
    (plugin, proptest::collection::vec(step(slow), 0..25))
}

/// The steps as the oracle takes them. A read without a value to read is one of something foreign.
fn described(steps: &[Step]) -> Vec<Value> {
    let mut written = None;
    let describe = |(at, step): (usize, &Step)| match step {
        Step::Plugin(change) => json!({"plugin": change}),
        Step::Wait(ms) => json!({"wait_ms": ms}),
        Step::Check => json!({"check": {}}),
        Step::Write => {
            written = Some(at);
            json!({"write": {"aad": "/registry/secrets/a/b", "plaintext": "6b3873"}})
        }
        Step::Read => match written {
            Some(of) => json!({"read": {"aad": "/registry/secrets/a/b", "value": "", "of": of}}),
            None => json!({"read": {"aad": "/registry/secrets/a/b", "value": "00", "of": 0}}),
        },
        Step::Restart => json!({"restart": {}}),
    };
    steps.iter().enumerate().map(describe).collect()
}

fn compare(background: bool, number: u32) {
    let story = story(!background);
    each(|by, oracle| {
        proptest!(cases(number), |((plugin, steps) in &story)| {
            let steps = described(&steps);
            let told = oracle.borrow_mut().ask(&json!({
                "do": "probe", "name": "P", "background": background, "plugin": plugin, "steps": steps,
            }));
            Twin::new("P", by, background).tells(&steps, &told)?;
        });
    });
}

/// Only the story's own checks; the plugin may take its time.
#[test]
fn checks_writes_and_reads_are_alike() {
    compare(false, 700);
}

/// With the apiserver's own polling: the moment of every call is compared, too.
#[test]
fn polling_is_alike() {
    compare(true, 300);
}
