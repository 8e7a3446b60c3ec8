//! What a run found. Its JSON form is stable: fields are added, never renamed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::check::{Check, Level, NOT_APPLICABLE, Profile};
use crate::expectations::Expectations;
use crate::verdict::{Exit, Verdict};

/// The name and version of the JSON form.
pub const SCHEMA: &str = "kms-conformance/1";

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// This suite's version.
    pub suite_version: String,
    /// What was checked, as the caller says.
    pub implementation: Implementation,
    /// Where.
    pub endpoints: Vec<String>,
    /// A shell command that makes such a report again.
    #[serde(default)]
    pub reproduce: String,
    /// Gives the same order and inputs again.
    pub seed: u64,
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// How long it took.
    pub duration_ms: u64,
    /// Whether a SHOULD that failed counts.
    pub strict: bool,
    /// What the caller wanted to be run.
    #[serde(default)]
    pub selection: Selection,
    /// The checks that were selected, but for `--skip`; they are not among `checks`.
    #[serde(default)]
    pub skipped: Vec<String>,
    /// Sums.
    pub profiles: BTreeMap<Profile, ProfileReport>,
    /// The checks, in the catalogue's order.
    pub checks: Vec<CheckReport>,
    /// What became of the known failures.
    pub expectations: Expectations,
    /// What kept the run from its end, or its verdict from being one.
    pub troubles: Vec<String>,
}

/// What was selected; either list may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Profiles, in the order in which they run.
    pub profiles: Vec<Profile>,
    /// The ids that `--run` named, instead of profiles.
    pub run: Vec<String>,
}

impl Selection {
    /// In words: what was selected and, of the profiles, what was not.
    #[must_use]
    pub fn describe(&self) -> String {
        if !self.run.is_empty() {
            return "only the checks that --run names were selected".to_owned();
        }
        let others: Vec<&str> = Profile::ALL
            .into_iter()
            .filter(|profile| !self.profiles.contains(profile))
            .map(Profile::name)
            .collect();
        if others.is_empty() {
            return "every profile was selected".to_owned();
        }
        format!("profiles not selected: {}", others.join(", "))
    }
}

/// What the caller says of the plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Implementation {
    /// Its name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Where to find it.
    pub url: Option<String>,
}

/// A profile's sums.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileReport {
    /// The greatest verdict of its checks; those that are not applicable have no say.
    pub result: Verdict,
    /// Of its MUSTs.
    pub must: Counts,
    /// Of its SHOULDs.
    pub should: Counts,
    /// Of its INFOs.
    pub info: Counts,
}

/// How many checks ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Passed.
    pub passed: usize,
    /// Failed, known failures among them.
    pub failed: usize,
    /// Of those that failed, the known failures.
    #[serde(default)]
    pub known: usize,
    /// Not judged, errors of the engine among them.
    pub not_run: usize,
}

/// A check's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Permanent.
    pub id: String,
    /// Its profile.
    pub profile: Profile,
    /// Its level.
    pub level: Level,
    /// How it ended.
    pub verdict: Verdict,
    /// Why, unless it passed.
    pub reason: Option<String>,
    /// What is required.
    pub requirement: String,
    /// Where upstream says so.
    pub source: Vec<String>,
    /// How long it took.
    pub duration_ms: u64,
    /// Facts that were seen; lengths and hashes, never plaintexts.
    pub evidence: Vec<String>,
    /// Why it is known to fail, if it is and did.
    pub known_failing: Option<String>,
}

impl CheckReport {
    /// A check that ended like this.
    #[must_use]
    pub fn new(check: &Check, verdict: Verdict, reason: Option<String>) -> Self {
        Self {
            id: check.id.to_owned(),
            profile: check.profile,
            level: check.level,
            verdict,
            reason,
            requirement: check.requirement.to_owned(),
            source: check.sources.iter().map(ToString::to_string).collect(),
            duration_ms: 0,
            evidence: Vec::new(),
            known_failing: None,
        }
    }

    /// Whether it asks for something that the plugin rightly does not have.
    #[must_use]
    pub fn is_not_applicable(&self) -> bool {
        self.verdict == Verdict::NotRun
            && self.reason.as_deref().is_some_and(|reason| reason.starts_with(NOT_APPLICABLE))
    }

    /// Whether it counts against the plugin.
    #[must_use]
    pub fn counts(&self, strict: bool) -> bool {
        self.known_failing.is_none()
            && (self.verdict == Verdict::MustFailed
                || strict && self.verdict == Verdict::ShouldFailed)
    }
}

impl Report {
    /// Sums up by profile.
    pub fn sum_up(&mut self) {
        self.profiles.clear();
        for check in &self.checks {
            let profile = self.profiles.entry(check.profile).or_insert_with(|| ProfileReport {
                result: result(&self.checks, check.profile),
                must: Counts::default(),
                should: Counts::default(),
                info: Counts::default(),
            });
            let counts = match check.level {
                Level::Must => &mut profile.must,
                Level::Should => &mut profile.should,
                Level::Info => &mut profile.info,
            };
            match check.verdict {
                Verdict::Passed => counts.passed += 1,
                Verdict::NotRun | Verdict::EngineError => counts.not_run += 1,
                _ => {
                    counts.failed += 1;
                    counts.known += usize::from(check.known_failing.is_some());
                }
            }
        }
    }

    /// How many checks ended with this verdict, and were not known to.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        let counted = |check: &&CheckReport| check.known_failing.is_none();
        self.checks.iter().filter(counted).filter(|check| check.verdict == verdict).count()
    }

    /// How many checks failed as they are known to.
    #[must_use]
    pub fn known(&self) -> usize {
        self.checks.iter().filter(|check| check.known_failing.is_some()).count()
    }

    /// How the run ended.
    ///
    /// An error of the engine makes it inconclusive; then a failure or a stale expectation counts; then a
    /// MUST that was selected and not run makes it inconclusive, for nobody knows whether it would pass.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let none_ran = self.checks.iter().all(|check| check.verdict == Verdict::NotRun);
        if !self.troubles.is_empty() || self.count(Verdict::EngineError) > 0 || none_ran {
            return Exit::Inconclusive;
        }
        if self.checks.iter().any(|check| check.counts(self.strict))
            || !self.expectations.stale.is_empty()
        {
            return Exit::Failed;
        }
        let open = |check: &CheckReport| {
            check.verdict == Verdict::NotRun
                && !check.is_not_applicable()
                && (check.level == Level::Must || self.strict && check.level == Level::Should)
        };
        if self.checks.iter().any(open) { Exit::Inconclusive } else { Exit::Conformant }
    }

    /// The exit in a sentence.
    #[must_use]
    pub fn conclusion(&self) -> String {
        let conclusion = match self.exit() {
            Exit::Conformant => return self.conformant(),
            Exit::Failed if self.checks.iter().any(|check| check.counts(self.strict)) => {
                "NOT conformant"
            }
            Exit::Failed => "a known failure passes now: take it off the list",
            Exit::Usage => "usage",
            Exit::Inconclusive => "inconclusive: not everything that was selected could be judged",
        };
        conclusion.to_owned()
    }

    /// Conformant, but for what would count if it were not excused.
    fn conformant(&self) -> String {
        let excused = |check: &&CheckReport| {
            let unexcused = CheckReport { known_failing: None, ..(*check).clone() };
            check.known_failing.is_some() && unexcused.counts(self.strict)
        };
        let known = self.checks.iter().filter(excused).count();
        let buts: Vec<String> =
            [(known, "known failures"), (self.skipped.len(), "checks that were skipped")]
                .into_iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, what)| format!("{count} {what}"))
                .collect();
        if buts.is_empty() {
            return "conformant: every selected MUST passed".to_owned();
        }
        format!("conformant but for {}", buts.join(" and "))
    }
}

/// Of a profile: the greatest verdict. Where nothing is applicable, nothing was run.
fn result(checks: &[CheckReport], profile: Profile) -> Verdict {
    let judged =
        checks.iter().filter(|check| check.profile == profile && !check.is_not_applicable());
    judged.map(|check| check.verdict).max().unwrap_or(Verdict::NotRun)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::catalogue;

    /// A report with every verdict in it.
    pub(crate) fn example() -> Report {
        let mut checks: Vec<CheckReport> = [
            ("transport.unix-h2c", Verdict::Passed, None),
            ("status.version", Verdict::MustFailed, Some("version is \"v1\" <&>")),
            ("status.version-v2", Verdict::ShouldFailed, Some("version is \"v1\"")),
            (
                "encrypt.annotations-fqdn",
                Verdict::MustFailed,
                Some("annotation key \"A\": no | name"),
            ),
            ("decrypt.swapped-annotations", Verdict::NotRun, Some("the annotations do not differ")),
            ("limits.empty-plaintext", Verdict::InfoFailed, Some("UNKNOWN (\"panic\")")),
            (
                "rotation.key-id-changes",
                Verdict::EngineError,
                Some("--on-rotate ended with exit status: 1"),
            ),
        ]
        .into_iter()
        .map(|(id, verdict, reason)| {
            CheckReport::new(catalogue::find(id).unwrap(), verdict, reason.map(str::to_owned))
        })
        .collect();
        checks[0].duration_ms = 12;
        checks[0].evidence =
            vec!["SETTINGS came".to_owned(), "![`x`](https://evil.example) @all \\| |".to_owned()];
        checks[3].known_failing = Some("mended in 2.0".to_owned());
        let mut report = Report {
            schema: SCHEMA.to_owned(),
            suite_version: "0.0.0".to_owned(),
            implementation: Implementation {
                name: Some("example".to_owned()),
                version: Some("1.0".to_owned()),
                url: None,
            },
            endpoints: vec!["unix:///run/kms.sock".to_owned()],
            reproduce: "kms-conformance --endpoint unix:///run/kms.sock --seed 7".to_owned(),
            seed: 7,
            started: "2026-01-02T03:04:05Z".to_owned(),
            duration_ms: 3456,
            strict: false,
            selection: Selection {
                profiles: vec![Profile::Core, Profile::Limits, Profile::Rotation],
                run: vec![],
            },
            skipped: vec!["status.key-id-stable".to_owned()],
            profiles: BTreeMap::new(),
            checks,
            expectations: Expectations {
                stale: vec!["status.healthz-ok".to_owned()],
                used: vec!["encrypt.annotations-fqdn".to_owned()],
                unused: vec!["decrypt.swapped-annotations".to_owned()],
            },
            troubles: vec!["the run's deadline passed".to_owned()],
        };
        report.sum_up();
        report
    }

    /// A report of one check for each verdict.
    pub(crate) fn of(verdicts: &[(&str, Verdict)]) -> Report {
        let mut report = example();
        report.troubles.clear();
        report.skipped.clear();
        report.expectations = Expectations::default();
        report.checks = verdicts
            .iter()
            .map(|(id, verdict)| CheckReport::new(catalogue::find(id).unwrap(), *verdict, None))
            .collect();
        report
    }

    #[test]
    fn the_exit_follows_from_the_verdicts() {
        use Verdict::{EngineError, InfoFailed, MustFailed, NotRun, Passed, ShouldFailed};
        const MUST: &str = "status.version";
        const SHOULD: &str = "status.version-v2";
        let exit = |verdicts: &[(&str, Verdict)]| of(verdicts).exit();
        assert_eq!(exit(&[(MUST, Passed), (SHOULD, ShouldFailed)]), Exit::Conformant);
        assert_eq!(
            exit(&[(MUST, Passed), ("limits.empty-plaintext", InfoFailed)]),
            Exit::Conformant
        );
        assert_eq!(exit(&[(MUST, MustFailed), (SHOULD, NotRun)]), Exit::Failed);
        assert_eq!(exit(&[(MUST, MustFailed), (SHOULD, EngineError)]), Exit::Inconclusive);
        assert_eq!(exit(&[(MUST, NotRun), (SHOULD, Passed)]), Exit::Inconclusive);
        assert_eq!(exit(&[(MUST, Passed), (SHOULD, NotRun)]), Exit::Conformant);
        assert_eq!(exit(&[(SHOULD, NotRun)]), Exit::Inconclusive, "nothing ran");
        assert_eq!(exit(&[]), Exit::Inconclusive, "nothing ran");
        let mut strict = of(&[(MUST, Passed), (SHOULD, ShouldFailed)]);
        strict.strict = true;
        assert_eq!(strict.exit(), Exit::Failed);
        strict.checks[1].verdict = NotRun;
        assert_eq!(strict.exit(), Exit::Inconclusive);
        strict.checks[1].reason = Some("not applicable: it has none".to_owned());
        assert_eq!(strict.exit(), Exit::Conformant);
        strict.checks[1].verdict = ShouldFailed;
        strict.checks[1].known_failing = Some("x".to_owned());
        assert_eq!(strict.exit(), Exit::Conformant);
        strict.expectations.stale.push(MUST.to_owned());
        assert_eq!(strict.exit(), Exit::Failed);
        strict.troubles.push("x".to_owned());
        assert_eq!(strict.exit(), Exit::Inconclusive);
    }

    #[test]
    fn what_is_not_applicable_leaves_no_doubt_about_a_profile() {
        let mut report = of(&[
            ("status.version", Verdict::Passed),
            ("decrypt.swapped-annotations", Verdict::NotRun),
        ]);
        let result = |report: &mut Report| {
            report.sum_up();
            report.profiles[&Profile::Core].result
        };
        assert_eq!(result(&mut report), Verdict::NotRun);
        report.checks[1].reason = Some("not applicable: it has none".to_owned());
        assert_eq!(result(&mut report), Verdict::Passed);
        assert_eq!(report.profiles[&Profile::Core].should.not_run, 1);
        report.checks.remove(0);
        assert_eq!(result(&mut report), Verdict::NotRun, "nothing was judged");
    }

    #[test]
    fn the_sums_of_the_reports_that_are_kept_are_those_of_their_checks() {
        let reports = concat!(env!("CARGO_MANIFEST_DIR"), "/reports");
        let files = std::fs::read_dir(reports).unwrap().map(|entry| entry.unwrap().path());
        let mut kept = 0;
        for path in files.filter(|path| path.extension().is_some_and(|form| form == "json")) {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut report: Report = serde_json::from_str(&text).unwrap();
            let sums = report.profiles.clone();
            report.sum_up();
            assert_eq!(report.profiles, sums, "{}", path.display());
            kept += 1;
        }
        assert!(kept >= 5, "{kept} reports in {reports}");
    }

    #[test]
    fn what_was_excused_is_part_of_the_conclusion() {
        let mut report = of(&[
            ("status.version", Verdict::MustFailed),
            ("status.version-v2", Verdict::ShouldFailed),
        ]);
        assert_eq!(report.conclusion(), "NOT conformant");
        for check in &mut report.checks {
            check.known_failing = Some("x".to_owned());
        }
        report.sum_up();
        assert_eq!(report.conclusion(), "conformant but for 1 known failures");
        assert_eq!(report.count(Verdict::MustFailed), 0);
        let must = report.profiles[&Profile::Core].must;
        assert_eq!((must.failed, must.known), (1, 1));
        report.strict = true;
        report.skipped.push("status.healthz-ok".to_owned());
        assert_eq!(
            report.conclusion(),
            "conformant but for 2 known failures and 1 checks that were skipped"
        );
    }
}
