//! Files with secrets, which are read again whenever they are needed and not kept.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;
use zeroize::Zeroizing;

/// Who may be able to read a file, by its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Its owner; the group, too, where systemd has put it (`LoadCredential=`).
    Owner,
    /// Its owner and its group: programs that write tokens for others do it so.
    Group,
    /// Whoever likes: nothing in it is secret, or somebody else answers for it.
    Everybody,
}

/// The whole content, in memory that is wiped; an error is in words, to be read after "cannot read … from
/// FILE:". It blocks for as long as the file system does.
pub fn read(file: &Path, bytes_max: u64, readers: Readers) -> Result<Zeroizing<Vec<u8>>, String> {
    // What is no file could keep whoever opens or reads it waiting for ever.
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let opened = options.open(file).map_err(|error| error.to_string())?;
    // Of what is open: a name can mean another file a moment later.
    let metadata = opened.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is no regular file".to_owned());
    }
    may_be_read_by(readers, file, metadata.mode())?;
    // As long as it says, so that nothing of it stays behind where the buffer grows.
    let length = usize::try_from(metadata.len().min(bytes_max)).unwrap_or(0);
    let mut content = Zeroizing::new(Vec::with_capacity(length.max(4096) + 1));
    opened.take(bytes_max + 1).read_to_end(&mut content).map_err(|error| error.to_string())?;
    if u64::try_from(content.len()).is_ok_and(|bytes| bytes <= bytes_max) {
        Ok(content)
    } else {
        Err(format!("it is longer than {bytes_max} bytes"))
    }
}

fn may_be_read_by(readers: Readers, file: &Path, mode: u32) -> Result<(), String> {
    // systemd gives a service's user access by an ACL, which shows up in the group's bits.
    let by_systemd = || {
        std::env::var_os("CREDENTIALS_DIRECTORY")
            .is_some_and(|directory| file.starts_with(directory))
    };
    let (forbidden, wanted) = match readers {
        Readers::Everybody => return Ok(()),
        Readers::Owner if !by_systemd() => {
            (0o077, "chmod 0600 it (of a Secret volume: defaultMode 0400)")
        }
        Readers::Owner | Readers::Group => {
            (0o007, "chmod 0640 it, or 0600 (of a Secret volume: defaultMode 0440)")
        }
    };
    if mode & forbidden == 0 {
        return Ok(());
    }
    Err(format!("others can read it (mode {:04o}); {wanted}", mode & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn who_may_read_a_file_is_told_by_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        fs::write(&file, "content").unwrap();
        for (mode, readers, fine) in [
            (0o600, Readers::Owner, true),
            (0o400, Readers::Owner, true),
            (0o640, Readers::Owner, false),
            (0o602, Readers::Owner, false),
            (0o640, Readers::Group, true),
            (0o644, Readers::Group, false),
            (0o641, Readers::Group, false),
            (0o644, Readers::Everybody, true),
        ] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let said = read(&file, 100, readers);
            assert_eq!(said.is_ok(), fine, "{mode:o}, {readers:?}: {said:?}");
            if let Err(error) = said {
                assert!(
                    error.contains(&format!("others can read it (mode {mode:04o})")),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn what_cannot_be_read_whole_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        let said = |bytes_max| read(&file, bytes_max, Readers::Everybody);
        assert!(said(9).unwrap_err().contains("No such file"));
        fs::write(&file, "0123456789").unwrap();
        assert_eq!(said(10).unwrap().as_slice(), b"0123456789");
        assert!(said(9).unwrap_err().contains("longer than 9 bytes"));
        fs::remove_file(&file).unwrap();
        // Nobody writes into it: to open it as usual would wait for ever.
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(said(9).unwrap_err().contains("no regular file"));
    }
}
