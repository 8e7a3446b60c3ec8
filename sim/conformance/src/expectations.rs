//! The list of checks that are known to fail.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::catalogue;
use crate::report::CheckReport;
use crate::verdict::Verdict;

/// Reasons by check id.
pub type KnownFailing = BTreeMap<String, String>;

/// Reads a list: one `id  # reason` a line; empty lines and lines that begin with `#` are skipped.
///
/// An error names the line.
pub fn parse(text: &str) -> Result<KnownFailing, String> {
    let mut known = KnownFailing::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = |what: &str| format!("line {}: {what}", number + 1);
        let Some((id, reason)) = line.split_once('#') else {
            return Err(at(&format!("{line:?} has no reason; write `id  # reason`")));
        };
        let (id, reason) = (id.trim(), reason.trim());
        if reason.is_empty() {
            return Err(at(&format!("{id:?} has no reason; write `id  # reason`")));
        }
        if catalogue::find(id).is_none() {
            return Err(at(&format!("there is no check {id:?}; --list shows all")));
        }
        if known.insert(id.to_owned(), reason.to_owned()).is_some() {
            return Err(at(&format!("{id:?} is listed twice")));
        }
    }
    Ok(known)
}

/// What became of the list in a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectations {
    /// Listed, and passed: the list has to be mended.
    pub stale: Vec<String>,
    /// Listed, and failed.
    pub used: Vec<String>,
    /// Listed, and not judged: not selected, or not run.
    #[serde(default)]
    pub unused: Vec<String>,
}

/// Marks the checks that failed as expected, and judges the list.
pub fn apply(known: &KnownFailing, checks: &mut [CheckReport]) -> Expectations {
    let mut outcome = Expectations::default();
    for (id, reason) in known {
        let check = checks.iter_mut().find(|check| check.id == *id);
        let place = match check {
            Some(check) if check.verdict.is_failure() => {
                check.known_failing = Some(reason.clone());
                &mut outcome.used
            }
            Some(check) if check.verdict == Verdict::Passed => &mut outcome.stale,
            _ => &mut outcome.unused,
        };
        place.push(id.clone());
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_has_a_check_and_a_reason() {
        let known = parse("# ours\n\nstatus.version-v2  # old clusters, see #12\n").unwrap();
        assert_eq!(known["status.version-v2"], "old clusters, see #12");
        for (wrong, says) in [
            ("status.version-v2", "has no reason"),
            ("status.version-v2 #", "has no reason"),
            ("\nstatus.nothing # x", "line 2: there is no check"),
            ("status.version # x\nstatus.version # y", "twice"),
        ] {
            assert!(parse(wrong).unwrap_err().contains(says), "{wrong}");
        }
    }
}
