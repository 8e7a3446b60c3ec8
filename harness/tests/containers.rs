//! `HARNESS_RUNTIME=container`: what the other tests do not show of it. `ci/containers` runs these.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "these are tests"
)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use kleidi_harness::{Plugin, SoftHsm, Stage, eventually};

/// The containers of the test process with this id.
fn containers(pid: u32) -> String {
    let name = format!("name=kleidi-test-{pid}-");
    let output =
        Command::new("docker").args(["ps", "--all", "--quiet", "--filter", &name]).output();
    let output = output.expect("docker can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// As another process: of its own it shows nothing.
#[test]
#[ignore = "a part of a_container_goes_with_its_test"]
fn starts_a_plugin_and_waits() {
    let stage = Stage::new("killed");
    let token = SoftHsm::with_key(&stage, "token", "kek", 1).unwrap();
    let _plugin = Plugin::new(&stage, "plugin", &token).start();
    println!("started");
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
#[ignore = "needs Docker and images: ci/containers"]
fn a_container_goes_with_its_test() {
    let mut test = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "starts_a_plugin_and_waits"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(test.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("started")), "it starts a plugin");
    assert_ne!(containers(test.id()), "", "the plugin is in a container");
    // SIGKILL: nothing of it can clean up.
    test.kill().unwrap();
    test.wait().unwrap();
    eventually("the container to be gone", || match containers(test.id()) {
        none if none.is_empty() => Ok(()),
        left => Err(left),
    });
}
