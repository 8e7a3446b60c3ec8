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

#[test]
fn a_command_stays_out_of_the_reports() {
    let stage = Stage::reference(None);
    let report = format!("json:{}", stage.path("out.json").display());
    let endpoint = format!("unix://{}", stage.path("a.sock").display());
    for hook in
        [["--on-rotate", "TOKEN=s3cr3t exit 4"].as_slice(), &["--on-rotate=TOKEN=s3cr3t exit 4"]]
    {
        let args = ["--run", "rotation.key-id-changes", "--report", &report, "--on-stop", "s3cr3t"];
        let ended = crate::stage::run(&[&["--endpoint", &endpoint], &args[..], hook].concat());
        assert_eq!(ended.code, 3, "{ended:?}");
        assert!(!ended.said.contains("s3cr3t"), "{}", ended.said);
        let json = stage.read("out.json");
        assert!(!json.contains("s3cr3t") && json.contains("--on-stop '…'"), "{json}");
    }
}

#[test]
fn help_says_what_a_hook_must_have_done_when_it_ends() {
    let help = crate::stage::run(&["--help"]).said;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("returns when the KMS serves again"), "{help}");
    assert!(help.contains("the plugin must go on running"), "{help}");
}
