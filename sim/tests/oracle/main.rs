//! The model against kube-apiserver's own packages, over thousands of generated cases (`sim/oracle`).
//!
//! A difference is a failure; it shows the smallest case.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod limits;
mod objects;
mod process;
mod stories;
mod twin;

use std::cell::RefCell;

use proptest::test_runner::{Config, FileFailurePersistence};

/// Kubernetes versions whose packages answer.
const VERSIONS: [&str; 3] = ["1.29.6", "1.31.0", "1.37.2"];

/// Does something with the oracle of each version that is there.
fn each(does: impl Fn(&str, &RefCell<process::Oracle>)) {
    for version in VERSIONS {
        if let Some(oracle) = process::Oracle::start(version) {
            does(version, &RefCell::new(oracle));
        }
    }
}

/// So many cases. Failures are shown, not kept: what was once wrong becomes a test.
fn cases(cases: u32) -> Config {
    let failure_persistence = Some(Box::new(FileFailurePersistence::Off) as Box<_>);
    Config { cases, failure_persistence, ..Config::default() }
}
