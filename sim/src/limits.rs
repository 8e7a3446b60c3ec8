//! What kube-apiserver accepts of a plugin and of what is stored (upstream `kmsv2/envelope.go`).
//!
//! One validator for an Encrypt response, for the state in memory, before storing and after loading.

use std::collections::BTreeMap;

use crate::go;

/// Longest key_id in bytes, inclusive.
pub const KEY_ID_BYTES_MAX: usize = 1024;

/// Longest ciphertext (`encryptedDEKSource`) in bytes, inclusive.
pub const DEK_SOURCE_BYTES_MAX: usize = 1024;

/// Most bytes of annotations, keys and values together, inclusive.
pub const ANNOTATIONS_BYTES_MAX: usize = 32 * 1024;

/// Longest annotation key in bytes; and longest name of an object.
pub(crate) const NAME_BYTES_MAX: usize = 253;

/// Longest label of an annotation key in bytes; and longest name of a namespace.
pub(crate) const LABEL_BYTES_MAX: usize = 63;

/// Why a key_id is refused; the words are upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyIdError {
    /// It is empty.
    #[error("keyID is empty")]
    Empty,
    /// It is longer than [`KEY_ID_BYTES_MAX`].
    #[error("keyID is {0} bytes, which exceeds the max size of 1024")]
    TooLong(usize),
}

/// Accepts 1 to 1024 bytes, whatever they are.
pub fn key_id(key_id: &str) -> Result<(), KeyIdError> {
    match key_id.len() {
        0 => Err(KeyIdError::Empty),
        bytes if bytes > KEY_ID_BYTES_MAX => Err(KeyIdError::TooLong(bytes)),
        _ => Ok(()),
    }
}

/// Accepts a ciphertext of 1 to 1024 bytes.
pub fn dek_source(source: &[u8]) -> Result<(), String> {
    match source.len() {
        0 => Err("encrypted DEK source is empty".to_owned()),
        bytes if bytes > DEK_SOURCE_BYTES_MAX => Err(format!(
            "encrypted DEK source is {bytes} bytes, which exceeds the max size of 1024"
        )),
        _ => Ok(()),
    }
}

/// Accepts annotations whose keys are fully qualified domain names and that are not too long together.
///
/// Several faults are joined as `[a, b]`; upstream's order is that of a Go map, ours is sorted.
pub fn annotations(annotations: &BTreeMap<String, Vec<u8>>) -> Result<(), String> {
    let mut faults = Vec::new();
    let mut bytes = 0;
    for (key, value) in annotations {
        faults.extend(domain_name(key));
        bytes += key.len() + value.len();
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        faults.push(format!(
            "total size of annotations is {bytes}, which exceeds the max size of 32768"
        ));
    }
    joined(&faults).map_or(Ok(()), Err)
}

/// Upstream's aggregate of errors: one bare, several in brackets, equal ones once.
#[must_use]
pub fn joined(faults: &[String]) -> Option<String> {
    let mut unlike: Vec<&str> = Vec::new();
    for fault in faults {
        if !unlike.contains(&fault.as_str()) {
            unlike.push(fault);
        }
    }
    match unlike.as_slice() {
        [] => None,
        [one] => Some((*one).to_owned()),
        several => Some(format!("[{}]", several.join(", "))),
    }
}

/// What is wrong with an annotation's key (`IsFullyQualifiedDomainName`, spec 4): one fault at most, two of the
/// name in one message.
fn domain_name(key: &str) -> Option<String> {
    if key.is_empty() {
        return Some("annotations: Required value".to_owned());
    }
    let invalid =
        |what: &str, why: &str| format!("annotations: Invalid value: {}: {why}", go::quoted(what));
    // One dot at the end is legal, and is not said.
    let name = key.strip_suffix('.').unwrap_or(key);
    let labels = || name.split('.');
    let faults = [
        (name.len() > NAME_BYTES_MAX).then_some("must be no more than 253 characters"),
        (!labels().all(is_label)).then_some(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' \
             or '.', and must start and end with an alphanumeric character (e.g. 'example.com', \
             regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*\
             [a-z0-9])?)*')",
        ),
    ];
    let faults: Vec<_> = faults.into_iter().flatten().collect();
    if !faults.is_empty() {
        return Some(invalid(name, &faults.join(",")));
    }
    if labels().count() < 2 {
        let why = "should be a domain with at least two segments separated by dots";
        return Some(invalid(name, why));
    }
    let long = labels().find(|label| label.len() > LABEL_BYTES_MAX)?;
    Some(invalid(long, "must be no more than 63 characters"))
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
pub(crate) fn is_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = label.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            inner(*first) && inner(*last) && bytes.iter().all(|b| inner(*b) || *b == b'-')
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str) -> Result<(), String> {
        annotations(&[(key.to_owned(), Vec::new())].into())
    }

    #[test]
    fn limits_are_inclusive() {
        assert_eq!(key_id(""), Err(KeyIdError::Empty));
        assert_eq!(key_id(&"k".repeat(1024)), Ok(()));
        assert_eq!(key_id(&"k".repeat(1025)), Err(KeyIdError::TooLong(1025)));
        assert!(dek_source(b"").is_err() && dek_source(&[0; 1024]).is_ok());
        assert!(dek_source(&[0; 1025]).unwrap_err().contains("1025 bytes"));
        let whole = |bytes: usize| annotations(&[("a.b".to_owned(), vec![0; bytes])].into());
        assert!(whole(32768 - 3).is_ok());
        let error = whole(32768 - 2).unwrap_err();
        assert_eq!(
            error,
            "total size of annotations is 32769, which exceeds the max size of 32768"
        );
    }

    #[test]
    fn keys_of_annotations_are_domain_names() {
        for legal in ["a.b", "a.com.", "10.0.0.1", "a-b.c", &format!("{}.b", "a".repeat(63))] {
            assert_eq!(one(legal), Ok(()), "{legal}");
        }
        let long = format!("{}.b", "a".repeat(64));
        let longer = ["a"; 128].join(".");
        for (illegal, says) in [
            ("", "Required value"),
            ("single", "at least two segments"),
            ("kms.example.io/remote-kms-auditid", "RFC 1123"),
            ("A.b", "RFC 1123"),
            ("a_b.c", "RFC 1123"),
            (".a.b", "RFC 1123"),
            ("a..b", "RFC 1123"),
            ("-a.b", "RFC 1123"),
            ("*.b", "RFC 1123"),
            ("a:b.c", "RFC 1123"),
            (".", "RFC 1123"),
            (&long, "no more than 63"),
            (&longer, "no more than 253"),
        ] {
            assert!(one(illegal).unwrap_err().contains(says), "{illegal}: {:?}", one(illegal));
        }
    }

    #[test]
    fn several_faults_are_in_brackets() {
        let two = [("A".to_owned(), vec![]), ("single".to_owned(), vec![])].into();
        let error = annotations(&two).unwrap_err();
        assert!(
            error.starts_with('[') && error.ends_with(']') && error.contains(", annotations: ")
        );
    }
}
