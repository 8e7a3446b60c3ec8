//! What a check is: data, and a function that carries it out.

use std::fmt::{self, Write as _};
use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::hooks::Hook;
use crate::source::Source;

/// How binding a requirement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// kube-apiserver malfunctions otherwise, or upstream's text demands it: cites its source.
    Must,
    /// Good for operators: says why.
    Should,
    /// A measurement.
    Info,
}

impl Level {
    /// As in the reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::Info => "INFO",
        }
    }
}

/// A group of checks that need the same means. The order is that in which they run.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// What every plugin does on its socket.
    Core,
    /// Sizes, and input that no apiserver sends.
    Limits,
    /// The socket's permissions, reflection, the log; on the plugin's own machine.
    Hardening,
    /// Many calls at a time.
    Concurrency,
    /// Several plugins with one KMS.
    Replicas,
    /// A new key, made by hooks.
    Rotation,
    /// The plugin's process ends and begins, by hooks.
    Restart,
    /// The KMS is away, by hooks.
    Outage,
}

impl Profile {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 8] = [
        Self::Core,
        Self::Limits,
        Self::Hardening,
        Self::Concurrency,
        Self::Replicas,
        Self::Rotation,
        Self::Restart,
        Self::Outage,
    ];

    /// As on the command line and in the reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Limits => "limits",
            Self::Hardening => "hardening",
            Self::Concurrency => "concurrency",
            Self::Replicas => "replicas",
            Self::Rotation => "rotation",
            Self::Restart => "restart",
            Self::Outage => "outage",
        }
    }

    /// Whether its checks may run beside each other: they neither change nor load the plugin.
    #[must_use]
    pub fn is_gentle(self) -> bool {
        matches!(self, Self::Core | Self::Limits | Self::Hardening)
    }
}

/// Why a check did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The plugin does not do what is required: what was expected, and what was seen.
    Failed(String),
    /// It could not be judged.
    NotRun(String),
    /// The check or a hook broke.
    Broken(String),
}

/// What the reason begins with where a check asks for something that the plugin rightly does not have.
pub const NOT_APPLICABLE: &str = "not applicable: ";

impl Stop {
    /// There is nothing to judge, and nothing missing: unlike others that were not run, it leaves no doubt.
    #[must_use]
    pub fn not_applicable(why: &str) -> Self {
        Self::NotRun(format!("{NOT_APPLICABLE}{why}"))
    }
}

/// What a check's function gives.
pub type Outcome = Result<(), Stop>;

/// A check under way.
pub type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// One requirement and how it is checked. Ids are permanent: never renamed, never used again.
pub struct Check {
    /// `group.what`, for instance `status.version`.
    pub id: &'static str,
    /// How binding it is.
    pub level: Level,
    /// The means that it needs.
    pub profile: Profile,
    /// The requirement, one sentence.
    pub requirement: &'static str,
    /// Where upstream says so; never empty for [`Level::Must`].
    pub sources: &'static [Source],
    /// Why it matters; never empty without a source.
    pub rationale: &'static str,
    /// What is done.
    pub procedure: &'static str,
    /// What has to be seen.
    pub asserts: &'static str,
    /// The hooks that it calls.
    pub hooks: &'static [Hook],
    /// How many endpoints it needs.
    pub endpoints: usize,
    /// Carries it out.
    pub run: for<'a> fn(&'a Context) -> Running<'a>,
}

impl Check {
    /// What is filled in where a check says nothing else.
    pub(crate) const DEFAULT: Self = Self {
        id: "",
        level: Level::Should,
        profile: Profile::Core,
        requirement: "",
        sources: &[],
        rationale: "",
        procedure: "",
        asserts: "",
        hooks: &[],
        endpoints: 1,
        run: |_| Box::pin(async { Err(Stop::Broken("nothing is checked".to_owned())) }),
    };

    /// The text of `--explain`, which is also its section of CHECKS.md.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut text = format!("### {}\n\n", self.id);
        let _ = writeln!(text, "{} · profile {}\n", self.level.name(), self.profile.name());
        let mut part = |name: &str, body: &str| {
            if !body.is_empty() {
                let _ = writeln!(text, "- **{name}:** {body}");
            }
        };
        part("Requirement", self.requirement);
        part("Procedure", self.procedure);
        part("Asserts", self.asserts);
        part("Needs", &self.needs());
        part("Why", self.rationale);
        for source in self.sources {
            part("Source", &source.to_string());
        }
        text
    }

    /// The flags without which it is not run.
    #[must_use]
    pub fn needs(&self) -> String {
        let mut needs: Vec<String> =
            self.hooks.iter().map(|hook| format!("--{}", hook.flag())).collect();
        if self.endpoints > 1 {
            needs.push("a second --endpoint".to_owned());
        }
        needs.join(", ")
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}
