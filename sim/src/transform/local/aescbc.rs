//! AES-CBC with PKCS#7 (upstream `encrypt/aes/aes.go`, `cbc`).

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt as _, BlockModeEncrypt as _, KeyInit,
    KeyIvInit as _,
};

use super::TOO_SHORT;

/// Bytes of a block, and of the initialization vector.
const BLOCK: usize = 16;

/// IV, and the plaintext with 1 to 16 bytes of padding; nothing for a key or IV of a wrong length.
pub(super) fn seal(key: &[u8], random: &[u8], plaintext: &[u8]) -> Option<Vec<u8>> {
    let iv = random.get(..BLOCK)?;
    let padding = BLOCK - plaintext.len() % BLOCK;
    let mut padded = plaintext.to_vec();
    padded.resize(plaintext.len() + padding, u8::try_from(padding).ok()?);
    let sealed = match key.len() {
        16 => encrypted::<Aes128>(key, iv, &padded),
        24 => encrypted::<Aes192>(key, iv, &padded),
        _ => encrypted::<Aes256>(key, iv, &padded),
    }?;
    Some([iv, &sealed].concat())
}

/// Upstream panics for a value that is nothing but the IV; here it is an error of our own.
pub(super) fn open(key: &[u8], data: &[u8]) -> Result<Vec<u8>, &'static str> {
    let (iv, data) = data.split_at_checked(BLOCK).ok_or(TOO_SHORT)?;
    if !data.len().is_multiple_of(BLOCK) {
        return Err("the stored data is not a multiple of the block size");
    }
    let opened = match key.len() {
        16 => decrypted::<Aes128>(key, iv, data),
        24 => decrypted::<Aes192>(key, iv, data),
        _ => decrypted::<Aes256>(key, iv, data),
    };
    let mut opened = opened.ok_or("the key has a wrong length")?;
    let last = *opened.last().ok_or("the stored data is an initialization vector alone")?;
    let padding = usize::from(last);
    // More than a block's length is let pass, as long as all of it is the same.
    if padding == 0 || padding > opened.len() {
        return Err("invalid PKCS7 data (empty or not padded)");
    }
    let size = opened.len() - padding;
    if opened[size..].iter().any(|byte| *byte != last) {
        return Err("invalid padding on input");
    }
    opened.truncate(size);
    Ok(opened)
}

fn encrypted<C: BlockCipherEncrypt + KeyInit>(
    key: &[u8],
    iv: &[u8],
    data: &[u8],
) -> Option<Vec<u8>> {
    let cipher = cbc::Encryptor::<C>::new_from_slices(key, iv).ok()?;
    Some(cipher.encrypt_padded_vec::<NoPadding>(data))
}

fn decrypted<C: BlockCipherDecrypt + KeyInit>(
    key: &[u8],
    iv: &[u8],
    data: &[u8],
) -> Option<Vec<u8>> {
    let cipher = cbc::Decryptor::<C>::new_from_slices(key, iv).ok()?;
    cipher.decrypt_padded_vec::<NoPadding>(data).ok()
}
