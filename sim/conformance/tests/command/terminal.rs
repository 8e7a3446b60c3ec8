//! Progress is for terminals.

use std::fs::File;
use std::io::Read as _;

use nix::pty::openpty;

use crate::stage::{Stage, command};

/// What the command shows on a terminal; `args` beside the endpoint and the report.
fn shown(stage: &Stage, args: &[&str]) -> String {
    let endpoint = format!("unix://{}", stage.path("a.sock").display());
    let terminal = openpty(None, None).unwrap();
    let mut child = command()
        .args(["--endpoint", &endpoint, "--report", "text:-"])
        .args(args)
        .stdout(std::process::Stdio::null())
        .stderr(terminal.slave)
        .spawn()
        .unwrap();
    let mut shown = Vec::new();
    // Its end is an error once nobody holds the other side.
    let _ = File::from(terminal.master).read_to_end(&mut shown);
    assert!(child.wait().unwrap().success());
    String::from_utf8(shown).unwrap()
}

#[test]
fn a_terminal_shows_what_runs_and_is_left_clean() {
    let shown = shown(&Stage::reference(None), &["--run", "status.version"]);
    assert!(shown.contains("\r\x1b[K[0/1] status.version"), "{shown:?}");
    assert!(shown.ends_with("\r\x1b[K"), "{shown:?}");
}

#[test]
fn a_seed_gives_the_same_order_again() {
    let stage = Stage::reference(None);
    let order = || shown(&stage, &["--profile", "core", "--seed", "11"]);
    let first = order();
    assert_eq!(first, order());
    assert_eq!(first, order());
}
