//! How every scenario ends: what is in etcd, bit for bit, and that everything can be read by everybody.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::within;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::plan::PROVIDER;
use crate::stored;

/// Below this etcd has the Secrets of all namespaces.
const SECRETS: &str = "/registry/secrets/";

/// A kube-apiserver hears of a new key at its next health check, a minute away at most.
const HEARD: Duration = Duration::from_secs(120);

impl Cluster {
    /// Every Secret in etcd is under one of these keys, with its seed wrapped; nothing of the values of the `series`
    /// is in etcd's files on any node; and every kube-apiserver, started anew, reads all that was acknowledged.
    ///
    /// All of it as a sentence for the summary.
    pub fn encrypted_at_rest(&self, key_ids: &[&str], series: &str) -> Result<String, String> {
        self.step("every value in etcd is looked at");
        let counts = self.raw_values(key_ids)?;
        let stray = counts.keys().find(|key_id| !key_ids.contains(&key_id.as_str()));
        if let Some(stray) = stray {
            return Err(format!("{} objects in etcd are under the key {stray}", counts[stray]));
        }
        self.step("etcd's files are searched for what was written");
        for node in &self.nodes {
            self.nothing_in_clear(node, series)?;
        }
        self.everything_readable()?;
        let objects: usize = counts.values().sum();
        Ok(format!(
            "{objects} Secrets in etcd wrapped under {}, none of {} values in its files, all read by {} \
             kube-apiserver(s) with nothing in memory",
            key_ids.join(" or "),
            self.secrets.borrow().len(),
            self.nodes.len()
        ))
    }

    /// How many Secrets in etcd are under which key; each member of etcd has to have the same.
    pub fn raw_values(&self, key_ids: &[&str]) -> Result<BTreeMap<String, usize>, String> {
        let mut counts = BTreeMap::new();
        for node in &self.nodes {
            counts = BTreeMap::new();
            for (key, value) in node.etcd(SECRETS)? {
                let key_id = stored::key_id(&key, &value, PROVIDER)?;
                *counts.entry(key_id).or_default() += 1;
            }
            let wanted = self.secrets.borrow().len();
            let found: usize = counts.values().sum();
            if found < wanted {
                return Err(format!(
                    "{} has {found} Secrets in etcd (keys wanted: {key_ids:?}), and {wanted} were acknowledged",
                    node.name
                ));
            }
        }
        Ok(counts)
    }

    /// The values of Secrets whose names begin with `series` are nowhere in etcd's files. That the search finds what
    /// is there is shown by a ConfigMap, which is not encrypted.
    fn nothing_in_clear(&self, node: &Node, series: &str) -> Result<(), String> {
        let control = format!("control-{}", self.value("of-the-search"));
        let name = format!("control-{}", node.name);
        let found = node.etcd_files_with(std::slice::from_ref(&control))?;
        if found.is_empty() {
            node.api()?.create_config_map(&name, &control)?;
        }
        if node.etcd_files_with(&[control])?.is_empty() {
            return Err("the search of etcd's files does not even find a ConfigMap".to_owned());
        }
        let found = node.etcd_files_with(&stored::forms(&self.value(series)))?;
        if found.is_empty() {
            return Ok(());
        }
        Err(format!("on {} values of Secrets lie in clear in {}", node.name, found.join(", ")))
    }

    /// Every kube-apiserver, started anew, reads each Secret that was acknowledged, and lists all others.
    pub fn everything_readable(&self) -> Result<(), String> {
        self.step("kube-apiservers start anew, and read everything");
        self.restart_apiservers()?;
        self.nodes.iter().try_for_each(|node| self.readable_through(node))
    }

    /// The same through one of them, as it is.
    pub fn readable_through(&self, node: &Node) -> Result<(), String> {
        let api = node.api()?;
        let listed = api
            .secrets()
            .map_err(|error| format!("{}: a list of all Secrets: {error}", node.name))?;
        for (name, value) in &*self.secrets.borrow() {
            let read = api
                .read_secret(name)
                .map_err(|error| format!("{}: Secret {name}: {error}", node.name))?;
            if read != *value || listed.get(&format!("default/{name}")) != Some(value) {
                return Err(format!(
                    "{}: Secret {name} has another value than was written",
                    node.name
                ));
            }
        }
        Ok(())
    }

    /// Waits until every kube-apiserver writes under this key.
    pub fn wait_until_written_under(&self, key_id: &str) -> Result<(), String> {
        let mut tries = 0;
        within(HEARD, "every kube-apiserver to write under the new key", || {
            let series = format!("probe-{tries}");
            tries += 1;
            self.create_secrets(&series, self.nodes.len())?;
            for number in 0..self.nodes.len() {
                let key = format!("{SECRETS}default/{series}-{number}");
                let values = self.node()?.etcd(&key)?;
                let value = values.get(&key).ok_or_else(|| format!("there is no {key} in etcd"))?;
                let found = stored::key_id(&key, value, PROVIDER)?;
                if found != key_id {
                    return Err(format!("{key} is under {found}"));
                }
            }
            Ok(())
        })
    }
}
