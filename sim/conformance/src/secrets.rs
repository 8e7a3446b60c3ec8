//! Looks for a secret in a text, in the forms in which programs print bytes.

use crate::context::hex;

/// Whether `text` has `secret` in it: raw, in hex, in base64, or as a list of numbers.
#[must_use]
pub fn has(text: &[u8], secret: &[u8]) -> bool {
    let numbers = |separator: &str| {
        secret.iter().map(u8::to_string).collect::<Vec<_>>().join(separator).into_bytes()
    };
    let hex = hex(secret);
    let forms = [
        secret.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        base64(secret, *b"+/"),
        base64(secret, *b"-_"),
        numbers(", "),
        numbers(" "),
        numbers(","),
    ];
    forms.iter().any(|form| text.windows(form.len()).any(|window| window == form))
}

/// Base64 without the padding and without the last digit that depends on it.
fn base64(bytes: &[u8], last_two: [u8; 2]) -> Vec<u8> {
    let digits =
        [b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789".as_slice(), &last_two]
            .concat();
    let mut text = Vec::new();
    for three in bytes.chunks_exact(3) {
        let number = three.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
        text.extend([18, 12, 6, 0].map(|shift| digits[number >> shift & 63]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::has;

    #[test]
    fn a_secret_is_found_in_every_form() {
        let secret = b"\xfb\xff seed of bytes";
        for text in [
            "x \u{0} fbff2073656564206f66206279746573",
            "FBFF2073656564206F66206279746573",
            "key=+/8gc2VlZCBvZiBieXRlcw==",
            "key=-_8gc2VlZCBvZiBieXRlcw",
            "[251, 255, 32, 115, 101, 101, 100, 32, 111, 102, 32, 98, 121, 116, 101, 115]",
            "[251 255 32 115 101 101 100 32 111 102 32 98 121 116 101 115]",
        ] {
            assert!(has(text.as_bytes(), secret), "{text}");
        }
        assert!(has(&[b"..".as_slice(), secret, b".."].concat(), secret));
        assert!(!has(b"another text altogether, long enough to hold it", secret));
    }
}
