//! The model against kube-apiserver's own packages, over thousands of generated cases (`sim/oracle`).
//!
//! A difference is a failure; it shows the smallest case.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod chains;
mod configurations;
mod limits;
mod objects;
mod process;
mod stories;
mod twin;

use std::cell::RefCell;

use kleidi_sim::version::Version;
use proptest::test_runner::{Config, FileFailurePersistence};

/// Kubernetes versions whose packages answer.
const VERSIONS: [(&str, Version); 3] =
    [("1.29.6", Version::V1_29), ("1.31.0", Version::V1_31), ("1.37.2", Version::V1_37)];

/// Does something with the oracle of each version that is there.
fn each(does: impl Fn(Version, &RefCell<process::Oracle>)) {
    for (release, version) in VERSIONS {
        if let Some(oracle) = process::Oracle::start(release) {
            does(version, &RefCell::new(oracle));
        }
    }
}

/// So many cases. Failures are shown, not kept: what was once wrong becomes a test.
fn cases(cases: u32) -> Config {
    let failure_persistence = Some(Box::new(FileFailurePersistence::Off) as Box<_>);
    Config { cases, failure_persistence, ..Config::default() }
}
