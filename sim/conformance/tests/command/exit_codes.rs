//! 0 conformant, 1 not, 2 usage, 3 nobody knows.

use std::process::Command;

use crate::stage::{Ended, Stage, run};

#[test]
fn the_reference_conforms_and_ends_with_0() {
    let stage = Stage::reference(None);
    let ended = stage.check(&["--strict", "--jobs", "8", "--seed", "5"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.said.contains("seed 5"), "{}", ended.said);
    assert!(ended.said.contains("conformant: every selected MUST passed (exit 0)"));
    assert!(
        ended
            .said
            .contains("0 MUST failed, 0 SHOULD failed, 0 INFO failed, 0 known failures, 0 not run")
    );
    assert_eq!(ended.complained, "", "no progress where nobody looks");
}

#[test]
fn a_must_that_failed_ends_with_1() {
    let stage = Stage::reference(Some("version-v1"));
    let ended = stage.check(&["--run", "status.version", "status.healthz-ok"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.said.contains("version is \"v1\""), "{}", ended.said);
    assert!(ended.said.contains("NOT conformant (exit 1)"), "{}", ended.said);
}

#[test]
fn a_should_counts_only_if_strict() {
    let stage = Stage::reference(Some("version-v2beta1"));
    let checks = ["--run", "status.version", "status.version-v2"];
    let ended = stage.check(&checks);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.said.contains("1 SHOULD failed"), "{}", ended.said);
    assert_eq!(stage.check(&[&["--strict"], &checks[..]].concat()).code, 1);
}

#[test]
fn what_is_asked_wrongly_ends_with_2() {
    let stage = Stage::empty();
    let known = stage.file("unknown", "status.nothing  # for a reason\n");
    let unexplained = stage.file("unexplained", "status.version\n");
    let endpoint = ["--endpoint", "unix:///nowhere"];
    for (args, says) in [
        (&["--run", "status.nothing"][..], "no check \"status.nothing\""),
        (&["--skip", "nothing"], "no check \"nothing\""),
        (&["--run", "status.version", "--skip", "status.version"], "no check is left"),
        (&["--known-failing", &known], "line 1: there is no check \"status.nothing\""),
        (&["--known-failing", &unexplained], "has no reason"),
        (&["--known-failing", "/nowhere/at/all"], "/nowhere/at/all: No such file"),
        (&["--profile", "everything"], "everything"),
        (&["--report", "html:x"], "wanted junit:PATH"),
        (&["--timeout", "soon"], "soon"),
        (&["--timeout", "0s"], "wanted more than 0s"),
        (&["--deadline", "900000000y"], "365days at most"),
        (&["--hook-timeout", "400days"], "365days at most"),
        (&["--wrong"], "--wrong"),
    ] {
        let ended = run(&[&endpoint, args].concat());
        assert_eq!(ended.code, 2, "{args:?}: {ended:?}");
        assert!(ended.complained.contains(says), "{args:?}: {}", ended.complained);
        assert_eq!(ended.said, "", "{args:?}");
    }
    for args in
        [&[][..], &["--endpoint", "tcp://x"], &["--explain", "nothing"], &["diff", "a", "b"]]
    {
        assert_eq!(run(args).code, 2, "{args:?}");
    }
}

#[test]
fn one_socket_twice_is_no_replica_and_ends_with_2() {
    let stage = Stage::reference(None);
    std::os::unix::fs::symlink(stage.path("a.sock"), stage.path("b.sock")).unwrap();
    let again = format!("unix:{}", stage.path("a.sock").display());
    let link = format!("unix://{}", stage.path("b.sock").display());
    for endpoint in [again, link] {
        let ended = stage.check(&["--endpoint", &endpoint, "--run", "replicas.cross-decrypt"]);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.complained.contains("are one socket"), "{}", ended.complained);
    }
    // Before anything listens there.
    let empty = Stage::empty();
    let (late, link) = (empty.path("late.sock"), empty.path("link"));
    std::os::unix::fs::symlink(late.parent().unwrap(), &link).unwrap();
    let endpoints = [late.display().to_string(), link.join("late.sock").display().to_string()];
    let ended = run(&["--wait", "1h", "--endpoint", &endpoints[0], "--endpoint", &endpoints[1]]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.complained.contains("are one socket"), "{}", ended.complained);
    let hidden = ["--endpoint", "unix:///@kms", "--endpoint", "/@kms"];
    assert_eq!(run(&hidden).code, 2);
}

#[test]
fn one_socket_that_is_linked_while_it_is_waited_for_ends_with_2() {
    let stage = Stage::reference(None);
    let link = stage.path("b.sock");
    let late = format!("(sleep 1; ln -s a.sock '{}') &", link.display());
    let (binary, socket) = (env!("CARGO_BIN_EXE_kms-conformance"), stage.path("a.sock"));
    let check = format!("exec '{binary}' --wait 60s --endpoint '{}'", socket.display());
    let shell = format!("{late} {check} --endpoint '{}' --run status.version", link.display());
    let ended: Ended = Command::new("sh").args(["-c", &shell]).output().unwrap().into();
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.complained.contains("are one socket"), "{}", ended.complained);
}

#[test]
fn a_report_that_cannot_be_written_ends_with_2_before_anything_is_run() {
    let stage = Stage::reference(None);
    let kept = stage.file("kept.json", "an earlier report");
    let reports = ["--report", &kept, "--report", "json:/nowhere/at/all"];
    let ended = stage.check(&[&["--run", "status.version"], &reports[..]].concat());
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.complained.contains("cannot write the report to /nowhere/at/all"));
    assert_eq!(ended.said, "");
    assert_eq!(stage.read("kept.json"), "an earlier report");
}

#[test]
fn a_report_that_is_not_written_in_the_end_does_not_hide_a_failure() {
    for (mutant, code) in [(None, 2), (Some("version-v1"), 1)] {
        let stage = Stage::reference(mutant);
        let ended = stage.check(&["--run", "status.version", "--report", "json:/dev/full"]);
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.complained.contains("cannot write the report to /dev/full"));
        assert!(ended.said.contains("status.version"), "{}", ended.said);
    }
}

#[test]
fn a_plugin_is_waited_for() {
    let stage = Stage::empty();
    let (start, binary) = (stage.hook("start"), env!("CARGO_BIN_EXE_kms-conformance"));
    let (lifeline, socket) = (stage.path("lifeline"), stage.path("a.sock"));
    let late = format!("(sleep 1; {start} --lifeline '{}') &", lifeline.display());
    let check = format!("exec '{binary}' --wait 60s --endpoint 'unix://{}'", socket.display());
    let shell = format!("{late} {check} --run status.version");
    let ended = Command::new("sh").args(["-c", &shell]).output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    // It is waited for in vain, and no longer.
    let ended = stage.check_at("none.sock", &["--wait", "1s"]);
    assert_eq!(ended.code, 3, "{ended:?}");
    let ended = stage.check_at("none.sock", &["--wait", "1h", "--deadline", "1s"]);
    assert_eq!(ended.code, 3, "{ended:?}");
}

#[test]
fn a_plugin_that_does_not_run_ends_with_3() {
    let mut stage = Stage::reference(None);
    let ended = stage.check_at("none.sock", &[]);
    assert_eq!(ended.code, 3, "{ended:?}");
    // Killed, it leaves its socket's file behind.
    stage.kill();
    assert!(stage.path("a.sock").exists());
    let report = format!("json:{}", stage.path("out.json").display());
    let ended = stage.check(&["--report", &report]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.said.contains("refused") && ended.said.contains("is the plugin running?"));
    let report = stage.read("out.json");
    assert!(report.contains("\"not_run\"") && !report.contains("\"passed\","), "{report}");
}

#[test]
fn a_must_that_was_selected_and_not_run_ends_with_3() {
    let stage = Stage::reference(None);
    let ended = stage.check(&["--profile", "rotation"]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.said.contains("needs --on-rotate, --on-rotate-back"), "{}", ended.said);
    let ended = stage.check(&["--run", "status.version", "replicas.cross-decrypt"]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.said.contains("needs a second --endpoint"), "{}", ended.said);
}

#[test]
fn a_deadline_that_passes_ends_with_3() {
    let stage = Stage::reference(None);
    let ended = stage.check(&["--deadline", "1ms"]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.said.contains("the deadline of 1ms passed"), "{}", ended.said);
}
