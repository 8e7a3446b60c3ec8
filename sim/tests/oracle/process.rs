//! The oracle's process.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A running oracle. Ends when dropped, as its input ends.
pub struct Oracle {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Oracle {
    /// The one of this Kubernetes version from the cache that `ci/setup` fills; nothing, visibly, without it.
    ///
    /// # Panics
    ///
    /// If it is not of this checkout, or, with `CI=true`, is not there.
    pub fn start(version: &str) -> Option<Self> {
        let Some(folder) = cached(version) else {
            skip(&format!("the oracle {version} is missing; ci/setup builds it"));
            return None;
        };
        current(&folder);
        let mut child = Command::new(folder.join("oracle"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut oracle = Self { child, requests, answers };
        let apiserver = oracle.ask(&json!({"do": "version"}))["apiserver"].clone();
        assert_eq!(apiserver, format!("v0.{}", version.strip_prefix("1.").unwrap()));
        Some(oracle)
    }

    /// The answer to a request.
    ///
    /// # Panics
    ///
    /// If there is none: the request was wrong, or the oracle is.
    pub fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.requests.as_mut().unwrap(), "{request}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer.get("fault").is_none(), "{request}\nis answered with\n{answer}");
        answer
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.requests = None;
        let _ = self.child.wait();
    }
}

fn cached(version: &str) -> Option<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache"),
    };
    let folder = cache.join("kleidi/oracle").join(version);
    folder.join("oracle").is_file().then_some(folder)
}

/// Asserts that an oracle was built from the sources of this checkout.
fn current(folder: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for line in std::fs::read_to_string(folder.join("sources")).unwrap().lines() {
        let (hash, source) = line.split_once("  ").unwrap();
        let now = std::fs::read(root.join(source)).map(|bytes| hex(&Sha256::digest(bytes)));
        assert_eq!(now.ok().as_deref(), Some(hash), "{source} has changed; run ci/setup");
    }
}

/// Says that a test could not run, as `harness::components::skip` does.
fn skip(why: &str) {
    let line = format!("SKIPPED {}: {why}", std::thread::current().name().unwrap_or("a test"));
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{line}");
    if let Some(file) = std::env::var_os("KLEIDI_SKIPPED") {
        let file = std::fs::File::options().create(true).append(true).open(file);
        let _ = file.and_then(|mut file| writeln!(file, "{line}"));
    }
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Bytes as the oracle writes them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes that the oracle wrote; none for an absent field.
pub fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_default();
    let at = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(at).collect()
}

/// An error that upstream said; nothing for an absent one.
pub fn said(value: &Value) -> Result<(), String> {
    value.as_str().map_or(Ok(()), |error| Err(error.to_owned()))
}
