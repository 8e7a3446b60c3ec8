//! What is wrong with a configuration, and where.

use std::path::PathBuf;
use std::{fmt, io};

/// One thing that is wrong.
///
/// Displayed as `FILE:LINE:COLUMN: KEY: MESSAGE`, as far as each is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file; none for flags and the environment.
    pub file: Option<PathBuf>,
    /// Line and column, both from 1.
    pub position: Option<(u64, u64)>,
    /// The key, for instance `pkcs11.pinFile`; empty if the message names it.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some((line, column)) = self.position {
                write!(f, "{line}:{column}:")?;
            }
            write!(f, " ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.message)
    }
}

/// Everything that is wrong with a configuration; displayed a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub Vec<Problem>);

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unread {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What is in it is wrong.
    #[error(transparent)]
    Wrong(#[from] ConfigError),
}

impl LoadError {
    /// Whether the file is not there, or not for us to read.
    #[must_use]
    pub fn is_out_of_reach(&self) -> bool {
        use io::ErrorKind::{NotFound, PermissionDenied};
        matches!(self, Self::Unread { source, .. } if matches!(source.kind(), NotFound | PermissionDenied))
    }
}
