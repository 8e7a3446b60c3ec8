//! etcd in memory: objects under revisions; and what each of them is in truth.

use std::sync::Arc;

use kleidi_proto::encryption::EncryptedObject;
use parking_lot::Mutex;

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
    /// It was changed behind the apiservers' backs since.
    pub tampered: bool,
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
        *stored = Stored { revision: *last, value, truth, tampered: false };
        Some(*last)
    }

    /// Another bit, where the object is encrypted.
    pub fn flip(&self, object: usize, bit: usize) {
        let objects = &mut self.0.lock().1;
        let Some(stored) = objects.get_mut(object) else { return };
        let Some(at) = encrypted_from(&stored.value) else { return };
        let bits = (stored.value.len() - at) * 8;
        if bits > 0 {
            stored.value[at + bit % bits / 8] ^= 1 << (bit % 8);
            stored.tampered = true;
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
        let value = objects[one].value.clone();
        objects[one].value = std::mem::replace(&mut objects[other].value, value);
        for at in [one, other] {
            objects[at].tampered = true;
        }
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
