//! The suite knows no plugin from inside: no other package of this repository but the bindings is among
//! its dependencies.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// The names of all packages that `package` is built from, tests and build scripts included.
fn tree(package: &str) -> BTreeSet<String> {
    // What other systems need has not been fetched.
    let here = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &here])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let names: BTreeMap<String, String> = list(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let uses: BTreeMap<String, Vec<String>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| (text(&node["id"]), list(&node["dependencies"]).iter().map(text).collect()))
        .collect();
    let (root, _) = names.iter().find(|(_, name)| *name == package).unwrap();
    let mut seen = BTreeSet::from([root.clone()]);
    let mut next = vec![root.clone()];
    while let Some(id) = next.pop() {
        next.extend(uses[&id].iter().filter(|id| seen.insert((*id).clone())).cloned());
    }
    seen.iter().map(|id| names[id].clone()).collect()
}

#[test]
fn of_this_repository_it_uses_the_bindings_alone() {
    let ours = |package: &str| -> Vec<String> {
        tree(package).into_iter().filter(|name| name.starts_with("kleidi")).collect()
    };
    assert_eq!(ours("kms-conformance"), ["kleidi-proto"]);
    // That it would be seen.
    assert!(ours("kleidi").contains(&"kleidi-harness".to_owned()));
}
