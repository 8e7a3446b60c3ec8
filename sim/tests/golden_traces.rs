//! Sequences that upstream's own probe and envelope code produced, with a scripted plugin.
//!
//! `poll` is one check beyond the time for which a result is reused. Each trace says which calls upstream
//! made, and what came of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use kleidi_proto::kms::{EncryptResponse, StatusResponse};
use kleidi_sim::cache::Cache;
use kleidi_sim::envelope::{self, Read, Reading};
use kleidi_sim::probe::{Probe, Step};
use kleidi_sim::time::Time;
use kleidi_sim::version::Version;
use zeroize::Zeroizing;

const AAD: &[u8] = b"/registry/secrets/default/one";

/// A plugin that answers what it is told to; it wraps by prefixing.
struct Plugin {
    status: Result<StatusResponse, String>,
    /// The key_id of Encrypt's answer, if not that of Status.
    encrypts_as: Option<String>,
    encrypt_fails: bool,
    decrypt_fails: bool,
    annotations: BTreeMap<String, Vec<u8>>,
}

/// An apiserver's entry `P` with that plugin.
struct World {
    plugin: Plugin,
    probe: Probe,
    cache: Cache,
    now: Time,
    calls: Vec<String>,
    random: u8,
}

impl World {
    fn new() -> Self {
        let status =
            StatusResponse { version: "v2".into(), healthz: "ok".into(), key_id: "1".into() };
        Self {
            plugin: Plugin {
                status: Ok(status),
                encrypts_as: None,
                encrypt_fails: false,
                decrypt_fails: false,
                annotations: BTreeMap::new(),
            },
            probe: Probe::new("P", Version::default()),
            cache: Cache::default(),
            now: Time(Duration::from_secs(1_800_000_000)),
            calls: Vec::new(),
            random: 0,
        }
    }

    fn says(&mut self, change: impl FnOnce(&mut StatusResponse)) {
        let mut status =
            StatusResponse { version: "v2".into(), healthz: "ok".into(), key_id: "1".into() };
        change(&mut status);
        self.plugin.status = Ok(status);
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    fn random<const BYTES: usize>(&mut self) -> [u8; BYTES] {
        self.random += 1;
        [self.random; BYTES]
    }

    /// A check, as the last one is long enough ago; the calls that it made, and its result.
    fn poll(&mut self) -> (String, Result<(), String>) {
        self.wait(21);
        self.check()
    }

    fn check(&mut self) -> (String, Result<(), String>) {
        self.calls.clear();
        let mut step = self.probe.select(self.now);
        loop {
            step = match step {
                Step::Done(result) => return (self.calls.join(", "), result),
                Step::Status => {
                    self.calls.push("Status".to_owned());
                    self.probe.status(self.now, self.plugin.status.clone())
                }
                Step::Encrypt => {
                    self.calls.push("Encrypt".to_owned());
                    let seed = self.random();
                    let status_id = self.plugin.status.as_ref().unwrap().key_id.clone();
                    let answer = if self.plugin.encrypt_fails {
                        Err("E".to_owned())
                    } else {
                        Ok(EncryptResponse {
                            ciphertext: [b"wrapped:".as_slice(), &seed].concat(),
                            key_id: self.plugin.encrypts_as.clone().unwrap_or(status_id),
                            annotations: self.plugin.annotations.clone(),
                        })
                    };
                    self.probe.encrypt(self.now, &seed, "uid", answer)
                }
            };
        }
    }

    fn write(&mut self) -> Result<Vec<u8>, String> {
        let (info, nonce) = (self.random(), self.random());
        let random = (&info, &nonce);
        envelope::write(&self.probe, &mut self.cache, self.now, random, b"k8s\0", AAD)
    }

    /// Reads; the calls that it made, and what was read.
    fn read(&mut self, value: &[u8]) -> (String, Result<Read, String>) {
        match envelope::begin(&self.probe, &self.cache, value, AAD) {
            Reading::Done(result) => (String::new(), result),
            Reading::Decrypt(record) => {
                let answer = if self.plugin.decrypt_fails {
                    Err("E".to_owned())
                } else {
                    let source = &record.encrypted_dek_source;
                    Ok(Zeroizing::new(source.strip_prefix(b"wrapped:").unwrap().to_vec()))
                };
                let cache = &mut self.cache;
                let read = envelope::finish(&self.probe, cache, self.now, &record, answer, AAD);
                (format!("Decrypt({:?})", record.key_id), read)
            }
        }
    }

    fn expires_in(&self) -> u64 {
        self.probe.state().unwrap().expires.since(self.now).as_secs()
    }
}

#[allow(clippy::unnecessary_wraps, reason = "it is compared with a result")]
fn read(stale: bool) -> Result<Read, String> {
    Ok(Read { plaintext: b"k8s\0".to_vec(), stale })
}

const NONE: &str = "";
const STATUS: &str = "Status";
const BOTH: &str = "Status, Encrypt";

fn unhealthy(fault: &str) -> Result<(), String> {
    Err(format!("kmsv2 Provider P is not healthy, error: {fault}"))
}

fn says(result: &(String, Result<(), String>), calls: &str, text: &str) {
    assert_eq!(result.0, calls);
    let error = result.1.as_ref().unwrap_err();
    assert!(error.contains(text), "{text}: {error}");
}

#[test]
fn t01_steady() {
    let mut world = World::new();
    assert_eq!(world.poll(), (BOTH.to_owned(), Ok(())));
    let value = world.write().unwrap();
    assert_eq!(world.read(&value), (NONE.to_owned(), read(false)));
    world.wait(60);
    assert_eq!(world.poll(), (STATUS.to_owned(), Ok(())));
    assert_eq!(world.expires_in(), 180);
    assert_eq!(world.check(), (NONE.to_owned(), Ok(())));
}

#[test]
fn t02_status_fails_from_the_start() {
    let mut world = World::new();
    world.plugin.status = Err("E".to_owned());
    let wanted =
        "failed to perform status section of the healthz check for KMS Provider P, error: E";
    assert_eq!(world.poll(), (STATUS.to_owned(), Err(wanted.to_owned())));
    world.wait(2);
    assert_eq!(world.check(), (NONE.to_owned(), Err("E".to_owned())));
    assert_eq!(world.write(), Err("got unexpected nil transformer".to_owned()));
    world.wait(1);
    assert_eq!(world.check().0, STATUS);
}

#[test]
fn t03_encrypt_fails_from_the_start() {
    let mut world = World::new();
    world.plugin.encrypt_fails = true;
    let wanted = unhealthy(
        "failed to rotate DEK uid=\"uid\", useSeed=true, errState=got unexpected nil transformer, \
         errGen=failed to encrypt DEK, error: E, \
         statusKeyIDHash=\"sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b\", \
         encryptKeyIDHash=\"\", stateKeyIDHash=\"\", expirationTimestamp=0001-01-01T00:00:00Z",
    );
    assert_eq!(world.poll(), (BOTH.to_owned(), wanted));
    assert_eq!(world.write(), Err("got unexpected nil transformer".to_owned()));
    world.plugin.encrypt_fails = false;
    assert_eq!(world.poll(), (BOTH.to_owned(), Ok(())));
    assert!(world.write().is_ok());
}

#[test]
fn t04_rotation() {
    let mut world = World::new();
    world.poll().1.unwrap();
    let old = world.write().unwrap();
    world.says(|status| status.key_id = "2".into());
    assert_eq!(world.poll(), (BOTH.to_owned(), Ok(())));
    assert_eq!(world.read(&old), (NONE.to_owned(), read(true)));
    world.cache.clear();
    assert_eq!(world.read(&old), ("Decrypt(\"1\")".to_owned(), read(true)));
    let new = world.write().unwrap();
    assert_eq!(world.read(&new), (NONE.to_owned(), read(false)));
}

#[test]
fn t05_healthz_is_bad_later_and_writes_go_on() {
    let mut world = World::new();
    world.poll().1.unwrap();
    world.says(|status| status.healthz = "hsm offline".into());
    let wanted = unhealthy("got unexpected healthz status: hsm offline");
    for _ in 0..2 {
        world.wait(120);
        assert_eq!(world.poll(), (STATUS.to_owned(), wanted.clone()));
        assert_eq!(world.expires_in(), 180);
    }
    assert!(world.write().is_ok());
}

#[test]
fn t06_healthz_is_bad_from_the_start() {
    let mut world = World::new();
    world.says(|status| status.healthz = "starting".into());
    says(&world.poll(), BOTH, "got unexpected healthz status: starting");
    assert!(world.write().is_ok());
}

#[test]
fn t07_another_version_from_the_start() {
    let mut world = World::new();
    world.says(|status| status.version = "v1".into());
    let wanted = unhealthy("expected KMSv2 API version v2, got v1");
    assert_eq!(world.poll(), (BOTH.to_owned(), wanted));
    assert!(world.write().is_ok());
}

#[test]
fn t08_the_version_changes() {
    let mut world = World::new();
    world.says(|status| status.version = "v2beta1".into());
    world.poll().1.unwrap();
    world.says(|_| {});
    let wanted = unhealthy(
        "KMSv2 API version should not change after the initial status response version v2beta1, got v2",
    );
    assert_eq!(world.poll(), (STATUS.to_owned(), wanted));
    assert_eq!(world.expires_in(), 180);
    assert!(world.write().is_ok());
    world.says(|status| status.version = "v2beta1".into());
    assert_eq!(world.poll(), (STATUS.to_owned(), Ok(())));
}

#[test]
fn t09_coasting() {
    let mut world = World::new();
    world.poll().1.unwrap();
    let value = world.write().unwrap();
    let good = world.plugin.status.clone();
    world.plugin.status = Err("E".to_owned());
    world.wait(60);
    assert!(world.check().1.is_err());
    assert_eq!(world.expires_in(), 120);
    assert!(world.write().is_ok());
    world.wait(121);
    assert!(world.check().1.is_err());
    let error = world.write().unwrap_err();
    assert_eq!(
        error,
        "encryptedDEKSource with keyID hash \
         \"sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b\" expired at \
         2027-01-15T08:03:21Z (current time is 2027-01-15T08:03:22Z)"
    );
    assert_eq!(world.read(&value), (NONE.to_owned(), read(false)));
    world.plugin.status = good;
    assert_eq!(world.poll(), (STATUS.to_owned(), Ok(())));
    assert!(world.write().is_ok());
}

#[test]
fn t10_status_and_encrypt_disagree() {
    let mut world = World::new();
    world.poll().1.unwrap();
    world.says(|status| status.key_id = "2".into());
    world.plugin.encrypts_as = Some("1".to_owned());
    let hash = "sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b";
    for _ in 0..2 {
        let outcome = world.poll();
        says(&outcome, BOTH, "errState=<nil>, errGen=<nil>, statusKeyIDHash=\"sha256:d4735e3a");
        says(&outcome, BOTH, &format!("encryptKeyIDHash=\"{hash}\", stateKeyIDHash=\"{hash}\""));
        assert!(world.write().is_ok());
    }
    world.wait(181 - 42);
    assert!(world.write().unwrap_err().contains("expired at"));
    world.plugin.encrypts_as = None;
    assert_eq!(world.poll(), (BOTH.to_owned(), Ok(())));
    assert!(world.write().is_ok());
}

#[test]
fn t11_the_key_id_becomes_empty() {
    let mut world = World::new();
    world.poll().1.unwrap();
    world.says(|status| status.key_id.clear());
    let wanted = unhealthy("got invalid KMSv2 KeyID hash \"\": keyID is empty");
    assert_eq!(world.poll(), (STATUS.to_owned(), wanted));
    assert_eq!(world.expires_in(), 180 - 21);
    assert!(world.write().is_ok());
    world.wait(180);
    assert!(world.write().is_err());
}

#[test]
fn t12_an_empty_answer() {
    let mut world = World::new();
    world.plugin.status = Ok(StatusResponse::default());
    let wanted = unhealthy(
        "[got unexpected healthz status: , expected KMSv2 API version v2, got , got invalid KMSv2 \
         KeyID hash \"\": keyID is empty]",
    );
    assert_eq!(world.poll(), (STATUS.to_owned(), wanted));
}

#[test]
fn t13_an_illegal_annotation() {
    let mut world = World::new();
    world.plugin.annotations.insert("kms.example.io/x".to_owned(), vec![]);
    says(&world.poll(), BOTH, "failed to validate annotations");
    assert!(world.probe.state().is_err());
    world.plugin.annotations.clear();
    assert_eq!(world.poll(), (BOTH.to_owned(), Ok(())));
}

#[test]
fn t14_a_key_id_comes_back() {
    let mut world = World::new();
    world.poll().1.unwrap();
    let first = world.write().unwrap();
    world.says(|status| status.key_id = "2".into());
    assert_eq!(world.poll(), (BOTH.to_owned(), Ok(())));
    world.says(|_| {});
    assert_eq!(world.poll(), (BOTH.to_owned(), Ok(())));
    assert_eq!(world.read(&first).1, read(false), "it is taken for fresh");
}

#[test]
fn t15_decrypt_fails_and_is_asked_again() {
    let mut world = World::new();
    world.poll().1.unwrap();
    let value = world.write().unwrap();
    world.cache.clear();
    world.plugin.decrypt_fails = true;
    for _ in 0..2 {
        let (calls, read) = world.read(&value);
        assert_eq!(calls, "Decrypt(\"1\")");
        assert_eq!(read, Err("failed to decrypt DEK, error: E".to_owned()));
    }
    world.plugin.decrypt_fails = false;
    assert_eq!(world.read(&value), ("Decrypt(\"1\")".to_owned(), read(false)));
}

/// Not a trace of upstream's: the cache's quirks, by its code.
#[test]
fn a_seed_whose_day_is_over_answers_until_something_is_remembered() {
    let mut world = World::new();
    world.poll().1.unwrap();
    let old = world.write().unwrap();
    world.says(|status| status.key_id = "2".into());
    world.poll().1.unwrap();
    world.wait(25 * 60 * 60);
    assert_eq!(world.read(&old).0, NONE);
    world.poll().1.unwrap();
    world.write().unwrap();
    assert_eq!(world.read(&old).0, "Decrypt(\"1\")");
    assert_eq!(world.cache.len(), 2);
}
