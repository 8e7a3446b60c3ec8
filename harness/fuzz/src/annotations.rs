//! kube-apiserver's rule for annotations.

use std::collections::BTreeMap;

use kleidi_sim::limits;

/// Names and values, each ended by 0xff: the model accepts what the rule accepts, told by a walk over the
/// bytes (k8s.io/apimachinery `IsFullyQualifiedDomainName`; 32 KiB together).
pub fn annotation_validation(bytes: &[u8]) {
    let mut texts = bytes.split(|byte| *byte == 0xff);
    let mut annotations = BTreeMap::new();
    while let Some(name) = texts.next() {
        let Ok(name) = std::str::from_utf8(name) else { return };
        annotations.insert(name.to_owned(), texts.next().unwrap_or_default().to_vec());
    }
    let total: usize = annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
    let legal = annotations.keys().all(|name| is_domain_name(name)) && total <= 32 * 1024;
    let said = limits::annotations(&annotations);
    assert_eq!(said.is_ok(), legal, "{annotations:?}: {said:?}");
    assert!(said.err().is_none_or(|said| !said.is_empty()));
}

/// Two labels or more of at most 63 of `a-z`, `0-9` and, inside, `-`; at most 253 bytes; a dot more is fine.
fn is_domain_name(name: &str) -> bool {
    let mut bytes = name.as_bytes();
    if bytes.last() == Some(&b'.') {
        bytes = &bytes[..bytes.len() - 1];
    }
    let (mut labels, mut length, mut before) = (1, 0, b'.');
    for &byte in bytes {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => length += 1,
            b'-' if before != b'.' => length += 1,
            b'.' if before != b'.' && before != b'-' => (labels, length) = (labels + 1, 0),
            _ => return false,
        }
        if length > 63 {
            return false;
        }
        before = byte;
    }
    !matches!(before, b'.' | b'-') && labels > 1 && bytes.len() <= 253
}
