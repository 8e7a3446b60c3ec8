//! Where the plugin listens, in the notation of kube-apiserver's `endpoint`.

use std::fmt;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Longest path or abstract name of a Unix socket in bytes (`sun_path` without its end).
const PATH_BYTES_MAX: usize = 107;

/// The address of a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket in the file system; an absolute path.
    Path(PathBuf),
    /// A socket in the abstract namespace, without the leading `@`. It has no owner and no mode:
    /// the peer's uid is the only protection.
    Abstract(String),
}

/// Why a text is not an [`Address`], and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseAddressError(String);

impl FromStr for Address {
    type Err = ParseAddressError;

    /// Accepts what means the same to kube-apiserver (`unix:///run/x.sock`, `unix:/run/x.sock`,
    /// `unix:///@name`), and the bare forms `/run/x.sock` and `@name`.
    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let fail = |why: &str| Err(ParseAddressError(format!("{text:?}: {why}")));
        let path = match text.split_once(':') {
            Some(("unix", rest)) => rest,
            Some((scheme, _)) if !scheme.starts_with(['/', '@']) => {
                return fail("only unix sockets are supported: unix:///run/kleidi/kms.sock");
            }
            _ => text,
        };
        let path = match path.strip_prefix("//") {
            // kube-apiserver takes `run` in unix://run/x.sock for a host and dials /x.sock.
            Some(rest) if !rest.starts_with('/') => {
                return fail(
                    "three slashes are needed: unix:///run/kleidi/kms.sock or unix:///@name",
                );
            }
            Some(rest) => rest,
            None => path,
        };
        let name = path.strip_prefix("/@").or_else(|| path.strip_prefix('@'));
        if path.bytes().any(|byte| matches!(byte, b'%' | b'?' | b'#' | 0)) {
            return fail("kube-apiserver cannot dial a path with '%', '?', '#' or NUL");
        }
        match name {
            Some("") => fail("the name after '@' is empty"),
            Some(name) if name.len() > PATH_BYTES_MAX => fail("longer than 107 bytes"),
            Some(name) => Ok(Self::Abstract(name.to_owned())),
            None if !path.starts_with('/') => fail("an absolute path is needed"),
            None if path.ends_with('/') => fail("a file is needed, not a directory"),
            None if path.len() > PATH_BYTES_MAX => fail("longer than 107 bytes"),
            None => Ok(Self::Path(PathBuf::from(path))),
        }
    }
}

impl Address {
    /// That of a bound socket; `None` if it has no name, or one that is no text.
    pub(super) fn of(socket: &SocketAddr) -> Option<Self> {
        match socket.as_abstract_name() {
            Some(name) => Some(Self::Abstract(String::from_utf8(name.to_vec()).ok()?)),
            None => socket.as_pathname().map(|path| Self::Path(path.to_owned())),
        }
    }

    /// The path, unless it is abstract.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Abstract(_) => None,
        }
    }
}

impl fmt::Display for Address {
    /// As it is written in an `EncryptionConfiguration`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "unix://{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:///@{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_mean_what_they_mean_to_the_apiserver() {
        let path = |p: &str| Some(Address::Path(PathBuf::from(p)));
        let name = |n: &str| Some(Address::Abstract(n.to_owned()));
        for (text, wanted) in [
            ("unix:///run/kms.sock", path("/run/kms.sock")),
            ("unix:/run/kms.sock", path("/run/kms.sock")),
            ("/run/kms.sock", path("/run/kms.sock")),
            ("unix:////run//k", path("//run//k")),
            ("unix:///run/a b.sock", path("/run/a b.sock")),
            ("/run/a:b.sock", path("/run/a:b.sock")),
            ("unix:///@kms", name("kms")),
            ("@kms", name("kms")),
            ("unix:///@a/b", name("a/b")),
            ("unix://run/kms.sock", None),
            ("unix://@kms", None),
            ("unix:rel.sock", None),
            ("unix:", None),
            ("unix:///", None),
            ("", None),
            ("rel.sock", None),
            ("@", None),
            ("tcp://127.0.0.1:1", None),
            ("unix:///run/a%20b.sock", None),
            ("unix:///run/a?b", None),
            ("/run/", None),
        ] {
            assert_eq!(text.parse::<Address>().ok(), wanted, "{text:?}");
        }
        assert!(format!("/{}", "a".repeat(106)).parse::<Address>().is_ok());
        assert!(format!("/{}", "a".repeat(107)).parse::<Address>().is_err());
    }

    #[test]
    fn a_bound_socket_has_the_address_that_it_was_bound_to() {
        use std::os::unix::net::UnixListener;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kms.sock");
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(Address::of(&listener.local_addr().unwrap()), Some(Address::Path(path)));
        for (name, wanted) in [
            (format!("kleidi-{}", std::process::id()).into_bytes(), true),
            (vec![0xff, b'k'], false),
        ] {
            let bound = SocketAddr::from_abstract_name(&name).unwrap();
            let name = String::from_utf8(name).ok().filter(|_| wanted);
            assert_eq!(Address::of(&bound), name.map(Address::Abstract));
        }
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_what_is_shown_reads_back(text in "(unix:)?/{0,3}@?\\PC{0,120}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
            }
        }
    }
}
