//! What happens in a run, whole: a plan is all that is needed to see it again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mutant::Mutant;
use crate::version::Version;

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What it is kept for, for the reader.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// What the judge has to catch with it, if it is broken so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub catches: Vec<Mutant>,
    /// Of what is drawn while it runs: uids, keys, latencies, which object is written. Events are not.
    pub seed: u64,
    /// How the events were drawn, for the reader.
    pub profile: String,
    /// Control-plane nodes: an apiserver and a plugin each.
    pub nodes: usize,
    /// Which release each apiserver is, in turn.
    pub versions: Vec<String>,
    /// How long it lasts, in seconds, before everything is healed.
    pub lasts_s: u64,
    /// How often a plugin looks at its KMS, in seconds.
    pub period_s: u64,
    /// Which KMS there is.
    #[serde(default)]
    pub kms: Kms,
    /// Objects that are written again and again, and read.
    pub objects: usize,
    /// Objects that are written once, one after another, and read until the end.
    #[serde(default)]
    pub kept: usize,
    /// Whether the product is held up now and then where no fault of the network reaches.
    #[serde(default)]
    pub points: bool,
    /// Longest time between two operations of a client, in milliseconds.
    pub think_ms: u64,
    /// What happens, in this order.
    pub events: Vec<Event>,
}

/// Servers of a cluster with transit.
pub const SERVERS: usize = 3;

/// Which KMS there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kms {
    /// A simple one behind the backend's trait.
    #[default]
    Simulated,
    /// Three servers of OpenBao, and the product's client: who stands by answers what only reads.
    Transit,
    /// The same as Vault Community: who stands by passes everything on to the leader.
    TransitForwarding,
}

/// Something that happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in milliseconds since the beginning.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What can happen. Faults last until they are ended or everything is healed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
#[allow(
    missing_docs,
    reason = "nodes and objects are numbers, from 0; the rest is said with the variant"
)]
pub enum What {
    /// The plugin's process is killed.
    PluginKilled { node: usize },
    /// It is asked to end, with its calls.
    PluginStopped { node: usize },
    /// It is started, if it does not run.
    PluginStarted { node: usize },
    /// The apiserver forgets everything and begins anew.
    ApiserverRestarted { node: usize },
    /// What a client meets at the plugin's socket.
    Socket { node: usize, is: Gate },
    /// All connections to the plugin are cut, whatever is under way.
    Cut { node: usize },
    /// On all connections to the plugin the apiserver's side is closed: the plugin hears that, and may still answer.
    HalfClosed { node: usize },
    /// What is sent takes so long each way, in milliseconds, and comes in pieces of at most so many bytes.
    Slow { node: usize, delay_ms: u64, piece: usize },
    /// What the KMS does when this node calls.
    Kms { node: usize, does: Trouble },
    /// How long the KMS takes for an answer to this node, in milliseconds.
    KmsTakes { node: usize, ms: u64 },
    /// This node hears of new keys so much later, in milliseconds.
    KmsLag { node: usize, ms: u64 },
    /// A new key, from now on the current one.
    Rotated,
    /// The key before the current one is used again as if it were new: the same material.
    Reinstated,
    /// All keys but the current one may not be used until they are enabled.
    OldDisabled,
    /// They may again.
    OldEnabled,
    /// All keys but the current one are gone for good.
    OldDestroyed,
    /// All keys but the current one are gone for good, and nobody has looked whether they are needed.
    OldDestroyedUnasked,
    /// The node's apiserver reads and writes every object that may be, so that all are under the current key.
    Rewritten { node: usize },
    /// Many clients of this apiserver want everything at once.
    Burst { node: usize },
    /// One bit of an object in etcd is another.
    Flipped { object: usize, bit: usize },
    /// Two objects in etcd change places.
    Swapped { one: usize, other: usize },
    /// Two objects in etcd get each other's wrapped seeds.
    SeedsSwapped { one: usize, other: usize },
    /// An object in etcd is again what it was before it was written last, if its key may be used.
    RolledBack { object: usize },
    /// What a server of transit's cluster does.
    Server { server: usize, is: Machine },
    /// This server hears of what is written so much later, in milliseconds.
    ServerLag { server: usize, ms: u64 },
    /// What this node meets at this server.
    Route { node: usize, server: usize, is: Gate },
    /// The leader gives up its place.
    SteppedDown,
    /// All tokens are revoked.
    TokensRevoked,
    /// The key in transit is deleted, and another one made under its name: what it wrapped is lost.
    KeyMadeAnew,
    /// The cluster is saved,
    BackedUp,
    /// and is again what it was then: what later keys wrapped is lost.
    Restored,
    /// The configuration of this apiserver: which providers, the first one writes.
    Configured { node: usize, providers: Vec<Provider> },
}

/// What a client meets at a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// Who serves there, if anybody does.
    Open,
    /// No file.
    Missing,
    /// A file at which nobody listens.
    Refusing,
    /// It connects, and then nothing.
    Mute,
    /// What is connected already hangs, too.
    Frozen,
}

impl Gate {
    /// On a way to a server: what is sent is lost, on new connections and on those that are there.
    #[must_use]
    pub fn is_silent(self) -> bool {
        matches!(self, Self::Missing | Self::Mute | Self::Frozen)
    }
}

/// What a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Machine {
    /// It serves.
    Up,
    /// It was killed.
    Killed,
    /// It was asked to end, and has.
    Stopped,
    /// It is connected to, and does nothing.
    Hung,
    /// It says that it is sealed.
    Sealed,
    /// It cannot write its audit log: everything is refused.
    Failing,
}

/// What a KMS does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// What it should.
    None,
    /// Nobody can connect.
    Unreachable,
    /// No answer, ever.
    Hangs,
    /// It says that it is sealed.
    Sealed,
    /// It says that it is asked too much.
    Throttled,
    /// It refuses the credentials.
    Forbidden,
    /// It unwraps, but does not wrap.
    WrapDenied,
    /// It wraps, but does not unwrap.
    UnwrapDenied,
    /// It wraps with the key before the one that was asked for, and says so.
    WrapsWithPrevious,
    /// What it unwraps is not what was wrapped.
    UnwrapsWrongly,
    /// What it wraps has one bit wrong (transit alone).
    DamagesCiphertexts,
    /// It says that it has done what it was asked, and nothing else (transit alone).
    SaysNothing,
    /// What it answers ends in the middle (transit alone).
    Truncates,
}

/// A provider in an EncryptionConfiguration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// The plugin, under this name.
    Kms(String),
    /// What is in clear.
    Identity,
}

impl Plan {
    /// How many objects there are of either kind.
    #[must_use]
    pub fn all_objects(&self) -> usize {
        self.objects + self.kept
    }

    /// Whether an apiserver gets another configuration.
    #[must_use]
    pub fn changes_configuration(&self) -> bool {
        self.events.iter().any(|event| matches!(event.what, What::Configured { .. }))
    }

    /// How long it lasts before everything is healed.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        Duration::from_secs(self.lasts_s)
    }

    /// As a file, with a comment that says how it is used.
    pub fn to_toml(&self) -> Result<String, String> {
        let text = toml::to_string(self).map_err(|error| error.to_string())?;
        Ok(format!("# Replay it with: cargo sim replay FILE\n{text}"))
    }

    /// Reads a file.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let plan: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        plan.check()?;
        Ok(plan)
    }

    /// Whether it makes sense.
    fn check(&self) -> Result<(), String> {
        if self.nodes == 0 || self.objects == 0 || self.period_s == 0 {
            return Err("a plan needs a node, an object and a period".to_owned());
        }
        for version in &self.versions {
            version.parse::<Version>().map_err(|error| format!("{version}: {error}"))?;
        }
        for event in &self.events {
            if event.what.node().is_some_and(|node| node >= self.nodes) {
                return Err(format!("{event:?}: there are {} nodes", self.nodes));
            }
            if event.what.server().is_some_and(|server| server >= SERVERS) {
                return Err(format!("{event:?}: there are {SERVERS} servers"));
            }
        }
        Ok(())
    }

    /// How often each kind of event is in it.
    #[must_use]
    pub fn summary(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for event in &self.events {
            *counts.entry(event.what.name()).or_default() += 1;
        }
        counts
    }
}

impl What {
    /// The node that it happens to, if it is one.
    #[must_use]
    pub fn node(&self) -> Option<usize> {
        match self {
            Self::PluginKilled { node }
            | Self::PluginStopped { node }
            | Self::PluginStarted { node }
            | Self::ApiserverRestarted { node }
            | Self::Socket { node, .. }
            | Self::Cut { node }
            | Self::HalfClosed { node }
            | Self::Slow { node, .. }
            | Self::Kms { node, .. }
            | Self::KmsTakes { node, .. }
            | Self::KmsLag { node, .. }
            | Self::Rewritten { node }
            | Self::Burst { node }
            | Self::Route { node, .. }
            | Self::Configured { node, .. } => Some(*node),
            Self::Rotated
            | Self::Reinstated
            | Self::OldDisabled
            | Self::OldEnabled
            | Self::OldDestroyed
            | Self::OldDestroyedUnasked
            | Self::Flipped { .. }
            | Self::Swapped { .. }
            | Self::SeedsSwapped { .. }
            | Self::RolledBack { .. }
            | Self::Server { .. }
            | Self::ServerLag { .. }
            | Self::SteppedDown
            | Self::TokensRevoked
            | Self::KeyMadeAnew
            | Self::BackedUp
            | Self::Restored => None,
        }
    }

    /// The server that it is about, if it is one.
    #[must_use]
    pub fn server(&self) -> Option<usize> {
        match self {
            Self::Server { server, .. }
            | Self::ServerLag { server, .. }
            | Self::Route { server, .. } => Some(*server),
            _ => None,
        }
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::PluginKilled { .. } => "plugin-killed",
            Self::PluginStopped { .. } => "plugin-stopped",
            Self::PluginStarted { .. } => "plugin-started",
            Self::ApiserverRestarted { .. } => "apiserver-restarted",
            Self::Socket { .. } => "socket",
            Self::Cut { .. } => "cut",
            Self::HalfClosed { .. } => "half-closed",
            Self::Slow { .. } => "slow",
            Self::Kms { .. } => "kms",
            Self::KmsTakes { .. } => "kms-takes",
            Self::KmsLag { .. } => "kms-lag",
            Self::Rotated => "rotated",
            Self::Reinstated => "reinstated",
            Self::OldDisabled => "old-disabled",
            Self::OldEnabled => "old-enabled",
            Self::OldDestroyed => "old-destroyed",
            Self::OldDestroyedUnasked => "old-destroyed-unasked",
            Self::Rewritten { .. } => "rewritten",
            Self::Burst { .. } => "burst",
            Self::Flipped { .. } => "flipped",
            Self::Swapped { .. } => "swapped",
            Self::SeedsSwapped { .. } => "seeds-swapped",
            Self::RolledBack { .. } => "rolled-back",
            Self::Configured { .. } => "configured",
            Self::Server { .. } => "server",
            Self::ServerLag { .. } => "server-lag",
            Self::Route { .. } => "route",
            Self::SteppedDown => "stepped-down",
            Self::TokensRevoked => "tokens-revoked",
            Self::KeyMadeAnew => "key-made-anew",
            Self::BackedUp => "backed-up",
            Self::Restored => "restored",
        }
    }
}
