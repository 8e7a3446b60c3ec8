//! What clients do to an apiserver, and what came of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::metadata::MetadataMap;

use super::history::Is;
use super::mutant::Mutant;
use super::node::Node;
use super::plan::Plan;
use super::store::{Stored, key, record, shows};
use crate::apiserver::Apiserver;
use crate::config::GroupResource;
use crate::envelope::Read;

/// Bytes of an object.
const OBJECT: usize = 48;

/// How often, and how long after one another, an apiserver that has begun tries to list everything.
const LISTS: usize = 6;
const LIST_AGAIN: Duration = Duration::from_secs(10);

/// Lists at a time in a burst.
const BURST: usize = 4;

impl Node {
    /// A client of its apiserver, for ever.
    pub async fn use_it(self: Arc<Self>, plan: Arc<Plan>) {
        let begin = Instant::now();
        let least = Duration::from_millis(plan.think_ms.div_ceil(64).max(1));
        loop {
            sleep(self.random.time(least, Duration::from_millis(plan.think_ms))).await;
            if let Some(object) = self.due(&plan, begin.elapsed()) {
                self.write(object);
            }
            match self.random.below(20) {
                0 => self.look().await,
                1 => self.read_all(plan.all_objects()).await,
                2..=9 => self.write(self.random.index(plan.objects)),
                _ => {
                    self.read(self.random.index(plan.all_objects())).await;
                }
            }
        }
    }

    /// An object that is written once, and should have been by now.
    fn due(&self, plan: &Plan, elapsed: Duration) -> Option<usize> {
        let share = elapsed.as_secs_f64() / plan.lasts().as_secs_f64().max(1.0);
        let due = (0..plan.kept).take_while(|number| {
            let number = u32::try_from(*number).unwrap_or(u32::MAX);
            let kept = u32::try_from(plan.kept).unwrap_or(u32::MAX);
            f64::from(number) <= share * f64::from(kept)
        });
        let mut objects = due.map(|number| plan.objects + number);
        objects.find(|object| self.shared.store.get(*object).is_none())
    }

    /// Asks the apiserver how it is; while one begins anew, nobody can.
    pub async fn look(&self) {
        if let Some(apiserver) = self.apiserver() {
            let error = apiserver.health().await.err();
            if self.is(&apiserver) {
                self.health(error);
            }
        }
    }

    /// Writes an object with new content.
    pub fn write(&self, object: usize) {
        let mut content = vec![0; OBJECT];
        self.random.bytes(&mut content);
        let revision = self.shared.store.get(object).map_or(0, |stored| stored.revision);
        self.update(object, revision, content);
    }

    /// Writes an object, unless it is not what it was at that revision any more.
    fn update(&self, object: usize, revision: u64, content: Vec<u8>) {
        let Some(apiserver) = self.apiserver() else { return };
        let key = key(object);
        match apiserver.write(&secrets(), &content, key.as_bytes()) {
            Ok(_) if self.shared.mutant == Some(Mutant::StoresInClear) => {
                self.put(object, revision, &content.clone(), content);
            }
            Ok(value) => self.put(object, revision, &value, content),
            Err(error) => self.wrote(object, None, &[], false, Some(error)),
        }
    }

    fn put(&self, object: usize, revision: u64, value: &[u8], content: Vec<u8>) {
        let seeds = &self.shared.history.seeds;
        let shows = shows(value, &content) || seeds.show_in_bytes(value);
        let stored = self.shared.store.put(object, revision, value.to_vec(), content);
        self.wrote(object, stored, value, shows, None);
    }

    fn wrote(
        &self,
        object: usize,
        revision: Option<u64>,
        value: &[u8],
        shows: bool,
        error: Option<String>,
    ) {
        let wrapped_by = self.shared.who_wrapped(value);
        let key_id = record(value).map(|record| record.key_id);
        let named = wrapped_by.and_then(|version| self.shared.kms.id_of(version));
        let truly = key_id.is_some() && named.map(|id| id.to_string()) == key_id;
        let node = self.number;
        let history = &self.shared.history;
        history.push(Is::Wrote { node, object, revision, key_id, wrapped_by, truly, shows, error });
    }

    /// Reads an object: its revision and what it is, if that worked.
    pub async fn read(&self, object: usize) -> Option<(u64, Vec<u8>)> {
        let (apiserver, stored) = (self.apiserver()?, self.shared.store.get(object)?);
        let (key, no_metadata) = (key(object), MetadataMap::new());
        let read = apiserver.read(&secrets(), &stored.value, key.as_bytes(), &no_metadata).await;
        self.has_read(&apiserver, object, stored, read)
    }

    /// Reads so many objects, one after another.
    pub async fn read_all(&self, objects: usize) {
        for object in 0..objects {
            self.read(object).await;
        }
    }

    /// Reads all objects at once, as the list does that fills an apiserver's cache: whether that worked.
    pub(super) async fn list(&self, apiserver: &Arc<Apiserver>) -> bool {
        let all = self.shared.store.all();
        let pairs: Vec<_> =
            all.iter().map(|(object, stored)| (key(*object), stored.value.clone())).collect();
        let reads = apiserver.list(&secrets(), &pairs).await;
        let mut well = true;
        for ((object, stored), read) in all.into_iter().zip(reads) {
            well &= read.is_ok() || stored.tampered;
            self.has_read(apiserver, object, stored, read);
        }
        well
    }

    /// Lists everything until that works, as an apiserver does that has just begun; not for ever.
    pub(super) async fn list_until_well(&self, apiserver: &Arc<Apiserver>) {
        for _ in 0..LISTS {
            if !self.is(apiserver) || self.list(apiserver).await {
                return;
            }
            sleep(LIST_AGAIN).await;
        }
    }

    /// Many clients want everything at once, and write all that may be written.
    pub async fn burst(self: Arc<Self>, plan: Arc<Plan>) {
        let Some(apiserver) = self.apiserver() else { return };
        let mut lists = Vec::new();
        for _ in 0..BURST {
            let (node, apiserver) = (Arc::clone(&self), Arc::clone(&apiserver));
            lists.push(tokio::spawn(async move { node.list(&apiserver).await }));
        }
        (0..plan.objects).for_each(|object| self.write(object));
        for list in lists {
            let _ = list.await;
        }
    }

    /// What came of a read.
    fn has_read(
        &self,
        apiserver: &Arc<Apiserver>,
        object: usize,
        stored: Stored,
        read: Result<Read, String>,
    ) -> Option<(u64, Vec<u8>)> {
        // One that was restarted meanwhile has answered nobody.
        if !self.is(apiserver) {
            return None;
        }
        let Stored { revision, value, truth, tampered, .. } = stored;
        let wrapped_by = self.shared.who_wrapped(&value);
        let usable = wrapped_by.is_none_or(|version| self.shared.kms.is_usable(version));
        let mixed = self.shared.mutant == Some(Mutant::MixesObjects) && object == 1;
        let opens_anything = self.shared.mutant == Some(Mutant::OpensAnything) && tampered;
        let read = match read.map(|read| read.plaintext) {
            Ok(_) if mixed => {
                Ok(self.shared.store.get(0).map(|other| other.truth).unwrap_or_default())
            }
            Err(_) if opens_anything => Ok(truth.clone()),
            read => read,
        };
        let (same, error, content) = match read {
            Ok(content) => (content == truth, None, Some((revision, content))),
            Err(error) => (false, Some(error), None),
        };
        let node = self.number;
        let history = &self.shared.history;
        history.push(Is::Read {
            node,
            object,
            revision,
            same,
            tampered,
            wrapped_by,
            usable,
            error,
        });
        content
    }

    /// Reads and writes an object as it is, so that it is under the current key.
    pub async fn rewrite(&self, object: usize) {
        if let Some((revision, content)) = self.read(object).await {
            self.update(object, revision, content);
        }
    }

    /// Whether its apiserver writes under the key of that fingerprint, as an operator sees by writing.
    pub fn wraps_with(&self, fingerprint: Option<kleidi::key_id::Fingerprint>) -> bool {
        let Some(apiserver) = self.apiserver() else { return false };
        let value =
            apiserver.write(&secrets(), b"is it under the new key?", b"/registry/secrets/a/b");
        let key_id = value.ok().and_then(|value| record(&value)).map(|record| record.key_id);
        let id = key_id.and_then(|key_id| key_id.parse::<kleidi::key_id::KeyId>().ok());
        id.is_some_and(|id| Some(id.fingerprint()) == fingerprint)
    }
}

fn secrets() -> GroupResource {
    GroupResource::parse("secrets")
}
