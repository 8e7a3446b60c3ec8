//! What the command says of its checks.

use std::path::Path;

use crate::stage::run;

/// Regenerate: `cargo run -p kms-conformance -- --catalogue > sim/conformance/CHECKS.md`.
#[test]
fn checks_md_is_the_catalogue() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("CHECKS.md");
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let catalogue = run(&["--catalogue"]).said;
    assert!(
        written == catalogue,
        "CHECKS.md is not what the checks say of themselves; write it with\n\
         cargo run -p kms-conformance -- --catalogue > sim/conformance/CHECKS.md"
    );
}

#[test]
fn a_check_is_explained() {
    let ended = run(&["--explain", "rotation.no-reuse"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    for part in
        ["MUST · profile rotation", "**Procedure:**", "**Asserts:**", "**Source:** [KEP-3299"]
    {
        assert!(ended.said.contains(part), "{part}: {}", ended.said);
    }
    assert!(ended.said.contains("**Needs:** --on-rotate, --on-rotate-back"), "{}", ended.said);
}

#[test]
fn the_list_has_all_checks_or_those_selected() {
    let all = run(&["--list"]);
    assert_eq!(all.code, 0, "{all:?}");
    assert!(all.said.lines().count() >= 78, "{}", all.said);
    let some = run(&["--list", "--profile", "outage"]);
    assert_eq!(some.said.lines().count(), 7, "{}", some.said);
    assert!(some.said.lines().all(|line| line.starts_with("outage.")), "{}", some.said);
}
