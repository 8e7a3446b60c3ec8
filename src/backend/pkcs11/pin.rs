//! The user PIN: read from a file at each login, never kept longer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::backend::{BackendError, ErrorKind};
use crate::secret::Secret;
use crate::secret::file::{self, Readers};

/// Longest PIN file in bytes; no token takes a PIN as long.
const PIN_BYTES_MAX: u64 = 1024;

/// Longest configuration of the Go kleidi's in bytes.
const LEGACY_BYTES_MAX: u64 = 256 * 1024;

/// Where the PIN comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum PinSource {
    /// A file of nothing but the PIN, with or without a newline at the end.
    File(PathBuf),
    /// The Go kleidi's configuration file, which holds the PIN itself: read anew from there.
    LegacyJson(PathBuf),
}

impl std::fmt::Display for PinSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.file().display().fmt(f)
    }
}

impl std::fmt::Debug for PinSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl PinSource {
    fn file(&self) -> &Path {
        match self {
            Self::File(path) | Self::LegacyJson(path) => path,
        }
    }

    /// When the file was last written, where the file system tells.
    pub(super) fn written(&self) -> Option<SystemTime> {
        fs::metadata(self.file()).and_then(|metadata| metadata.modified()).ok()
    }

    /// Reads the PIN.
    pub fn read(&self) -> Result<Secret, BackendError> {
        let fail = |kind, reason: String| {
            BackendError::new(kind, format!("read the PIN from {self}"), reason)
        };
        let pin = match self {
            Self::File(path) => {
                let content = file::read(path, PIN_BYTES_MAX, Readers::Owner)
                    .map_err(|reason| fail(ErrorKind::Credentials, reason))?;
                without_newline(content)
            }
            Self::LegacyJson(path) => {
                #[derive(serde::Deserialize)]
                struct Legacy {
                    pin: String,
                }
                let content = file::read(path, LEGACY_BYTES_MAX, Readers::Everybody)
                    .map_err(|reason| fail(ErrorKind::Credentials, reason))?;
                let legacy: Legacy = serde_json::from_slice(&content).map_err(|_| {
                    fail(ErrorKind::Misconfigured, "it is not JSON with a \"pin\"".to_owned())
                })?;
                Secret::from(legacy.pin.into_bytes())
            }
        };
        if pin.is_empty() {
            return Err(fail(ErrorKind::Credentials, "the file is empty".to_owned()));
        }
        Ok(pin)
    }
}

fn without_newline(mut content: Zeroizing<Vec<u8>>) -> Secret {
    if content.last() == Some(&b'\n') {
        content.pop();
        if content.last() == Some(&b'\r') {
            content.pop();
        }
    }
    Secret::from(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PinSource) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pin");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, PinSource::File(path))
    }

    #[test]
    fn one_newline_at_the_end_is_not_part_of_the_pin() {
        for content in [&b"12 34"[..], b"12 34\n", b"12 34\r\n"] {
            let (_directory, source) = file(content, 0o600);
            assert_eq!(source.read().ok().unwrap().expose(), b"12 34");
        }
    }

    #[test]
    fn a_pin_file_that_cannot_be_trusted_is_refused_without_showing_it() {
        for (content, mode, wanted) in [
            (&b"secret-pin"[..], 0o640, "others can read it (mode 0640)"),
            (b"secret-pin", 0o604, "others can read it (mode 0604)"),
            (b"", 0o600, "empty"),
            (b"\n", 0o600, "empty"),
            (&[b'x'; 1025], 0o600, "longer than 1024"),
        ] {
            let (_directory, source) = file(content, mode);
            let error = source.read().err().unwrap().to_string();
            assert!(error.contains(wanted) && !error.contains("secret-pin"), "{error}");
        }
        let missing = PinSource::File("/nonexistent/pin".into()).read().err().unwrap();
        assert_eq!(missing.kind, ErrorKind::Credentials);
        assert!(missing.to_string().contains("No such file"), "{missing}");
    }

    #[test]
    fn the_go_kleidis_file_is_understood() {
        let (_directory, source) =
            file(br#"{"path": "x", "tokenLabel": "y", "pin": "1234"}"#, 0o644);
        let PinSource::File(path) = source else { unreachable!() };
        assert_eq!(PinSource::LegacyJson(path).read().ok().unwrap().expose(), b"1234");
    }
}
