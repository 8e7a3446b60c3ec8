//! A plugin's address, as in an EncryptionConfiguration.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// `unix:///run/kms.sock`, or `unix:///@name` for an abstract socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// What to connect to; an abstract name begins with a NUL byte.
    #[must_use]
    pub fn address(&self) -> PathBuf {
        self.0.strip_prefix("/@").map_or_else(|| self.0.clone(), |name| format!("\0{name}")).into()
    }

    /// The socket's file, if it has one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        (!self.0.starts_with("/@")).then(|| Path::new(&self.0))
    }
}

impl FromStr for Endpoint {
    type Err = String;

    /// Also takes a bare absolute path.
    fn from_str(text: &str) -> Result<Self, String> {
        let path =
            text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")).unwrap_or(text);
        if text.contains("://") && !text.starts_with("unix://") {
            return Err("the scheme has to be unix; kube-apiserver knows no other".to_owned());
        }
        if !path.starts_with('/') || path.len() == 1 {
            return Err("wanted unix:///path/to.sock or unix:///@name (three slashes: after two \
                        kube-apiserver takes the first directory for a host and drops it)"
                .to_owned());
        }
        if let Some(special) = path.chars().find(|c| ['%', '?', '#'].contains(c)) {
            return Err(format!("{special} is special in a URL; use a path without it"));
        }
        Ok(Self(path.to_owned()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_those_of_kube_apiserver() {
        let parse = |text: &str| text.parse::<Endpoint>();
        assert_eq!(parse("unix:///run/kms.sock").unwrap().address(), Path::new("/run/kms.sock"));
        assert_eq!(parse("unix:/run/k").unwrap().to_string(), "unix:///run/k");
        assert_eq!(parse("/run/k").unwrap().to_string(), "unix:///run/k");
        let hidden = parse("unix:///@kms").unwrap();
        assert_eq!(hidden.address(), Path::new("\0kms"));
        assert_eq!(hidden.file(), None);
        for wrong in [
            "",
            "unix:",
            "unix://run/kms.sock",
            "unix:///",
            "tcp:///x",
            "kms.sock",
            "unix:///a%20b",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
