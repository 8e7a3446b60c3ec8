//! Files that are read again and again: credentials and certificates.
//!
//! They are read beside the runtime: a file system that hangs keeps nobody waiting beyond the deadline.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::edges::Edges;
use crate::backend::{BackendError, ErrorKind};
pub(super) use crate::secret::file::{Readers, read};

/// Longest file with a credential in bytes.
const CREDENTIAL_BYTES_MAX: u64 = 64 * 1024;

/// Most reads at a time: one that hangs keeps a thread.
const READS_MAX: usize = 4;

/// What a content is recognised by, without keeping it.
pub(super) type Digest = [u8; 32];

/// Reads files beside the runtime.
#[derive(Clone)]
pub(super) struct Files {
    reads: Arc<Semaphore>,
    /// Where credentials are, if not in the file system.
    edges: Option<Arc<dyn Edges>>,
}

impl Default for Files {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Files {
    /// The file system's, or those.
    pub(super) fn new(edges: Option<Arc<dyn Edges>>) -> Self {
        Self { reads: Arc::new(Semaphore::new(READS_MAX)), edges }
    }

    /// What `job` makes of the files; `None` if that takes too long.
    pub(super) async fn with<T: Send + 'static>(
        &self,
        deadline: Instant,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let reads = Arc::clone(&self.reads);
        timeout_at(deadline, async move {
            let permit = reads.acquire_owned().await.ok()?;
            let reading = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                job()
            });
            reading.await.ok()
        })
        .await
        .ok()?
    }

    /// What is another one when the file was written again, be it with the same content.
    pub(super) async fn stamp(&self, file: &Path, deadline: Instant) -> Vec<u8> {
        if self.edges.is_some() {
            return Vec::new();
        }
        let path = file.to_owned();
        let stamp = self.with(deadline, move || {
            let metadata = std::fs::metadata(path).ok()?;
            Some(format!("{} {} {}", metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
        });
        stamp.await.flatten().unwrap_or_default().into_bytes()
    }

    /// The content of a file without blanks around it; `what` is for the error.
    pub(super) async fn credential(
        &self,
        file: &Path,
        what: &'static str,
        readers: Readers,
        deadline: Instant,
    ) -> Result<Zeroizing<String>, BackendError> {
        if let Some(edges) = &self.edges {
            return credential(file, what, edges.read(file));
        }
        let path = file.to_owned();
        let outcome =
            self.with(deadline, move || credential(&path, what, content(&path, readers))).await;
        outcome.unwrap_or_else(|| {
            let attempted = format!("read {what} from {}", file.display());
            let reason = "no answer in time";
            Err(BackendError::new(ErrorKind::Timeout, attempted, reason)
                .advise("does the file system that it is on hang?"))
        })
    }
}

fn content(file: &Path, readers: Readers) -> Result<Zeroizing<Vec<u8>>, String> {
    read(file, CREDENTIAL_BYTES_MAX, readers)
}

fn credential(
    file: &Path,
    what: &str,
    content: Result<Zeroizing<Vec<u8>>, String>,
) -> Result<Zeroizing<String>, BackendError> {
    let fail = |reason: &str| {
        let attempted = format!("read {what} from {}", file.display());
        BackendError::new(ErrorKind::Credentials, attempted, reason)
    };
    let content = content.map_err(|reason| {
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
    use std::time::Duration;

    #[test]
    fn a_credential_is_what_is_between_the_blanks() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let said = |bytes: &[u8], readers| {
            fs::write(&file, bytes).unwrap();
            credential(&file, "the token", content(&file, readers))
                .map(|text| text.to_string())
                .map_err(|error| error.to_string())
        };
        assert_eq!(said(b"  s.token\r\n", Readers::Everybody).as_deref(), Ok("s.token"));
        for (content, readers, wanted) in [
            (&b" \n"[..], Readers::Everybody, "empty"),
            (b"\xffcanary", Readers::Everybody, "not UTF-8"),
            (&vec![b'x'; 64 * 1024 + 1][..], Readers::Everybody, "longer than 65536"),
            (b"canary", Readers::Group, "others can read it (mode 0644); chmod 0640 it, or 0600"),
        ] {
            let error = said(content, readers).unwrap_err();
            assert!(error.starts_with("cannot read the token from /"), "{error}");
            assert!(error.contains(wanted) && !error.contains("canary"), "{error}");
        }
    }

    /// As many as there may be hang.
    #[tokio::test]
    async fn a_file_system_that_hangs_keeps_nobody_waiting() {
        let files = Files::default();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let ended = Arc::new(parking_lot::Mutex::new(ended));
        let soon = || Instant::now() + Duration::from_millis(20);
        for _ in 0..READS_MAX {
            let ended = Arc::clone(&ended);
            let hung = files.with(soon(), move || ended.lock().recv()).await;
            assert!(hung.is_none());
        }
        let file = Path::new("/nonexistent");
        let said = async |deadline| {
            files.credential(file, "the token", Readers::Group, deadline).await.unwrap_err().kind
        };
        assert_eq!(said(soon()).await, ErrorKind::Timeout);
        drop(end);
        assert_eq!(said(Instant::now() + Duration::from_secs(10)).await, ErrorKind::Credentials);
    }

    #[test]
    fn parts_are_told_apart() {
        let of = |parts: &[&[u8]]| digest(parts.iter().copied());
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[b"a"]), of(&[b"a", b""]));
        assert_eq!(of(&[b"a", b"b"]), of(&[b"a", b"b"]));
    }
}
