//! The reference plugin as a service: what hooks do to it.

use crate::stage::{Stage, run, text};

#[test]
fn one_that_cannot_serve_is_an_error() {
    let stage = Stage::empty();
    let nowhere = run(&["reference", "start", "--dir", &text(&stage.path("nowhere"))]);
    assert_eq!(nowhere.code, 2, "{nowhere:?}");
    assert!(nowhere.complained.contains("mkdir -m 700"), "{}", nowhere.complained);
    std::fs::create_dir(stage.path("a.sock")).unwrap();
    let ended = run(&["reference", "start", "--dir", &text(&stage.path(""))]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.complained.contains("a.log"), "{}", ended.complained);
}

/// What `--on-start` is to do.
#[test]
fn to_start_one_that_runs_does_nothing() {
    let stage = Stage::empty();
    let (directory, lifeline) = (text(&stage.path("")), text(&stage.path("lifeline")));
    let start =
        || run(&["reference", "start", "--dir", &directory, "--lifeline", &lifeline, "--at-once"]);
    let waits = ["reference", "start", "--dir", &directory, "--lifeline", &lifeline];
    assert_eq!(run(&waits).code, 0);
    let pid = stage.read("a.pid");
    for again in [start(), run(&waits)] {
        assert_eq!(again.code, 0, "{again:?}");
        assert!(again.said.contains("a runs already"), "{}", again.said);
        assert_eq!(stage.read("a.pid"), pid);
    }
    let stopped = run(&["reference", "stop", "--dir", &directory]);
    assert_eq!(stopped.code, 0, "{stopped:?}");
    assert!(!stage.path("a.pid").exists() && !stage.path("a.sock").exists());
}
