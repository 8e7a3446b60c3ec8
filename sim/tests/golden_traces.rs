//! Sequences that upstream's own probe and envelope code produced, with a scripted plugin: `vectors/traces.json`,
//! which `vectors/README.md` explains.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use kleidi_proto::kms::{EncryptResponse, StatusResponse};
use kleidi_sim::cache::Cache;
use kleidi_sim::envelope::{self, Reading};
use kleidi_sim::probe::{Probe, Step};
use kleidi_sim::time::Time;
use kleidi_sim::version::Version;
use serde::Deserialize;
use zeroize::Zeroizing;

const AAD: &[u8] = b"/registry/secrets/default/one";
const PLAINTEXT: &[u8] = b"k8s\0";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trace {
    name: String,
    steps: Vec<Told>,
}

/// A step, and what came of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Told {
    Wait(u64),
    Status(Status),
    Encrypt(Encrypt),
    Decrypt(Decrypt),
    Poll(Outcome),
    Check(Outcome),
    Write { r#as: String, error: Option<String> },
    Read { of: String, calls: Vec<String>, stale: Option<bool>, error: Option<String> },
    Forget,
    ExpiresIn(u64),
    Cached(usize),
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outcome {
    calls: Vec<String>,
    error: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Status {
    version: Option<String>,
    healthz: Option<String>,
    key_id: Option<String>,
    error: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Encrypt {
    key_id: Option<String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    error: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Decrypt {
    error: Option<String>,
}

impl Status {
    fn answer(&self) -> Result<StatusResponse, String> {
        let or = |field: &Option<String>, good: &str| field.clone().unwrap_or(good.to_owned());
        self.error.clone().map_or(Ok(()), Err)?;
        Ok(StatusResponse {
            version: or(&self.version, "v2"),
            healthz: or(&self.healthz, "ok"),
            key_id: or(&self.key_id, "1"),
        })
    }
}

/// An apiserver's entry `P` with a plugin that wraps by prefixing.
struct World {
    status: Status,
    encrypt: Encrypt,
    decrypt: Decrypt,
    probe: Probe,
    cache: Cache,
    now: Time,
    written: BTreeMap<String, Vec<u8>>,
    random: u8,
}

impl World {
    fn new(by: Version) -> Self {
        Self {
            status: Status::default(),
            encrypt: Encrypt::default(),
            decrypt: Decrypt::default(),
            probe: Probe::new("P", by),
            cache: Cache::default(),
            now: Time(Duration::from_secs(1_800_000_000)),
            written: BTreeMap::new(),
            random: 0,
        }
    }

    fn random<const BYTES: usize>(&mut self) -> [u8; BYTES] {
        self.random += 1;
        [self.random; BYTES]
    }

    fn goes(&mut self, step: &Told, told: &str) {
        match step.clone() {
            Told::Wait(seconds) => self.now = self.now + Duration::from_secs(seconds),
            Told::Status(answer) => self.status = answer,
            Told::Encrypt(answer) => self.encrypt = answer,
            Told::Decrypt(answer) => self.decrypt = answer,
            Told::Poll(outcome) => {
                self.now = self.now + Duration::from_secs(21);
                self.check(&outcome, told);
            }
            Told::Check(outcome) => self.check(&outcome, told),
            Told::Write { r#as, error } => {
                let (info, nonce) = (self.random(), self.random());
                let (probe, cache) = (&self.probe, &mut self.cache);
                let random = (&info, &nonce);
                let value = envelope::write(probe, cache, self.now, random, PLAINTEXT, AAD);
                assert_eq!(value.as_ref().err(), error.as_ref(), "{told}");
                self.written.extend(value.ok().map(|value| (r#as, value)));
            }
            Told::Read { of, calls, stale, error } => self.read(&of, &calls, stale, error, told),
            Told::Forget => self.cache.clear(),
            Told::ExpiresIn(seconds) => {
                let left = self.probe.state().unwrap().expires.since(self.now);
                assert_eq!(left.as_secs(), seconds, "{told}");
            }
            Told::Cached(seeds) => assert_eq!(self.cache.len(), seeds, "{told}"),
        }
    }

    fn check(&mut self, outcome: &Outcome, told: &str) {
        let mut calls = Vec::new();
        let mut step = self.probe.select(self.now);
        let result = loop {
            step = match step {
                Step::Done(result) => break result,
                Step::Status => {
                    calls.push("Status".to_owned());
                    self.probe.status(self.now, self.status.answer())
                }
                Step::Encrypt => {
                    calls.push("Encrypt".to_owned());
                    let seed = self.random();
                    let answer = self.wrapped(&seed);
                    self.probe.encrypt(self.now, &seed, "uid", answer)
                }
            };
        };
        assert_eq!(calls, outcome.calls, "{told}");
        assert_eq!(result.err(), outcome.error, "{told}");
    }

    fn wrapped(&self, seed: &[u8]) -> Result<EncryptResponse, String> {
        self.encrypt.error.clone().map_or(Ok(()), Err)?;
        let annotations = &self.encrypt.annotations;
        Ok(EncryptResponse {
            ciphertext: [b"wrapped:", seed].concat(),
            key_id: self.encrypt.key_id.clone().unwrap_or(self.status.answer()?.key_id),
            annotations: annotations
                .iter()
                .map(|(name, value)| (name.clone(), value.clone().into_bytes()))
                .collect(),
        })
    }

    fn read(
        &mut self,
        of: &str,
        calls: &[String],
        stale: Option<bool>,
        error: Option<String>,
        told: &str,
    ) {
        let (mut made, value) = (Vec::new(), &self.written[of]);
        let read = match envelope::begin(&self.probe, &self.cache, value, AAD) {
            Reading::Done(read) => read,
            Reading::Decrypt(asked) => {
                made.push(format!("Decrypt({})", asked.record.key_id));
                let source = asked.record.encrypted_dek_source.strip_prefix(b"wrapped:");
                let answer = match &self.decrypt.error {
                    Some(error) => Err(error.clone()),
                    None => Ok(Zeroizing::new(source.unwrap().to_vec())),
                };
                envelope::finish(&mut self.cache, self.now, &asked, answer, AAD)
            }
        };
        assert_eq!(made, calls, "{told}");
        match (read, stale, error) {
            (Ok(read), Some(stale), None) => {
                assert_eq!((read.plaintext.as_slice(), read.stale), (PLAINTEXT, stale), "{told}");
            }
            (Err(read), None, Some(error)) => assert_eq!(read, error, "{told}"),
            (read, ..) => panic!("{told}: {read:?}"),
        }
    }
}

#[test]
fn the_model_does_what_upstream_did() {
    let traces: Vec<Trace> = serde_json::from_str(include_str!("../vectors/traces.json")).unwrap();
    assert_eq!(traces.len(), 16);
    for by in Version::ALL {
        for trace in &traces {
            let mut world = World::new(by);
            for (at, step) in trace.steps.iter().enumerate() {
                world.goes(step, &format!("{by}, trace {}, step {at}: {step:?}", trace.name));
            }
        }
    }
}
