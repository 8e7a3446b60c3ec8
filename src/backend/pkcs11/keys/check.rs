//! A key is tried before it is used: does it compute, to the standard, the same thing as ever?
//!
//! SoftHSM's files carry no integrity check: one flipped bit on the disk is a *different* key that
//! encrypts happily. And a module can accept what it should not, or not authenticate at all.

use cryptoki::error::Error;
use cryptoki::object::ObjectHandle;
use zeroize::Zeroizing;

use super::super::class::{Class, another_key_may_do, classify, describe};
use super::super::tools::{Failure, IV_BYTES, TAG_BYTES, Tools};
use super::attributes::Attributes;
use crate::key_id::{Fingerprint, hex};

/// What the fingerprint is computed from: a message that is the same for ever, under an IV that no
/// random IV is likely to hit (2^-96). The same message under the same IV gives nothing away, and of
/// its ciphertext and tag only a hash leaves this file. AES-ECB would do as well, but keys are often
/// restricted to the mechanism they are for.
const FINGERPRINT_IV: &[u8] = b"kleidi key 1";
const FINGERPRINT_AAD: &[u8] = b"kleidi key fingerprint v1";
const FINGERPRINT_TEXT: &[u8] = b"which key is it?";
const FINGERPRINT_DOMAIN: &str = "kleidi pkcs11 aes-256-gcm v1";

const CHECK_AAD: &[u8] = b"kleidi key check v1";

/// What came out.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Sound; the second tells how the key check value went.
    Sound(Fingerprint, &'static str),
    /// It does not encrypt, so its fingerprint cannot be told: it only unwraps, by trial. With what the
    /// module said, if it is the module that refuses.
    OnlyDecrypts(Option<String>),
    /// It was never good for this: the module or the key does not permit what we need.
    Unusable(String),
    /// It is not what it was, or cannot be trusted.
    Damaged(String),
}

/// Tries the key.
pub(super) fn check(
    tools: &Tools<'_>,
    key: ObjectHandle,
    attributes: &Attributes,
) -> Result<Verdict, Failure> {
    if let Some(why) = attributes.wrong_length() {
        return Ok(Verdict::Unusable(why));
    }
    match (attributes.encrypt, attributes.decrypt) {
        (Some(true), _) => {}
        (_, Some(true)) => return Ok(Verdict::OnlyDecrypts(None)),
        // One that was the current key once would be passed over, and what it wrapped with it.
        _ => {
            let why = "it may neither encrypt nor decrypt (CKA_ENCRYPT, CKA_DECRYPT); set CKA_DECRYPT, \
                       or delete the key if nothing was ever wrapped with it";
            return Ok(Verdict::Damaged(why.to_owned()));
        }
    }
    match try_out(tools, key, attributes) {
        // The key, or the module, does not permit what we need of it. Not to encrypt, perhaps: what it
        // once wrapped is read all the same.
        Err(Failure::Code(error)) if classify(&error) == Class::Setup => {
            let why = describe(&error);
            if attributes.decrypt == Some(true) && decrypts(tools, key)? {
                return Ok(Verdict::OnlyDecrypts(Some(why)));
            }
            Ok(Verdict::Unusable(why))
        }
        outcome => outcome,
    }
}

/// Whether the key takes a ciphertext to decrypt, which it refuses for its tag.
fn decrypts(tools: &Tools<'_>, key: ObjectHandle) -> Result<bool, Failure> {
    match tools.open(key, CHECK_AAD, &[0; IV_BYTES + TAG_BYTES + 32]) {
        Err(error) if classify(&error) == Class::DataOrDevice => Ok(true),
        Err(error) if !another_key_may_do(&error) => Err(Failure::Code(error)),
        // Not at all, or without authentication.
        _ => Ok(false),
    }
}

fn try_out(
    tools: &Tools<'_>,
    key: ObjectHandle,
    attributes: &Attributes,
) -> Result<Verdict, Failure> {
    let damaged = |why: &str| Ok(Verdict::Damaged(why.to_owned()));
    let Some(check_value) = check_value(tools, key, attributes)? else {
        return damaged(
            "CKA_CHECK_VALUE does not fit: its stored value is damaged; restore it from a backup",
        );
    };
    let witness = tools.seal_with(key, FINGERPRINT_IV, FINGERPRINT_AAD, FINGERPRINT_TEXT)?;
    if witness.len() != FINGERPRINT_TEXT.len() + 16 {
        let why = "AES-GCM does not give the ciphertext and a tag of 16 bytes";
        return Ok(Verdict::Unusable(why.to_owned()));
    }
    let mut probe = Zeroizing::new([0; 32]);
    tools.random.fill(&mut *probe).map_err(Failure::random)?;
    let sealed = tools.seal(key, CHECK_AAD, &*probe)?;
    match tools.open(key, CHECK_AAD, &sealed) {
        Ok(opened) if *opened == *probe => {}
        Ok(_) => return damaged("it decrypts to something else than was encrypted"),
        Err(error) => return Err(Failure::Code(error)),
    }
    let mut tampered = sealed;
    if let Some(last) = tampered.last_mut() {
        *last ^= 1;
    }
    match tools.open(key, CHECK_AAD, &tampered) {
        Ok(_) => return damaged("it decrypts what was tampered with: there is no authentication"),
        // The right answer. Some modules leave the operation active: the next call finds out.
        Err(error) if classify(&error) == Class::DataOrDevice => {}
        Err(error) => return Err(Failure::Code(error)),
    }
    Ok(Verdict::Sound(Fingerprint::of(FINGERPRINT_DOMAIN, &witness), check_value))
}

/// Compares `CKA_CHECK_VALUE` with what the key computes: `None` if it does not fit.
fn check_value(
    tools: &Tools<'_>,
    key: ObjectHandle,
    attributes: &Attributes,
) -> Result<Option<&'static str>, Error> {
    let stored = match &attributes.check_value {
        Some(stored) if !stored.is_empty() => stored,
        _ => return Ok(Some("none on the token")),
    };
    match tools.encrypt_block(key, &[0; 16]) {
        Ok(block) if block.starts_with(stored) => Ok(Some("fits")),
        Ok(_) => {
            tracing::debug!(stored = hex(stored), "a key check value does not fit");
            Ok(None)
        }
        Err(error) if classify(&error) == Class::Setup => {
            Ok(Some("not comparable (AES-ECB is not permitted)"))
        }
        Err(error) => Err(error),
    }
}
