//! `ci/demo` with the model in the apiserver's place: the whole way of a Secret in seconds.

use kleidi_harness::{built, components};

#[test]
fn the_demo_with_the_model_tells_the_whole_way() {
    // It would install what is missing.
    let parts = (components::softhsm_module(), components::softhsm_util(), components::etcd());
    let (Some(_), Some(_), Some(_)) = parts else { return };
    let output = built::script("ci/demo").args(["--apiserver", "model"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaint}");
    let mut rest = &*said;
    for step in [
        "  $ kleidi-sim apiserver --config encryption.yaml put default/demo",
        "      default/demo: created",
        "What etcd holds: /registry/secrets/default/demo",
        "  The Secret's value is not in it.",
        "  default/demo = \"correct horse battery staple\"",
        "is unwrapped as before: 32 bytes",
        "  stale",
        "      1 rewritten, 0 were not stale",
        "  fresh",
    ] {
        let (_, after) = rest.split_once(step).unwrap_or_else(|| panic!("{step:?}: {said}"));
        rest = after;
    }
}
