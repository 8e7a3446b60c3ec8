//! A run that does not come to its end: what its hooks did to the KMS and the plugin is undone.

use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::stage::{Ended, Stage, command, eventually};

/// Whether the process is there and not a zombie.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

/// A check that waits for the whole window, because the mutant never shows the outage.
fn outage(stage: &Stage) -> Vec<String> {
    let hook = |action: &str| {
        let log = stage.path("hooks");
        format!("{}; echo {action} >>'{}'", stage.hook(action), log.display())
    };
    let mut args = vec!["--run".to_owned(), "outage.status-reports".to_owned()];
    args.extend(["--on-backend-down".to_owned(), hook("down")]);
    args.extend(["--on-backend-up".to_owned(), hook("up")]);
    args
}

#[test]
fn a_deadline_that_passes_in_an_outage_ends_the_outage() {
    let stage = Stage::reference(Some("says-ok-in-outage"));
    let mut args = outage(&stage);
    args.extend(["--deadline".to_owned(), "4s".to_owned()]);
    let ended = stage.check(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ended.code, 3, "{ended:?}");
    assert_eq!(stage.read("hooks"), "down\nup\n", "{ended:?}");
    assert!(ended.said.contains("the deadline of 4s passed"), "{}", ended.said);
    assert!(ended.said.contains("--on-backend-up was called"), "{}", ended.said);
}

#[test]
fn a_signal_in_an_outage_ends_the_outage_and_the_report_is_written() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let stage = Stage::reference(Some("says-ok-in-outage"));
        let endpoint = format!("unix://{}", stage.path("a.sock").display());
        let child = command()
            .args(["--endpoint", &endpoint])
            .args(outage(&stage))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        eventually("the KMS was not taken away", || stage.path("hooks").exists());
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        let ended = Ended::from(child.wait_with_output().unwrap());
        assert_eq!(ended.code, 3, "{ended:?}");
        assert_eq!(stage.read("hooks"), "down\nup\n", "{ended:?}");
        assert!(ended.said.contains(&format!("interrupted by {signal}")), "{}", ended.said);
    }
}

#[test]
fn what_cannot_be_undone_is_said_and_ends_the_run() {
    let stage = Stage::reference(None);
    let log = stage.path("hooks");
    let up = format!("echo up >>'{}'; echo jammed; exit 5", log.display());
    let ended = stage.check(&[
        "--run",
        "outage.status-reports",
        "outage.status-is-error",
        "--on-backend-down",
        &stage.hook("down"),
        "--on-backend-up",
        &up,
    ]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.said.contains("it is left as --on-backend-down made it"), "{}", ended.said);
    assert!(ended.said.contains("jammed"), "{}", ended.said);
    assert_eq!(ended.said.matches("1 not run").count(), 1, "{}", ended.said);
    assert_eq!(stage.read("hooks"), "up\nup\n", "once by the check, once more");
}

#[test]
fn a_hook_that_is_cut_off_leaves_no_process() {
    let stage = Stage::reference(None);
    let pid = stage.path("pid");
    let hook = format!("sleep 600 & echo $! >'{}'; wait", pid.display());
    let ended = stage.check(&[
        "--run",
        "rotation.key-id-changes",
        "--on-rotate",
        &hook,
        "--deadline",
        "3s",
    ]);
    assert_eq!(ended.code, 3, "{ended:?}");
    let pid = stage.read("pid");
    eventually("the hook's process lives on", || !runs(pid.trim()));
}
