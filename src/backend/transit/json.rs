//! JSON with secrets in it: written into and read from memory that is wiped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::http_client::Answer;
use crate::backend::{BackendError, ErrorKind};

/// An object that is being written. Names are ours and need no escaping.
pub(super) struct Object(Zeroizing<Vec<u8>>);

impl Object {
    /// Room for `bytes`, so that nothing of it stays behind where it grows.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        let mut text = Zeroizing::new(Vec::with_capacity(bytes + 64));
        text.push(b'{');
        Self(text)
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.0.extend_from_slice(format!("\"{name}\":").as_bytes());
    }

    /// Bytes, in base64.
    pub(super) fn bytes(mut self, name: &str, bytes: &[u8]) -> Self {
        self.name(name);
        let at = self.0.len() + 1;
        let length = bytes.len().div_ceil(3) * 4;
        self.0.resize(at + length + 1, b'"');
        self.0[at - 1] = b'"';
        // It has the length that it needs.
        let _ = STANDARD.encode_slice(bytes, &mut self.0[at..at + length]);
        self
    }

    /// A text.
    pub(super) fn text(mut self, name: &str, text: &str) -> Self {
        self.name(name);
        self.quote(text);
        self
    }

    fn quote(&mut self, text: &str) {
        self.0.push(b'"');
        for character in text.chars() {
            match character {
                '"' | '\\' => self.0.extend([b'\\', character as u8]),
                control if u32::from(control) < 0x20 => {
                    let escaped = format!("\\u{:04x}", u32::from(control));
                    self.0.extend_from_slice(escaped.as_bytes());
                }
                other => {
                    self.0.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
        self.0.push(b'"');
    }

    /// A number.
    pub(super) fn number(mut self, name: &str, number: u64) -> Self {
        self.name(name);
        self.0.extend_from_slice(number.to_string().as_bytes());
        self
    }

    /// A list of texts.
    pub(super) fn texts<'a>(mut self, name: &str, texts: impl Iterator<Item = &'a str>) -> Self {
        self.name(name);
        self.0.push(b'[');
        for (at, text) in texts.enumerate() {
            if at > 0 {
                self.0.push(b',');
            }
            self.quote(text);
        }
        self.0.push(b']');
        self
    }

    /// A list of objects.
    pub(super) fn objects(mut self, name: &str, objects: impl Iterator<Item = Self>) -> Self {
        self.name(name);
        self.0.push(b'[');
        for (at, object) in objects.enumerate() {
            if at > 0 {
                self.0.push(b',');
            }
            self.0.extend_from_slice(&object.0);
            self.0.push(b'}');
        }
        self.0.push(b']');
        self
    }

    /// The whole object; wiped when the last reference is dropped.
    pub(super) fn finish(mut self) -> Bytes {
        struct Owner(Zeroizing<Vec<u8>>);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        self.0.push(b'}');
        Bytes::from_owner(Owner(self.0))
    }
}

/// Undoes base64.
pub(super) fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; text.len() / 4 * 3 + 3]);
    let length = STANDARD.decode_slice(text, &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

/// Reads an answer. What is wrong with it is said without repeating any of it.
pub(super) fn parse<'a, T: Deserialize<'a>>(
    attempted: &'static str,
    answer: &'a Answer,
) -> Result<T, BackendError> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let address = &answer.address;
        let reason = format!(
            "{address}: the answer is not what it should be (line {line}, column {column})"
        );
        BackendError::new(ErrorKind::Unavailable, attempted, reason)
            .advise("is something else than Vault or OpenBao at this address, or between?")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_json_and_reads_back(text in "\\PC{0,20}[\\x00-\\x1f\"\\\\]{0,3}", bytes: Vec<u8>, number: u64) {
            let object = Object::with_capacity(0)
                .bytes("bytes", &bytes)
                .text("text", &text)
                .number("number", number)
                .texts("texts", ["a", &*text].into_iter())
                .objects("list", (0..2).map(|n| Object::with_capacity(0).number("n", n)))
                .finish();
            let read: serde_json::Value = serde_json::from_slice(&object).unwrap();
            prop_assert_eq!(read["text"].as_str(), Some(&*text));
            prop_assert_eq!(read["number"].as_u64(), Some(number));
            prop_assert_eq!(&read["texts"], &serde_json::json!(["a", text]));
            prop_assert_eq!(&read["list"], &serde_json::json!([{"n": 0}, {"n": 1}]));
            let decoded = decode(read["bytes"].as_str().unwrap()).unwrap();
            prop_assert_eq!(&*decoded, &bytes);
        }

        #[test]
        fn decoding_is_total(text in "\\PC{0,40}") {
            let _ = decode(&text);
        }
    }
}
