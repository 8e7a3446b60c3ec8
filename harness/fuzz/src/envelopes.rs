//! What surrounds a backend's payload.

use kleidi::backend::Scheme;
use kleidi::provider::envelope::{Annotations, FRAME_BYTES, aad, frame, parse};

/// The first byte is the scheme, the rest is a ciphertext: it is parsed if it is framed so, and framing undoes
/// parsing. And, cut into texts, it is two sets of what a ciphertext is bound to: they are bound alike only if
/// they are alike.
pub fn envelope_parse(bytes: &[u8]) {
    let Some((scheme, ciphertext)) = bytes.split_first() else { return };
    let scheme = Scheme(*scheme);
    let framed = ciphertext.len() > FRAME_BYTES && ciphertext.starts_with(&[1, scheme.0]);
    match parse(scheme, ciphertext) {
        Ok(payload) => {
            assert!(framed, "another frame was taken for ours");
            assert_eq!(frame(scheme, payload), ciphertext);
        }
        Err(error) => assert!(!framed, "{error}"),
    }
    let (one, other) = bound_to(ciphertext);
    let of = |(key_id, annotations): &Bound| aad(scheme, key_id, annotations);
    assert_eq!(of(&one) == of(&other), one == other, "{one:?} and {other:?}");
}

type Bound = (String, Annotations);

/// Texts end with 0xff: a key_id and another, then a name and a value for the one, for the other, and so on.
fn bound_to(bytes: &[u8]) -> (Bound, Bound) {
    let mut texts = bytes.split(|byte| *byte == 0xff).map(<[u8]>::to_vec);
    let mut text = || Some(String::from_utf8_lossy(&texts.next()?).into_owned());
    let mut one = (text().unwrap_or_default(), Annotations::new());
    let mut other = (text().unwrap_or_default(), Annotations::new());
    while let (Some(name), Some(value)) = (text(), text()) {
        one.1.insert(name, value.into_bytes());
        std::mem::swap(&mut one, &mut other);
    }
    (one, other)
}
