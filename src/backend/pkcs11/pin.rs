//! The user PIN: read from a file at each login, never kept longer.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::backend::{BackendError, ErrorKind};
use crate::secret::Secret;

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
        match self {
            Self::File(path) | Self::LegacyJson(path) => path.display().fmt(f),
        }
    }
}

impl std::fmt::Debug for PinSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl PinSource {
    /// Reads the PIN.
    pub fn read(&self) -> Result<Secret, BackendError> {
        let fail = |kind, reason: String| {
            BackendError::new(kind, format!("read the PIN from {self}"), reason)
        };
        let pin = match self {
            Self::File(path) => {
                let content = read_private(path).map_err(|r| fail(ErrorKind::Credentials, r))?;
                without_newline(content)
            }
            Self::LegacyJson(path) => {
                #[derive(serde::Deserialize)]
                struct Legacy {
                    pin: String,
                }
                let content = read_bounded(path, LEGACY_BYTES_MAX)
                    .map_err(|r| fail(ErrorKind::Credentials, r))?;
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

/// Reads a file that only its owner may read; group too where systemd has put it.
fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    // systemd gives a service's user access by an ACL, which shows up in the group's bits.
    let by_systemd = std::env::var_os("CREDENTIALS_DIRECTORY")
        .is_some_and(|directory| path.starts_with(directory));
    let forbidden = if by_systemd { 0o007 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(format!("others can read it (mode {mode:04o}); chmod 0600 it"));
    }
    read_bounded(path, PIN_BYTES_MAX)
}

fn read_bounded(path: &Path, max: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut content = Zeroizing::new(Vec::with_capacity(256));
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(max + 1).read_to_end(&mut content).map_err(|error| error.to_string())?;
    if u64::try_from(content.len()).is_ok_and(|bytes| bytes <= max) {
        Ok(content)
    } else {
        Err(format!("it is longer than {max} bytes"))
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
    use std::fs;
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
