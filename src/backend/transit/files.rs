//! Files that are read again and again: credentials and certificates.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::backend::{BackendError, ErrorKind};

/// Longest file with a credential in bytes.
const CREDENTIAL_BYTES_MAX: u64 = 64 * 1024;

/// What a content is recognised by, without keeping it.
pub(super) type Digest = [u8; 32];

/// The whole content, in memory that is wiped; an error is in words.
pub(super) fn read(file: &Path, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    // What is no file could keep whoever opens or reads it waiting for ever.
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let opened = options.open(file).map_err(|error| error.to_string())?;
    if !opened.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err("it is no regular file".to_owned());
    }
    // As long as it says, so that nothing of it stays behind where the buffer grows.
    let length = opened.metadata().map_or(0, |metadata| metadata.len()).min(bytes_max);
    let capacity = usize::try_from(length).unwrap_or(0).max(4096) + 1;
    let mut content = Zeroizing::new(Vec::with_capacity(capacity));
    opened.take(bytes_max + 1).read_to_end(&mut content).map_err(|error| error.to_string())?;
    if u64::try_from(content.len()).is_ok_and(|bytes| bytes <= bytes_max) {
        Ok(content)
    } else {
        Err(format!("it is longer than {bytes_max} bytes"))
    }
}

/// The content of a file without blanks around it; `what` is for the error.
pub(super) fn credential(file: &Path, what: &str) -> Result<Zeroizing<String>, BackendError> {
    let fail = |reason: &str| {
        let attempted = format!("read {what} from {}", file.display());
        BackendError::new(ErrorKind::Credentials, attempted, reason)
    };
    let content = read(file, CREDENTIAL_BYTES_MAX).map_err(|reason| {
        let theirs = reason.contains("ermission denied");
        let advice = if theirs { "it has to belong to the user that kleidi runs as" } else { "" };
        fail(&reason).advise(advice)
    })?;
    let text = std::str::from_utf8(&content).map_err(|_| fail("it is not UTF-8"))?.trim();
    if text.is_empty() {
        return Err(fail("the file is empty"));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// What these parts, in this order, are recognised by.
pub(super) fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        // Each with its length, so that no two lists of parts are one text.
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_credential_is_what_is_between_the_blanks() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let said = |content: &[u8]| {
            fs::write(&file, content).unwrap();
            credential(&file, "the token").map(|text| text.to_string()).map_err(|e| e.to_string())
        };
        assert_eq!(said(b"  s.token\r\n").as_deref(), Ok("s.token"));
        for (content, wanted) in [
            (&b" \n"[..], "empty"),
            (b"\xffcanary", "not UTF-8"),
            (&vec![b'x'; 64 * 1024 + 1][..], "longer than 65536"),
        ] {
            let error = said(content).unwrap_err();
            assert!(error.starts_with("cannot read the token from /"), "{error}");
            assert!(error.contains(wanted) && !error.contains("canary"), "{error}");
        }
        fs::remove_file(&file).unwrap();
        assert!(credential(&file, "the token").unwrap_err().reason.contains("No such file"));
        // Nobody writes into it: to open it as usual would wait for ever.
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(credential(&file, "the token").unwrap_err().reason.contains("no regular file"));
    }

    #[test]
    fn parts_are_told_apart() {
        let of = |parts: &[&[u8]]| digest(parts.iter().copied());
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[b"a"]), of(&[b"a", b""]));
        assert_eq!(of(&[b"a", b"b"]), of(&[b"a", b"b"]));
    }
}
