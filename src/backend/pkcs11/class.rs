//! What a PKCS#11 error code means for us: the one table from (function, code) to what to do.
//!
//! Measured on SoftHSM 2.6.1 and 2.7.0, kryoptic 1.5 and NSS softokn 3.87; for hardware from PKCS#11
//! 3.1. Codes are vague, so every class is tried once per call at the most.

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};

/// What can help against an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The session is gone or stuck in an operation: a new session.
    Session,
    /// Logged out: log in again.
    Login,
    /// The key's handle is not valid any more: find the key again.
    Handle,
    /// The token or the module is out of order: C_Finalize, C_Initialize and all that follows.
    Reinitialise,
    /// Of C_Decrypt: either the data is bad or the device is; a canary tells which.
    DataOrDevice,
    /// The PIN was refused, or may not be tried: nothing until the PIN changes.
    Pin,
    /// The key or the token does not permit what we need: the operator has to change it.
    Setup,
}

/// Sorts an error.
pub(super) fn classify(error: &Error) -> Class {
    let Error::Pkcs11(code, function) = error else {
        return match error {
            Error::LibraryLoading(_) | Error::MissingSymbol(_) | Error::NullFunctionPointer => {
                Class::Setup
            }
            Error::NotSupported => Class::Setup,
            _ => Class::Reinitialise,
        };
    };
    let decrypting = matches!(function, Function::Decrypt);
    match code {
        RvError::SessionHandleInvalid
        | RvError::SessionClosed
        | RvError::OperationActive
        | RvError::OperationNotInitialized
        | RvError::BufferTooSmall => Class::Session,
        RvError::UserNotLoggedIn => Class::Login,
        RvError::ObjectHandleInvalid | RvError::KeyHandleInvalid => Class::Handle,
        RvError::EncryptedDataInvalid
        | RvError::EncryptedDataLenRange
        | RvError::DataLenRange
        | RvError::DataInvalid
        | RvError::SignatureInvalid
        | RvError::GeneralError
        | RvError::FunctionFailed
            if decrypting =>
        {
            Class::DataOrDevice
        }
        RvError::PinIncorrect
        | RvError::PinInvalid
        | RvError::PinLenRange
        | RvError::PinExpired
        | RvError::PinLocked
        | RvError::UserPinNotInitialized => Class::Pin,
        RvError::MechanismInvalid
        | RvError::MechanismParamInvalid
        | RvError::KeyTypeInconsistent
        | RvError::KeyFunctionNotPermitted
        | RvError::KeySizeRange
        | RvError::FunctionNotSupported
        | RvError::ActionProhibited
        | RvError::ArgumentsBad => Class::Setup,
        // DEVICE_ERROR, DEVICE_REMOVED, TOKEN_NOT_PRESENT, TOKEN_NOT_RECOGNIZED, SLOT_ID_INVALID,
        // CRYPTOKI_NOT_INITIALIZED, GENERAL_ERROR and FUNCTION_FAILED elsewhere, HOST_MEMORY, vendors'
        // own codes, and whatever the standard adds.
        _ => Class::Reinitialise,
    }
}

/// Whether another key may do what the module does not do with this one: it need not be the session or
/// the token that is at fault.
pub(super) fn another_key_may_do(error: &Error) -> bool {
    match classify(error) {
        Class::Handle | Class::DataOrDevice | Class::Setup => true,
        Class::Reinitialise => !matches!(
            error,
            Error::Pkcs11(
                RvError::DeviceRemoved
                    | RvError::TokenNotPresent
                    | RvError::TokenNotRecognized
                    | RvError::SlotIdInvalid
                    | RvError::CryptokiNotInitialized,
                _
            )
        ),
        Class::Session | Class::Login | Class::Pin => false,
    }
}

/// The function and the code, in the words of the standard: `C_Encrypt: CKR_DEVICE_ERROR`.
///
/// `cryptoki` displays a paragraph of the standard instead.
pub(super) fn describe(error: &Error) -> String {
    match error {
        Error::Pkcs11(RvError::VendorDefined(code) | RvError::UnknownErrorCode(code), function) => {
            format!("C_{function:?}: code {code:#010x}")
        }
        Error::Pkcs11(code, function) => format!("C_{function:?}: {}", screaming(code)),
        Error::NotSupported => "the module chose an IV of its own, which is not supported".into(),
        other => other.to_string(),
    }
}

/// `DeviceError` becomes `CKR_DEVICE_ERROR`.
fn screaming(code: &RvError) -> String {
    let mut name = "CKR".to_owned();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_and_the_codes_that_mean_two_things() {
        use Function::{Decrypt, DecryptInit, Encrypt, FindObjectsInit, Initialize, Login};
        for (code, function, wanted) in [
            (RvError::SessionHandleInvalid, Encrypt, Class::Session),
            (RvError::SessionClosed, Encrypt, Class::Session),
            (RvError::OperationActive, DecryptInit, Class::Session),
            (RvError::OperationNotInitialized, Decrypt, Class::Session),
            (RvError::BufferTooSmall, Decrypt, Class::Session),
            (RvError::UserNotLoggedIn, Encrypt, Class::Login),
            (RvError::ObjectHandleInvalid, Encrypt, Class::Handle),
            (RvError::KeyHandleInvalid, Encrypt, Class::Handle),
            (RvError::EncryptedDataInvalid, Decrypt, Class::DataOrDevice),
            (RvError::EncryptedDataLenRange, Decrypt, Class::DataOrDevice),
            (RvError::DataLenRange, Decrypt, Class::DataOrDevice),
            (RvError::GeneralError, Decrypt, Class::DataOrDevice),
            (RvError::GeneralError, DecryptInit, Class::Reinitialise),
            (RvError::GeneralError, Initialize, Class::Reinitialise),
            (RvError::FunctionFailed, Decrypt, Class::DataOrDevice),
            (RvError::FunctionFailed, Encrypt, Class::Reinitialise),
            (RvError::DeviceError, Encrypt, Class::Reinitialise),
            (RvError::DeviceError, Decrypt, Class::Reinitialise),
            (RvError::DeviceRemoved, Decrypt, Class::Reinitialise),
            (RvError::TokenNotPresent, FindObjectsInit, Class::Reinitialise),
            (RvError::TokenNotRecognized, FindObjectsInit, Class::Reinitialise),
            (RvError::SlotIdInvalid, FindObjectsInit, Class::Reinitialise),
            (RvError::CryptokiNotInitialized, Encrypt, Class::Reinitialise),
            (RvError::VendorDefined(0x8000_0001), Encrypt, Class::Reinitialise),
            (RvError::PinIncorrect, Login, Class::Pin),
            (RvError::PinLocked, Login, Class::Pin),
            (RvError::UserPinNotInitialized, Login, Class::Pin),
            (RvError::MechanismInvalid, Function::EncryptInit, Class::Setup),
            (RvError::KeyFunctionNotPermitted, Function::EncryptInit, Class::Setup),
        ] {
            assert_eq!(classify(&Error::Pkcs11(code, function)), wanted, "{function:?} {code:?}");
        }
    }

    #[test]
    fn a_fault_of_the_session_or_the_token_is_no_keys_own() {
        let may = |code, function| another_key_may_do(&Error::Pkcs11(code, function));
        for code in [
            RvError::GeneralError,
            RvError::DeviceError,
            RvError::KeyHandleInvalid,
            RvError::KeyFunctionNotPermitted,
            RvError::VendorDefined(0x8000_0001),
        ] {
            assert!(may(code, Function::DecryptInit), "{code:?}");
        }
        for code in [
            RvError::SessionHandleInvalid,
            RvError::OperationActive,
            RvError::UserNotLoggedIn,
            RvError::DeviceRemoved,
            RvError::TokenNotPresent,
            RvError::CryptokiNotInitialized,
        ] {
            assert!(!may(code, Function::DecryptInit), "{code:?}");
        }
    }

    #[test]
    fn codes_are_named_as_in_the_standard() {
        let named = |code| describe(&Error::Pkcs11(code, Function::EncryptInit));
        assert_eq!(named(RvError::DeviceError), "C_EncryptInit: CKR_DEVICE_ERROR");
        assert_eq!(named(RvError::VendorDefined(0x8000_0001)), "C_EncryptInit: code 0x80000001");
    }
}
