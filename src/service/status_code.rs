//! The one table from errors to gRPC codes.
//!
//! kube-apiserver treats all codes alike; they are for its metrics, its log and the operator. The
//! rule: `UNAVAILABLE`, `DEADLINE_EXCEEDED` and `RESOURCE_EXHAUSTED` where the same call can succeed
//! later by itself, any other code where somebody has to do something first.

use tonic::Code;

use crate::provider::{Error, ErrorKind};

/// The code for an error.
#[must_use]
pub fn code(error: &Error) -> Code {
    match error {
        Error::PlaintextEmpty | Error::PlaintextTooLong { .. } | Error::Ciphertext(_) => {
            Code::InvalidArgument
        }
        Error::KeyUnknown { .. } => Code::NotFound,
        Error::NotLookedUp(_) => Code::DeadlineExceeded,
        Error::AnnouncedKeyGone(_)
        | Error::AnotherKeyAnswered { .. }
        | Error::Starting
        | Error::Stale(_) => Code::Unavailable,
        Error::Outage { error, .. } | Error::Backend(error) => backend_code(error.kind),
    }
}

fn backend_code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::KeyNotFound => Code::NotFound,
        ErrorKind::BadCiphertext | ErrorKind::TooLarge => Code::InvalidArgument,
        ErrorKind::Credentials => Code::Unauthenticated,
        ErrorKind::Misconfigured => Code::FailedPrecondition,
        ErrorKind::KeyDamaged => Code::DataLoss,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Timeout => Code::DeadlineExceeded,
        ErrorKind::Overloaded => Code::ResourceExhausted,
    }
}

/// Whether the KMS as a whole is the cause, which is logged once and not per call.
#[must_use]
pub fn is_outage(error: &Error) -> bool {
    match error {
        Error::Starting | Error::Stale(_) | Error::Outage { .. } | Error::NotLookedUp(_) => true,
        Error::Backend(error) => {
            !matches!(error.kind, ErrorKind::BadCiphertext | ErrorKind::KeyNotFound)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::BackendError;
    use crate::key_id::{Fingerprint, KeyId, Version};
    use crate::provider::envelope::FrameError;
    use std::time::Duration;

    #[test]
    fn every_row() {
        let id = || KeyId::new(Fingerprint::of("", b""), &Version::of_number(1));
        let backend = |kind| BackendError::new(kind, "test", "test");
        let outage = |kind| Error::Outage { since: Duration::ZERO, error: backend(kind) };
        for (error, wanted, outage) in [
            (Error::PlaintextEmpty, Code::InvalidArgument, false),
            (Error::PlaintextTooLong { bytes: 1, max: 1 }, Code::InvalidArgument, false),
            (Error::Ciphertext(FrameError::Short(0)), Code::InvalidArgument, false),
            (Error::KeyUnknown { key_id: String::new(), ours: true }, Code::NotFound, false),
            (Error::NotLookedUp(String::new()), Code::DeadlineExceeded, true),
            (Error::AnnouncedKeyGone(id()), Code::Unavailable, false),
            (Error::AnotherKeyAnswered { asked: id(), answered: id() }, Code::Unavailable, false),
            (Error::Starting, Code::Unavailable, true),
            (Error::Stale(Duration::ZERO), Code::Unavailable, true),
            (outage(ErrorKind::Unavailable), Code::Unavailable, true),
            (outage(ErrorKind::Credentials), Code::Unauthenticated, true),
            (Error::Backend(backend(ErrorKind::KeyNotFound)), Code::NotFound, false),
            (Error::Backend(backend(ErrorKind::BadCiphertext)), Code::InvalidArgument, false),
            (Error::Backend(backend(ErrorKind::Credentials)), Code::Unauthenticated, true),
            (Error::Backend(backend(ErrorKind::Misconfigured)), Code::FailedPrecondition, true),
            (Error::Backend(backend(ErrorKind::KeyDamaged)), Code::DataLoss, true),
            (Error::Backend(backend(ErrorKind::Unavailable)), Code::Unavailable, true),
            (Error::Backend(backend(ErrorKind::Timeout)), Code::DeadlineExceeded, true),
            (Error::Backend(backend(ErrorKind::Overloaded)), Code::ResourceExhausted, true),
            (Error::Backend(backend(ErrorKind::TooLarge)), Code::InvalidArgument, true),
        ] {
            assert_eq!((code(&error), is_outage(&error)), (wanted, outage), "{error:?}");
            if let Error::Backend(error) = &error {
                let later = matches!(
                    wanted,
                    Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted
                );
                assert_eq!(error.kind.retryable(), later, "{error:?}");
            }
        }
    }
}
