//! One `kms` entry at work: its connection, its health, its seeds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kleidi_proto::encryption::EncryptedObject;
use kleidi_proto::kms::{DecryptRequest, EncryptRequest};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tonic::metadata::MetadataMap;
use zeroize::Zeroizing;

use crate::cache::Cache;
use crate::client::{Channel, Target, text};
use crate::config::Plugin;
use crate::edges::Edges;
use crate::envelope::{self, Read, Reading};
use crate::probe::{Probe, Step};
use crate::version::Version;

/// How often a healthy plugin is looked at (`kmsv2PluginHealthzPositiveInterval`).
const POLL: Duration = Duration::from_secs(60);

/// How often one that is not healthy is (`kmsv2PluginHealthzNegativeInterval`).
const POLL_BAD: Duration = Duration::from_secs(10);

/// One `kms` entry. Clones share it.
#[derive(Clone)]
pub(super) struct Entry(Arc<Inner>);

struct Inner {
    edges: Edges,
    channel: Channel,
    /// Held over a check and its calls, so that there is one at a time.
    checking: tokio::sync::Mutex<()>,
    state: Mutex<(Probe, Cache)>,
}

impl Entry {
    pub(super) fn new(edges: &Edges, version: Version, plugin: &Plugin) -> Self {
        let target = Target {
            name: plugin.name.clone(),
            address: plugin.address.clone(),
            timeout: plugin.timeout,
            version,
        };
        Self(Arc::new(Inner {
            edges: edges.clone(),
            channel: Channel::new(edges.clone(), target),
            checking: tokio::sync::Mutex::default(),
            state: Mutex::new((Probe::new(&plugin.name), Cache::default())),
        }))
    }

    /// Looks at the plugin for the first time, and then again and again until the loops are dropped
    /// (`primeAndProbeKMSv2`; spec 5.3).
    pub(super) async fn begin(&self) -> Loops {
        let mut loops = Vec::new();
        if self.check().await.is_err() {
            let entry = self.clone();
            loops.push(tokio::spawn(async move { entry.check_until_good().await }));
        }
        let entry = self.clone();
        loops.push(tokio::spawn(async move {
            let mut ticks = ticks(POLL);
            loop {
                ticks.tick().await;
                if entry.check().await.is_err() {
                    entry.check_until_good().await;
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
        let mut step = self.state().0.select(edges.clock.now());
        loop {
            step = match step {
                Step::Done(result) => return result,
                Step::Status => {
                    let answer = channel.status().await.map_err(|status| text(&status));
                    self.state().0.status(edges.clock.now(), answer)
                }
                Step::Encrypt => {
                    let (seed, uid) = (Zeroizing::new(edges.bytes()?), edges.uid()?);
                    let request = EncryptRequest { plaintext: seed.to_vec(), uid: uid.clone() };
                    let answer = channel.encrypt(request).await.map_err(|status| text(&status));
                    self.state().0.encrypt(edges.clock.now(), &seed, &uid, answer)
                }
            };
        }
    }

    /// Encrypts an object for the place `key` in etcd.
    pub(super) fn write(&self, object: &[u8], key: &[u8]) -> Result<Vec<u8>, String> {
        let edges = &self.0.edges;
        let (info, nonce) = (edges.bytes()?, edges.bytes()?);
        let (probe, cache) = &mut *self.state();
        envelope::write(probe, cache, edges.clock.now(), (&info, &nonce), object, key)
    }

    /// Decrypts a value of the place `key`; calls the plugin for a seed that is not known.
    pub(super) async fn read(
        &self,
        value: &[u8],
        key: &[u8],
        metadata: &MetadataMap,
    ) -> Result<Read, String> {
        let record = {
            let (probe, cache) = &*self.state();
            match envelope::begin(probe, cache, value, key) {
                Reading::Done(result) => return result,
                Reading::Decrypt(record) => record,
            }
        };
        let answer = self.decrypt(&record, metadata).await;
        let now = self.0.edges.clock.now();
        let (probe, cache) = &mut *self.state();
        envelope::finish(probe, cache, now, &record, answer, key)
    }

    async fn decrypt(
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

    pub(super) fn name(&self) -> String {
        self.state().0.name().to_owned()
    }

    fn state(&self) -> MutexGuard<'_, (Probe, Cache)> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As a Go ticker: the first after one period; of those that fall while nobody looks one is kept.
fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// An entry's loops; they end when dropped.
pub(super) struct Loops(Vec<JoinHandle<()>>);

impl Drop for Loops {
    fn drop(&mut self) {
        for one in &self.0 {
            one.abort();
        }
    }
}
