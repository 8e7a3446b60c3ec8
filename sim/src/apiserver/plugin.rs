//! One `kms` entry at work: its connection, and the checks of its health.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kleidi_proto::encryption::EncryptedObject;
use kleidi_proto::kms::{DecryptRequest, EncryptRequest};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tonic::metadata::MetadataMap;
use zeroize::Zeroizing;

use crate::client::{Channel, Target, text};
use crate::config;
use crate::edges::Edges;
use crate::probe::Step;
use crate::transform::Entry;
use crate::version::Version;

/// How often a healthy plugin is looked at (`kmsv2PluginHealthzPositiveInterval`).
const POLL: Duration = Duration::from_secs(60);

/// How often one that is not healthy is (`kmsv2PluginHealthzNegativeInterval`).
const POLL_BAD: Duration = Duration::from_secs(10);

/// What is known of all plugins of a configuration, in the order of [`config::Plan::plugins`].
pub(super) struct Entries(Mutex<Vec<Entry>>);

impl Entries {
    pub(super) fn new(entries: Vec<Entry>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(entries)))
    }

    /// Never held over a call.
    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One plugin. Clones share it.
#[derive(Clone)]
pub(super) struct Plugin(Arc<Inner>);

struct Inner {
    edges: Edges,
    channel: Channel,
    entries: Arc<Entries>,
    /// Of its entry.
    place: usize,
    /// Held over a check and its calls, so that there is one at a time.
    checking: tokio::sync::Mutex<()>,
}

impl Plugin {
    /// The plugin whose entry has that place.
    pub(super) fn new(
        edges: &Edges,
        by: Version,
        config: &config::Plugin,
        (entries, place): (&Arc<Entries>, usize),
    ) -> Self {
        let target = Target {
            name: config.name.clone(),
            address: config.address.clone(),
            timeout: config.timeout,
            version: by,
        };
        Self(Arc::new(Inner {
            edges: edges.clone(),
            channel: Channel::new(edges.clone(), target),
            entries: Arc::clone(entries),
            place,
            checking: tokio::sync::Mutex::default(),
        }))
    }

    /// Looks at the plugin for the first time, and then again and again until the loops are dropped
    /// (`primeAndProbeKMSv2`; spec 5.3).
    pub(super) async fn begin(&self) -> Loops {
        let mut loops = Vec::new();
        if self.check().await.is_err() {
            let plugin = self.clone();
            loops.push(tokio::spawn(async move { plugin.check_until_good().await }));
        }
        let plugin = self.clone();
        loops.push(tokio::spawn(async move {
            let mut ticks = ticks(POLL);
            loop {
                ticks.tick().await;
                if plugin.check().await.is_err() {
                    plugin.check_until_good().await;
                }
            }
        }));
        Loops(loops)
    }

    async fn check_until_good(&self) {
        let mut ticks = ticks(POLL_BAD);
        loop {
            ticks.tick().await;
            if self.check().await.is_ok() {
                return;
            }
        }
    }

    /// One check of its health, by a recent result or by calls.
    pub(super) async fn check(&self) -> Result<(), String> {
        let Inner { edges, channel, checking, .. } = &*self.0;
        let _one = checking.lock().await;
        let mut step = self.entry(|entry| entry.probe.select(edges.clock.now()))?;
        loop {
            step = match step {
                Step::Done(result) => return result,
                Step::Status => {
                    let answer = channel.status().await.map_err(|status| text(&status));
                    self.entry(|entry| entry.probe.status(edges.clock.now(), answer))?
                }
                Step::Encrypt => {
                    let (seed, uid) = (Zeroizing::new(edges.bytes()?), edges.uid()?);
                    let request = EncryptRequest { plaintext: seed.to_vec(), uid: uid.clone() };
                    let answer = channel.encrypt(request).await.map_err(|status| text(&status));
                    let now = edges.clock.now();
                    self.entry(|entry| entry.probe.encrypt(now, &seed, &uid, answer))?
                }
            };
        }
    }

    /// Has it unwrap the seed of a record.
    pub(super) async fn decrypt(
        &self,
        record: &EncryptedObject,
        metadata: &MetadataMap,
    ) -> Result<Zeroizing<Vec<u8>>, String> {
        let request = DecryptRequest {
            ciphertext: record.encrypted_dek_source.clone(),
            uid: self.0.edges.uid()?,
            key_id: record.key_id.clone(),
            annotations: record.annotations.clone(),
        };
        let answer = self.0.channel.decrypt(request, metadata).await;
        let answer = answer.map_err(|status| text(&status))?;
        Ok(Zeroizing::new(answer.plaintext.to_vec()))
    }

    fn entry<T>(&self, does: impl FnOnce(&mut Entry) -> T) -> Result<T, String> {
        let mut entries = self.0.entries.lock();
        let entry = entries.get_mut(self.0.place).ok_or("the plugin has no entry")?;
        Ok(does(entry))
    }
}

/// As a Go ticker: the first after one period; of those that fall while nobody looks one is kept.
fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// A plugin's loops; they end when dropped.
pub(super) struct Loops(Vec<JoinHandle<()>>);

impl Drop for Loops {
    fn drop(&mut self) {
        for one in &self.0 {
            one.abort();
        }
    }
}
