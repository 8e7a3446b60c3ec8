//! The keys on the token that are ours: how they are found, which one is current, what is refused.
//!
//! The rule, which an operator has to be able to predict:
//!
//! 1. Ours are all AES keys on the token that have the configured **label**.
//! 2. The **current** key is the one with the highest `CKA_ID`, read as a number, among those that may
//!    encrypt, by their flags and by the module, and are not weak; or the one with the configured `CKA_ID`,
//!    if one is configured.
//! 3. All others unwrap, whatever their flags: what they once wrapped stays readable.
//! 4. A newest key that is damaged or may not decrypt, or two keys that claim to be the current one, are an
//!    outage: not a reason to take another key.

use std::sync::Arc;

use cryptoki::error::Error;
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};

use super::class::{Class, classify, describe};
use super::tools::{Failure, Tools};
use crate::backend::{BackendError, ErrorKind, KeySet};
use crate::key_id::{Fingerprint, KeyId, Version};

mod attributes;
mod check;
mod loaded;

pub(super) use attributes::Attributes;
use attributes::order;
use check::Verdict;
pub(super) use loaded::LoadedKey;

/// Which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySelector {
    /// Label of all our keys. Without one, `id` alone selects a single key.
    pub label: Option<String>,
    /// `CKA_ID` of the key that shall wrap, instead of the highest.
    pub id: Option<Vec<u8>>,
    /// Wrap with keys that are readable, extractable or not private, too.
    pub allow_weak: bool,
}

impl std::fmt::Display for KeySelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.label, &self.id) {
            (Some(label), None) => write!(f, "AES key with label {label:?}"),
            (Some(label), Some(id)) => {
                write!(f, "AES key with label {label:?} and CKA_ID {}", crate::key_id::hex(id))
            }
            (None, id) => {
                let id = id.as_deref().unwrap_or_default();
                write!(f, "AES key with CKA_ID {}", crate::key_id::hex(id))
            }
        }
    }
}

/// What is known of something, as label and value.
pub(super) type Facts = Arc<[(&'static str, String)]>;

/// A key that neither wraps nor unwraps.
struct Unused {
    /// Those that could be read.
    attributes: Attributes,
    why: String,
    fault: Fault,
}

/// What is wrong with an unused key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It was never good for this, and so never the current one.
    Unsuitable,
    /// It may have been the current key once: then no other takes its place.
    Damaged,
    /// The same, and not even its `CKA_ID` can be read.
    Unreadable,
}

/// Our keys as one session has found them.
#[derive(Debug)]
pub(super) struct Keyring {
    /// Newest first; without the unused ones.
    keys: Vec<LoadedKey>,
    /// Keys that the module fails to use while it can use others.
    broken: Vec<ObjectHandle>,
    /// Where the current key is, or why there is none. Others unwrap all the same.
    current: Result<(usize, KeyId), BackendError>,
    refused: Vec<String>,
}

impl Keyring {
    /// Looks for our keys; tries those that `before` does not know as they are now.
    ///
    /// A key that the module fails to use is the module's fault, and an error, until it has been
    /// `reinitialised` and can use another key.
    pub(super) fn look(
        tools: &Tools<'_>,
        selector: &KeySelector,
        before: Option<&Self>,
        reinitialised: bool,
    ) -> Result<Self, Failure> {
        let mut keys: Vec<LoadedKey> = Vec::new();
        let (mut unused, mut broken) = (Vec::new(), Vec::new());
        for handle in find(tools, selector.label.as_deref(), selector.id.as_deref())? {
            match examine(tools, handle, before) {
                Ok(Ok(key)) => keys.push(key),
                Ok(Err(useless)) => unused.push(useless),
                Err(Failure::Code(error)) if may_be_the_keys(&error) => {
                    broken.push((handle, error));
                }
                Err(failure) => return Err(failure),
            }
        }
        let known = |handle| before.is_some_and(|before| before.broken.contains(handle));
        let excused = reinitialised || broken.iter().all(|(handle, _)| known(handle));
        let works = |keys: &[LoadedKey]| {
            let sound = keys.iter().find(|key| key.id.is_some());
            sound.is_some_and(|key| key.try_canary(tools).is_ok())
        };
        let usable = broken.is_empty() || excused && works(&keys);
        if !usable && let Some((_, error)) = broken.pop() {
            return Err(Failure::Code(error));
        }
        unused.extend(broken.iter().map(|(handle, error)| {
            let why = format!("the module cannot use it: {}", describe(error));
            match Attributes::read(tools.session, *handle) {
                Ok(attributes) => Unused { attributes, why, fault: Fault::Damaged },
                Err(_) => {
                    Unused { attributes: Attributes::default(), why, fault: Fault::Unreadable }
                }
            }
        }));
        if let Some(before) = before {
            let kept = |key: &&LoadedKey| !keys.iter().any(|now| now.handle == key.handle);
            before.keys.iter().filter(kept).for_each(|key| key.discard(tools));
        }
        keys.sort_by(|a, b| order(&b.attributes.id).cmp(&order(&a.attributes.id)));
        if keys.is_empty() && unused.is_empty() {
            return Err(Failure::NoKeys(none_at_all(selector)));
        }
        let current = choose(&keys, &unused, selector);
        // Without it nothing wraps: the module may be able to use it when it is initialised anew.
        if current.is_err()
            && !reinitialised
            && let Some((_, error)) = broken.pop()
        {
            return Err(Failure::Code(error));
        }
        let refused = match &current {
            Ok((current, _)) => refused(&keys, &unused, selector, *current),
            Err(_) => Vec::new(),
        };
        let broken = broken.into_iter().map(|(handle, _)| handle).collect();
        Ok(Self { keys, broken, current, refused })
    }

    fn known(&self, handle: ObjectHandle, attributes: &Attributes) -> Option<&LoadedKey> {
        // What the module refused, it may do now.
        let fits = |key: &&LoadedKey| key.handle == handle && key.refusal.is_none();
        self.keys.iter().filter(fits).find(|key| key.attributes == *attributes)
    }

    /// Whether this key was good for wrapping.
    fn could_wrap(&self, handle: ObjectHandle) -> bool {
        self.keys.iter().any(|key| key.handle == handle && key.id.is_some())
    }

    /// Whether a key has this fingerprint.
    pub(super) fn has(&self, wanted: Fingerprint) -> bool {
        self.keys.iter().any(|key| key.has(wanted))
    }

    /// Whether there are keys that the module fails to use.
    pub(super) fn has_broken(&self) -> bool {
        !self.broken.is_empty()
    }

    /// The key that wraps under this id.
    pub(super) fn for_wrapping(&self, id: &KeyId) -> Option<&LoadedKey> {
        self.keys.iter().find(|key| key.id.as_ref() == Some(id))
    }

    /// The keys that may have wrapped under this fingerprint: the one that has it, or else all that
    /// cannot be told by their fingerprint.
    pub(super) fn for_unwrapping(&self, wanted: Fingerprint) -> impl Iterator<Item = &LoadedKey> {
        let known = self.has(wanted);
        self.keys.iter().filter(move |key| if known { key.has(wanted) } else { key.id.is_none() })
    }

    /// The key with this handle.
    pub(super) fn loaded(&self, handle: ObjectHandle) -> Option<&LoadedKey> {
        self.keys.iter().find(|key| key.handle == handle)
    }

    /// The key that wraps now, or why none does.
    pub(super) fn current(&self) -> Result<&LoadedKey, BackendError> {
        self.current.as_ref().map(|(at, _)| &self.keys[*at]).map_err(Clone::clone)
    }

    /// A key that can encrypt and decrypt, to tell bad data from a broken device.
    pub(super) fn any_with_canary(&self) -> Option<&LoadedKey> {
        self.keys.iter().find(|key| key.id.is_some())
    }

    /// All keys for the provider; an error if none is current.
    pub(super) fn key_set(&self, token: &Facts) -> Result<KeySet, BackendError> {
        let (current, id) = self.current.as_ref().map_err(Clone::clone)?;
        let older = self.keys.iter().enumerate().filter(|(at, _)| at != current);
        let nameless = self.keys.iter().filter(|key| key.id.is_none());
        Ok(KeySet {
            current: self.keys[*current].named(id.clone()),
            older: older.filter_map(|(_, key)| Some(key.named(key.id.clone()?))).collect(),
            without_id: nameless.map(|key| key.attributes.name()).collect(),
            refused: self.refused.clone(),
            facts: Arc::clone(token),
        })
    }
}

/// All AES keys on the token with that label; with that id, where there is no label.
pub(super) fn find(
    tools: &Tools<'_>,
    label: Option<&str>,
    id: Option<&[u8]>,
) -> Result<Vec<ObjectHandle>, Failure> {
    let mut template = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Token(true),
    ];
    match (label, id) {
        (Some(label), _) => template.push(Attribute::Label(label.as_bytes().to_vec())),
        (None, id) => template.push(Attribute::Id(id.unwrap_or_default().to_vec())),
    }
    Ok(tools.session.find_objects(&template)?)
}

/// Whether two `CKA_ID`s are the same number.
pub(super) fn same_id(a: &[u8], b: &[u8]) -> bool {
    order(a) == order(b)
}

/// The number after the highest of these `CKA_ID`s; `None` if there is none of them.
pub(super) fn next_id(ids: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut next = ids.iter().max_by_key(|id| order(id))?.clone();
    for byte in next.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(next);
        }
    }
    next.insert(0, 1);
    Some(next)
}

/// Whether this object cannot ever have wrapped anything: what remains when SoftHSM is killed while
/// it makes a key, with all attributes but the value.
///
/// A key that is merely of no use to us, or damaged, is not taken for one: it says that it was made on
/// the token, or has a check value, or computes.
pub(super) fn never_was_a_key(
    tools: &Tools<'_>,
    handle: ObjectHandle,
    attributes: &Attributes,
) -> Result<bool, Failure> {
    if !attributes.could_be_a_stump() {
        return Ok(false);
    }
    Ok(matches!(check::check(tools, handle, attributes)?, Verdict::Unusable(_)))
}

/// A key that is ready, or one of no use.
fn examine(
    tools: &Tools<'_>,
    handle: ObjectHandle,
    before: Option<&Keyring>,
) -> Result<Result<LoadedKey, Unused>, Failure> {
    let attributes = Attributes::read(tools.session, handle)?;
    if let Some(known) = before.and_then(|before| before.known(handle, &attributes)) {
        return Ok(Ok(known.clone()));
    }
    let (id, refusal, check_value) = match check::check(tools, handle, &attributes)? {
        Verdict::Sound(fingerprint, check_value) => {
            (Some(KeyId::new(fingerprint, &Version::of_bytes(&attributes.id))), None, check_value)
        }
        Verdict::OnlyDecrypts(refusal) => {
            (None, refusal, "not comparable (the key may not encrypt)")
        }
        Verdict::Unusable(why) => {
            // What has wrapped, or may have before it was forbidden to unwrap, may be the newest there is.
            let may_have_wrapped = attributes.decrypt == Some(false)
                || before.is_some_and(|before| before.could_wrap(handle));
            let fault = if may_have_wrapped { Fault::Damaged } else { Fault::Unsuitable };
            return Ok(Err(Unused { attributes, why, fault }));
        }
        Verdict::Damaged(why) => {
            return Ok(Err(Unused { attributes, why, fault: Fault::Damaged }));
        }
    };
    LoadedKey::load(tools, handle, attributes, id, refusal, check_value).map(Ok)
}

/// Whether it may be this key, and not the session or the token, that the module fails with.
fn may_be_the_keys(error: &Error) -> bool {
    matches!(classify(error), Class::Reinitialise | Class::DataOrDevice)
}

fn none_at_all(selector: &KeySelector) -> BackendError {
    let attempted = format!("find an {selector}");
    BackendError::new(ErrorKind::Misconfigured, attempted, "there is none on the token")
        .advise("restore it; only where nothing is encrypted yet, create it with: kleidi init")
}

/// The index of the current key, by the rule above.
fn choose(
    keys: &[LoadedKey],
    unused: &[Unused],
    selector: &KeySelector,
) -> Result<(usize, KeyId), BackendError> {
    let fail = |kind, reason: String, advice: &'static str| {
        BackendError::new(kind, format!("use an {selector}"), reason).advise(advice)
    };
    let pinned = |attributes: &Attributes| {
        selector.id.as_ref().is_none_or(|id| order(id) == order(&attributes.id))
    };
    let candidates: Vec<(usize, &Attributes, &KeyId)> = keys
        .iter()
        .enumerate()
        .filter(|(_, key)| pinned(&key.attributes) && unwilling(key, selector).is_none())
        .filter_map(|(at, key)| Some((at, &key.attributes, key.id.as_ref()?)))
        .collect();
    let best = candidates.first().map(|(_, attributes, _)| order(&attributes.id));
    let might_be_current = |key: &&Unused| match key.fault {
        Fault::Unsuitable => false,
        Fault::Damaged => {
            pinned(&key.attributes) && best.is_none_or(|best| order(&key.attributes.id) >= best)
        }
        Fault::Unreadable => selector.id.is_none() || best.is_none(),
    };
    if let Some(Unused { attributes, why, .. }) = unused.iter().find(might_be_current) {
        let reason = format!("the key with {} cannot be trusted: {why}", attributes.name());
        return Err(fail(ErrorKind::KeyDamaged, reason, "an older key is not taken instead"));
    }
    match candidates[..] {
        [(only, _, id)] => Ok((only, id.clone())),
        [] => {
            let unwilling = keys
                .iter()
                .filter(|key| pinned(&key.attributes))
                .filter_map(|key| Some((&key.attributes, unwilling(key, selector)?)));
            let unused = unused.iter().map(|key| (&key.attributes, key.why.clone()));
            let why: Vec<_> = unwilling
                .chain(unused)
                .map(|(attributes, why)| format!("{}: {why}", attributes.name()))
                .collect();
            let why = if why.is_empty() { "no such key".to_owned() } else { why.join("; ") };
            Err(fail(
                ErrorKind::Misconfigured,
                format!("none on the token may wrap ({why})"),
                "create one with: kleidi init --cka-id",
            ))
        }
        [(first, a, id), (_, b, _), ..] if order(&a.id) > order(&b.id) => Ok((first, id.clone())),
        [(_, a, _), ..] => Err(fail(
            ErrorKind::Misconfigured,
            format!("several keys have {}", a.name()),
            "give each key a CKA_ID of its own; the highest becomes the current one",
        )),
    }
}

/// Why a key does not wrap.
fn unwilling(key: &LoadedKey, selector: &KeySelector) -> Option<String> {
    if key.id.is_none() {
        return key.refusal.clone().or_else(|| Some("CKA_ENCRYPT is not set".to_owned()));
    }
    if key.attributes.decrypt != Some(true) {
        return Some("CKA_DECRYPT is not set".to_owned());
    }
    let weaknesses = key.attributes.weaknesses();
    (!weaknesses.is_empty() && !selector.allow_weak).then(|| weaknesses.join(", "))
}

/// What the operator has to be told of the keys that are not used as they might be meant.
fn refused(
    keys: &[LoadedKey],
    unused: &[Unused],
    selector: &KeySelector,
    current: usize,
) -> Vec<String> {
    let newer = |key: &LoadedKey| {
        order(&key.attributes.id) > order(&keys[current].attributes.id) && selector.id.is_none()
    };
    let not_current = keys.iter().filter_map(|key| {
        let what = match &key.refusal {
            _ if newer(key) => "is newer but only unwraps",
            Some(_) => "only unwraps",
            None => return None,
        };
        Some(format!(
            "the key with {} {what}: {}",
            key.attributes.name(),
            unwilling(key, selector)?
        ))
    });
    let unused = unused
        .iter()
        .map(|key| format!("the key with {} is not used: {}", key.attributes.name(), key.why));
    let weak = keys[current].attributes.weaknesses().into_iter().map(|weakness| {
        format!("the current key is weak, which allowWeakKeys accepts: {weakness}")
    });
    not_current.chain(unused).chain(weak).collect()
}
