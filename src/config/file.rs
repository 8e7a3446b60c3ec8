//! Which file is the configuration, and what is in it.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::error::LoadError;
use super::{DEFAULT_FILE, legacy};

/// Longest configuration file in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// A file that has been read.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) content: String,
    /// It was not named, and the Go kleidi's stands in for ours.
    pub(super) stands_in: bool,
}

impl Source {
    /// Reads the file that was named, or else the one at its usual place.
    pub(super) fn open(named: Option<&Path>) -> Result<Self, LoadError> {
        let (ours, go) = (Path::new(DEFAULT_FILE), Path::new(legacy::DEFAULT_FILE));
        let path = choose(named, ours, go);
        let content =
            read(path).map_err(|source| LoadError::Unread { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), content, stands_in: named.is_none() && path == go })
    }
}

/// The Go kleidi's default stands in for ours, but never for a file that was named, nor for one that is
/// there and cannot be read: it may be about another key.
fn choose<'a>(named: Option<&'a Path>, ours: &'a Path, go: &'a Path) -> &'a Path {
    let absent = |path: &Path| {
        // A link that leads nowhere is there: somebody has meant it to lead to a configuration.
        path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    match named {
        Some(path) => path,
        None if absent(ours) && !absent(go) => go,
        None => ours,
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut content = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut content)?;
    if u64::try_from(content.len()).is_ok_and(|bytes| bytes <= FILE_BYTES_MAX) {
        Ok(content)
    } else {
        let why = format!("it is longer than {FILE_BYTES_MAX} bytes");
        Err(io::Error::new(io::ErrorKind::FileTooLarge, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_named_and_is_not_there_has_a_stand_in() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (there, absent) = (path("there"), path("absent"));
        std::fs::write(&there, "").unwrap();
        std::os::unix::fs::symlink(&absent, path("link")).unwrap();
        assert_eq!(choose(None, &absent, &there), there);
        assert_eq!(choose(None, &there, &there.join("")), there);
        assert_eq!(choose(None, &absent, &absent), absent);
        assert_eq!(choose(None, &path("no/directory"), &there), there);
        // Named, and be it by the name of the default.
        assert_eq!(choose(Some(&absent), &absent, &there), absent);
        // There, but not to be read.
        for unreadable in [path("link"), there.join("below a file")] {
            assert_eq!(choose(None, &unreadable, &there), unreadable);
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("long");
        std::fs::write(&long, "#".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1)).unwrap();
        for (path, wanted) in [
            (long, "it is longer than 262144 bytes"),
            (directory.path().to_owned(), "Is a directory"),
            (directory.path().join("absent"), "No such file or directory"),
        ] {
            let said = Source::open(Some(&path)).unwrap_err().to_string();
            assert!(said.starts_with(&format!("{}: cannot be read: ", path.display())), "{said}");
            assert!(said.contains(wanted), "{said}");
        }
    }
}
