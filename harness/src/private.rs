//! Files that only their owner may read.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Writes a credential as an operator should: another one in its place at once, mode 0600.
///
/// # Panics
///
/// If it cannot be written.
pub fn write_private(path: &Path, content: impl AsRef<[u8]>) {
    let new = path.with_added_extension("new");
    fs::write(&new, content).expect("a private file can be written");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).expect("it can be made private");
    fs::rename(&new, path).expect("it can be put into its place");
}
