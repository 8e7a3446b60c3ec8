//! etcd in memory: objects under revisions; and what each of them is in truth.

use std::sync::Arc;

use kleidi_proto::encryption::EncryptedObject;
use parking_lot::Mutex;
use prost::Message as _;

use crate::object;
use crate::version::Version;

/// Bytes at a time of which none may be seen in what is stored.
const WINDOW: usize = 16;

/// An object in etcd.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// Since when it is as it is; 0 if it was never written.
    pub revision: u64,
    /// The bytes in etcd.
    pub value: Vec<u8>,
    /// What was written, in clear.
    pub truth: Vec<u8>,
    /// It is not what an apiserver has put there.
    pub tampered: bool,
    /// What an apiserver has put there, once it was changed.
    put: Option<Vec<u8>>,
    /// What it was before it was written last: the bytes in etcd, and what they are in clear.
    before: Option<(Vec<u8>, Vec<u8>)>,
}

impl Stored {
    /// Changed behind the apiservers' backs; or back, if that makes it what it was.
    fn change(&mut self, value: Vec<u8>) {
        let before = std::mem::replace(&mut self.value, value);
        self.tampered = *self.put.get_or_insert(before) != self.value;
    }
}

/// All objects.
#[derive(Default)]
pub struct Store(Mutex<(u64, Vec<Stored>)>);

impl Store {
    /// With room for so many objects.
    #[must_use]
    pub fn new(objects: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new((0, vec![Stored::default(); objects]))))
    }

    /// An object as it is now; `None` if it was never written.
    #[must_use]
    pub fn get(&self, object: usize) -> Option<Stored> {
        self.0.lock().1.get(object).filter(|stored| stored.revision > 0).cloned()
    }

    /// Puts it there, unless it was changed since `revision`: the new revision.
    pub fn put(&self, object: usize, revision: u64, value: Vec<u8>, truth: Vec<u8>) -> Option<u64> {
        let (last, objects) = &mut *self.0.lock();
        let stored = objects.get_mut(object).filter(|stored| stored.revision == revision)?;
        *last += 1;
        let encrypted = encrypted_from(&stored.value).is_some() && !stored.tampered;
        let before = encrypted
            .then(|| (std::mem::take(&mut stored.value), std::mem::take(&mut stored.truth)));
        *stored = Stored { revision: *last, value, truth, before, ..Stored::default() };
        Some(*last)
    }

    /// Another bit, where the object is encrypted.
    pub fn flip(&self, object: usize, bit: usize) {
        let objects = &mut self.0.lock().1;
        let Some(stored) = objects.get_mut(object) else { return };
        let Some(at) = encrypted_from(&stored.value) else { return };
        let bits = (stored.value.len() - at) * 8;
        if bits > 0 {
            let mut value = stored.value.clone();
            value[at + bit % bits / 8] ^= 1 << (bit % 8);
            stored.change(value);
        }
    }

    /// Two encrypted objects change places.
    pub fn swap(&self, one: usize, other: usize) {
        let objects = &mut self.0.lock().1;
        let encrypted =
            |at: usize| objects.get(at).is_some_and(|s| encrypted_from(&s.value).is_some());
        if one == other || !encrypted(one) || !encrypted(other) {
            return;
        }
        let [mine, theirs] = [one, other].map(|at| objects[at].value.clone());
        objects[one].change(theirs);
        objects[other].change(mine);
    }

    /// Two encrypted objects get each other's wrapped seeds, with all that a plugin is asked with.
    pub fn swap_seeds(&self, one: usize, other: usize) {
        let objects = &mut self.0.lock().1;
        let read = |at: usize| {
            let value = &objects.get(at)?.value;
            Some((value[..encrypted_from(value)?].to_vec(), record(value)?))
        };
        let (Some((first, mine)), Some((second, theirs))) = (read(one), read(other)) else {
            return;
        };
        if mine.encrypted_dek_source == theirs.encrypted_dek_source {
            return;
        }
        let with_seed_of = |object: &EncryptedObject, seed: &EncryptedObject| EncryptedObject {
            encrypted_data: object.encrypted_data.clone(),
            ..seed.clone()
        };
        for (at, prefix, record) in [
            (one, first, with_seed_of(&mine, &theirs)),
            (other, second, with_seed_of(&theirs, &mine)),
        ] {
            objects[at].change([prefix, record.encode_to_vec()].concat());
        }
    }

    /// An object is again what it was before it was written last, as from a backup of etcd; if `may` says so of
    /// the value of then.
    pub fn roll_back(&self, object: usize, may: impl FnOnce(&[u8]) -> bool) {
        let (last, objects) = &mut *self.0.lock();
        let Some(stored) = objects.get_mut(object) else { return };
        let Some((value, truth)) = stored.before.take().filter(|(value, _)| may(value)) else {
            return;
        };
        *last += 1;
        *stored = Stored { revision: *last, value, truth, ..Stored::default() };
    }

    /// All that are there.
    #[must_use]
    pub fn all(&self) -> Vec<(usize, Stored)> {
        let objects = self.0.lock().1.clone();
        objects.into_iter().enumerate().filter(|(_, stored)| stored.revision > 0).collect()
    }
}

/// Where an object is.
#[must_use]
pub fn key(object: usize) -> String {
    format!("/registry/secrets/default/{object}")
}

/// The record in a value, whichever provider's it is.
#[must_use]
pub fn record(value: &[u8]) -> Option<EncryptedObject> {
    object::parse_any(value, Version::default()).ok()
}

/// Where a value's record begins.
fn encrypted_from(value: &[u8]) -> Option<usize> {
    object::record_of_any(value).map(|record| value.len() - record.len())
}

/// Whether some of `secret` can be seen in `value`.
#[must_use]
pub fn shows(value: &[u8], secret: &[u8]) -> bool {
    secret.windows(WINDOW).any(|part| value.windows(WINDOW).any(|seen| seen == part))
}
