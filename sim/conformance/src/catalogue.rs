//! All checks.

use std::fmt::Write as _;

use crate::check::{Check, Profile};
use crate::checks::{
    concurrency, decrypt, encrypt, errors, hardening, limits, outage, replicas, restart, rotation,
    roundtrip, status, transport,
};

/// Ids that were once used and never will be again.
pub const RETIRED: &[&str] = &[];

/// All checks, in the order of the catalogue.
pub fn all() -> impl Iterator<Item = &'static Check> {
    [
        transport::CHECKS,
        status::CHECKS,
        encrypt::CHECKS,
        roundtrip::CHECKS,
        decrypt::CHECKS,
        errors::CHECKS,
        limits::CHECKS,
        hardening::CHECKS,
        concurrency::CHECKS,
        replicas::CHECKS,
        rotation::CHECKS,
        restart::CHECKS,
        outage::CHECKS,
    ]
    .into_iter()
    .flatten()
}

/// The check with this id.
#[must_use]
pub fn find(id: &str) -> Option<&'static Check> {
    all().find(|check| check.id == id)
}

/// The text of CHECKS.md.
#[must_use]
pub fn document() -> String {
    let mut text = format!(
        "# The checks\n\n\
         Written by `kms-conformance --catalogue`; a test compares. {} checks; ids are permanent.\n\n\
         MUST: kube-apiserver malfunctions otherwise, or upstream's text demands it. SHOULD: good for \
         operators, with the reason. INFO: a measurement, never a failure.\n",
        all().count()
    );
    for profile in Profile::ALL {
        let _ = writeln!(text, "\n## Profile {}\n", profile.name());
        for check in all().filter(|check| check.profile == profile) {
            let _ = writeln!(text, "{}", check.explain());
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::check::Level;

    #[test]
    fn every_check_is_whole() {
        let mut ids = BTreeSet::new();
        for check in all() {
            assert!(ids.insert(check.id), "{} twice", check.id);
            assert!(!RETIRED.contains(&check.id), "{} is retired", check.id);
            let texts = [check.requirement, check.procedure, check.asserts];
            assert!(texts.iter().all(|text| !text.is_empty()), "{} lacks a text", check.id);
            assert!(!check.sources.is_empty() || check.level != Level::Must, "{}", check.id);
            assert!(!check.sources.is_empty() || !check.rationale.is_empty(), "{}", check.id);
        }
        assert!(ids.len() >= 78, "{}", ids.len());
    }
}
