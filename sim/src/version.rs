//! What differs between the releases of kube-apiserver that are modelled (spec 11).

use std::fmt;
use std::str::FromStr;

use crate::object::{Library, sha256};

/// A release, and those that behave alike; 1.32 and 1.33 are none of them (their authority is that of 1.34,
/// their protobuf that of 1.31).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Version {
    /// 1.29 and 1.30 (measured with 1.29.6).
    V1_29,
    /// 1.31 (measured with 1.31.0).
    V1_31,
    /// 1.34 and later (measured with 1.37.2).
    #[default]
    V1_37,
}

impl Version {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V1_29, Self::V1_31, Self::V1_37];

    /// Whether unknown and repeated fields of the configuration are refused.
    #[must_use]
    pub fn decodes_strictly(self) -> bool {
        self >= Self::V1_31
    }

    /// Which library reads and writes what is stored (spec 3.1 and 11: changed in 1.34).
    #[must_use]
    pub fn protobuf(self) -> Library {
        if self >= Self::V1_37 { Library::Google } else { Library::Gogo }
    }

    /// Whether a wrong value of a configuration is printed as JSON (1.34 and later), or as Go's source.
    #[must_use]
    pub fn prints_json(self) -> bool {
        self >= Self::V1_37
    }

    /// What goes into `:authority` for a socket's address (spec 2.4).
    #[must_use]
    pub fn authority(self, address: &[u8]) -> String {
        if self >= Self::V1_37 { "localhost".to_owned() } else { escaped(address) }
    }

    /// gRPC's name and version, as the header `user-agent` has them.
    #[must_use]
    pub fn user_agent(self) -> &'static str {
        match self {
            Self::V1_29 => "grpc-go/1.58.3",
            Self::V1_31 => "grpc-go/1.65.0",
            Self::V1_37 => "grpc-go/1.82.1",
        }
    }

    /// How many Decrypts a list has under way at a time at most (spec 2.4, measured).
    #[must_use]
    pub fn decrypts_at_once(self) -> usize {
        if self >= Self::V1_37 { 10 } else { 1 }
    }

    /// The header that leaks from the apiserver's client of etcd into the Decrypts of its first list, name and
    /// value (measured).
    #[must_use]
    pub fn leaked_by_a_list(self) -> (&'static str, &'static str) {
        if self >= Self::V1_37 { ("hasleader", "true") } else { ("source", "cache") }
    }

    /// By what a changed configuration is known (`computeEncryptionConfigHash`).
    #[must_use]
    pub fn config_hash(self, file: &[u8]) -> String {
        let prefix = match self {
            Self::V1_29 => "",
            Self::V1_31 => "k8s:enc:unstable:1:",
            Self::V1_37 => "sha256:",
        };
        sha256(prefix, file)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "1.29" => Ok(Self::V1_29),
            "1.31" => Ok(Self::V1_31),
            "1.37" => Ok(Self::V1_37),
            _ => Err("the versions modelled are 1.29 (also for 1.30), 1.31 and 1.37 (for 1.34 and later)"
                .to_owned()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_29 => "1.29",
            Self::V1_31 => "1.31",
            Self::V1_37 => "1.37",
        })
    }
}

/// grpc-go's `encodeAuthority`, 1.58 and later.
fn escaped(address: &[u8]) -> String {
    use fmt::Write as _;
    address.iter().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]@".contains(byte) {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_upstreams() {
        for version in [Version::V1_29, Version::V1_31] {
            assert_eq!(version.authority(b"/run/kms.sock"), "%2Frun%2Fkms.sock");
            assert_eq!(version.authority(b"@kms"), "@kms");
            assert_eq!(version.authority("/a ü".as_bytes()), "%2Fa%20%C3%BC");
        }
        assert_eq!(Version::V1_37.authority(b"/run/kms.sock"), "localhost");
    }

    #[test]
    fn versions_are_named_as_they_are_printed() {
        for version in Version::ALL {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
        assert!("1.30".parse::<Version>().is_err());
    }
}
