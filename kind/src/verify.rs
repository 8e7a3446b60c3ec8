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

/// A kube-apiserver hears of a new key at its next health check, and looks at its configuration each minute.
const HEARD: Duration = Duration::from_secs(150);

impl Cluster {
    /// Every Secret in etcd is under one of these keys, with its seed wrapped; nothing of the values of the `series`
    /// is in etcd's files on any node; and every kube-apiserver, started anew, reads all that was acknowledged.
    ///
    /// All of it as a sentence for the summary.
    pub fn encrypted_at_rest(&self, key_ids: &[&str], series: &str) -> Result<String, String> {
        self.step("every value in etcd is looked at");
        let counts = self.raw_values()?;
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
        let searched = self.secrets.borrow().keys().filter(|name| name.starts_with(series)).count();
        Ok(format!(
            "{objects} Secrets in etcd wrapped under {}, none of {searched} values in its files, all read by {} \
             kube-apiserver(s) with nothing in memory",
            key_ids.join(" or "),
            self.nodes.len()
        ))
    }

    /// How many Secrets in etcd are under which key; all members of etcd have to agree.
    pub fn raw_values(&self) -> Result<BTreeMap<String, usize>, String> {
        // A member hears of a write a moment after it was acknowledged.
        within(Duration::from_secs(20), "all members of etcd to agree", || {
            let mut counted = Vec::new();
            for node in &self.nodes {
                let mut counts = BTreeMap::new();
                for (key, value) in node.etcd(SECRETS)? {
                    *counts.entry(stored::key_id(&key, &value, PROVIDER)?).or_default() += 1;
                }
                counted.push(counts);
            }
            let first = counted.first().cloned().unwrap_or_default();
            let found: usize = first.values().sum();
            let wanted = self.secrets.borrow().len();
            if found < wanted {
                return Err(format!("{found} Secrets are in etcd, and {wanted} were acknowledged"));
            }
            if counted.iter().all(|each| *each == first) {
                Ok(first)
            } else {
                Err(format!("{counted:?}"))
            }
        })
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
        for (number, node) in self.nodes.iter().enumerate() {
            self.wait_until_written(node, &format!("probe-{number}"), |key, value| {
                let found = stored::key_id(key, value, PROVIDER)?;
                if found == key_id { Ok(()) } else { Err(format!("{key} is under {found}")) }
            })?;
        }
        Ok(())
    }

    /// Writes a Secret through a node's kube-apiserver again and again, until etcd has it as `wanted`.
    pub fn wait_until_written(
        &self,
        node: &Node,
        name: &str,
        wanted: impl Fn(&str, &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let key = format!("{SECRETS}default/{name}");
        let mut tries = 0;
        within(HEARD, &format!("{} to write as it is told", node.name), || {
            tries += 1;
            let value = format!("{}-{tries}", self.value(name));
            node.api()?.write_secret(name, &value)?;
            self.secrets.borrow_mut().insert(name.to_owned(), value);
            let values = node.etcd(&key)?;
            wanted(&key, values.get(&key).ok_or_else(|| format!("there is no {key} in etcd"))?)
        })
    }
}
