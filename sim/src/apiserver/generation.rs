//! All that is made of one EncryptionConfiguration.

use std::sync::Arc;

use tonic::metadata::MetadataMap;

use super::plugin::{Entries, Loops, Plugin};
use crate::config::{GroupResource, Plan};
use crate::edges::Edges;
use crate::envelope::Read;
use crate::limits::joined;
use crate::reload;
use crate::transform::{Chain, Next};
use crate::version::Version;

/// A configuration at work.
pub(super) struct Generation {
    pub(super) plan: Plan,
    edges: Edges,
    entries: Arc<Entries>,
    plugins: Vec<Plugin>,
    _loops: Vec<Loops>,
}

impl Generation {
    /// Looks at each plugin once, in the file's order, one after another, whatever it answers.
    pub(super) async fn start(edges: &Edges, by: Version, plan: Plan) -> Self {
        let entries = Entries::new(reload::entries(&plan, by));
        let (mut plugins, mut loops) = (Vec::new(), Vec::new());
        for (place, config) in plan.plugins.iter().enumerate() {
            let plugin = Plugin::new(edges, by, config, (&entries, place));
            loops.push(plugin.begin().await);
            plugins.push(plugin);
        }
        Self { plan, edges: edges.clone(), entries, plugins, _loops: loops }
    }

    /// The health of all plugins, one after another (`kmsHealthChecker`).
    pub(super) async fn health(&self) -> Result<(), String> {
        let mut faults = Vec::new();
        for (number, plugin) in self.plugins.iter().enumerate() {
            if let Err(fault) = plugin.check().await {
                faults.push(format!("kms-provider-{number}: {fault}"));
            }
        }
        joined(&faults).map_or(Ok(()), Err)
    }

    /// Encrypts with the first provider of the resource.
    pub(super) fn write(
        &self,
        resource: &GroupResource,
        object: &[u8],
        key: &[u8],
    ) -> Result<Vec<u8>, String> {
        let (random, now) = (self.edges.bytes()?, self.edges.clock.now());
        let chain = Chain::new(&self.plan, resource);
        chain.write(&mut self.entries.lock(), now, &random, object, key)
    }

    /// Decrypts with whichever provider of the resource it is; calls a plugin for a seed that is not known.
    pub(super) async fn read(
        &self,
        resource: &GroupResource,
        value: &[u8],
        key: &[u8],
        metadata: &MetadataMap,
    ) -> Result<Read, String> {
        let chain = Chain::new(&self.plan, resource);
        let next = chain.begin(&self.entries.lock(), value, key);
        let (place, asked) = match next {
            Next::Done(read) => return read,
            Next::Decrypt(place, asked) => (place, asked),
        };
        let plugin = self.plugins.get(place).ok_or("the entry has no plugin")?;
        let answer = plugin.decrypt(&asked.record, metadata).await;
        let now = self.edges.clock.now();
        chain.finish(&mut self.entries.lock(), now, value, (place, &asked), answer, key)
    }
}
