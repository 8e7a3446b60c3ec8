//! The model, driven along a story that the oracle told: it gets the answers that the plugin gave upstream,
//! and has to have asked for them at the same moments.

use std::collections::VecDeque;
use std::time::Duration;

use kleidi_proto::kms::{EncryptResponse, StatusResponse};
use kleidi_sim::cache::Cache;
use kleidi_sim::envelope::{self, Reading};
use kleidi_sim::object;
use kleidi_sim::probe::{Probe, Step};
use kleidi_sim::time::Time;
use kleidi_sim::version::Version;
use proptest::prelude::*;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::process::{bytes, said};

/// The moment at which a story begins: 2000-01-01T00:00:00Z.
const START: Time = Time(Duration::from_secs(946_684_800));

/// Between polls while all is well, and while it is not.
const GOOD: Duration = Duration::from_secs(60);
const BAD: Duration = Duration::from_secs(10);

/// An apiserver's background loops.
struct Polling {
    /// The next tick of the loop that is always there.
    next: Time,
    /// The next try of that loop's fast loop, while it is in it.
    fast: Option<Time>,
    /// The next try of the loop of a start that failed.
    start: Option<Time>,
}

pub struct Twin {
    name: String,
    background: bool,
    probe: Probe,
    cache: Cache,
    now: Time,
    polling: Option<Polling>,
    calls: VecDeque<Value>,
    written: Vec<Vec<u8>>,
}

type Told<T = ()> = Result<T, TestCaseError>;

impl Twin {
    pub fn new(name: &str, by: Version, background: bool) -> Self {
        Self {
            name: name.to_owned(),
            background,
            probe: Probe::new(name, by),
            cache: Cache::default(),
            now: START,
            polling: None,
            calls: VecDeque::new(),
            written: Vec::new(),
        }
    }

    /// Goes through a story's steps and compares with what the oracle told of each.
    pub fn tells(&mut self, steps: &[Value], told: &Value) -> Told {
        self.begins(&told["start"]);
        self.start()?;
        self.ends(&told["start"])?;
        for (at, step) in steps.iter().enumerate() {
            let came = &told["steps"][at];
            self.begins(came);
            self.step(step, came).map_err(|error| match error {
                TestCaseError::Fail(why) => {
                    TestCaseError::fail(format!("step {at}, {step}: {why}\nupstream: {came}"))
                }
                reject @ TestCaseError::Reject(_) => reject,
            })?;
            self.ends(came)?;
        }
        Ok(())
    }

    fn begins(&mut self, came: &Value) {
        self.calls = came["calls"].as_array().unwrap().iter().cloned().collect();
    }

    fn ends(&mut self, came: &Value) -> Told {
        prop_assert!(self.calls.is_empty(), "the model did not make the calls {:?}", self.calls);
        let at = u64::try_from(self.now.since(START).as_millis()).unwrap();
        prop_assert_eq!(at, came["at_ms"].as_u64().unwrap(), "the step's end");
        Ok(())
    }

    fn step(&mut self, step: &Value, came: &Value) -> Told {
        let written = bytes(&came["value"]);
        self.written.push(written.clone());
        if let Some(ms) = step["wait_ms"].as_u64() {
            return self.wait(Duration::from_millis(ms));
        }
        if step.get("check").is_some() {
            // The check of all entries names each that fails.
            let result = self.check()?.map_err(|error| format!("kms-provider-0: {error}"));
            prop_assert_eq!(result, said(&came["error"]));
        } else if step.get("restart").is_some() {
            self.start()?;
        } else if let Some(write) = step.get("write") {
            self.write(write, &written, came)?;
        } else if let Some(read) = step.get("read") {
            self.read(read, came)?;
        }
        Ok(())
    }

    /// What an apiserver does at its start: one check; then it polls.
    fn start(&mut self) -> Told {
        self.probe = Probe::new(&self.name, self.probe.by());
        self.cache.clear();
        let result = self.check()?;
        if self.background {
            let start = result.is_err().then_some(self.now + BAD);
            self.polling = Some(Polling { next: self.now + GOOD, fast: None, start });
        }
        Ok(())
    }

    fn check(&mut self) -> Told<Result<(), String>> {
        let mut step = self.probe.select(self.now);
        loop {
            step = match step {
                Step::Done(result) => return Ok(result),
                Step::Status => {
                    let call = self.call("Status")?;
                    let answer = said(&call["error"]).map(|()| StatusResponse {
                        version: text(&call["version"]),
                        healthz: text(&call["healthz"]),
                        key_id: text(&call["key_id"]),
                    });
                    self.probe.status(self.now, answer)
                }
                Step::Encrypt => {
                    let call = self.call("Encrypt")?;
                    let answer = said(&call["error"]).map(|()| EncryptResponse {
                        ciphertext: bytes(&call["ciphertext"]),
                        key_id: text(&call["key_id"]),
                        annotations: annotations(&call),
                    });
                    let seed = bytes(&call["plaintext"]).try_into();
                    prop_assert!(seed.is_ok(), "a seed of 32 bytes: {}", call);
                    self.probe.encrypt(self.now, &seed.unwrap(), &text(&call["uid"]), answer)
                }
            };
        }
    }

    /// Makes a call: upstream's next has to be the same, now. Time goes on for as long as it took.
    fn call(&mut self, method: &str) -> Told<Value> {
        let at = u64::try_from(self.now.since(START).as_millis()).unwrap();
        let Some(call) = self.calls.pop_front() else {
            return Err(TestCaseError::fail(format!("the model calls {method} at {at} ms")));
        };
        prop_assert_eq!(method, call["method"].as_str().unwrap());
        prop_assert_eq!(at, call["at_ms"].as_u64().unwrap(), "when {} is called", method);
        if method != "Status" {
            prop_assert!(is_uid(&text(&call["uid"])), "{}", call);
        }
        self.now = self.now + Duration::from_millis(call["took_ms"].as_u64().unwrap_or(0));
        Ok(call)
    }

    fn write(&mut self, write: &Value, written: &[u8], came: &Value) -> Told {
        // What upstream drew at random is what is written with.
        let sealed =
            object::parse(written, &self.name, self.probe.by()).map(|record| record.encrypted_data);
        let sealed = sealed.unwrap_or_else(|_| vec![0; 44]);
        let random = (sealed[..32].try_into().unwrap(), sealed[32..44].try_into().unwrap());
        let (plaintext, aad) = (bytes(&write["plaintext"]), text(&write["aad"]));
        let (probe, cache) = (&self.probe, &mut self.cache);
        let value = envelope::write(probe, cache, self.now, random, &plaintext, aad.as_bytes());
        let upstream = said(&came["error"]).map(|()| written.to_vec());
        prop_assert_eq!(value, upstream);
        Ok(())
    }

    fn read(&mut self, read: &Value, came: &Value) -> Told {
        let mut value = bytes(&read["value"]);
        if value.is_empty() {
            value.clone_from(&self.written[usize::try_from(read["of"].as_u64().unwrap()).unwrap()]);
        }
        let aad = text(&read["aad"]);
        let opened = match envelope::begin(&self.probe, &self.cache, &value, aad.as_bytes()) {
            Reading::Done(opened) => opened,
            Reading::Decrypt(asked) => {
                let record = &asked.record;
                let call = self.call("Decrypt")?;
                prop_assert_eq!(&record.key_id, &text(&call["key_id"]));
                prop_assert_eq!(&record.encrypted_dek_source, &bytes(&call["ciphertext"]));
                prop_assert_eq!(&record.annotations, &annotations(&call));
                let answer =
                    said(&call["error"]).map(|()| Zeroizing::new(bytes(&call["plaintext"])));
                envelope::finish(&mut self.cache, self.now, &asked, answer, aad.as_bytes())
            }
        };
        let upstream = said(&came["error"]).map(|()| envelope::Read {
            plaintext: bytes(&came["plaintext"]),
            stale: came["stale"].as_bool().unwrap_or(false),
        });
        prop_assert_eq!(opened, upstream);
        Ok(())
    }

    /// Lets time go by, with all polls that fall into it.
    fn wait(&mut self, duration: Duration) -> Told {
        let end = self.now + duration;
        while let Some(at) = self.next_poll().filter(|at| *at <= end) {
            self.now = at;
            self.poll(at)?;
        }
        self.now = end;
        Ok(())
    }

    fn next_poll(&self) -> Option<Time> {
        let polling = self.polling.as_ref()?;
        [Some(polling.next), polling.fast, polling.start].into_iter().flatten().min()
    }

    /// One check for each loop whose moment it is. A loop that is in its fast loop misses its own ticks.
    fn poll(&mut self, at: Time) -> Told {
        let Some(mut polling) = self.polling.take() else { return Ok(()) };
        if polling.start == Some(at) {
            polling.start = self.check()?.is_err().then_some(at + BAD);
        }
        let idle_tick = polling.next == at && polling.fast.is_none();
        if polling.fast == Some(at) || idle_tick {
            polling.fast = self.check()?.is_err().then_some(at + BAD);
        }
        if polling.next == at {
            polling.next = at + GOOD;
        }
        self.polling = Some(polling);
        Ok(())
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn annotations(call: &Value) -> std::collections::BTreeMap<String, Vec<u8>> {
    let all = call["annotations"].as_object();
    all.map(|all| all.iter().map(|(name, value)| (name.clone(), bytes(value))).collect())
        .unwrap_or_default()
}

/// A UUID of version 4 in lower case.
fn is_uid(uid: &str) -> bool {
    uid.len() == 36
        && uid.char_indices().all(|(at, digit)| match at {
            8 | 13 | 18 | 23 => digit == '-',
            14 => digit == '4',
            19 => "89ab".contains(digit),
            _ => digit.is_ascii_digit() || ('a'..='f').contains(&digit),
        })
}
