//! What surrounds a backend's payload: the ciphertext's frame, and what it is bound to.
//!
//! ```text
//! ciphertext = format (1 byte: 1) ‖ scheme (1 byte) ‖ payload of the backend
//! AAD        = "kleidi seed v1\0" ‖ scheme ‖ key_id ‖ annotations
//! ```
//!
//! In the AAD every text is preceded by its length (4 bytes, big-endian), the annotations by their
//! number, and they are sorted by name: no two inputs give the same bytes.

use std::collections::BTreeMap;

use crate::backend::Scheme;

/// Annotations of a wrapped seed, as kube-apiserver stores them.
pub type Annotations = BTreeMap<String, Vec<u8>>;

/// The only format so far.
const FORMAT: u8 = 1;

/// Bytes before the payload.
pub const FRAME_BYTES: usize = 2;

const AAD_DOMAIN: &[u8] = b"kleidi seed v1\0";

/// The ciphertext for a payload.
#[must_use]
pub fn frame(scheme: Scheme, payload: &[u8]) -> Vec<u8> {
    let mut ciphertext = Vec::with_capacity(FRAME_BYTES + payload.len());
    ciphertext.extend([FORMAT, scheme.0]);
    ciphertext.extend_from_slice(payload);
    ciphertext
}

/// Why bytes are not a ciphertext of this plugin with this backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// There is no payload.
    #[error("ciphertext of {0} bytes is too short to be one of this plugin")]
    Short(usize),
    /// Another format: of a later version, or not ours at all.
    #[error("ciphertext format {0} is not known to this version (it knows 1)")]
    Format(u8),
    /// Ours, but of another backend.
    #[error("ciphertext is of scheme {found}, and this backend writes scheme {wanted}")]
    Scheme {
        /// What the ciphertext says.
        found: u8,
        /// What the configured backend writes.
        wanted: u8,
    },
}

/// The payload of a ciphertext.
pub fn parse(scheme: Scheme, ciphertext: &[u8]) -> Result<&[u8], FrameError> {
    match ciphertext {
        [] | [_] | [_, _] => Err(FrameError::Short(ciphertext.len())),
        [FORMAT, found, payload @ ..] if *found == scheme.0 => Ok(payload),
        [FORMAT, found, ..] => Err(FrameError::Scheme { found: *found, wanted: scheme.0 }),
        [format, ..] => Err(FrameError::Format(*format)),
    }
}

/// What the ciphertext is bound to.
#[must_use]
pub fn aad(scheme: Scheme, key_id: &str, annotations: &Annotations) -> Vec<u8> {
    let mut aad = Vec::with_capacity(AAD_DOMAIN.len() + 1 + 4 + key_id.len() + 4);
    aad.extend_from_slice(AAD_DOMAIN);
    aad.push(scheme.0);
    put(&mut aad, key_id.as_bytes());
    put_length(&mut aad, annotations.len());
    for (name, value) in annotations {
        put(&mut aad, name.as_bytes());
        put(&mut aad, value);
    }
    aad
}

fn put(out: &mut Vec<u8>, text: &[u8]) {
    put_length(out, text.len());
    out.extend_from_slice(text);
}

/// Lengths are bounded by the request's size (`limits::REQUEST_BYTES_MAX`), far below 2^32.
fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn annotations() -> impl Strategy<Value = Annotations> {
        let value = proptest::collection::vec(any::<u8>(), 0..4);
        proptest::collection::btree_map("[a-c.]{0,3}", value, 0..4)
    }

    /// Ciphertexts are in etcd for years.
    #[test]
    fn the_format_is_what_it_was() {
        assert_eq!(frame(Scheme::AES_256_GCM, b"payload"), b"\x01\x01payload");
        let annotations = Annotations::from([("a.b".to_owned(), b"1".to_vec())]);
        assert_eq!(
            aad(Scheme::AES_256_GCM, "id", &annotations),
            b"kleidi seed v1\0\x01\0\0\0\x02id\0\0\0\x01\0\0\0\x03a.b\0\0\0\x011"
        );
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_undoes_framing(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            if let Ok(payload) = parse(Scheme::AES_256_GCM, &bytes) {
                prop_assert_eq!(frame(Scheme::AES_256_GCM, payload), bytes.clone());
            }
            let framed = frame(Scheme::AES_256_GCM, &bytes);
            match parse(Scheme::AES_256_GCM, &framed) {
                Ok(payload) => prop_assert_eq!(payload, &bytes[..]),
                Err(error) => prop_assert!(bytes.is_empty(), "{}", error),
            }
            prop_assert!(parse(Scheme(9), &framed).is_err());
        }

        #[test]
        fn the_aad_is_injective(
            a in ("[a-c0-]{0,4}", annotations()),
            b in ("[a-c0-]{0,4}", annotations()),
        ) {
            let of = |(id, annotations): &(String, Annotations)| aad(Scheme(1), id, annotations);
            prop_assert_eq!(of(&a) == of(&b), a == b);
        }
    }
}
