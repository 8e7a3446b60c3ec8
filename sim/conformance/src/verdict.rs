//! How a check ended, and what that means for the run.

use serde::{Deserialize, Serialize};

/// How a check ended. A group's verdict is the greatest of its checks'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It did what is required.
    Passed,
    /// It could not be judged; the reason says why. Never counted as passed.
    NotRun,
    /// A measurement was not obtained. Shown, never counted.
    InfoFailed,
    /// It did not do what it should.
    ShouldFailed,
    /// It did not do what it must.
    MustFailed,
    /// The check itself, or a hook, broke: nothing is known of the plugin.
    EngineError,
}

impl Verdict {
    /// As in the reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::NotRun => "not_run",
            Self::InfoFailed => "info_failed",
            Self::ShouldFailed => "should_failed",
            Self::MustFailed => "must_failed",
            Self::EngineError => "engine_error",
        }
    }

    /// Whether the plugin was judged and found wanting.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::InfoFailed | Self::ShouldFailed | Self::MustFailed)
    }
}

/// How a run ended, as the process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Every selected MUST passed, with `--strict` every SHOULD; known failures failed.
    Conformant = 0,
    /// A check failed, or one passed that is listed as known failing.
    Failed = 1,
    /// The command line or a file that it names is wrong.
    Usage = 2,
    /// No verdict: unreachable, a hook failed, the deadline passed, a selected MUST was not run.
    Inconclusive = 3,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{EngineError, InfoFailed, MustFailed, NotRun, Passed, ShouldFailed};

    #[test]
    fn a_group_takes_the_greatest() {
        let rising = [Passed, NotRun, InfoFailed, ShouldFailed, MustFailed, EngineError];
        assert!(rising.is_sorted());
        assert_eq!(rising.iter().max(), Some(&EngineError));
        assert_eq!([Passed, NotRun, Passed].iter().max(), Some(&NotRun));
    }
}
