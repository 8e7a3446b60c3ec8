//! The project's scripts and kind itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::command;

/// The repository.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// kind: `KIND`, or what `ci/setup kind` has built, or what is in PATH.
pub fn kind() -> Result<String, String> {
    if let Ok(kind) = std::env::var("KIND") {
        return Ok(kind);
    }
    let cache = std::env::var("XDG_CACHE_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cache")))
        .unwrap_or_default();
    let built = format!("{cache}/kleidi/kind/0.33.0/kind");
    if Path::new(&built).exists() {
        return Ok(built);
    }
    command::run("kind", &["version"]).map(|_| "kind".to_owned()).map_err(|_| {
        "there is no kind: `ci/setup kind` builds it, or set KIND to where it is".to_owned()
    })
}

/// Builds one of the images of `ci/part-image`, and gives its name.
pub fn image(name: &str, more: &[&str]) -> Result<String, String> {
    script("ci/part-image", &[&[name], more].concat())
}

/// Runs one of the project's scripts, which says itself what it does; gives the last line that it printed.
pub fn script(path: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(root().join(path))
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{path}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{path} has failed: what it said is above"));
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    Ok(printed.trim().lines().last().unwrap_or_default().to_owned())
}
