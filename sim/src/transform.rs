//! What stands before a resource's objects in etcd: its chain of providers (upstream `storage/value/transformer.go`
//! and `encryptionconfig/config.go`; spec 7, "Provider order").
//!
//! ```text
//! k8s:enc:kms:v2:<plugin>:…      crate::envelope
//! k8s:enc:aesgcm:v1:<key>:…      nonce (12) ‖ AES-GCM ‖ tag (16), bound to the place in etcd
//! k8s:enc:aescbc:v1:<key>:…      IV (16) ‖ AES-CBC, PKCS#7; bound to nothing, and not authenticated
//! k8s:enc:secretbox:v1:<key>:…   nonce (24) ‖ tag (16) ‖ XSalsa20, bound to nothing
//! …                              identity: as it is
//! ```
//!
//! The first provider writes, with its first key. All whose prefix matches are tried in order to read; what is read
//! by another than the first provider and key is stale.

mod local;

use zeroize::Zeroizing;

use crate::cache::Cache;
use crate::config::{GroupResource, Plan, Planned};
use crate::envelope::{self, Asked, Read, Reading};
use crate::limits::joined;
use crate::object::{self, INFO_BYTES, NONCE_BYTES};
use crate::probe::Probe;
use crate::time::Time;
use local::{Cipher, Keyed};

/// What encrypted data begin with.
pub const ENCRYPTED: &[u8] = b"k8s:enc:";

/// Most random bytes that a write needs: those of a `kms` entry.
pub const RANDOM_BYTES: usize = INFO_BYTES + NONCE_BYTES;

/// A `kms` entry while the apiserver runs.
pub struct Entry {
    /// Its health and seed.
    pub probe: Probe,
    /// Its unwrapped seeds.
    pub cache: Cache,
}

/// The providers of a resource, in their order.
pub struct Chain {
    links: Vec<Link>,
    /// The resource is in no rule: nothing but a check that its data are not encrypted.
    unnamed: bool,
}

enum Link {
    Identity,
    Keyed(Keyed),
    /// The place of the plugin in [`Plan::plugins`].
    Kms(usize),
}

/// What reading needs next.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Call Decrypt of the plugin with this place in [`Plan::plugins`], and hand the answer to [`Chain::finish`].
    Decrypt(usize, Asked),
    /// Nothing.
    Done(Result<Read, String>),
}

impl Chain {
    /// That of a resource.
    #[must_use]
    pub fn new(plan: &Plan, resource: &GroupResource) -> Self {
        let Some(places) = plan.providers_of(resource) else {
            return Self { links: vec![Link::Identity], unnamed: true };
        };
        let link = |place: &usize| match plan.providers.get(*place)? {
            Planned::Identity => Some(Link::Identity),
            Planned::AesGcm(keys) => Some(Link::Keyed(Keyed::new(Cipher::AesGcm, keys))),
            Planned::AesCbc(keys) => Some(Link::Keyed(Keyed::new(Cipher::AesCbc, keys))),
            Planned::Secretbox(keys) => Some(Link::Keyed(Keyed::new(Cipher::Secretbox, keys))),
            Planned::Kms(plugin) => Some(Link::Kms(*plugin)),
        };
        Self { links: places.iter().filter_map(link).collect(), unnamed: false }
    }

    /// Writes an object to the place `aad` in etcd: the value. Of the random bytes the first are used, as many
    /// as it takes. `entries` are those of [`Plan::plugins`].
    pub fn write(
        &self,
        entries: &mut [Entry],
        now: Time,
        random: &[u8; RANDOM_BYTES],
        plaintext: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, String> {
        match self.links.first() {
            None | Some(Link::Identity) => Ok(plaintext.to_vec()),
            Some(Link::Keyed(keyed)) => keyed.seal(random, plaintext, aad),
            Some(Link::Kms(plugin)) => {
                let Entry { probe, cache } = entries.get_mut(*plugin).ok_or(NO_ENTRY)?;
                let (info, nonce) = random.split_at(INFO_BYTES);
                let info = info.try_into().map_err(|_| NO_ENTRY)?;
                let nonce = nonce.try_into().map_err(|_| NO_ENTRY)?;
                envelope::write(probe, cache, now, (info, nonce), plaintext, aad)
            }
        }
    }

    /// Begins to read a value of the place `aad`.
    #[must_use]
    pub fn begin(&self, entries: &[Entry], value: &[u8], aad: &[u8]) -> Next {
        self.read(entries, value, aad, None)
    }

    /// Reads with what Decrypt answered; an error is gRPC's text.
    #[allow(
        clippy::too_many_arguments,
        reason = "each is another thing; they have no common owner"
    )]
    pub fn finish(
        &self,
        entries: &mut [Entry],
        now: Time,
        value: &[u8],
        (plugin, asked): (usize, &Asked),
        answer: Result<Zeroizing<Vec<u8>>, String>,
        aad: &[u8],
    ) -> Result<Read, String> {
        let cache = &mut entries.get_mut(plugin).ok_or(NO_ENTRY)?.cache;
        let read = envelope::finish(cache, now, asked, answer, aad);
        match self.read(entries, value, aad, Some((plugin, read))) {
            Next::Done(read) => read,
            // Names are unique, so that no second entry has this prefix.
            Next::Decrypt(..) => Err(NO_ENTRY.to_owned()),
        }
    }

    /// `TransformFromStorage` of the prefix transformers; with what one plugin's Decrypt led to, if it was asked.
    fn read(
        &self,
        entries: &[Entry],
        value: &[u8],
        aad: &[u8],
        mut decrypted: Option<(usize, Result<Read, String>)>,
    ) -> Next {
        let mut faults = Vec::new();
        for (place, link) in self.links.iter().enumerate() {
            let read = match link {
                Link::Identity if !value.starts_with(ENCRYPTED) => {
                    Ok(Read { plaintext: value.to_vec(), stale: false })
                }
                Link::Identity if self.unnamed => Err(vec![REFUSED.to_owned()]),
                // A refusal is no fault: the next may know it.
                Link::Identity => continue,
                Link::Keyed(keyed) => match keyed.open(value, aad) {
                    Some(read) => read,
                    None => continue,
                },
                Link::Kms(plugin) => {
                    let Some(entry) = entries.get(*plugin) else { continue };
                    if !object::is_of(value, entry.probe.name()) {
                        continue;
                    }
                    let done = decrypted.take_if(|(of, _)| of == plugin).map(|(_, read)| read);
                    let read = match done {
                        Some(read) => read,
                        None => match envelope::begin(&entry.probe, &entry.cache, value, aad) {
                            Reading::Done(read) => read,
                            Reading::Decrypt(asked) => return Next::Decrypt(*plugin, asked),
                        },
                    };
                    read.map_err(|fault| vec![fault])
                }
            };
            match read {
                Ok(read) => {
                    let stale = read.stale || place != 0;
                    return Next::Done(Ok(Read { stale, ..read }));
                }
                Err(more) => faults.extend(more),
            }
        }
        Next::Done(Err(joined(&faults).unwrap_or_else(|| "no matching prefix found".to_owned())))
    }
}

const REFUSED: &str = "identity transformer tried to read encrypted data";

const NO_ENTRY: &str = "the entries are not those of the chain's plan";

#[cfg(test)]
mod tests;
