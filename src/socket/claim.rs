//! Takes possession of a socket path without harming whoever has it.

use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, socket};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, geteuid};

use super::Access;
use crate::trusted_path::{self, Holds, PathError};

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody is serving there.
    #[error("{0} is in use by a running process; stop it first, or listen elsewhere")]
    InUse(PathBuf),
    /// Something is there that was not made by us.
    #[error("{path} exists and {what}; it is left alone: remove it, or listen elsewhere")]
    Foreign {
        /// The path.
        path: PathBuf,
        /// What was found there.
        what: String,
    },
    /// Others could replace the socket, and an impostor could be given every secret.
    #[error("{path} is not safe for the socket: {why}; use a directory of its own with mode 0750")]
    UnsafeDirectory {
        /// The directory.
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
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// systemd handed over something else than one listening Unix socket.
    #[error("the sockets handed over by systemd cannot be used: {0}")]
    Systemd(String),
}

impl SocketError {
    fn io(attempted: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { attempted, path, source }
    }
}

/// A socket file of ours. Removed when dropped, unless another has taken its place.
#[derive(Debug)]
pub(super) struct Claim {
    path: PathBuf,
    device_and_inode: (u64, u64),
    /// Held as long as we live: two starting plugins must not both find the same dead socket.
    _lock: File,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Nobody to tell if it fails: a dead socket is cleared away by the next start.
        if fs::symlink_metadata(&self.path).is_ok_and(|m| identity(&m) == self.device_and_inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Binds `path`, after making sure that nobody else serves there.
///
/// From its first moment the socket is accessible to us alone; `access` widens that.
pub(super) fn claim(path: &Path, access: &Access) -> Result<(UnixListener, Claim), SocketError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    check_directory(parent)?;
    let lock = lock(path)?;
    clear_dead_socket(path)?;
    let narrow = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(narrow);
    let listener = bound.map_err(SocketError::io("listen on", path))?;
    let metadata = fs::symlink_metadata(path).map_err(SocketError::io("look at", path))?;
    let claim = Claim { path: path.to_owned(), device_and_inode: identity(&metadata), _lock: lock };
    if access.owner.is_some() || access.group.is_some() {
        let (owner, group) = (access.owner.map(Uid::as_raw), access.group.map(Gid::as_raw));
        std::os::unix::fs::lchown(path, owner, group)
            .map_err(SocketError::io("change the owner of", path))?;
    }
    fs::set_permissions(path, Permissions::from_mode(access.mode))
        .map_err(SocketError::io("change the mode of", path))?;
    Ok((listener, claim))
}

fn lock(path: &Path) -> Result<File, SocketError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&name)
        .map_err(SocketError::io("open", &name))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SocketError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(SocketError::io("lock", &name)(source)),
    }
}

/// Removes a socket that nobody listens on any more. Anything else is left alone.
fn clear_dead_socket(path: &Path) -> Result<(), SocketError> {
    let foreign = |what: String| SocketError::Foreign { path: path.to_owned(), what };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(SocketError::io("look at", path)(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(foreign("is not a socket".to_owned()));
    }
    match connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(foreign("is a socket that we may not connect to".to_owned()));
        }
        Ok(()) | Err(_) => return Err(SocketError::InUse(path.to_owned())),
    }
    let owner = metadata.uid();
    if owner != geteuid().as_raw() && !geteuid().is_root() {
        return Err(foreign(format!("is a dead socket of uid {owner}, not of ours")));
    }
    fs::remove_file(path).map_err(SocketError::io("remove the dead socket", path))
}

/// Connects, and does not wait: somebody who does not accept is there all the same (`EAGAIN`).
fn connect(path: &Path) -> io::Result<()> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    Ok(nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?)
}

/// Nobody but root and we may be able to replace the socket or a directory above it.
fn check_directory(directory: &Path) -> Result<(), SocketError> {
    let resolved = trusted_path::resolve(directory, "find the directory")?;
    Ok(trusted_path::check_directory(&resolved, Holds::WhatWeMake)?)
}

impl From<PathError> for SocketError {
    fn from(error: PathError) -> Self {
        match error {
            PathError::Io { attempted, path, source } => Self::io(attempted, &path)(source),
            PathError::Unsafe { path, why } => Self::UnsafeDirectory { path, why },
        }
    }
}
