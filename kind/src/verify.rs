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
    /// Every Secret in etcd is under one of these keys, with its seed wrapped; nothing of any value is in etcd's files
    /// on any node; and every kube-apiserver, started anew, reads all that was acknowledged.
    ///
    /// All of it as a sentence for the summary.
    pub fn encrypted_at_rest(&self, key_ids: &[&str]) -> Result<String, String> {
        self.encrypted_since(key_ids, "")
    }

    /// The same, but of the files only for values of Secrets whose names begin with `series`: what was written in
    /// clear before is still in etcd's history.
    pub fn encrypted_since(&self, key_ids: &[&str], series: &str) -> Result<String, String> {
        self.step("every value in etcd is looked at");
        let counts = self.raw_values()?;
        let stray = counts.keys().find(|key_id| !key_ids.contains(&key_id.as_str()));
        if let Some(stray) = stray {
            return Err(format!("{} objects in etcd are under the key {stray}", counts[stray]));
        }
        self.step("etcd's files are searched for what was written");
        let control = format!("control-of-the-search-in-{}", self.name);
        self.api()?.write_config_map("control-of-the-search", &control)?;
        self.nodes.iter().try_for_each(|node| self.nothing_in_clear(node, series, &control))?;
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
        let patience = Duration::from_secs(20);
        let values = within(patience, "all members of etcd to agree", || self.same_values())?;
        let acknowledged = self.secrets.borrow();
        let missing = acknowledged.keys().find(|name| {
            let key = format!("{SECRETS}default/{name}");
            !values.contains_key(&key)
        });
        if let Some(missing) = missing {
            return Err(format!("the Secret {missing} was acknowledged, and is not in etcd"));
        }
        let mut counts = BTreeMap::new();
        for (key, value) in &values {
            *counts.entry(stored::key_id(key, value, PROVIDER)?).or_default() += 1;
        }
        Ok(counts)
    }

    /// The Secrets in etcd by key, which have to be the same in all members, byte for byte.
    fn same_values(&self) -> Result<BTreeMap<String, Vec<u8>>, String> {
        let first = self.node()?.etcd(SECRETS)?;
        for node in &self.nodes[1..] {
            let other = node.etcd(SECRETS)?;
            if other != first {
                let differ = first.iter().filter(|(key, value)| other.get(*key) != Some(*value));
                return Err(format!(
                    "{} has {} Secrets, the first {}, of which {} differ",
                    node.name,
                    other.len(),
                    first.len(),
                    differ.count()
                ));
            }
        }
        Ok(first)
    }

    /// The values of Secrets whose names begin with `series` are nowhere in etcd's files. That the search finds what
    /// is there is shown by the text `control` of a ConfigMap, which is not encrypted.
    fn nothing_in_clear(&self, node: &Node, series: &str, control: &str) -> Result<(), String> {
        let mut texts = stored::forms(&self.value(series));
        texts.push(control.to_owned());
        // A member hears of a write a moment after it was acknowledged.
        let mut found = within(Duration::from_secs(60), "the search to find a ConfigMap", || {
            let found = node.in_etcds_files(&texts)?;
            if found.contains_key(control) { Ok(found) } else { Err("nothing".to_owned()) }
        })?;
        found.remove(control);
        match found.first_key_value() {
            None => Ok(()),
            Some((text, file)) => {
                Err(format!("on {} values of Secrets lie in clear in {file}, as {text}", node.name))
            }
        }
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
                under(key_id, key, value)
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

/// Makes sure that a value of etcd is under this key.
pub fn under(key_id: &str, key: &str, value: &[u8]) -> Result<(), String> {
    let found = stored::key_id(key, value, PROVIDER)?;
    if found == key_id { Ok(()) } else { Err(format!("{key} is under {found}")) }
}
