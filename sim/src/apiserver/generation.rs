//! All that is made of one EncryptionConfiguration.

use tonic::metadata::MetadataMap;

use super::entry::{Entry, Loops};
use crate::config::{self, ConfigError, GroupResource, Plan, Planned};
use crate::edges::Edges;
use crate::envelope::Read;
use crate::limits::joined;
use crate::version::Version;

/// What every stored value of a provider other than `identity` begins with.
const ENCRYPTED: &[u8] = b"k8s:enc:";

/// A configuration at work.
pub(super) struct Generation {
    pub(super) plan: Plan,
    /// By [`Version::config_hash`].
    pub(super) hash: String,
    entries: Vec<Entry>,
    _loops: Vec<Loops>,
}

impl Generation {
    /// Reads a file and looks at each plugin once, in the file's order, one after another.
    pub(super) async fn load(
        edges: &Edges,
        version: Version,
        file: &[u8],
        reload: bool,
    ) -> Result<Self, ConfigError> {
        let plan = config::load(file, version, reload)?;
        let hash = version.config_hash(file);
        let (mut entries, mut loops) = (Vec::new(), Vec::new());
        for plugin in &plan.plugins {
            let entry = Entry::new(edges, version, plugin);
            loops.push(entry.begin().await);
            entries.push(entry);
        }
        Ok(Self { plan, hash, entries, _loops: loops })
    }

    /// The health of all plugins, one after another (`kmsHealthChecker`).
    pub(super) async fn health(&self) -> Result<(), String> {
        let mut faults = Vec::new();
        for (number, entry) in self.entries.iter().enumerate() {
            if let Err(fault) = entry.check().await {
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
        match self.providers(resource).first() {
            None | Some(Planned::Identity) => Ok(object.to_vec()),
            Some(Planned::Kms(place)) => self.entry(*place)?.write(object, key),
            Some(other) => Err(not_modelled(other)),
        }
    }

    /// Tries each provider whose prefix the value has, in their order (`value.prefixTransformers`; spec 7).
    pub(super) async fn read(
        &self,
        resource: &GroupResource,
        value: &[u8],
        key: &[u8],
        metadata: &MetadataMap,
    ) -> Result<Read, String> {
        let mut faults = Vec::new();
        for (number, provider) in self.providers(resource).iter().enumerate() {
            let read = match provider {
                // Its refusal of what is encrypted is not said.
                Planned::Identity if value.starts_with(ENCRYPTED) => continue,
                Planned::Identity => Ok(Read { plaintext: value.to_vec(), stale: false }),
                Planned::Kms(place) => {
                    let entry = self.entry(*place)?;
                    if !crate::object::is_of(value, &entry.name()) {
                        continue;
                    }
                    entry.read(value, key, metadata).await
                }
                other => Err(not_modelled(other)),
            };
            match read {
                Ok(read) => return Ok(Read { stale: read.stale || number > 0, ..read }),
                Err(fault) => faults.push(fault),
            }
        }
        Err(joined(&faults).unwrap_or_else(|| "no matching prefix found".to_owned()))
    }

    /// Those of the configuration, or none but that which does nothing.
    fn providers(&self, resource: &GroupResource) -> Vec<&Planned> {
        match self.plan.providers_of(resource) {
            Some(places) => {
                places.iter().filter_map(|place| self.plan.providers.get(*place)).collect()
            }
            None => vec![&Planned::Identity],
        }
    }

    fn entry(&self, place: usize) -> Result<&Entry, String> {
        self.entries.get(place).ok_or_else(|| "there is no such plugin".to_owned())
    }
}

fn not_modelled(provider: &Planned) -> String {
    let name = match provider {
        Planned::AesGcm(_) => "aesgcm",
        Planned::AesCbc(_) => "aescbc",
        Planned::Secretbox(_) => "secretbox",
        Planned::Identity | Planned::Kms(_) => "kms",
    };
    format!("the provider {name} is not modelled")
}
