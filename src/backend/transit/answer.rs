//! What an answer of Vault or OpenBao means for us: the one table from (status, text) to what to do.
//!
//! Measured on OpenBao 2.7.2 and HashiCorp Vault 1.21.0. Statuses are vague and texts differ, so a row
//! looks at both; the first that fits decides. Encrypt, decrypt and hmac change nothing, so that trying
//! again is always safe.

use std::collections::BTreeSet;
use std::slice::Windows;

use Act::{Behind, Elsewhere, Later, Login, Refuse};
use ErrorKind::{
    BadCiphertext, Credentials, KeyNotFound, Misconfigured, Overloaded, TooLarge, Unavailable,
};

use serde::de::IgnoredAny;

use crate::backend::{BackendError, ErrorKind};

/// Characters of an answer that are repeated in an error.
const QUOTED_MAX: usize = 300;

/// What can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Another endpoint, at once; this one is not asked first for a while.
    Elsewhere,
    /// Another endpoint, at once; this one is well, but has not heard of a version yet.
    Behind,
    /// The same a moment later, on whatever endpoint.
    Later,
    /// A new login, once.
    Login,
    /// Nothing that we can do.
    Refuse,
}

/// What an answer that is no success means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// What can help.
    pub act: Act,
    /// What it is if that does not help.
    pub kind: ErrorKind,
    /// The status and the server's words.
    pub reason: String,
    /// What the operator can do; empty if nothing.
    pub advice: &'static str,
}

impl Meaning {
    /// The same, with where it was said.
    #[must_use]
    pub fn at(self, place: &str) -> Self {
        Self { reason: format!("{place}: {}", self.reason), ..self }
    }
}

/// A row: statuses, a part of the text (empty: any), and what follows.
struct Row {
    statuses: std::ops::RangeInclusive<u16>,
    text: &'static str,
    act: Act,
    kind: ErrorKind,
    advice: &'static str,
}

const fn row(
    statuses: std::ops::RangeInclusive<u16>,
    text: &'static str,
    act: Act,
    kind: ErrorKind,
    advice: &'static str,
) -> Row {
    Row { statuses, text, act, kind, advice }
}

const NO_VAULT: &str = "is this the address of a Vault or an OpenBao?";
const FOREIGN_ANSWER: &str =
    "is this the address of a Vault or an OpenBao, or does a proxy answer in its place?";

/// What a server with TLS says to who speaks none.
const NO_TLS: &str = "HTTP request to an HTTPS server";

/// What AppRole says of wrong credentials.
pub(super) const WRONG_SECRET_ID: &str = "invalid role or secret ID";

/// What it says of a version below `min_decryption_version`, or for an hmac below `min_encryption_version`.
pub(super) const DISALLOWED: &str = "disallowed by policy";

const GONE_BACK: &str = "the server does not have this version: it is behind a rotation, or an older backup was \
                         restored, or the key was made anew";
const KEY_ABSENT: &str = "create the key (type aes256-gcm96), or restore it where Secrets are \
                          encrypted already; is the mount the right one?";
const DAMAGED: &str =
    "the object in etcd is damaged or was tampered with: restore it from a backup";
const FORBIDDEN: &str = "the token is expired, revoked or none of this server's, its policy lacks update on \
                         this path, or the key or the mount is not there: all of which looks the same, and \
                         kleidi check --live tells them apart";
const NO_ROLE_FITS: &str = "no role of the cert method fits this certificate";
const TOO_OLD: &str = "lower min_decryption_version of the key until all objects of that version have \
                       been rewritten; what was trimmed is gone";

static TABLE: [Row; 45] = [
    // A standby that knows no leader; a redirect is never followed, it would carry token and seed away.
    row(300..=399, "", Elsewhere, Unavailable, "the cluster has no leader"),
    // A standby has not heard of the latest version yet; one that has lost its leader will not soon.
    row(400..=400, "version is too new", Behind, KeyNotFound, ""),
    row(400..=400, "higher than the latest key version", Behind, KeyNotFound, GONE_BACK),
    // The same of an hmac.
    row(400..=400, "key version does not exist", Behind, KeyNotFound, GONE_BACK),
    row(400..=400, DISALLOWED, Refuse, Misconfigured, TOO_OLD),
    row(400..=400, "less than the minimum encryption key version", Refuse, KeyNotFound, ""),
    row(400..=400, "no such key version", Refuse, KeyNotFound, ""),
    row(400..=400, "encryption key not found", Refuse, Misconfigured, KEY_ABSENT),
    row(
        400..=400,
        "soft-deleted",
        Refuse,
        Misconfigured,
        "restore the key: transit/keys/…/soft-delete-restore",
    ),
    row(400..=400, "message authentication failed", Refuse, BadCiphertext, DAMAGED),
    row(400..=400, "invalid ciphertext", Refuse, BadCiphertext, DAMAGED),
    row(400..=400, "could not decode base64", Refuse, BadCiphertext, DAMAGED),
    row(400..=400, "missing ciphertext", Refuse, BadCiphertext, DAMAGED),
    row(
        400..=400,
        "associated_data",
        Refuse,
        Misconfigured,
        "the key's type takes no associated data: use aes256-gcm96",
    ),
    row(400..=400, "high complexity", Refuse, TooLarge, ""),
    row(400..=400, NO_TLS, Elsewhere, Misconfigured, "the address has to begin with https://"),
    row(
        400..=400,
        WRONG_SECRET_ID,
        Refuse,
        Credentials,
        "role_id or secret_id is wrong, expired or used up: issue a new secret_id. The files are tried \
         once more, and then when they change or after 15 minutes: a server that gets several wrong ones \
         refuses right ones, too",
    ),
    row(
        400..=400,
        "CIDR restrictions",
        Refuse,
        Credentials,
        "this node's address is not in the role's bound CIDRs",
    ),
    row(400..=400, "client certificate", Refuse, Credentials, NO_ROLE_FITS),
    row(400..=400, "login certificate", Refuse, Credentials, NO_ROLE_FITS),
    row(
        400..=400,
        "error validating token",
        Refuse,
        Credentials,
        "the JWT is expired, or not for this role",
    ),
    row(
        400..=400,
        "could not load configuration",
        Refuse,
        Credentials,
        "the login method at this mount is not configured: write auth/…/config",
    ),
    row(400..=400, "role ", Refuse, Credentials, "is transit.auth.role the name of a role there?"),
    row(
        400..=400,
        "wrapping token",
        Refuse,
        Credentials,
        "the wrapped secret_id was opened before, perhaps by somebody else: issue a new one",
    ),
    row(400..=499, "namespace not found", Refuse, Misconfigured, "is the namespace right?"),
    row(403..=403, "", Login, Credentials, FORBIDDEN),
    row(
        404..=404,
        "no handler for route",
        Refuse,
        Misconfigured,
        "the mount is not there: correct its path, or restore it; enabled anew it is empty",
    ),
    row(404..=404, "", Refuse, Misconfigured, KEY_ABSENT),
    row(412..=412, "", Later, Unavailable, ""),
    row(413..=413, "", Refuse, TooLarge, ""),
    row(429..=429, "quota", Later, Overloaded, "raise the rate limit quota"),
    row(429..=429, "", Elsewhere, Unavailable, ""),
    row(
        500..=500,
        "active cluster node not found",
        Elsewhere,
        Unavailable,
        "the cluster has no leader",
    ),
    // A renewal after the certificate of the login has been replaced: only a login helps.
    row(500..=500, "failed to renew entry", Refuse, Credentials, ""),
    row(
        500..=500,
        "failed to verify client's certificate",
        Refuse,
        Credentials,
        "the server does not accept our own certificate (certificateFile): is it expired, and is its \
         authority the one that the role names?",
    ),
    // Method kubernetes, of a JWT that no API server made.
    row(
        500..=500,
        "source data must be an array",
        Refuse,
        Credentials,
        "jwtFile has no token of a service account",
    ),
    // Vault, of a token that is garbled or of another cluster.
    row(500..=500, "namespace from the token", Login, Credentials, FORBIDDEN),
    // On every call while health says that all is well: an audit device that cannot write.
    row(
        500..=500,
        "internal error",
        Elsewhere,
        Unavailable,
        "look at the server's log; often an audit device cannot write (is its disk full?)",
    ),
    row(500..=500, "", Elsewhere, Unavailable, "look at the server's log"),
    row(501..=501, "", Elsewhere, Unavailable, "initialise the server"),
    row(503..=503, "sealed", Elsewhere, Unavailable, "unseal it"),
    row(503..=503, "locked", Later, Unavailable, "unlock the namespace"),
    row(502..=599, "", Elsewhere, Unavailable, ""),
    row(400..=400, "key derivation", Refuse, Misconfigured, "make a key with derived=false"),
    row(0..=999, "", Refuse, Misconfigured, NO_VAULT),
];

/// What neither Vault nor OpenBao says; another address may be theirs.
static FOREIGN: Row = row(0..=999, "", Elsewhere, Misconfigured, FOREIGN_ANSWER);

/// Errors of a connection: a part of the text, and what follows.
static CONNECTION: [(&str, ErrorKind, &str); 4] = [
    ("dns error", Unavailable, "is the name right, and can this machine look it up?"),
    (
        "invalid peer certificate",
        Misconfigured,
        "is caFile the server's authority, and serverName or the address the name in its certificate?",
    ),
    (
        "InvalidContentType",
        Misconfigured,
        "the server speaks no TLS at this port: has the address to begin with http://?",
    ),
    (
        "received fatal alert",
        Misconfigured,
        "the server does not accept our certificate, or wants one (certificateFile)",
    ),
];

/// What an answer means; `None` if it is a success. `secrets` are what the request had in it, none of
/// which is in the reason.
#[must_use]
pub fn meaning(status: u16, body: &[u8], secrets: &[&[u8]]) -> Option<Meaning> {
    let (body, said) = (Body::of(body), said(body));
    let fits = |row: &&Row| row.statuses.contains(&status) && said.contains(row.text);
    let row = match status {
        // Nothing is asked that has no result.
        200..=299 if body.result => return None,
        200..=299 => &FOREIGN,
        // A proxy may say this for a server that is one.
        413 | 429 => TABLE.iter().find(fits)?,
        400..=499 if !body.result && !body.errors && !said.contains(NO_TLS) => &FOREIGN,
        _ => TABLE.iter().find(fits)?,
    };
    // Before it is cut: a part of a secret at the cut would not be recognised.
    let said = printable(&without_secrets(beginning(&said), secrets));
    let reason = if said.is_empty() { format!("{status}") } else { format!("{status} {said}") };
    Some(Meaning { act: row.act, kind: row.kind, reason, advice: row.advice })
}

/// What an item of a batch means: the same words without a status of their own.
#[must_use]
pub fn meaning_of_item(error: &str) -> Meaning {
    let row = TABLE.iter().find(|row| *row.statuses.start() == 400 && error.contains(row.text));
    let (act, kind, advice) =
        row.map_or((Refuse, Misconfigured, ""), |row| (row.act, row.kind, row.advice));
    Meaning { act, kind, reason: printable(error), advice }
}

/// What it means that there is no answer but an error of the connection. Another node may answer.
#[must_use]
pub fn meaning_of_silence(reason: String) -> Meaning {
    let (_, kind, advice) = CONNECTION
        .iter()
        .find(|(text, ..)| reason.contains(text))
        .unwrap_or(&("", Unavailable, ""));
    Meaning { act: Elsewhere, kind: *kind, reason, advice }
}

/// What a body holds of what every body of Vault and OpenBao holds.
struct Body {
    /// `data` or `auth`.
    result: bool,
    errors: bool,
}

impl Body {
    fn of(body: &[u8]) -> Self {
        #[derive(serde::Deserialize)]
        struct Parts {
            data: Option<IgnoredAny>,
            auth: Option<IgnoredAny>,
            errors: Option<Vec<IgnoredAny>>,
        }
        let Ok(Parts { data, auth, errors }) = serde_json::from_slice(body) else {
            return Self { result: false, errors: false };
        };
        Self { result: data.is_some() || auth.is_some(), errors: errors.is_some() }
    }
}

/// The server's words: `errors`, or what is no such answer, whole.
fn said(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<String>,
    }
    match serde_json::from_slice::<Errors>(body) {
        Ok(Errors { errors }) => one_line(&errors.join("; ")),
        // An object without errors may hold seeds.
        Err(_) if body.trim_ascii_start().starts_with(b"{") => String::new(),
        Err(_) => one_line(&String::from_utf8_lossy(body)),
    }
}

/// As much as is looked through for secrets, which takes its time: twice of what is repeated, and no part
/// of a word.
fn beginning(said: &str) -> &str {
    let Some((end, _)) = said.char_indices().nth(2 * QUOTED_MAX) else { return said };
    let word = said[..end].rfind(|c| !part_of_word(c));
    &said[..word.unwrap_or(0)]
}

/// What a secret can be made of, in JSON, in a header or in base64.
fn part_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+/=_.-".contains(c)
}

/// Whether it is the policy that forbids it, and the token is known: for a token that it does not know a
/// server has other words, `permission denied` alone or with `invalid token`.
pub(super) fn forbids(error: &BackendError) -> bool {
    error.reason.contains("403 1 error occurred: * permission denied")
}

/// Whether it is none of the server's words, but for instance a page of a proxy.
pub(super) fn is_foreign(error: &BackendError) -> bool {
    error.advice == FOREIGN_ANSWER
}

/// Whether it is said of the token that nobody can renew it: a root's, a batch token, one made so.
pub(super) fn never_renews(error: &BackendError) -> bool {
    let words = ["400 lease is not renewable", "400 batch tokens cannot be renewed"];
    words.iter().any(|words| error.reason.contains(words))
}

/// The words without what the request had in it: a server or a proxy may repeat a seed or a token.
fn without_secrets(words: &str, secrets: &[&[u8]]) -> String {
    // A seed of 32 bytes has 44 characters; shorter words are names of fields, and of use.
    const REPEATED_MIN: usize = 16;
    // Of the few words that are long enough, and not of the request, which may be a list of a hundred seeds.
    fn parts(word: &str) -> Windows<'_, u8> {
        word.as_bytes().windows(REPEATED_MIN)
    }
    let seen: BTreeSet<_> = words.split(|c| !part_of_word(c)).flat_map(parts).collect();
    if seen.is_empty() {
        return words.to_owned();
    }
    let all = secrets.iter().flat_map(|secret| secret.windows(REPEATED_MIN));
    let repeated: BTreeSet<_> = all.filter(|part| seen.contains(part)).collect();
    let mut clean = String::with_capacity(words.len());
    let mut rest = words;
    while let Some(begin) = rest.find(part_of_word) {
        let end = rest[begin..].find(|c| !part_of_word(c)).map_or(rest.len(), |at| begin + at);
        let word = &rest[begin..end];
        let is_repeated = parts(word).any(|part| repeated.contains(part));
        clean.push_str(&rest[..begin]);
        clean.push_str(if is_repeated { "…" } else { word });
        rest = &rest[end..];
    }
    clean.push_str(rest);
    clean
}

/// In one line: it goes to the log.
fn one_line(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// In one line, and not too long.
pub(super) fn printable(text: &str) -> String {
    let line = one_line(text);
    let mut short: String = line.chars().take(QUOTED_MAX).collect();
    if line.chars().count() > QUOTED_MAX {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn errors(text: &str) -> Vec<u8> {
        serde_json::json!({ "errors": [text] }).to_string().into_bytes()
    }

    /// Answers as they were recorded.
    #[test]
    #[allow(clippy::too_many_lines, reason = "one line per row of the table")]
    fn every_row() {
        let mut met = std::collections::BTreeSet::new();
        for (status, body, act, kind) in [
            (307, Vec::new(), Elsewhere, Unavailable),
            (400, errors("invalid ciphertext: version is too new"), Behind, KeyNotFound),
            (
                400,
                errors("requested version for encryption is higher than the latest key version"),
                Behind,
                KeyNotFound,
            ),
            (
                400,
                errors("ciphertext or signature version is disallowed by policy (too old)"),
                Refuse,
                Misconfigured,
            ),
            (
                400,
                errors("key version does not exist; latest key version is 1"),
                Behind,
                KeyNotFound,
            ),
            (
                400,
                errors(
                    "requested version for encryption is less than the minimum encryption key version",
                ),
                Refuse,
                KeyNotFound,
            ),
            (400, errors("no such key version"), Refuse, KeyNotFound),
            (400, errors("encryption key not found"), Refuse, Misconfigured),
            (400, errors("refusing to use soft-deleted key"), Refuse, Misconfigured),
            (400, errors("cipher: message authentication failed"), Refuse, BadCiphertext),
            (400, errors("invalid ciphertext: no prefix"), Refuse, BadCiphertext),
            (400, errors("invalid ciphertext: could not decode base64"), Refuse, BadCiphertext),
            (400, errors("could not decode base64"), Refuse, BadCiphertext),
            (400, errors("missing ciphertext to decrypt"), Refuse, BadCiphertext),
            (400, errors("associated_data is not supported for key type"), Refuse, Misconfigured),
            (
                400,
                errors(
                    "refused JSON input due to high complexity: exceeded maximum number of strings",
                ),
                Refuse,
                TooLarge,
            ),
            (
                400,
                b"Client sent an HTTP request to an HTTPS server.\n".to_vec(),
                Elsewhere,
                Misconfigured,
            ),
            (400, errors("invalid role or secret ID"), Refuse, Credentials),
            (
                400,
                errors(
                    "source address \"10.0.0.1\" unauthorized through CIDR restrictions on the secret ID",
                ),
                Refuse,
                Credentials,
            ),
            (
                400,
                errors("invalid certificate or no client certificate supplied"),
                Refuse,
                Credentials,
            ),
            (
                400,
                errors("failed to match all constraints for this login certificate"),
                Refuse,
                Credentials,
            ),
            (
                500,
                errors(
                    "error performing token check: failed to look up namespace from the token: no namespace",
                ),
                Login,
                Credentials,
            ),
            (
                400,
                errors(
                    "error validating token: invalid expiration time (exp) claim: token is expired",
                ),
                Refuse,
                Credentials,
            ),
            (400, errors("role \"kms\" could not be found"), Refuse, Credentials),
            (400, errors("wrapping token is not valid or does not exist"), Refuse, Credentials),
            (404, errors("namespace not found"), Refuse, Misconfigured),
            (403, errors("permission denied"), Login, Credentials),
            (403, errors("1 error occurred:\n\t* permission denied\n\n"), Login, Credentials),
            (
                403,
                errors("2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"),
                Login,
                Credentials,
            ),
            (
                404,
                errors("no handler for route \"transit/encrypt/kms\". route entry not found."),
                Refuse,
                Misconfigured,
            ),
            (404, b"{\"errors\":[]}".to_vec(), Refuse, Misconfigured),
            (412, errors("required index state not present"), Later, Unavailable),
            (400, errors("could not load configuration"), Refuse, Credentials),
            (
                500,
                errors(
                    "failed to renew entry: client identity during renewal not matching client identity used during login",
                ),
                Refuse,
                Credentials,
            ),
            (
                500,
                errors(
                    "failed to verify client's certificate: x509: certificate has expired or is not yet valid",
                ),
                Refuse,
                Credentials,
            ),
            (413, errors("http: request body too large"), Refuse, TooLarge),
            (
                429,
                errors("request path \"transit/encrypt/kms\": rate limit quota exceeded"),
                Later,
                Overloaded,
            ),
            (429, b"{\"errors\":[]}".to_vec(), Elsewhere, Unavailable),
            (
                500,
                errors("local node not active but active cluster node not found"),
                Elsewhere,
                Unavailable,
            ),
            (
                500,
                errors(
                    "decoding failed due to the following error(s): 'aud' source data must be an array or slice, got string",
                ),
                Refuse,
                Credentials,
            ),
            (500, errors("internal error"), Elsewhere, Unavailable),
            (500, errors("something else"), Elsewhere, Unavailable),
            (501, Vec::new(), Elsewhere, Unavailable),
            (503, errors("Vault is sealed"), Elsewhere, Unavailable),
            (
                503,
                errors("API access to this namespace has been locked by an administrator"),
                Later,
                Unavailable,
            ),
            (502, b"<html>Bad Gateway</html>".to_vec(), Elsewhere, Unavailable),
            (
                400,
                errors(
                    "missing 'context' for key derivation; the key was created using a derived key",
                ),
                Refuse,
                Misconfigured,
            ),
            (418, errors("teapot"), Refuse, Misconfigured),
        ] {
            let found = meaning(status, &body, &[]).unwrap();
            assert_eq!((found.act, found.kind), (act, kind), "{found:?}");
            let said = said(&body);
            let row = TABLE
                .iter()
                .position(|row| row.statuses.contains(&status) && said.contains(row.text));
            met.insert(row.unwrap());
        }
        assert_eq!(met.len(), TABLE.len(), "every row was met: {met:?}");
    }

    #[test]
    fn what_no_vault_says_is_told_from_what_one_says() {
        for (status, body) in [
            (200, "<html>maintenance</html>"),
            (200, ""),
            (204, ""),
            (200, "{}"),
            (200, r#"{"data":null,"auth":null}"#),
            (200, r#"{"message":"ok"}"#),
            (400, ""),
            (403, "<html>Forbidden</html>"),
            (404, "404 page not found"),
            (404, r#"{"message":"no Route matched"}"#),
            (418, "<html>teapot</html>"),
        ] {
            let found = meaning(status, body.as_bytes(), &[]).unwrap();
            assert_eq!((found.act, found.kind), (Elsewhere, Misconfigured), "{status} {body}");
            assert!(found.advice.contains("address"), "{found:?}");
        }
        for body in [r#"{"data":{}}"#, r#"{"auth":{},"data":null}"#] {
            assert_eq!(meaning(200, body.as_bytes(), &[]), None);
        }
        for (status, body, act) in [
            (404, r#"{"errors":[]}"#, Refuse),
            (400, r#"{"data":{"error":"no"}}"#, Refuse),
            // These a proxy may say as well.
            (413, "<html>too large</html>", Refuse),
        ] {
            assert_eq!(meaning(status, body.as_bytes(), &[]).unwrap().act, act, "{status} {body}");
        }
        assert_eq!(meaning(429, b"<html>slow down</html>", &[]).unwrap().kind, Unavailable);
    }

    #[test]
    fn an_item_of_a_batch_means_what_a_lone_answer_means() {
        assert_eq!(meaning_of_item("cipher: message authentication failed").kind, BadCiphertext);
        assert_eq!(meaning_of_item("invalid ciphertext: version is too new").act, Behind);
        assert_eq!(meaning_of_item("who knows").act, Refuse);
    }

    #[test]
    fn what_is_no_json_is_quoted_in_part_and_in_one_line() {
        let page = format!("<html>\n\u{1b}[31m{}</html>", "x".repeat(500));
        let reason = meaning(502, page.as_bytes(), &[]).unwrap().reason;
        assert!(
            reason.chars().count() <= 5 + QUOTED_MAX && !reason.contains(['\n', '\u{1b}']),
            "{reason}"
        );
    }

    #[test]
    fn what_was_sent_is_not_repeated() {
        let body = br#"{"plaintext":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBw==","associated_data":"a2w="}"#;
        let secrets: [&[u8]; 2] = [body, b"s.0123456789abcdef0123"];
        for (said, wanted) in [
            (
                "400 cannot parse {\"plaintext\":\"BwcHBwcHBwcHBwcHBwcHBwcH…",
                "400 cannot parse {\"plaintext\":\"……",
            ),
            ("bad token x-s.0123456789abcdef0123.", "bad token …"),
            ("associated_data is not supported", "associated_data is not supported"),
            (
                "no handler for route \"transit/encrypt/kms-production\"",
                "no handler for route \"transit/encrypt/kms-production\"",
            ),
            ("", ""),
        ] {
            assert_eq!(without_secrets(said, &secrets), wanted);
        }
    }

    /// Wherever the cut falls, no part of a secret stands before it.
    #[test]
    fn a_secret_at_the_cut_is_not_repeated_in_part() {
        let secret = b"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
        for before in QUOTED_MAX - 60..QUOTED_MAX + 5 {
            let page =
                format!("{}{} end", "- ".repeat(before / 2), String::from_utf8_lossy(secret));
            for body in [page.clone().into_bytes(), errors(&page)] {
                let reason = meaning(502, &body, &[secret]).unwrap().reason;
                assert!(!reason.contains("BwcH"), "{before}: {reason}");
            }
        }
    }

    /// Neither where what is looked through ends, nor in what is one word.
    #[test]
    fn a_long_answer_takes_no_time_and_repeats_no_secret_in_part() {
        let secret = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
        for before in 2 * QUOTED_MAX - 60..2 * QUOTED_MAX + 5 {
            let page = format!("{} {secret} end", "x".repeat(before));
            let reason = meaning(502, page.as_bytes(), &[secret.as_bytes()]).unwrap().reason;
            assert!(!reason.contains("BwcH"), "{before}: {reason}");
        }
        // Compared with all of it, this would take hours.
        let batch = secret.repeat(1000);
        let page = batch.repeat(20);
        assert_eq!(meaning(502, page.as_bytes(), &[batch.as_bytes()]).unwrap().reason, "502");
    }

    #[test]
    fn what_may_hold_seeds_is_not_quoted() {
        let body = br#" {"data":{"batch_results":[{"plaintext":"c2VlZA=="},{"error":"bad"}]}}"#;
        assert_eq!(meaning(400, body, &[]).unwrap().reason, "400");
    }

    proptest! {
        #[test]
        fn any_answer_has_a_meaning(status in 0..1000u16, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let good = (200..300).contains(&status) && Body::of(&body).result;
            prop_assert_eq!(meaning(status, &body, &[]).is_none(), good);
        }
    }
}
