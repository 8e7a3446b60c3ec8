//! That there is a token with a PIN, in a file beside the PIN's.
//!
//! A token that is not in sight need not be gone: its directory may not be mounted. What a second one's key
//! encrypts could not be read once the first is back. So where there is a record, no other token is made. It is on
//! the disk before the first key is made: a creation that was cut off before that has encrypted nothing.

use std::path::{Path, PathBuf};

use cryptoki::slot::TokenInfo;

use super::{with_suffix, write_private};
use crate::backend::pkcs11::TokenSelector;
use crate::backend::{BackendError, ErrorKind};
use crate::secret::Secret;

/// What a record's file is called after the PIN's.
const SUFFIX: &str = ".token";

/// The record of a PIN's token, which may not have been written yet.
pub(super) struct Record<'a> {
    pin_file: &'a Path,
    file: PathBuf,
}

impl<'a> Record<'a> {
    /// That of the token with the PIN in this file.
    pub(super) fn of(pin_file: &'a Path) -> Self {
        Self { pin_file, file: with_suffix(pin_file, SUFFIX) }
    }

    /// Refuses to make a token where one is on record: it is out of sight, or gone with all that was encrypted
    /// under it.
    pub(super) fn refuse_another(&self, selector: &TokenSelector) -> Result<(), BackendError> {
        let (file, pin) = (self.file.display(), self.pin_file.display());
        let fail = |reason: String| {
            BackendError::new(ErrorKind::Misconfigured, format!("create {selector}"), reason)
        };
        match self.file.try_exists() {
            Ok(false) => Ok(()),
            Ok(true) => {
                let why = format!("there is one with the PIN in {pin}, and it is not in sight");
                Err(fail(why).advise(format!(
                    "mount or restore its directory, and see that SOFTHSM2_CONF names it; if it is really \
                     gone and nothing is encrypted under it, remove {file}; for a second token name another \
                     pinFile"
                )))
            }
            Err(error) => Err(fail(format!("cannot look for {file}: {error}"))),
        }
    }

    /// Writes that there is this token, unless there is a record.
    pub(super) fn write(&self, token: &TokenInfo) -> Result<(), BackendError> {
        let text = format!(
            "There is a token with the PIN in {}: {:?}, serial {}.\n\
             As long as this file is here, kleidi init makes no other, whether or not it sees this one.\n",
            self.pin_file.display(),
            token.label(),
            token.serial_number()
        );
        let written = self.file.try_exists().and_then(|there| {
            if there { Ok(()) } else { write_private(&self.file, &Secret::from(text.into_bytes())) }
        });
        written.map_err(|error| {
            let attempted = format!("put the token on record in {}", self.file.display());
            BackendError::new(ErrorKind::Misconfigured, attempted, error.to_string())
        })
    }
}
