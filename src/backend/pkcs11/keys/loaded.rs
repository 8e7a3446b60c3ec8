//! A key in one session, ready for use.

use std::cell::Cell;
use std::time::Duration;

use cryptoki::object::{Attribute, ObjectHandle};
use tokio::time::Instant;

use super::super::class::{Class, classify};
use super::super::tools::{Failure, Tools};
use super::attributes::Attributes;
use crate::backend::{BackendError, ErrorKind, Key};
use crate::key_id::{Fingerprint, KeyId};

/// For how long after a use of the key on the token the session's copy may stand in for it.
///
/// SoftHSM reads two files and takes two locks at each use of a key on the token, and nothing at all
/// for an object of the session: 23 µs or 7 µs. But a copy goes on working when the key on the token
/// is gone. So a lone call always uses the key on the token, and only calls that follow one closely
/// use the copy: a lost key is noticed as soon as if all did, but for these milliseconds.
const COPY_USED_FOR: Duration = Duration::from_millis(10);

const CANARY_AAD: &[u8] = b"kleidi canary v1";
const CANARY: &[u8] = b"the canary is alive";

/// A key that can at least unwrap.
#[derive(Debug, Clone)]
pub(in crate::backend::pkcs11) struct LoadedKey {
    /// The key on the token.
    pub(super) handle: ObjectHandle,
    /// The same key as an object of the session, where the token permits that.
    copy: Option<ObjectHandle>,
    /// When the key on the token was last seen to work.
    worked_at: Cell<Instant>,
    pub(super) attributes: Attributes,
    /// `None` if the key does not encrypt, so that it cannot be told by what it computes.
    pub(super) id: Option<KeyId>,
    /// Why it does not encrypt, although `CKA_ENCRYPT` is set: what the module said.
    pub(super) refusal: Option<String>,
    /// Made when the key was loaded; empty if it may not encrypt.
    canary: Vec<u8>,
    check_value: &'static str,
}

impl LoadedKey {
    /// Makes a key ready that has been checked.
    pub(super) fn load(
        tools: &Tools<'_>,
        handle: ObjectHandle,
        attributes: Attributes,
        id: Option<KeyId>,
        refusal: Option<String>,
        check_value: &'static str,
    ) -> Result<Self, Failure> {
        let mut key = Self {
            handle,
            copy: None,
            worked_at: Cell::new(Instant::now()),
            attributes,
            id,
            refusal,
            canary: Vec::new(),
            check_value,
        };
        if key.id.is_some() {
            key.canary = tools.seal(handle, CANARY_AAD, CANARY)?;
            key.copy = key.make_copy(tools);
        }
        Ok(key)
    }

    /// Whether it is the key with this fingerprint.
    pub(super) fn has(&self, fingerprint: Fingerprint) -> bool {
        self.id.as_ref().is_some_and(|id| id.fingerprint() == fingerprint)
    }

    /// A copy that computes what the key computes; `None` where there can be none.
    fn make_copy(&self, tools: &Tools<'_>) -> Option<ObjectHandle> {
        let copy = tools.session.copy_object(self.handle, &[Attribute::Token(false)]).ok()?;
        let reads = |key, sealed: &[u8]| {
            tools.open(key, CANARY_AAD, sealed).is_ok_and(|opened| *opened == CANARY)
        };
        let sealed = tools.seal(copy, CANARY_AAD, CANARY).ok()?;
        if reads(copy, &self.canary) && reads(self.handle, &sealed) {
            return Some(copy);
        }
        let _ = tools.session.destroy_object(copy);
        None
    }

    /// Gives up the copy; with the session it would be gone, too.
    pub(super) fn discard(&self, tools: &Tools<'_>) {
        if let Some(copy) = self.copy {
            let _ = tools.session.destroy_object(copy);
        }
    }

    /// Does something with the key: see [`COPY_USED_FOR`].
    pub(in crate::backend::pkcs11) fn apply<T, E>(
        &self,
        operation: impl FnOnce(ObjectHandle) -> Result<T, E>,
    ) -> Result<T, E> {
        match self.copy {
            Some(copy) if self.worked_at.get().elapsed() < COPY_USED_FOR => operation(copy),
            _ => {
                let done = operation(self.handle)?;
                self.worked_at.set(Instant::now());
                Ok(done)
            }
        }
    }

    /// Whether it can be told from its data whether it still works.
    pub(in crate::backend::pkcs11) fn has_canary(&self) -> bool {
        self.id.is_some()
    }

    /// Whether the key on the token, and the way to it, still work: does it open what it once sealed?
    pub(in crate::backend::pkcs11) fn try_canary(&self, tools: &Tools<'_>) -> Result<(), Failure> {
        self.expect_canary(tools, self.handle, &self.canary)
    }

    /// The same, and whether it still seals.
    pub(in crate::backend::pkcs11) fn try_both_ways(
        &self,
        tools: &Tools<'_>,
    ) -> Result<(), Failure> {
        self.try_canary(tools)?;
        let sealed = tools.seal(self.handle, CANARY_AAD, CANARY)?;
        self.expect_canary(tools, self.handle, &sealed)
    }

    /// Reads `sealed` back with the handle that sealed it, which proves that it can be read, and the
    /// canary, which proves that this is the key that has that id: gives the id.
    pub(in crate::backend::pkcs11) fn vouch_for(
        &self,
        tools: &Tools<'_>,
        handle: ObjectHandle,
        aad: &[u8],
        sealed: &[u8],
        plaintext: &[u8],
    ) -> Result<KeyId, Failure> {
        let damaged = |reason: &str| {
            let attempted = format!("use the key with {}", self.attributes.name());
            Failure::KeyLost(BackendError::new(ErrorKind::KeyDamaged, attempted, reason))
        };
        match tools.open(handle, aad, sealed) {
            Ok(opened) if *opened == plaintext => {}
            Ok(_) => return Err(damaged("it decrypts to something else than was encrypted")),
            Err(error) if classify(&error) == Class::DataOrDevice => {
                return Err(damaged("it does not decrypt what was encrypted with it"));
            }
            Err(error) => return Err(Failure::Code(error)),
        }
        self.expect_canary(tools, handle, &self.canary)?;
        self.id.clone().ok_or_else(|| damaged("it may not encrypt"))
    }

    fn expect_canary(
        &self,
        tools: &Tools<'_>,
        handle: ObjectHandle,
        sealed: &[u8],
    ) -> Result<(), Failure> {
        if *tools.open(handle, CANARY_AAD, sealed)? == CANARY {
            return Ok(());
        }
        let attempted = format!("use the key with {}", self.attributes.name());
        let reason = "it decrypts to something else than was encrypted";
        Err(Failure::Final(BackendError::new(ErrorKind::KeyDamaged, attempted, reason)))
    }

    /// The key for the provider.
    pub(super) fn named(&self, id: KeyId) -> Key {
        Key { id, name: self.attributes.name(), facts: facts(self).into() }
    }
}

fn facts(key: &LoadedKey) -> Vec<(&'static str, String)> {
    let flag = |flag: Option<bool>| match flag {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not said",
    };
    let a = &key.attributes;
    vec![
        ("label", String::from_utf8_lossy(&a.label).into_owned()),
        ("CKA_ID", crate::key_id::hex(&a.id)),
        ("length", a.bytes.map_or("not said".into(), |bytes| format!("{bytes} bytes"))),
        ("private", flag(a.private).to_owned()),
        ("sensitive", flag(a.sensitive).to_owned()),
        ("extractable", flag(a.extractable).to_owned()),
        ("never extractable", flag(a.never_extractable).to_owned()),
        ("generated on the token", flag(a.local).to_owned()),
        ("may encrypt, decrypt", format!("{}, {}", flag(a.encrypt), flag(a.decrypt))),
        ("key check value", key.check_value.to_owned()),
    ]
}
