//! What is done with a key inside the module, and how it can fail.

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use zeroize::Zeroizing;

use super::class::{Class, classify, describe};
use super::raw::{CryptoCalls, Mode};
use crate::backend::{BackendError, ErrorKind};
use crate::random::Random;

/// Bytes of the IV: 96 bits, the only length for which GCM is not a special case.
pub(super) const IV_BYTES: usize = 12;

/// Bytes of the tag.
pub(super) const TAG_BYTES: usize = 16;

/// What an operation works with, valid while inside the module.
pub(super) struct Tools<'a> {
    calls: &'a CryptoCalls,
    pub(super) session: &'a Session,
    pub(super) random: &'a dyn Random,
}

impl<'a> Tools<'a> {
    pub(super) fn new(
        calls: &'a CryptoCalls,
        session: &'a Session,
        random: &'a dyn Random,
    ) -> Self {
        Self { calls, session, random }
    }

    /// IV ‖ ciphertext ‖ tag.
    pub(super) fn seal(
        &self,
        key: ObjectHandle,
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let mut iv = [0; IV_BYTES];
        self.random.fill(&mut iv).map_err(Failure::random)?;
        let mut sealed = iv.to_vec();
        sealed.extend(self.seal_with(key, &iv, aad, plaintext)?);
        Ok(sealed)
    }

    /// Ciphertext ‖ tag, under an IV that the caller answers for.
    pub(super) fn seal_with(
        &self,
        key: ObjectHandle,
        iv: &[u8],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.calls.encrypt(self.session, key, &Mode::Gcm { iv, aad }, plaintext)
    }

    /// Undoes [`Tools::seal`]; what is too short for it is not passed on to the module.
    pub(super) fn open(
        &self,
        key: ObjectHandle,
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.open_with(key, IV_BYTES, aad, sealed)
    }

    /// The same for another length of the IV.
    pub(super) fn open_with(
        &self,
        key: ObjectHandle,
        iv_bytes: usize,
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let Some((iv, ciphertext)) = sealed.split_at_checked(iv_bytes) else {
            return Err(Error::Pkcs11(RvError::EncryptedDataLenRange, Function::Decrypt));
        };
        let Some(bytes) = ciphertext.len().checked_sub(TAG_BYTES) else {
            return Err(Error::Pkcs11(RvError::EncryptedDataLenRange, Function::Decrypt));
        };
        let mode = Mode::Gcm { iv, aad };
        let plaintext = self.calls.decrypt(self.session, key, &mode, ciphertext)?;
        if plaintext.len() != bytes {
            // It says that all is well and cannot count: nothing of it is to be trusted.
            return Err(Error::Pkcs11(RvError::DeviceError, Function::Decrypt));
        }
        Ok(plaintext)
    }

    /// E_K of one block.
    pub(super) fn encrypt_block(
        &self,
        key: ObjectHandle,
        block: &[u8; 16],
    ) -> Result<Vec<u8>, Error> {
        self.calls.encrypt(self.session, key, &Mode::Ecb, block)
    }
}

/// Why one attempt failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The module said so; what that means is in [`classify`].
    Code(Error),
    /// No key of ours was found, which is also what a module says that has logged us out.
    NoKeys(BackendError),
    /// The key asked for is not known.
    KeyUnknown(BackendError),
    /// A key that was there, or right, a moment ago is not now; that may be the module's fault.
    KeyLost(BackendError),
    /// Nothing can help.
    Final(BackendError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Code(error)
    }
}

impl Failure {
    /// The random number generator failed.
    #[allow(clippy::needless_pass_by_value, reason = "it is an argument of map_err")]
    pub(super) fn random(error: crate::random::RandomError) -> Self {
        let attempted = "draw random bytes";
        Self::Final(BackendError::new(ErrorKind::Unavailable, attempted, error.to_string()))
    }

    /// For the provider, once nothing can help any more.
    pub(super) fn explain(self, attempted: &'static str) -> BackendError {
        let error = match self {
            Self::NoKeys(error)
            | Self::KeyUnknown(error)
            | Self::KeyLost(error)
            | Self::Final(error) => return error,
            Self::Code(error) => error,
        };
        let kind = match classify(&error) {
            Class::Pin => ErrorKind::Credentials,
            Class::Setup => ErrorKind::Misconfigured,
            _ => ErrorKind::Unavailable,
        };
        BackendError::new(kind, attempted, describe(&error))
    }
}
