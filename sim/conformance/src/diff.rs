//! What has changed between two runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::report::Report;
use crate::verdict::Verdict;

/// The changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// For people.
    pub text: String,
    /// Whether a check fails that did not, or one that passed is no longer judged.
    pub worse: bool,
}

/// Compares two reports by check.
#[must_use]
pub fn diff(old: &Report, new: &Report) -> Diff {
    let verdicts = |report: &Report| -> BTreeMap<String, Verdict> {
        report.checks.iter().map(|check| (check.id.clone(), check.verdict)).collect()
    };
    let (before, after) = (verdicts(old), verdicts(new));
    let mut diff = Diff { text: String::new(), worse: false };
    let mut ids: Vec<&String> = before.keys().chain(after.keys()).collect();
    ids.sort();
    ids.dedup();
    for id in ids {
        let (was, is) = (before.get(id), after.get(id));
        if was == is {
            continue;
        }
        // A check that is new in the suite, and not well, is worse than none.
        let worse = is.copied().unwrap_or(Verdict::NotRun)
            > was.copied().unwrap_or(Verdict::NotRun)
            || was == Some(&Verdict::Passed);
        diff.worse |= worse;
        let name = |verdict: Option<&Verdict>| verdict.map_or("-", |verdict| verdict.name());
        let mark = if worse { '!' } else { ' ' };
        let _ = writeln!(diff.text, "{mark} {id:<32} {} -> {}", name(was), name(is));
    }
    if diff.text.is_empty() {
        "no check ended differently\n".clone_into(&mut diff.text);
    }
    diff
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn what_got_worse_is_marked() {
        let old = example();
        assert!(!diff(&old, &old).worse);
        let mut new = old.clone();
        new.checks[0].verdict = Verdict::NotRun;
        new.checks[1].verdict = Verdict::Passed;
        let found = diff(&old, &new);
        assert!(found.worse);
        let lines: Vec<&str> = found.text.lines().collect();
        assert_eq!(
            lines,
            [
                "  status.version                   must_failed -> passed",
                "! transport.unix-h2c               passed -> not_run"
            ]
        );
    }
}
