//! Progress is for terminals.

use std::fs::File;
use std::io::Read as _;

use nix::pty::openpty;

use crate::stage::{Stage, command};

#[test]
fn a_terminal_shows_what_runs_and_is_left_clean() {
    let stage = Stage::reference(None);
    let endpoint = format!("unix://{}", stage.path("a.sock").display());
    let terminal = openpty(None, None).unwrap();
    let mut child = command()
        .args(["--endpoint", &endpoint, "--run", "status.version", "--report", "text:-"])
        .stdout(std::process::Stdio::null())
        .stderr(terminal.slave)
        .spawn()
        .unwrap();
    assert!(child.wait().unwrap().success());
    let mut shown = Vec::new();
    // Its end is an error once nobody holds the other side.
    let _ = File::from(terminal.master).read_to_end(&mut shown);
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("\r\x1b[K[0/1] status.version"), "{shown:?}");
    assert!(shown.ends_with("\r\x1b[K"), "{shown:?}");
}
