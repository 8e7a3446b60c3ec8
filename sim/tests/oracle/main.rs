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
use proptest::test_runner::{Config, FileFailurePersistence, RngSeed};

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

/// So many cases, the same on every machine unless `KLEIDI_ORACLE_SEED` is another number. Failures are shown,
/// not kept: what was once wrong becomes a test.
fn cases(cases: u32) -> Config {
    let failure_persistence = Some(Box::new(FileFailurePersistence::Off) as Box<_>);
    let seed = std::env::var("KLEIDI_ORACLE_SEED").map_or(1, |seed| seed.parse().unwrap());
    Config { cases, failure_persistence, rng_seed: RngSeed::Fixed(seed), ..Config::default() }
}
