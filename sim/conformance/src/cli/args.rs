//! What can be said on the command line.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::check::Profile;
use crate::endpoint::Endpoint;
use crate::hooks::{Hook, Hooks};
use crate::reports::Destination;
use crate::{reference, selftest};

/// The longest limit: moments that are further away than some centuries cannot be told.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// Checks any Kubernetes KMS v2 plugin over its socket.
///
/// Exit codes: 0 conformant; 1 a check failed, or a known failure passes; 2 the command line or a file
/// that it names is wrong; 3 inconclusive: unreachable, a hook failed, the deadline passed, a signal came, or a
/// selected MUST (with --strict a SHOULD, too) could not be run.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Shows that each check can fail: the reference plugin is all green, each mutant turns its check red.
    SelfTest(selftest::Args),
    /// What changed between two JSON reports; exit 1 if something got worse.
    Diff {
        /// The earlier report.
        old: PathBuf,
        /// The later report.
        new: PathBuf,
    },
    /// A correct plugin with a keyring in a directory, for trying the suite out; never for a cluster.
    #[command(subcommand)]
    Reference(reference::Command),
}

#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// The plugin's socket, unix:///run/kms.sock; a second one adds the profile replicas.
    #[arg(long, value_name = "URL", required_unless_present_any = ["list", "explain", "catalogue"])]
    pub(super) endpoint: Vec<Endpoint>,
    /// Profiles to run, separated by commas [default: core,limits,concurrency, and those whose hooks are
    /// given].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) profile: Vec<Profile>,
    /// SHOULDs count as MUSTs do.
    #[arg(long)]
    pub(super) strict: bool,
    /// For one call; that of your EncryptionConfiguration.
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = limit)]
    pub(super) timeout: Duration,
    /// How long plugins may take until they listen.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    pub(super) wait: Duration,
    /// For the whole run; what hooks did is undone after it.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = limit)]
    pub(super) deadline: Duration,
    #[command(flatten)]
    pub(super) hooks: HookArgs,
    /// How long after a rotation the key_id may stay.
    #[arg(long, value_name = "DURATION", default_value = "90s", value_parser = limit)]
    pub(super) rotation_window: Duration,
    /// How long after an outage's begin, or end, Status may not show it.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = limit)]
    pub(super) outage_window: Duration,
    /// Checks that are known to fail, one `id  # reason` a line; each still has to fail.
    #[arg(long, value_name = "FILE")]
    pub(super) known_failing: Option<PathBuf>,
    /// Only these checks, of whichever profile.
    #[arg(long, value_name = "ID", num_args = 1..)]
    pub(super) run: Vec<String>,
    /// Not these checks. For people; in CI use --known-failing.
    #[arg(long, value_name = "ID", num_args = 1..)]
    pub(super) skip: Vec<String>,
    /// List the selected checks and end.
    #[arg(long)]
    pub(super) list: bool,
    /// Explain a check and end.
    #[arg(long, value_name = "ID")]
    pub(super) explain: Option<String>,
    /// Print CHECKS.md and end.
    #[arg(long, hide = true)]
    pub(super) catalogue: bool,
    /// junit:PATH, json:PATH, markdown:PATH or text:PATH; - is standard output [default: text:-].
    #[arg(long, value_name = "FORM:PATH")]
    pub(super) report: Vec<Destination>,
    /// The plugin's name, for the reports.
    #[arg(long, value_name = "NAME")]
    pub(super) implementation: Option<String>,
    /// The plugin's version, for the reports. (--version is the suite's.)
    #[arg(long, value_name = "VERSION")]
    pub(super) implementation_version: Option<String>,
    /// Where to find the plugin, for the reports.
    #[arg(long, value_name = "URL")]
    pub(super) implementation_url: Option<String>,
    /// How to make the reports again, for the reports [default: this command].
    #[arg(long, value_name = "COMMAND")]
    pub(super) reproduce: Option<String>,
    /// Gives an earlier run's order and inputs again.
    #[arg(long, value_name = "NUMBER")]
    pub(super) seed: Option<u64>,
    /// How many checks at a time, of those that neither change nor load the plugin.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(super) jobs: usize,
}

/// Commands for `sh -c`; they have KMS_CONFORMANCE_ENDPOINT (the first) and KMS_CONFORMANCE_ENDPOINTS
/// (all, separated by spaces) in their environment, and must end with 0. What they print is in the report;
/// they themselves are not. What one of them did is undone by its counterpart, also when the run is cut
/// off by its deadline, SIGINT, SIGTERM or SIGHUP.
#[derive(Debug, clap::Args)]
pub(super) struct HookArgs {
    /// Makes a new key the current one.
    #[arg(long, value_name = "COMMAND")]
    pub(super) on_rotate: Option<String>,
    /// Makes the material before the last rotation current again.
    #[arg(long, value_name = "COMMAND")]
    pub(super) on_rotate_back: Option<String>,
    /// Ends the first endpoint's plugin as a service manager does, and waits for its end.
    #[arg(long, value_name = "COMMAND")]
    pub(super) on_stop: Option<String>,
    /// Starts it, unless it runs; need not wait.
    #[arg(long, value_name = "COMMAND")]
    pub(super) on_start: Option<String>,
    /// Ends it without warning (SIGKILL).
    #[arg(long, value_name = "COMMAND")]
    pub(super) on_kill: Option<String>,
    /// Takes the KMS away; the plugin must go on running, the same process.
    #[arg(long, value_name = "COMMAND")]
    pub(super) on_backend_down: Option<String>,
    /// Gives it back; returns when the KMS serves again. The plugin must go on running.
    #[arg(long, value_name = "COMMAND")]
    pub(super) on_backend_up: Option<String>,
    /// Forbids the plugin to decrypt, and nothing else.
    #[arg(long, value_name = "COMMAND")]
    pub(super) on_deny_decrypt: Option<String>,
    /// Allows it again.
    #[arg(long, value_name = "COMMAND")]
    pub(super) on_allow_decrypt: Option<String>,
    /// Prints all that the plugin has logged.
    #[arg(long, value_name = "COMMAND")]
    pub(super) print_log: Option<String>,
    /// For one hook.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = limit)]
    pub(super) hook_timeout: Duration,
}

impl HookArgs {
    pub(super) fn hooks(&self, endpoints: &[Endpoint]) -> Hooks {
        let all: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
        let environment = [
            ("KMS_CONFORMANCE_ENDPOINT", all.first().cloned().unwrap_or_default()),
            ("KMS_CONFORMANCE_ENDPOINTS", all.join(" ")),
        ]
        .into();
        Hooks::new(self.commands(), environment, self.hook_timeout)
    }

    /// The commands that are given.
    pub(super) fn commands(&self) -> BTreeMap<Hook, String> {
        [
            (Hook::Rotate, &self.on_rotate),
            (Hook::RotateBack, &self.on_rotate_back),
            (Hook::Stop, &self.on_stop),
            (Hook::Start, &self.on_start),
            (Hook::Kill, &self.on_kill),
            (Hook::BackendDown, &self.on_backend_down),
            (Hook::BackendUp, &self.on_backend_up),
            (Hook::DenyDecrypt, &self.on_deny_decrypt),
            (Hook::AllowDecrypt, &self.on_allow_decrypt),
            (Hook::PrintLog, &self.print_log),
        ]
        .into_iter()
        .filter_map(|(hook, command)| Some((hook, command.clone()?)))
        .collect()
    }
}

/// How long something may take. Not at all is a mistake, of which kube-apiserver is as sure for its `timeout`.
fn limit(text: &str) -> Result<Duration, String> {
    let limit = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if limit.is_zero() || limit > LONGEST {
        return Err("wanted more than 0s, and 365days at most".to_owned());
    }
    Ok(limit)
}
