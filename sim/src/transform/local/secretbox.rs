//! NaCl's secretbox: XSalsa20 and Poly1305 (upstream `encrypt/secretbox/secretbox.go`).
//!
//! The first 32 bytes of the stream are the key of the tag, which is over the ciphertext.

use poly1305::Poly1305;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit as _, StreamCipher as _};

use super::TOO_SHORT;

/// Bytes of the nonce.
const NONCE: usize = 24;

/// Bytes of the tag.
const TAG: usize = 16;

/// Bytes of the stream that are the tag's key.
const TAG_KEY: usize = 32;

/// Nonce, tag and ciphertext; nothing for a key or nonce of a wrong length.
pub(super) fn seal(key: &[u8], random: &[u8], plaintext: &[u8]) -> Option<Vec<u8>> {
    let nonce = random.get(..NONCE)?;
    let (tag_key, ciphertext) = stream(key, nonce, plaintext)?;
    let tag = tag(&tag_key, &ciphertext)?;
    Some([nonce, &tag, &ciphertext].concat())
}

pub(super) fn open(key: &[u8], data: &[u8]) -> Result<Vec<u8>, &'static str> {
    let (nonce, rest) = data.split_at_checked(NONCE).ok_or(TOO_SHORT)?;
    let (stored, ciphertext) = rest.split_at_checked(TAG).ok_or(TOO_SHORT)?;
    let (tag_key, plaintext) =
        stream(key, nonce, ciphertext).ok_or("the key has a wrong length")?;
    // Upstream's words, for whatever is wrong. Time does not matter to a model.
    if tag(&tag_key, ciphertext).as_deref() != Some(stored) {
        return Err("output array was not large enough for encryption");
    }
    Ok(plaintext)
}

/// The tag's key, and the text with the rest of the stream.
fn stream(key: &[u8], nonce: &[u8], text: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut cipher = XSalsa20::new_from_slices(key, nonce).ok()?;
    let mut tag_key = vec![0; TAG_KEY];
    cipher.apply_keystream(&mut tag_key);
    let mut text = text.to_vec();
    cipher.apply_keystream(&mut text);
    Some((tag_key, text))
}

fn tag(key: &[u8], ciphertext: &[u8]) -> Option<Vec<u8>> {
    use poly1305::universal_hash::KeyInit as _;
    Some(Poly1305::new_from_slice(key).ok()?.compute_unpadded(ciphertext).to_vec())
}
