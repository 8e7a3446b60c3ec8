//! Answers of Vault, OpenBao, and of whatever stands between.

use kleidi::backend::transit::answer::{meaning, meaning_of_item, meaning_of_silence};

/// A seed as it is sent.
const SECRET: &[u8] = b"BwcHB1x8Qk3vZp0a9LmNtR2sUyWfGjHdEoIiKcVbXzM=";

/// As many bytes of a secret in a row are not to be repeated.
const REPEATED_MIN: usize = 16;

/// Most characters of a reason: a status, a blank, what is quoted, and three dots in one.
const REASON_MAX: usize = 305;

/// A status, where a secret is put, and a body: a success is one with a result, everything else is said in one
/// short line, and what was sent is not repeated.
pub fn vault_response(bytes: &[u8]) {
    let [high, low, at, body @ ..] = bytes else { return };
    let status = u16::from_be_bytes([*high, *low]) % 1000;
    let at = usize::from(*at).min(body.len());
    let with_secret = [&body[..at], SECRET, &body[at..]].concat();
    for body in [body, &with_secret] {
        let Some(meaning) = meaning(status, body, &[SECRET]) else {
            assert!((200..300).contains(&status), "{status} is no success");
            continue;
        };
        assert!(meaning.reason.starts_with(&status.to_string()), "{}", meaning.reason);
        short_line(&meaning.reason);
        let shown = meaning.reason.as_bytes();
        let repeated = SECRET
            .windows(REPEATED_MIN)
            .any(|part| shown.windows(REPEATED_MIN).any(|window| window == part));
        assert!(!repeated, "{}", meaning.reason);
    }
    let text = String::from_utf8_lossy(body);
    short_line(&meaning_of_item(&text).reason);
    // What is no answer is in the words of our own libraries.
    assert_eq!(meaning_of_silence(text.clone().into_owned()).reason, text);
}

fn short_line(reason: &str) {
    assert!(reason.chars().count() <= REASON_MAX, "{reason}");
    assert!(!reason.chars().any(char::is_control), "{reason:?}");
}
