//! Secrets in etcd, by way of the apiserver's encryption: what the API does with a client's request, without
//! the API.

use std::collections::BTreeMap;

use kleidi_proto::encryption::EncryptedObject;
use prost::Message as _;
use tonic::metadata::MetadataMap;

use crate::apiserver::Apiserver;
use crate::config::GroupResource;
use crate::edges::Edges;
use crate::envelope::Read;
use crate::etcd::{Etcd, Pair};
use crate::object;
use crate::secret::{Manager, OPAQUE, Secret};

/// How often an update that somebody else was faster than is tried again.
const ATTEMPTS: usize = 5;

/// A store of Secrets.
pub struct Store {
    /// Encrypts and decrypts.
    pub apiserver: Apiserver,
    /// Holds them.
    pub etcd: Etcd,
    /// Of the time and of uids.
    pub edges: Edges,
    /// `--etcd-prefix`
    pub prefix: String,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// It is new.
    Created,
    /// It was changed, or was the same and stale.
    Updated,
    /// It was the same, and not stale: nothing was written.
    Unchanged,
}

/// A Secret in etcd.
pub struct Found {
    /// Its key in etcd.
    pub key: String,
    /// Under which key_id, if it is a plugin's.
    pub key_id: Option<String>,
    /// Bytes in etcd.
    pub bytes: usize,
    /// What was read.
    pub read: Result<Read, String>,
}

impl Store {
    /// Sets a Secret's content; an error if the API would not take it.
    pub async fn put(
        &mut self,
        namespace: &str,
        name: &str,
        data: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Wrote, String> {
        let key = self.key(namespace, name);
        self.update(&key, |now, uid, old| {
            let manager = Some(Manager { name: "kleidi-sim".to_owned(), time: now });
            let Some(old) = old else {
                let (namespace, name) = (namespace.to_owned(), name.to_owned());
                let (data, kind) = (data.clone(), OPAQUE.to_owned());
                let secret = Secret { namespace, name, uid, created: now, data, kind, manager };
                return secret.validate().map(|()| secret.encode());
            };
            let secret = Secret::decode(old)?;
            if secret.data == *data {
                return Ok(old.to_vec());
            }
            let refused = |why: &str| {
                Err(format!("{namespace}/{name} is not changed: {why}; change it through the API"))
            };
            if secret.encode() != old {
                return refused("it has labels, annotations or owners, which would be lost");
            }
            if secret.kind != OPAQUE {
                return refused(&format!(
                    "its type is {}, of which the API may demand certain keys",
                    secret.kind
                ));
            }
            let secret = Secret { data: data.clone(), manager, ..secret };
            secret.validate().map(|()| secret.encode())
        })
        .await
    }

    /// Reads a Secret.
    pub async fn get(&mut self, namespace: &str, name: &str) -> Result<Option<Found>, String> {
        let key = self.key(namespace, name);
        match self.pair(&key).await? {
            Some(pair) => Ok(Some(self.found(pair).await)),
            None => Ok(None),
        }
    }

    /// Reads all Secrets, or those of a namespace.
    pub async fn list(&mut self, namespace: Option<&str>) -> Result<Vec<Found>, String> {
        let prefix = match namespace {
            Some(namespace) => self.key(namespace, ""),
            None => format!("{}/secrets/", self.prefix),
        };
        let pairs = self.etcd.list(&prefix).await.map_err(|error| error.to_string())?;
        let mut found = Vec::new();
        for pair in pairs {
            found.push(self.found(pair).await);
        }
        Ok(found)
    }

    /// Writes a Secret back as it is, which moves it to the present key_id if it is under another.
    pub async fn rewrite(&mut self, key: &str) -> Result<Wrote, String> {
        self.update(key, |_, _, old| match old {
            Some(old) => Ok(old.to_vec()),
            None => Err(format!("{key} is not in etcd any more")),
        })
        .await
    }

    /// `GuaranteedUpdate`: reads, changes, and writes unless nothing has changed and nothing is stale; again
    /// if somebody else was faster.
    async fn update(
        &mut self,
        key: &str,
        change: impl Fn(i64, String, Option<&[u8]>) -> Result<Vec<u8>, String>,
    ) -> Result<Wrote, String> {
        let resource = secrets();
        for _ in 0..ATTEMPTS {
            let old = self.pair(key).await?;
            let read = match &old {
                Some(pair) => {
                    let value = &pair.value;
                    Some(self.apiserver.read(&resource, value, key.as_bytes(), &metadata()).await?)
                }
                None => None,
            };
            let seconds = self.edges.clock.now().0.as_secs();
            let now = i64::try_from(seconds).unwrap_or(i64::MAX);
            let plaintext = read.as_ref().map(|read| read.plaintext.as_slice());
            let new = change(now, self.edges.uid()?, plaintext)?;
            if let Some(read) = &read
                && read.plaintext == new
                && !read.stale
            {
                return Ok(Wrote::Unchanged);
            }
            let value = self.apiserver.write(&resource, &new, key.as_bytes())?;
            let revision = old.as_ref().map_or(0, |pair| pair.revision);
            if self.etcd.put(key, &value, revision).await.map_err(|error| error.to_string())? {
                return Ok(if old.is_some() { Wrote::Updated } else { Wrote::Created });
            }
        }
        Err(format!("{key} was changed by others {ATTEMPTS} times meanwhile; try again"))
    }

    async fn pair(&mut self, key: &str) -> Result<Option<Pair>, String> {
        self.etcd.get(key).await.map_err(|error| error.to_string())
    }

    async fn found(&self, pair: Pair) -> Found {
        let Pair { key, value, .. } = pair;
        let read = self.apiserver.read(&secrets(), &value, key.as_bytes(), &metadata()).await;
        let key_id = key_id(&value);
        Found { key, key_id, bytes: value.len(), read }
    }

    fn key(&self, namespace: &str, name: &str) -> String {
        format!("{}/secrets/{namespace}/{name}", self.prefix)
    }
}

/// Of the record in a value, whichever plugin's it is.
fn key_id(value: &[u8]) -> Option<String> {
    Some(EncryptedObject::decode(object::record_of_any(value)?).ok()?.key_id)
}

fn secrets() -> GroupResource {
    GroupResource::parse("secrets")
}

/// A request of the API brings nothing along.
fn metadata() -> MetadataMap {
    MetadataMap::new()
}
