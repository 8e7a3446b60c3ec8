//! What an EncryptionConfiguration says (upstream `apis/apiserver/types_encryption.go`).

use std::fmt;

/// An EncryptionConfiguration, with defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configuration {
    /// In their order, which counts.
    pub resources: Vec<Rule>,
}

/// What some resources are written and read with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// `secrets`, `pandas.awesome.bears.example`, `*.`, `*.apps`, `*.*`.
    pub resources: Vec<String>,
    /// The first writes, all read.
    pub providers: Vec<Provider>,
}

/// One element of a list of providers; legal if it names exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provider {
    /// Keys for AES-GCM.
    pub aesgcm: Option<Vec<Key>>,
    /// Keys for AES-CBC.
    pub aescbc: Option<Vec<Key>>,
    /// Keys for XSalsa20-Poly1305.
    pub secretbox: Option<Vec<Key>>,
    /// In clear.
    pub identity: bool,
    /// A plugin.
    pub kms: Option<Kms>,
}

/// A key in the configuration.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Key {
    /// Stored before what it encrypts.
    pub name: String,
    /// In base64.
    pub secret: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).field("secret", &"<redacted>").finish()
    }
}

/// A plugin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kms {
    /// `v1` if the file does not say.
    pub api_version: String,
    /// Stored before what it encrypts.
    pub name: String,
    /// For `v1` alone, 1000 if the file does not say.
    pub cache_size: Option<i32>,
    /// A URL with the scheme `unix`.
    pub endpoint: String,
    /// Of one call, in nanoseconds; 3 s if the file does not say.
    pub timeout: i64,
}

/// A resource and its group, or a wildcard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupResource {
    /// Empty for the core group.
    pub group: String,
    /// In the plural.
    pub resource: String,
}

impl GroupResource {
    /// Splits at the first point: `ParseGroupResource`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (resource, group) = text.split_once('.').unwrap_or((text, ""));
        Self { group: group.to_owned(), resource: resource.to_owned() }
    }

    /// All resources of a group.
    #[must_use]
    pub fn all_of(group: &str) -> Self {
        Self { group: group.to_owned(), resource: "*".to_owned() }
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.resource.as_str(), self.group.as_str()) {
            ("*", "") => f.write_str("*."),
            (resource, "") => f.write_str(resource),
            (resource, group) => write!(f, "{resource}.{group}"),
        }
    }
}
