//! Key ids, as etcd hands them back.

use kleidi::key_id::{KEY_ID_BYTES_MAX, KeyId};

/// Exactly those texts are read that are written, and each is written as it was.
pub fn key_id(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parsed = text.parse::<KeyId>();
    assert_eq!(parsed.is_ok(), is_legal(bytes), "{text:?}");
    if let Ok(id) = parsed {
        assert_eq!(id.to_string(), text);
        assert!(text.len() <= KEY_ID_BYTES_MAX, "{text:?}");
    }
}

/// 32 of `0-9a-f`, `-`, 1 to 31 of `0-9a-z`.
fn is_legal(bytes: &[u8]) -> bool {
    let Some((fingerprint, rest)) = bytes.split_at_checked(32) else { return false };
    let hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let plain = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'z');
    let version = |rest: &[u8]| matches!(rest.len(), 1..=31) && rest.iter().all(plain);
    fingerprint.iter().all(hex) && rest.strip_prefix(b"-").is_some_and(version)
}
