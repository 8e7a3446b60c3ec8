//! Looks for a secret in a text, in the forms in which programs print bytes.

use crate::context::hex;

/// Whether `text` has `secret`, of at least 6 bytes, in it, as it is or [`encoded`].
#[must_use]
pub fn has(text: &[u8], secret: &[u8]) -> bool {
    holds(text, secret) || encoded(text, secret)
}

/// Whether `text` has `secret`, of at least 6 bytes, in it, but not as it is: escaped, in hex, in base64 (also
/// as a part of something longer), or as a list of numbers.
#[must_use]
pub fn encoded(text: &[u8], secret: &[u8]) -> bool {
    let hex = hex(secret);
    let mut forms = vec![hex.to_uppercase().into_bytes(), hex.into_bytes()];
    // Three bytes are four digits, from whichever of them the group begins.
    for skipped in 0..3.min(secret.len()) {
        forms.extend([*b"+/", *b"-_"].map(|two| base64(&secret[skipped..], two)));
    }
    forms.retain(|form| !form.is_empty());
    forms.iter().any(|form| holds(text, form))
        || !holds(text, secret) && holds(&unescaped(text), secret)
        || [10, 16].iter().any(|radix| lists(text, secret, *radix))
}

/// Whether `text` has `form` in it, as it is.
#[must_use]
pub fn holds(text: &[u8], form: &[u8]) -> bool {
    !form.is_empty() && text.windows(form.len()).any(|window| window == form)
}

/// The text with the escapes of Go, Rust, Python, JSON and protobuf's text format resolved.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escape = if *first == b'\\' { escaped(after) } else { None };
        let (byte, length) = escape.unwrap_or((*first, 0));
        bytes.push(byte);
        rest = &after[length..];
    }
    bytes
}

/// The byte that stands after a backslash, and how many letters it takes.
fn escaped(after: &[u8]) -> Option<(u8, usize)> {
    let number = |from: usize, to: usize, radix| {
        let digits = std::str::from_utf8(after.get(from..to)?).ok()?;
        Some((u8::from_str_radix(digits, radix).ok()?, to))
    };
    match after.first()? {
        b'x' => number(1, 3, 16),
        b'u' if after.get(1..3) == Some(b"00") => number(3, 5, 16),
        b'0'..=b'3' => number(0, 3, 8).or((after[0] == b'0').then_some((0, 1))),
        b'a' => Some((7, 1)),
        b'b' => Some((8, 1)),
        b't' => Some((b'\t', 1)),
        b'n' => Some((b'\n', 1)),
        b'v' => Some((11, 1)),
        b'f' => Some((12, 1)),
        b'r' => Some((b'\r', 1)),
        quoted @ (b'\\' | b'"' | b'\'') => Some((*quoted, 1)),
        _ => None,
    }
}

/// Whether the secret's bytes stand one after the other as numbers, whatever is between them.
fn lists(text: &[u8], secret: &[u8], radix: u32) -> bool {
    let byte = |word: &[u8]| {
        let digits = match word {
            [b'0', b'x' | b'X', digits @ ..] if radix == 16 => digits,
            digits => digits,
        };
        u8::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
    };
    let words = text.split(|letter| !letter.is_ascii_alphanumeric());
    let numbers: Vec<Option<u8>> = words.filter(|word| !word.is_empty()).map(byte).collect();
    let wanted: Vec<Option<u8>> = secret.iter().copied().map(Some).collect();
    !wanted.is_empty() && numbers.windows(wanted.len()).any(|window| window == wanted)
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
    use super::{encoded, has, holds};

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
            r#"plaintext: "\373\377 seed of bytes""#,
            r"b\xfb\xff seed\x20of bytes",
            r"\u00fb\u00ff seed of bytes",
            "[]byte{0xfb, 0xff, 0x20, 0x73, 0x65, 0x65, 0x64, 0x20, 0x6f, 0x66, 0x20, 0x62, 0x79, 0x74, 0x65, 0x73}",
            "[fb, ff, 20, 73, 65, 65, 64, 20, 6f, 66, 20, 62, 79, 74, 65, 73]",
            "[\n    251,\n    255,\n    32,\n    115,\n    101,\n    101,\n    100,\n    32,\n    111,\n    102,\n    32,\n    98,\n    121,\n    116,\n    101,\n    115,\n]",
            "a message of a byte and it, in base64: Cvv/IHNlZWQgb2YgYnl0ZXM=",
            "of two and it: Ahv7/yBzZWVkIG9mIGJ5dGVz",
        ] {
            assert!(encoded(text.as_bytes(), secret) && has(text.as_bytes(), secret), "{text}");
        }
        let plain = [b"..".as_slice(), secret, b".."].concat();
        assert!(has(&plain, secret) && holds(&plain, secret) && !encoded(&plain, secret));
        assert!(has(br"\0 and \001, then b\0\0\0\001ytes", b"b\0\0\0\x01ytes"));
        for text in
            ["another text altogether, long enough to hold it", "", r"\", r"\x", "251, 255, 33"]
        {
            assert!(!has(text.as_bytes(), secret), "{text}");
        }
    }
}
