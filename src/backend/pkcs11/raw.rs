//! The crypto calls, straight through the C interface. The only file with `unsafe` in the plugin.
//!
//! `cryptoki` 0.12.1 does everything else, and could do these on SoftHSM. It asks for the length of
//! the result first, in a call of its own, and that is not safe to rely on: NSS softokn answers 32
//! for a 32-byte plaintext in GCM mode, without the tag, so that encrypting always fails there; and it
//! hands out plaintext in a buffer that is not wiped when the call fails after writing to it. Here
//! each operation is Init and one call with room to spare.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::path::Path;
use std::ptr::NonNull;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::{Error, Result, Rv};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki_sys as ck;
use zeroize::Zeroizing;

/// Bytes by which a result buffer is larger than the input: an IV and a tag that some modules append
/// (28), rounded up generously.
const ROOM: usize = 64;

/// Tag length of every GCM call, in bits. Stated always: some modules accept 0, which is no
/// authentication at all.
const TAG_BITS: ck::CK_ULONG = 128;

/// How to encrypt or decrypt.
pub(super) enum Mode<'a> {
    /// AES-GCM with a tag of 128 bits. The IV and the AAD must not be empty: modules accept an empty
    /// IV and reuse nonces, and some crash on empty AAD.
    Gcm { iv: &'a [u8], aad: &'a [u8] },
    /// AES-ECB, for the key check value.
    Ecb,
}

/// The functions of a loaded module that this file calls.
pub(super) struct CryptoCalls {
    functions: ck::CK_FUNCTION_LIST,
    /// Keeps the module loaded: `functions` point into it.
    _library: ck::Pkcs11,
}

impl CryptoCalls {
    /// Loads the module at `path`, once more if it is loaded already, which gives the same one.
    pub(super) fn load(path: &Path) -> Result<Self> {
        // SAFETY: loading runs the module's initialisers. The operator named this file as the PKCS#11
        // module, and `Module::load` has checked that only trusted users can write to it.
        let library = unsafe { ck::Pkcs11::new(path) }.map_err(Error::LibraryLoading)?;
        if library.C_GetFunctionList.is_err() {
            return Err(Error::MissingSymbol("C_GetFunctionList"));
        }
        let mut list = std::ptr::null_mut();
        // SAFETY: the symbol exists (checked above) and has this type in every PKCS#11 module; `list`
        // is valid for writing one pointer.
        let rv = unsafe { library.C_GetFunctionList(&raw mut list) };
        Rv::from(rv).into_result(Function::GetFunctionList)?;
        if list.is_null() {
            return Err(Error::NullFunctionPointer);
        }
        // SAFETY: C_GetFunctionList succeeded, so `list` points at a CK_FUNCTION_LIST that stays valid
        // while the module is loaded; it is copied out.
        let functions = unsafe { *list };
        Ok(Self { functions, _library: library })
    }

    /// Encrypts in one go. `session` is one of this module, on the thread that owns it.
    ///
    /// After an error the operation may still be active: close the session.
    pub(super) fn encrypt(
        &self,
        session: &Session,
        key: ObjectHandle,
        mode: &Mode<'_>,
        plaintext: &[u8],
    ) -> Result<Vec<u8>> {
        let init = self.functions.C_EncryptInit.ok_or(Error::NullFunctionPointer)?;
        let encrypt = self.functions.C_Encrypt.ok_or(Error::NullFunctionPointer)?;
        mode.with_mechanism(|mechanism| {
            // SAFETY: the handles come from this module; `mechanism` and what it points to live until
            // `with_mechanism` returns, which is after both calls.
            let rv = unsafe { init(session.handle(), mechanism, key.handle()) };
            Rv::from(rv).into_result(Function::EncryptInit)?;
            let mut out = vec![0; plaintext.len() + ROOM];
            let mut length = out.len().try_into()?;
            // SAFETY: input and output are valid for the lengths given, `length` for writing. The
            // module does not write to the input (PKCS#11: "points to the data"), whatever C's type.
            let rv = unsafe {
                encrypt(
                    session.handle(),
                    plaintext.as_ptr().cast_mut(),
                    plaintext.len().try_into()?,
                    out.as_mut_ptr(),
                    &raw mut length,
                )
            };
            Rv::from(rv).into_result(Function::Encrypt)?;
            out.truncate(length.try_into()?);
            Ok(out)
        })
    }

    /// Decrypts in one go, into memory that is wiped on success and on failure.
    ///
    /// After an error the operation may still be active: close the session, unless the data was bad.
    pub(super) fn decrypt(
        &self,
        session: &Session,
        key: ObjectHandle,
        mode: &Mode<'_>,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        let init = self.functions.C_DecryptInit.ok_or(Error::NullFunctionPointer)?;
        let decrypt = self.functions.C_Decrypt.ok_or(Error::NullFunctionPointer)?;
        mode.with_mechanism(|mechanism| {
            // SAFETY: as for C_EncryptInit.
            let rv = unsafe { init(session.handle(), mechanism, key.handle()) };
            Rv::from(rv).into_result(Function::DecryptInit)?;
            let mut out = Zeroizing::new(vec![0; ciphertext.len() + ROOM]);
            let mut length = out.len().try_into()?;
            // SAFETY: as for C_Encrypt.
            let rv = unsafe {
                decrypt(
                    session.handle(),
                    ciphertext.as_ptr().cast_mut(),
                    ciphertext.len().try_into()?,
                    out.as_mut_ptr(),
                    &raw mut length,
                )
            };
            Rv::from(rv).into_result(Function::Decrypt)?;
            // What is cut off is capacity of the same allocation, and wiped with it.
            out.truncate(length.try_into()?);
            Ok(out)
        })
    }
}

/// C_Initialize, with the module's own parameters if it takes any (NSS softokn does).
pub(super) fn initialise(context: &Pkcs11, parameters: Option<&CString>) -> Result<()> {
    let flags = CInitializeFlags::OS_LOCKING_OK;
    let arguments = match parameters {
        None => CInitializeArgs::new(flags),
        Some(text) => {
            let text = NonNull::from(text.as_c_str()).cast();
            // SAFETY: a module that has parameters takes a string that ends with NUL; it outlives the
            // call, which is all that PKCS#11 asks of pReserved, and modules do not write to it.
            unsafe { CInitializeArgs::new_with_reserved(flags, text) }
        }
    };
    context.initialize(arguments)
}

impl Mode<'_> {
    /// Calls `with` with the C form of this mode, which is valid for the duration of the call.
    fn with_mechanism<T>(&self, with: impl FnOnce(ck::CK_MECHANISM_PTR) -> Result<T>) -> Result<T> {
        match self {
            Self::Ecb => {
                let mut mechanism = ck::CK_MECHANISM {
                    mechanism: ck::CKM_AES_ECB,
                    pParameter: std::ptr::null_mut(),
                    ulParameterLen: 0,
                };
                with(&raw mut mechanism)
            }
            Self::Gcm { iv, aad } => {
                if iv.is_empty() || aad.is_empty() {
                    return Err(Error::InvalidValue);
                }
                // Some modules write the IV that they used into the caller's buffer.
                let mut own_iv = iv.to_vec();
                let iv_bytes: ck::CK_ULONG = own_iv.len().try_into()?;
                let mut parameters = ck::CK_GCM_PARAMS {
                    pIv: own_iv.as_mut_ptr(),
                    ulIvLen: iv_bytes,
                    ulIvBits: iv_bytes * 8,
                    pAAD: aad.as_ptr().cast_mut(),
                    ulAADLen: aad.len().try_into()?,
                    ulTagBits: TAG_BITS,
                };
                let mut mechanism = ck::CK_MECHANISM {
                    mechanism: ck::CKM_AES_GCM,
                    pParameter: (&raw mut parameters).cast(),
                    ulParameterLen: size_of::<ck::CK_GCM_PARAMS>().try_into()?,
                };
                let result = with(&raw mut mechanism)?;
                // Another IV than ours was used: what was returned could not be decrypted.
                if own_iv == *iv { Ok(result) } else { Err(Error::NotSupported) }
            }
        }
    }
}
