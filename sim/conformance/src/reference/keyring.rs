//! Keys in a directory, which several plugins share: it stands for the KMS.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::context::hex;

/// A key of 256 bits.
#[derive(Clone)]
pub struct Key {
    /// Hash of number and material: 32 hex digits, the same everywhere, never twice.
    pub id: String,
    /// From 1; the greatest is the current one.
    pub number: u32,
    /// The key.
    pub material: [u8; 32],
    /// How long ago it was made.
    pub age: Duration,
}

/// A condition of the KMS.
#[derive(Debug, Clone, Copy)]
pub enum Flag {
    /// It is away.
    Outage,
    /// It does not decrypt.
    DecryptDenied,
}

/// The directory.
#[derive(Debug, Clone)]
pub struct Keyring {
    directory: PathBuf,
}

impl Keyring {
    /// Opens it; makes it, and a first key, where they are missing.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let ring = Self { directory: directory.join("keys") };
        fs::create_dir_all(&ring.directory)?;
        if ring.keys()?.is_empty() {
            match ring.add(1, &random()?) {
                // Another process was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        Ok(ring)
    }

    /// All keys, the oldest first.
    pub fn keys(&self) -> io::Result<Vec<Key>> {
        let mut keys = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let material: [u8; 32] =
                fs::read(entry.path())?.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
            let age = age(entry.metadata()?.modified()?);
            keys.push(Key { id: id(number, &material), number, material, age });
        }
        keys.sort_by_key(|key| key.number);
        Ok(keys)
    }

    /// Makes a new key the current one.
    pub fn rotate(&self) -> io::Result<()> {
        let next = self.keys()?.last().map_or(1, |key| key.number + 1);
        self.add(next, &random()?)
    }

    /// Makes a new key of the material before the last rotation.
    pub fn rotate_back(&self) -> io::Result<()> {
        let keys = self.keys()?;
        let [.., before, last] = keys.as_slice() else {
            return Err(io::Error::other("there was no rotation"));
        };
        self.add(last.number + 1, &before.material)
    }

    /// A key is there as a whole or not at all.
    fn add(&self, number: u32, material: &[u8; 32]) -> io::Result<()> {
        let draft = tempfile::NamedTempFile::new_in(&self.directory)?;
        fs::write(draft.path(), material)?;
        fs::hard_link(draft.path(), self.directory.join(format!("{number:06}")))
    }

    /// Changes a condition.
    pub fn set(&self, flag: Flag, on: bool) -> io::Result<()> {
        let path = self.flag(flag);
        if on {
            fs::write(path, "")
        } else {
            fs::write(path.with_extension("ended"), "")?;
            match fs::remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            }
        }
    }

    /// Whether it is so.
    pub fn is(&self, flag: Flag) -> bool {
        self.flag(flag).exists()
    }

    /// For how long it has been so.
    pub fn lasts(&self, flag: Flag) -> Option<Duration> {
        let metadata = fs::metadata(self.flag(flag)).ok()?;
        metadata.modified().ok().map(age)
    }

    /// How long ago it ended last.
    pub fn ended(&self, flag: Flag) -> Option<Duration> {
        let metadata = fs::metadata(self.flag(flag).with_extension("ended")).ok()?;
        metadata.modified().ok().map(age)
    }

    fn flag(&self, flag: Flag) -> PathBuf {
        self.directory.join(match flag {
            Flag::Outage => "outage",
            Flag::DecryptDenied => "decrypt-denied",
        })
    }
}

/// Files have no other time than the wall clock's.
#[allow(clippy::disallowed_methods, reason = "files have no other time")]
fn age(made: SystemTime) -> Duration {
    SystemTime::now().duration_since(made).unwrap_or_default()
}

fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

fn id(number: u32, material: &[u8; 32]) -> String {
    let hash = Sha256::new()
        .chain_update(b"kms-conformance reference key")
        .chain_update(number.to_be_bytes())
        .chain_update(material)
        .finalize();
    hex(&hash[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn material_that_comes_back_has_a_new_id() {
        let directory = tempfile::tempdir().unwrap();
        let ring = Keyring::open(directory.path()).unwrap();
        assert!(ring.rotate_back().is_err());
        ring.rotate().unwrap();
        ring.rotate_back().unwrap();
        let keys = Keyring::open(directory.path()).unwrap().keys().unwrap();
        let [first, second, third] = keys.as_slice() else { panic!("{} keys", keys.len()) };
        assert!(first.material == third.material && first.material != second.material);
        assert!(first.id != third.id && first.id != second.id && first.id.len() == 32);
    }

    #[test]
    fn conditions_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let ring = Keyring::open(directory.path()).unwrap();
        ring.set(Flag::Outage, true).unwrap();
        assert!(ring.is(Flag::Outage) && !ring.is(Flag::DecryptDenied));
        assert!(ring.lasts(Flag::Outage).is_some() && ring.lasts(Flag::DecryptDenied).is_none());
        assert!(ring.ended(Flag::Outage).is_none());
        ring.set(Flag::Outage, false).unwrap();
        ring.set(Flag::Outage, false).unwrap();
        assert!(!ring.is(Flag::Outage) && ring.ended(Flag::Outage).is_some());
    }
}
