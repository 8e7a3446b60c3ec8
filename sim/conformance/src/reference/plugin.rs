//! What a correct plugin does.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use kleidi_proto::kms::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusResponse,
};
use parking_lot::Mutex;
use tonic::Status;

use super::keyring::{Flag, Key, Keyring};

/// What every ciphertext begins with.
pub const MAGIC: &[u8] = b"ref1";
const NONCE: usize = 12;
/// How much longer a ciphertext is than its plaintext, in bytes.
pub const OVERHEAD: usize = MAGIC.len() + NONCE + 16;
const PLAINTEXT_BYTES_MAX: usize = 4096;

/// Which key is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announce {
    /// The newest.
    Newest,
    /// The newest of at least this age, as from a KMS that is slow to tell.
    After(Duration),
    /// The newest whose material was not there before.
    NewMaterial,
    /// The first, for ever.
    First,
}

/// A plugin with its view of the keyring.
pub struct Plugin {
    ring: Keyring,
    announce: Announce,
    /// What Status said last: Encrypt follows it.
    announced: Mutex<Option<Key>>,
}

impl Plugin {
    /// On this keyring.
    pub fn new(ring: Keyring, announce: Announce) -> Self {
        Self { ring, announce, announced: Mutex::default() }
    }

    /// The KMS.
    pub fn ring(&self) -> &Keyring {
        &self.ring
    }

    /// The key that Status said last, or would say.
    pub fn announced(&self) -> Result<Key, Status> {
        let announced = self.announced.lock().clone();
        announced.map_or_else(|| self.refresh(), Ok)
    }

    /// Looks which key to announce.
    pub fn refresh(&self) -> Result<Key, Status> {
        let keys = self.ring.keys().map_err(unavailable)?;
        let key = match self.announce {
            Announce::Newest => keys.last(),
            Announce::First => keys.first(),
            Announce::NewMaterial => {
                let is_new = |nth: usize| {
                    keys[..nth].iter().all(|before| before.material != keys[nth].material)
                };
                (0..keys.len()).rev().find(|nth| is_new(*nth)).and_then(|nth| keys.get(nth))
            }
            Announce::After(age) => {
                keys.iter().rev().find(|key| key.age >= age).or_else(|| keys.first())
            }
        };
        let key = key.cloned().ok_or_else(|| Status::unavailable("the keyring is empty"))?;
        *self.announced.lock() = Some(key.clone());
        Ok(key)
    }

    /// An error while the KMS is away.
    pub fn reachable(&self) -> Result<(), Status> {
        if self.ring.is(Flag::Outage) {
            return Err(Status::unavailable("the KMS does not answer; try again later"));
        }
        Ok(())
    }

    /// An error while the KMS does not decrypt.
    pub fn may_decrypt(&self) -> Result<(), Status> {
        if self.ring.is(Flag::DecryptDenied) {
            return Err(Status::permission_denied("the KMS does not allow to decrypt"));
        }
        Ok(())
    }

    /// Status: an outage is an error, never a text beside a key_id.
    pub fn status(&self) -> Result<StatusResponse, Status> {
        self.reachable()?;
        self.may_decrypt()?;
        self.healthy()
    }

    /// Status without a look at the KMS's conditions.
    pub fn healthy(&self) -> Result<StatusResponse, Status> {
        let key_id = self.refresh()?.id;
        Ok(StatusResponse { version: "v2".to_owned(), healthz: "ok".to_owned(), key_id })
    }

    /// Encrypt, with the key that Status said last.
    pub fn encrypt(&self, request: &EncryptRequest) -> Result<EncryptResponse, Status> {
        self.reachable()?;
        if request.plaintext.len() > PLAINTEXT_BYTES_MAX {
            return Err(Status::invalid_argument("the plaintext has more than 4096 bytes"));
        }
        encrypt_with(&self.announced()?, &request.plaintext)
    }

    /// Decrypt, with the key that is named.
    pub fn decrypt(&self, request: &DecryptRequest) -> Result<DecryptResponse, Status> {
        self.reachable()?;
        self.may_decrypt()?;
        let keys = self.ring.keys().map_err(unavailable)?;
        let key = keys.iter().find(|key| key.id == request.key_id);
        let key = key.ok_or_else(|| Status::not_found("no key has this key_id"))?;
        decrypt_with(key, request)
    }
}

/// Encrypts with this key, whatever the size.
pub fn encrypt_with(key: &Key, plaintext: &[u8]) -> Result<EncryptResponse, Status> {
    let mut random = [0; NONCE + 8];
    getrandom::fill(&mut random).map_err(|error| Status::internal(error.to_string()))?;
    let (nonce, call) = random.split_at(NONCE);
    // Two, one of them empty: what a plugin may legally send.
    let annotations: BTreeMap<String, Vec<u8>> = [
        ("call.reference.example".to_owned(), call.to_vec()),
        ("empty.reference.example".to_owned(), Vec::new()),
    ]
    .into();
    let sealed = cipher(key)?
        .encrypt(&iv(nonce)?, Payload { msg: plaintext, aad: &aad(&key.id, &annotations) })
        .map_err(|_| Status::internal("AES-GCM does not encrypt"))?;
    let ciphertext = [MAGIC, nonce, &sealed].concat();
    Ok(EncryptResponse { ciphertext, key_id: key.id.clone(), annotations })
}

/// Decrypts with this key.
pub fn decrypt_with(key: &Key, request: &DecryptRequest) -> Result<DecryptResponse, Status> {
    let Some((nonce, sealed)) =
        request.ciphertext.strip_prefix(MAGIC).and_then(|rest| rest.split_at_checked(NONCE))
    else {
        return Err(Status::invalid_argument("this is no ciphertext of this plugin"));
    };
    let aad = aad(&key.id, &request.annotations);
    let opened = cipher(key)?.decrypt(&iv(nonce)?, Payload { msg: sealed, aad: &aad });
    let plaintext = opened.map_err(|_| {
        Status::invalid_argument("ciphertext, key_id or annotations are not what Encrypt returned")
    })?;
    Ok(DecryptResponse { plaintext: plaintext.into() })
}

fn cipher(key: &Key) -> Result<Aes256Gcm, Status> {
    Aes256Gcm::new_from_slice(&key.material).map_err(|error| Status::internal(error.to_string()))
}

fn iv(nonce: &[u8]) -> Result<Nonce<aes_gcm::aead::consts::U12>, Status> {
    Nonce::try_from(nonce).map_err(|_| Status::internal("a nonce has 12 bytes"))
}

/// key_id and annotations, each with its length, so that none can be taken for another.
fn aad(key_id: &str, annotations: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let entries = annotations.iter().flat_map(|(key, value)| [key.as_bytes(), value.as_slice()]);
    let mut bytes = Vec::new();
    for part in [key_id.as_bytes()].into_iter().chain(entries) {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part);
    }
    bytes
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn unavailable(error: io::Error) -> Status {
    Status::unavailable(format!("cannot read the keyring: {error}"))
}
