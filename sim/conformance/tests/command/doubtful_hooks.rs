//! Hooks that do less than they should, or more.

use std::os::unix::net::UnixStream;
use std::process::Command;

use crate::stage::{Stage, eventually};

/// A stage, and the command that starts a plugin there, which has been called once.
fn started(mutant: &str) -> (Stage, String) {
    let stage = Stage::empty();
    let lifeline = stage.path("lifeline");
    let start = format!("{} --lifeline '{}' {mutant}", stage.hook("start"), lifeline.display());
    let status = Command::new("sh").args(["-c", &start]).status().unwrap();
    assert!(status.success(), "{status}");
    let socket = stage.path("a.sock");
    eventually("the plugin did not come up", || UnixStream::connect(&socket).is_ok());
    (stage, start)
}

#[test]
fn hooks_that_do_nothing_prove_nothing() {
    let (stage, _) = started("");
    let hooks = ["--on-stop", "--on-start", "--on-kill", "--on-backend-down", "--on-backend-up"];
    let hooks = hooks.into_iter().chain(["--on-deny-decrypt", "--on-allow-decrypt"]);
    let hooks = hooks.into_iter().flat_map(|hook| [hook, "true"]);
    let checks = [
        "--run",
        "restart.decrypts-old",
        "restart.same-key-id",
        "restart.same-version",
        "restart.stale-socket",
        "restart.graceful-drain",
        "restart.ready-only-when-serving",
        "outage.encrypt-honest",
        "outage.key-id-unchanged",
        "outage.calls-do-not-hang",
        "outage.recovers-unaided",
        "outage.decrypt-permission-lost",
        "--timeout",
        "1s",
        "--outage-window",
        "300ms",
    ];
    let ended = stage.check(&checks.into_iter().chain(hooks).collect::<Vec<_>>());
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.said.contains("11 checks: 0 passed"), "{}", ended.said);
    for says in [
        "--on-stop did not stop",
        "--on-kill did not stop",
        "that --on-backend-down took",
        "that --on-deny-decrypt forbade",
    ] {
        assert!(ended.said.contains(says), "{says}: {}", ended.said);
    }
}

#[test]
fn a_hook_that_takes_more_away_than_decrypting_proves_nothing_of_that() {
    let stage = Stage::reference(None);
    let (down, up) = (stage.hook("down"), stage.hook("up"));
    let hooks = ["--on-deny-decrypt", &down, "--on-allow-decrypt", &up];
    let ended = stage.check(&[&["--run", "outage.decrypt-permission-lost"], &hooks[..]].concat());
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.said.contains("and Encrypt ends as in an outage"), "{}", ended.said);
}

#[test]
fn a_kill_that_tidies_up_proves_nothing_of_a_stale_socket() {
    let (stage, start) = started("");
    let kill = format!("{} && rm -f '{}'", stage.hook("kill"), stage.path("a.sock").display());
    let ended =
        stage.check(&["--run", "restart.stale-socket", "--on-kill", &kill, "--on-start", &start]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.said.contains("left no socket's file behind"), "{}", ended.said);
}

#[test]
fn a_rotation_may_restart_the_plugin() {
    let (stage, start) = started("");
    let rotate = format!("{} && {} && {start}", stage.hook("rotate"), stage.hook("stop"));
    let ended = stage.check(&[
        "--run",
        "rotation.key-id-changes",
        "rotation.no-flip-flop",
        "rotation.status-encrypt-agree",
        "rotation.old-ciphertext",
        "rotation.settles-in-one-poll",
        "--on-rotate",
        &rotate,
        "--rotation-window",
        "8s",
    ]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.said.contains("5 checks: 5 passed"), "{}", ended.said);
}

#[test]
fn a_start_that_waits_until_the_plugin_serves_hides_nothing() {
    let (stage, start) = started("--mutant serves-before-ready");
    let start = format!("{start} && sleep 1");
    let ended = stage.check(&[
        "--run",
        "restart.ready-only-when-serving",
        "--strict",
        "--on-stop",
        &stage.hook("stop"),
        "--on-start",
        &start,
    ]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.said.contains("the first Status after the start"), "{}", ended.said);
}
