//! A test's own directory, and what must not be found in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// A directory for everything that a test's parts write; kept if the test fails. Clones share it.
#[derive(Debug, Clone)]
pub struct Stage(Arc<Directory>);

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    test: String,
}

impl Stage {
    /// An empty directory, accessible to this user alone, for the test `name`.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Short: the path of a Unix socket has 107 bytes.
        let path = std::env::temp_dir().join(format!("kleidi-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory for the test");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&path, mode).expect("a directory of our own");
        Self(Arc::new(Directory { path, test: name.to_owned() }))
    }

    /// The test's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.test
    }

    /// The path of `name` in the directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path.join(name)
    }

    /// A new directory in the directory.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    #[must_use]
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("a directory for a part of the test");
        path
    }

    /// Says something to the person who runs the tests, captured or not: a figure that was measured.
    pub fn say(&self, what: &str) {
        eprint(&format!("{}: {what}", self.name()));
    }

    /// Lets the directory stay.
    pub fn keep(self) {
        std::mem::forget(self);
    }

    /// Fails if one of `secrets` is in a file whose name `of_interest` accepts: as it is, in hex, in
    /// base64 or as a list of numbers, as Rust prints bytes.
    ///
    /// # Panics
    ///
    /// With the file's name, if one is found; and if there is no file to look at, because then
    /// nothing was checked.
    pub fn assert_absent(&self, secrets: &[&[u8]], of_interest: impl Fn(&Path) -> bool) {
        let mut files = Vec::new();
        collect(&self.0.path, &mut files);
        files.retain(|file| of_interest(file));
        assert!(!files.is_empty(), "no file to look for secrets in");
        for file in &files {
            let Ok(content) = fs::read(file) else { continue };
            for secret in secrets {
                for (form, needle) in forms(secret) {
                    let found = contains(&content, &needle);
                    assert!(!found, "{} holds a secret ({form})", file.display());
                }
            }
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("KLEIDI_KEEP").is_some() {
            let path = self.path.display();
            eprint(&format!("{}: everything it wrote is in {path}", self.test));
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Writes a line for the person who runs the tests, captured or not.
pub(crate) fn eprint(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}

/// The ways in which bytes get into logs.
fn forms(secret: &[u8]) -> [(&'static str, Vec<u8>); 5] {
    let hex: Vec<_> = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let list: Vec<_> = secret.iter().map(ToString::to_string).collect();
    // The last group of base64 depends on what follows: it is left out.
    let whole = &secret[..secret.len() / 3 * 3];
    [
        ("as it is", secret.to_vec()),
        ("hex", hex.concat().into_bytes()),
        ("base64", STANDARD.encode(whole).into_bytes()),
        ("base64 for URLs", URL_SAFE.encode(whole).into_bytes()),
        ("list of numbers", list.join(", ").into_bytes()),
    ]
}

fn contains(content: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && memchr::memmem::find(content, needle).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form() {
        let secret = b"hunter2-and-more-of-it";
        for (form, text) in forms(secret) {
            let stage = Stage::new("canary");
            fs::write(stage.path("log"), [b"before ", &text[..], b" after"].concat()).unwrap();
            let found = std::panic::catch_unwind(|| stage.assert_absent(&[secret], |_| true));
            assert!(found.is_err(), "{form}");
            stage.assert_absent(&[b"something else"], |_| true);
        }
    }
}
