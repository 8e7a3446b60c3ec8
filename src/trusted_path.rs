//! Paths that nobody but root and we can let lead elsewhere.
//!
//! Whoever may write to a directory can put something else in the place of what is in it, whosever that is. So
//! all directories on the way are looked at, up to the root, and the links on the way as well.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// Why a path cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PathError {
    /// Others could let it lead elsewhere.
    #[error("{path} is not safe: {why}")]
    Unsafe {
        /// The directory or link.
        path: PathBuf,
        /// What is wrong with it, and what it has to be.
        why: String,
    },
    /// The operating system refused.
    #[error("cannot {attempted} {path}: {source}")]
    Io {
        /// What was attempted.
        attempted: &'static str,
        /// Where.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl PathError {
    fn io(attempted: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { attempted, path, source }
    }
}

/// What somebody else could do in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Be there before us: we make something in it.
    WhatWeMake,
    /// Exchange what is there, which the sticky bit forbids.
    WhatIsThere,
}

/// Where a path leads to, without links; nobody else may own a link on the way, as it is written. `attempted`
/// is for the error, to be read after "cannot".
pub(crate) fn resolve(path: &Path, attempted: &'static str) -> Result<PathBuf, PathError> {
    let resolved = fs::canonicalize(path).map_err(PathError::io(attempted, path))?;
    for link in path.ancestors() {
        let metadata = fs::symlink_metadata(link).map_err(PathError::io("look at", link))?;
        let owner = metadata.uid();
        if metadata.is_symlink() && is_strange(owner) {
            let why =
                format!("it is a symbolic link of uid {owner}, who could let it lead elsewhere");
            return Err(PathError::Unsafe { path: link.to_owned(), why });
        }
    }
    Ok(resolved)
}

/// Nobody but root and we may be able to exchange a directory without links, what it holds, or a directory above it.
pub(crate) fn check_directory(resolved: &Path, holds: Holds) -> Result<(), PathError> {
    for (depth, directory) in resolved.ancestors().enumerate() {
        let metadata = fs::metadata(directory).map_err(PathError::io("look at", directory))?;
        let holds = if depth == 0 { holds } else { Holds::WhatIsThere };
        if let Some(why) = unsafe_because(&metadata, holds) {
            return Err(PathError::Unsafe { path: directory.to_owned(), why });
        }
    }
    Ok(())
}

/// Whether this user is neither root nor we.
pub(crate) fn is_strange(uid: u32) -> bool {
    uid != 0 && uid != geteuid().as_raw()
}

/// Whether others may write, by the mode. Our own group counts as others: it may have more members.
pub(crate) fn others_may_write(metadata: &Metadata) -> bool {
    let mode = metadata.mode();
    mode & 0o002 != 0 || mode & 0o020 != 0 && metadata.gid() != 0
}

fn unsafe_because(metadata: &Metadata, holds: Holds) -> Option<String> {
    let (owner, mode) = (metadata.uid(), metadata.mode());
    if !metadata.is_dir() {
        return Some("it is not a directory".to_owned());
    }
    if is_strange(owner) {
        return Some(format!("it belongs to uid {owner}; it has to belong to root or to us"));
    }
    let sticky = mode & 0o1000 != 0;
    if others_may_write(metadata) && !(sticky && holds == Holds::WhatIsThere) {
        return Some(format!("others can write to it (mode {:04o})", mode & 0o7777));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    fn why(directory: &Path, holds: Holds) -> String {
        let resolved = resolve(directory, "find").and_then(|path| check_directory(&path, holds));
        resolved.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn who_may_write_into_a_directory_may_exchange_what_it_holds() {
        use Holds::{WhatIsThere, WhatWeMake};
        let stage = tempfile::tempdir().unwrap();
        let (above, below) = (stage.path().join("above"), stage.path().join("above/below"));
        fs::create_dir_all(&below).unwrap();
        let as_root = geteuid().is_root();
        if as_root {
            chown(&above, None, Some(12345)).unwrap();
        }
        for (mode, needs_root, above_is_safe, holds_is_safe) in [
            (0o755, false, true, true),
            (0o757, false, false, false),
            (0o777, false, false, false),
            (0o1777, false, true, false),
            (0o775, true, false, false),
            (0o1775, true, true, false),
        ] {
            if needs_root && !as_root {
                continue;
            }
            fs::set_permissions(&above, fs::Permissions::from_mode(mode)).unwrap();
            for (directory, holds, safe) in [
                (&below, WhatWeMake, above_is_safe),
                (&above, WhatIsThere, above_is_safe),
                (&above, WhatWeMake, holds_is_safe),
            ] {
                let why = why(directory, holds);
                assert_eq!(why.is_empty(), safe, "{mode:04o} {holds:?} {why}");
                let named = format!("{} is not safe: others can write to it", above.display());
                assert!(safe || why.contains(&named), "{why}");
            }
        }
    }

    #[test]
    fn who_owns_a_directory_or_a_link_may_exchange_it() {
        if !geteuid().is_root() {
            return;
        }
        let stage = tempfile::tempdir().unwrap();
        let (there, link) = (stage.path().join("there"), stage.path().join("link"));
        fs::create_dir(&there).unwrap();
        symlink(&there, &link).unwrap();
        assert_eq!(resolve(&link, "find").unwrap(), fs::canonicalize(&there).unwrap());
        assert_eq!(why(&link, Holds::WhatWeMake), "");
        std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
        assert!(why(&link, Holds::WhatWeMake).contains("it is a symbolic link of uid 65534"));
        chown(&there, Some(65534), None).unwrap();
        assert!(why(&there, Holds::WhatIsThere).contains("it belongs to uid 65534"));
        assert!(why(&stage.path().join("missing"), Holds::WhatIsThere).contains("cannot find"));
    }
}
