//! What would pass for the wrong reason is not judged.

use std::process::Command;

use crate::stage::Stage;

#[test]
fn that_a_plugin_refuses_shows_nothing_where_it_refuses_all() {
    let stage = Stage::reference(None);
    let status = Command::new("sh").args(["-c", &stage.hook("deny")]).status().unwrap();
    assert!(status.success(), "{status}");
    let ended = stage.check(&[
        "--run",
        "decrypt.garbage-fails",
        "decrypt.tampered-fails",
        "decrypt.truncated-fails",
        "decrypt.wrong-key-id",
        "decrypt.unknown-key-id",
        "decrypt.unknown-key-id-code",
        "decrypt.swapped-annotations",
        "errors.codes",
    ]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.said.contains("8 checks: 0 passed"), "{}", ended.said);
    let says = "it begins with a Decrypt, which failed: PERMISSION_DENIED";
    assert_eq!(ended.said.matches(says).count(), 8, "{}", ended.said);
}

#[test]
fn a_log_that_tells_nothing_of_the_calls_shows_nothing() {
    let stage = Stage::reference(None);
    let log =
        |command: &str| stage.check(&["--run", "hardening.log-canary", "--print-log", command]);
    // The last one grows because it is looked at.
    let looked = format!("cd '{}' && date >>looks && cat looks", stage.path("").display());
    for elsewhere in ["true", "echo nothing to tell", "echo '-- No entries --'", &looked] {
        let ended = log(elsewhere);
        assert_eq!(ended.code, 3, "{elsewhere}: {ended:?}");
        assert!(ended.said.contains("tells nothing of the calls"), "{}", ended.said);
    }
    let path = stage.path("a.sock.log");
    // One that is as long as before, and has the last call in it.
    for own in [format!("cat '{}'", path.display()), format!("tail -n 3 '{}'", path.display())] {
        let ended = log(&own);
        assert_eq!(ended.code, 0, "{own}: {ended:?}");
        assert!(ended.said.contains("1 passed"), "{}", ended.said);
    }
}
