//! Commands that do what the protocol cannot ask for.

use crate::stage::Stage;

#[test]
fn a_hook_makes_the_rotation_happen() {
    let stage = Stage::reference(None);
    let report = format!("json:{}", stage.path("out.json").display());
    let rotate = format!("echo of $KMS_CONFORMANCE_ENDPOINT; {}", stage.hook("rotate"));
    let ended = stage.check(&[
        "--run",
        "rotation.key-id-changes",
        "--on-rotate",
        &rotate,
        "--rotation-window",
        "10s",
        "--report",
        &report,
    ]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let printed = format!("--on-rotate printed: of unix://{}", stage.path("a.sock").display());
    assert!(stage.read("out.json").contains(&printed), "{}", stage.read("out.json"));
}

#[test]
fn a_hook_that_does_nothing_fails_the_check() {
    let stage = Stage::reference(None);
    let ended = stage.check(&[
        "--run",
        "rotation.key-id-changes",
        "--on-rotate",
        "true",
        "--rotation-window",
        "200ms",
    ]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.said.contains("the key_id was the same after 200ms"), "{}", ended.said);
}

#[test]
fn a_hook_that_fails_is_an_error_and_no_failure() {
    let stage = Stage::reference(None);
    for (hook, says) in [
        ("echo the HSM is on fire; exit 4", "exit status: 4; it printed: the HSM is on fire"),
        ("sleep 60", "did not end within 300ms"),
    ] {
        let ended = stage.check(&[
            "--run",
            "rotation.key-id-changes",
            "status.version",
            "--on-rotate",
            hook,
            "--hook-timeout",
            "300ms",
        ]);
        assert_eq!(ended.code, 3, "{ended:?}");
        assert!(ended.said.contains("ERROR") && ended.said.contains(says), "{}", ended.said);
        assert!(ended.said.contains("1 passed"), "{}", ended.said);
    }
}
