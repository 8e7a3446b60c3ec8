//! How Go prints text: upstream's messages are full of it.

use std::fmt::Write as _;

use unicode_general_category::{GeneralCategory as Category, get_general_category};

/// Text in quotes, as `%q` prints it (`strconv.Quote`): what is not printable by its number, a byte that is no
/// UTF-8 as `\xff`.
#[must_use]
pub fn quoted(bytes: impl AsRef<[u8]>) -> String {
    let mut text = "\"".to_owned();
    for chunk in bytes.as_ref().utf8_chunks() {
        chunk.valid().chars().for_each(|character| escape(character, &mut text));
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
    text
}

fn escape(character: char, text: &mut String) {
    let code = u32::from(character);
    let _ = match character {
        '"' | '\\' => write!(text, "\\{character}"),
        '\x07' => write!(text, "\\a"),
        '\x08' => write!(text, "\\b"),
        '\t' => write!(text, "\\t"),
        '\n' => write!(text, "\\n"),
        '\x0b' => write!(text, "\\v"),
        '\x0c' => write!(text, "\\f"),
        '\r' => write!(text, "\\r"),
        _ if is_printable(character) => write!(text, "{character}"),
        _ if code < 0x80 => write!(text, "\\x{code:02x}"),
        _ if code < 0x1_0000 => write!(text, "\\u{code:04x}"),
        _ => write!(text, "\\U{code:08x}"),
    };
}

/// `strconv.IsPrint`: letters, marks, numbers, punctuation, symbols, and the ASCII space.
pub(crate) fn is_printable(character: char) -> bool {
    character == ' '
        || !matches!(
            get_general_category(character),
            Category::Control
                | Category::Format
                | Category::Surrogate
                | Category::PrivateUse
                | Category::Unassigned
                | Category::SpaceSeparator
                | Category::LineSeparator
                | Category::ParagraphSeparator
        )
}

/// JSON of `serde_json` as `encoding/json` writes it, which takes care of what HTML would read.
#[must_use]
pub fn json(json: &str) -> String {
    // None of these can stand outside of a string.
    json.chars().fold(String::new(), |mut text, character| {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(text, "\\u{:04x}", u32::from(character));
            }
            _ => text.push(character),
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_as_go_does_it() {
        for (bytes, wanted) in [
            (&b"a b"[..], r#""a b""#),
            (b"\"\\", r#""\"\\""#),
            (b"\x07\x08\x0c\n\r\t\x0b", r#""\a\b\f\n\r\t\v""#),
            (b"\0\x1f\x7f", r#""\x00\x1f\x7f""#),
            ("ü\u{301}😀\u{fffd}".as_bytes(), "\"ü\u{301}😀\u{fffd}\""),
            ("\u{80}\u{a0}\u{ad}\u{200b}".as_bytes(), r#""\u0080\u00a0\u00ad\u200b""#),
            ("\u{e000}\u{e0001}".as_bytes(), r#""\ue000\U000e0001""#),
            (b"a\xff\xc3(", r#""a\xff\xc3(""#),
        ] {
            assert_eq!(quoted(bytes), wanted);
        }
    }

    #[test]
    fn json_is_safe_in_html() {
        assert_eq!(json("[\"<&>\u{2028}\"]"), r#"["\u003c\u0026\u003e\u2028"]"#);
    }
}
