//! What happened in a run: the judge knows nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kleidi::backend::BackendError;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::plan::What;
use super::seeds::Seeds;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When, in milliseconds since the beginning.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub is: Is,
}

/// Kinds of what happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "nodes and objects are numbers, from 0; errors are texts")]
pub enum Is {
    /// An event of the plan.
    Event(What),
    /// The keys are others now, by what the event before this has done.
    Keys {
        /// The key_id of the current one.
        current: Option<String>,
        /// Those that have changed, and what they are now.
        changed: Vec<(u64, KeyState)>,
    },
    /// From now on all faults are over, and everything has to become good again.
    Healed,
    /// An apiserver wrote an object, or could not.
    Wrote {
        node: usize,
        object: usize,
        /// Of etcd, if it was written.
        revision: Option<u64>,
        /// Under which key_id it is stored; none if it is in clear.
        key_id: Option<String>,
        /// Which version of the key really wrapped the seed that it is encrypted with.
        wrapped_by: Option<u64>,
        /// That version is the one that the key_id names.
        truly: bool,
        /// A part of the object, or of the seed, can be seen in what was stored.
        shows: bool,
        error: Option<String>,
    },
    /// An apiserver read an object.
    Read {
        node: usize,
        object: usize,
        revision: u64,
        /// What it ought to have read, byte for byte.
        same: bool,
        /// It has been changed behind the apiservers' backs.
        tampered: bool,
        /// Which version of the key wrapped its seed, and whether that may be used.
        wrapped_by: Option<u64>,
        usable: bool,
        error: Option<String>,
    },
    /// An apiserver's call of its plugin has ended.
    Called {
        node: usize,
        provider: String,
        rpc: String,
        took_ms: u64,
        /// Of Status and Encrypt.
        key_id: Option<String>,
        /// Why kube-apiserver would not take the answer.
        illegal: Option<String>,
        error: Option<String>,
    },
    /// A plugin that was asked to end has, with all that it began.
    Ended { node: usize, took_ms: u64 },
    /// A task has panicked.
    Panicked { what: String },
    /// A seed can be seen where none may be; the place, and not the seed.
    Shown { at: String },
    /// A plugin's call of the KMS has ended.
    Kms { node: usize, what: KmsCall, error: Option<String> },
    /// A plugin has asked a server of transit's cluster; so many of its requests are under way, with this one.
    Asked { node: usize, path: String, under_way: u64 },
    /// A server of transit's cluster has refused a plugin's request.
    Refused { node: usize, server: usize, path: String, status: u16, said: String },
    /// What an apiserver says of its health.
    Health { node: usize, error: Option<String> },
    /// The key_id that everybody should know by now.
    Current { key_id: Option<String> },
    /// Tasks that are alive.
    Tasks { count: usize },
}

impl Is {
    /// What somebody said who failed.
    #[must_use]
    pub fn said(&self) -> Option<&str> {
        match self {
            Self::Wrote { error, .. }
            | Self::Read { error, .. }
            | Self::Called { error, .. }
            | Self::Kms { error, .. }
            | Self::Health { error, .. } => error.as_deref(),
            Self::Refused { said, .. } => Some(said),
            _ => None,
        }
    }
}

/// What has become of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyState {
    /// It wraps or unwraps.
    Usable,
    /// It is there, and may not be used for now.
    Barred,
    /// It is gone.
    Gone,
}

/// What a KMS can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KmsCall {
    /// Which keys there are.
    Observe,
    /// To wrap.
    Wrap,
    /// To unwrap.
    Unwrap,
}

/// Collects records, in the order in which they happen.
pub struct History {
    begin: Instant,
    records: Mutex<Vec<Record>>,
    /// What may be seen nowhere.
    pub seeds: Seeds,
}

impl History {
    /// An empty one, of a run that begins now.
    #[must_use]
    pub fn begin() -> Arc<Self> {
        Arc::new(Self { begin: Instant::now(), records: Mutex::default(), seeds: Seeds::default() })
    }

    /// Something happens.
    pub fn push(&self, is: Is) {
        self.push_at(Instant::now(), is);
    }

    /// Something has happened then.
    pub fn push_at(&self, then: Instant, is: Is) {
        let at_ms = millis(then.saturating_duration_since(self.begin));
        self.records.lock().push(Record { at_ms, is });
    }

    /// A call of the KMS has ended.
    pub fn kms<T>(&self, node: usize, what: KmsCall, outcome: &Result<T, BackendError>) {
        let error = outcome.as_ref().err().map(ToString::to_string);
        self.push(Is::Kms { node, what, error });
    }

    /// Notes each text in which a seed can be seen.
    pub fn look_for_seeds(&self) {
        let mut found = Vec::new();
        let mut last = "";
        let records = self.records.lock();
        for record in records.iter() {
            let Some(text) = record.is.said().filter(|text| *text != last) else { continue };
            last = text;
            if self.seeds.show_in(text) {
                found.push(format!("what was said at {} ms", record.at_ms));
            }
        }
        drop(records);
        for at in found {
            self.push(Is::Shown { at });
        }
    }

    /// All of it.
    #[must_use]
    pub fn take(&self) -> Vec<Record> {
        std::mem::take(&mut *self.records.lock())
    }
}

/// In whole milliseconds.
#[must_use]
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What two runs of one plan have in common.
#[must_use]
pub fn hash(records: &[Record]) -> String {
    let mut hash = Sha256::new();
    for record in records {
        hash.update(format!("{record:?}\n"));
    }
    let bytes = hash.finalize();
    bytes.iter().take(8).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// How often each call of a plugin was made, and how often objects were read and written.
#[must_use]
pub fn summary(records: &[Record]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for record in records {
        let name = match &record.is {
            Is::Called { rpc, .. } => rpc.as_str(),
            Is::Read { .. } => "reads",
            Is::Wrote { .. } => "writes",
            _ => continue,
        };
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// As lines of JSON.
pub fn to_lines(records: &[Record]) -> Result<String, String> {
    let mut text = String::new();
    for record in records {
        text += &serde_json::to_string(record).map_err(|error| error.to_string())?;
        text.push('\n');
    }
    Ok(text)
}

/// From lines of JSON.
pub fn from_lines(text: &str) -> Result<Vec<Record>, String> {
    let lines = text.lines().enumerate();
    lines
        .map(|(number, line)| {
            serde_json::from_str(line).map_err(|error| format!("line {}: {error}", number + 1))
        })
        .collect()
}
