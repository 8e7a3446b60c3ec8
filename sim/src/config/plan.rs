//! What is built of a legal configuration (upstream `encryptionconfig/config.go`,
//! `getTransformerOverridesAndKMSPluginProbes`): which resource has which providers.

use std::collections::BTreeMap;
use std::time::Duration;

use zeroize::Zeroizing;

use super::types::{Configuration, GroupResource, Key, Kms, Provider};
use super::{endpoint, keys};
use crate::go::quoted;

/// Named keys, in their order: the first writes, all read.
pub type Keys = Vec<(String, Zeroizing<Vec<u8>>)>;

/// One provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planned {
    /// In clear.
    Identity,
    /// AES-GCM with these keys.
    AesGcm(Keys),
    /// AES-CBC with these keys.
    AesCbc(Keys),
    /// XSalsa20-Poly1305 with these keys.
    Secretbox(Keys),
    /// The plugin with this place in [`Plan::plugins`].
    Kms(usize),
}

/// One `kms` entry: a connection, a state and a loop of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// Its name.
    pub name: String,
    /// Of [`endpoint::address`].
    pub address: Vec<u8>,
    /// Of one call.
    pub timeout: Duration,
}

/// All of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Every provider, rules in their order.
    pub providers: Vec<Planned>,
    /// Every `kms` entry, in the file's order, which is also that of the health checks.
    pub plugins: Vec<Plugin>,
    /// Places in [`Self::providers`] by resource or wildcard. A resource of two rules has both's.
    pub resources: BTreeMap<GroupResource, Vec<usize>>,
}

impl Plan {
    /// Upstream's checks when it builds, in its order; the first fault ends them. It would have called the
    /// plugins before that one by then.
    pub fn new(configuration: &Configuration) -> Result<Self, String> {
        let mut plan = Self::default();
        for rule in &configuration.resources {
            let first = plan.providers.len();
            for provider in &rule.providers {
                let planned = plan.provider(provider)?;
                plan.providers.push(planned);
            }
            let places: Vec<_> = (first..plan.providers.len()).collect();
            for resource in &rule.resources {
                let resource = GroupResource::parse(resource);
                for wider in [GroupResource::all_of(&resource.group), GroupResource::all_of("*")] {
                    if plan.resources.contains_key(&wider) {
                        let (resource, wider) = (resource.to_string(), wider.to_string());
                        return Err(format!(
                            "resource {} is masked by earlier rule {}",
                            quoted(resource),
                            quoted(wider)
                        ));
                    }
                }
                plan.resources.entry(resource).or_default().extend(&places);
            }
        }
        Ok(plan)
    }

    fn provider(&mut self, provider: &Provider) -> Result<Planned, String> {
        // In upstream's order, should there be several.
        if let Some(keys) = &provider.aesgcm {
            Ok(Planned::AesGcm(decoded(keys)?))
        } else if let Some(keys) = &provider.aescbc {
            Ok(Planned::AesCbc(decoded(keys)?))
        } else if let Some(keys) = &provider.secretbox {
            Ok(Planned::Secretbox(decoded(keys)?))
        } else if let Some(kms) = &provider.kms {
            self.plugins.push(plugin(kms)?);
            Ok(Planned::Kms(self.plugins.len() - 1))
        } else {
            Ok(Planned::Identity)
        }
    }

    /// The providers of a resource: by its name, its group's wildcard or that of all; none of them:
    /// nothing is encrypted.
    #[must_use]
    pub fn providers_of(&self, resource: &GroupResource) -> Option<&[usize]> {
        [resource.clone(), GroupResource::all_of(&resource.group), GroupResource::all_of("*")]
            .iter()
            .find_map(|resource| self.resources.get(resource))
            .map(Vec::as_slice)
    }

    /// Twice the timeouts of all plugins: how long old connections live after a reload, and, if at least
    /// 10 s, how long new ones may need to be healthy.
    #[must_use]
    pub fn grace(&self) -> Duration {
        2 * self.plugins.iter().map(|plugin| plugin.timeout).sum::<Duration>()
    }
}

fn decoded(configured: &[Key]) -> Result<Keys, String> {
    let decode = |key: &Key| {
        let bytes = keys::bytes(&key.secret)
            .ok_or_else(|| format!("could not obtain secret for named key {}", key.name))?;
        Ok((key.name.clone(), bytes))
    };
    configured.iter().map(decode).collect()
}

fn plugin(kms: &Kms) -> Result<Plugin, String> {
    let name = kms.name.clone();
    if kms.api_version != "v2" {
        // Its gate is off since 1.29, and is not modelled.
        return Err(
            "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 \
                    instead.  Set --feature-gates=KMSv1=true to use the deprecated KMSv1 feature."
                .to_owned(),
        );
    }
    let address = endpoint::address(&kms.endpoint).map_err(|fault| {
        format!("could not configure KMSv2-Plugin's probe {}, error: {fault}", quoted(&name))
    })?;
    let timeout = Duration::from_nanos(u64::try_from(kms.timeout).unwrap_or(0));
    Ok(Plugin { name, address, timeout })
}
