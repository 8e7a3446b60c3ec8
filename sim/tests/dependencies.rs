//! The model knows no plugin from inside: of this repository it is built from the bindings alone, whether as a library
//! or as the program. Only whole clusters have the product in them.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::process::Command;

/// The packages of this repository that `kleidi-sim` with these features is built from, itself left out.
fn ours(features: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package", "kleidi-sim", "--edges", "normal,build"])
        .args(["--features", features, "--prefix", "none", "--no-dedupe", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // `name version (path)`: others have no path.
    let mut names: Vec<String> = text
        .lines()
        .filter(|line| line.contains(" (/"))
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .filter(|name| name != "kleidi-sim")
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn of_this_repository_it_uses_the_bindings_alone() {
    for features in ["", "client", "cli"] {
        assert_eq!(ours(features), ["kleidi-proto"], "{features:?}");
    }
    // That it would be seen.
    assert!(ours("world").contains(&"kleidi".to_owned()));
}
