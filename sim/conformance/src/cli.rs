//! The command line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::check::{Check, Profile};
use crate::context::{Load, Polls, Settings};
use crate::endpoint::Endpoint;
use crate::expectations::{self, KnownFailing};
use crate::hooks::{Hook, Hooks};
use crate::report::{Implementation, Report};
use crate::reports::{Destination, Format};
use crate::runner::{self, Plan};
use crate::verdict::Exit;
use crate::{catalogue, diff, reference, selftest};

/// Checks any Kubernetes KMS v2 plugin over its socket.
///
/// Exit codes: 0 conformant; 1 a check failed, or a known failure passes; 2 the command line or a file
/// that it names is wrong; 3 inconclusive: unreachable, a hook failed, the deadline passed, or a
/// selected MUST could not be run.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
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
struct RunArgs {
    /// The plugin's socket, unix:///run/kms.sock; a second one adds the profile replicas.
    #[arg(long, value_name = "URL", required_unless_present_any = ["list", "explain", "catalogue"])]
    endpoint: Vec<Endpoint>,
    /// Profiles to run, separated by commas [default: core,limits,concurrency].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    profile: Vec<Profile>,
    /// SHOULDs count as MUSTs do.
    #[arg(long)]
    strict: bool,
    /// For one call; that of your EncryptionConfiguration.
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// For the whole run.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = humantime::parse_duration)]
    deadline: Duration,
    #[command(flatten)]
    hooks: HookArgs,
    /// How long after a rotation the key_id may stay.
    #[arg(long, value_name = "DURATION", default_value = "90s", value_parser = humantime::parse_duration)]
    rotation_window: Duration,
    /// How long after an outage's begin, or end, Status may not show it.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    outage_window: Duration,
    /// Checks that are known to fail, one `id  # reason` a line; each still has to fail.
    #[arg(long, value_name = "FILE")]
    known_failing: Option<PathBuf>,
    /// Only these checks, of whichever profile.
    #[arg(long, value_name = "ID", num_args = 1..)]
    run: Vec<String>,
    /// Not these checks. For people; in CI use --known-failing.
    #[arg(long, value_name = "ID", num_args = 1..)]
    skip: Vec<String>,
    /// List the selected checks and end.
    #[arg(long)]
    list: bool,
    /// Explain a check and end.
    #[arg(long, value_name = "ID")]
    explain: Option<String>,
    /// Print CHECKS.md and end.
    #[arg(long, hide = true)]
    catalogue: bool,
    /// junit:PATH, json:PATH, markdown:PATH or text:PATH; - is standard output [default: text:-].
    #[arg(long, value_name = "FORM:PATH")]
    report: Vec<Destination>,
    /// The plugin's name, for the reports.
    #[arg(long, value_name = "NAME")]
    implementation: Option<String>,
    /// The plugin's version, for the reports. (--version is the suite's.)
    #[arg(long, value_name = "VERSION")]
    implementation_version: Option<String>,
    /// Where to find the plugin, for the reports.
    #[arg(long, value_name = "URL")]
    implementation_url: Option<String>,
    /// How to make the reports again, for the reports [default: this command].
    #[arg(long, value_name = "COMMAND")]
    reproduce: Option<String>,
    /// Gives an earlier run's order and inputs again.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// How many checks at a time, of those that neither change nor load the plugin.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    jobs: usize,
}

/// Commands for `sh -c`; they have KMS_CONFORMANCE_ENDPOINT (the first) and KMS_CONFORMANCE_ENDPOINTS
/// (all, separated by spaces) in their environment, and must end with 0.
#[derive(Debug, clap::Args)]
struct HookArgs {
    /// Makes a new key the current one.
    #[arg(long, value_name = "COMMAND")]
    on_rotate: Option<String>,
    /// Makes the material before the last rotation current again.
    #[arg(long, value_name = "COMMAND")]
    on_rotate_back: Option<String>,
    /// Ends the first endpoint's plugin as a service manager does, and waits for its end.
    #[arg(long, value_name = "COMMAND")]
    on_stop: Option<String>,
    /// Starts it; need not wait.
    #[arg(long, value_name = "COMMAND")]
    on_start: Option<String>,
    /// Ends it without warning (SIGKILL).
    #[arg(long, value_name = "COMMAND")]
    on_kill: Option<String>,
    /// Takes the KMS away.
    #[arg(long, value_name = "COMMAND")]
    on_backend_down: Option<String>,
    /// Gives it back.
    #[arg(long, value_name = "COMMAND")]
    on_backend_up: Option<String>,
    /// Forbids the plugin to decrypt, and nothing else.
    #[arg(long, value_name = "COMMAND")]
    on_deny_decrypt: Option<String>,
    /// Allows it again.
    #[arg(long, value_name = "COMMAND")]
    on_allow_decrypt: Option<String>,
    /// Prints all that the plugin has logged.
    #[arg(long, value_name = "COMMAND")]
    print_log: Option<String>,
    /// For one hook.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    hook_timeout: Duration,
}

impl HookArgs {
    fn hooks(self, endpoints: &[Endpoint]) -> Hooks {
        let all: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
        let environment = [
            ("KMS_CONFORMANCE_ENDPOINT", all.first().cloned().unwrap_or_default()),
            ("KMS_CONFORMANCE_ENDPOINTS", all.join(" ")),
        ]
        .into();
        let commands: BTreeMap<Hook, String> = [
            (Hook::Rotate, self.on_rotate),
            (Hook::RotateBack, self.on_rotate_back),
            (Hook::Stop, self.on_stop),
            (Hook::Start, self.on_start),
            (Hook::Kill, self.on_kill),
            (Hook::BackendDown, self.on_backend_down),
            (Hook::BackendUp, self.on_backend_up),
            (Hook::DenyDecrypt, self.on_deny_decrypt),
            (Hook::AllowDecrypt, self.on_allow_decrypt),
            (Hook::PrintLog, self.print_log),
        ]
        .into_iter()
        .filter_map(|(hook, command)| Some((hook, command?)))
        .collect();
        Hooks::new(commands, environment, self.hook_timeout)
    }
}

/// Runs the command of the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Conformant }.into();
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start: {error}"), Exit::Inconclusive),
    };
    match cli.command {
        None => match act(cli.run, &runtime) {
            Ok(exit) => exit.into(),
            Err(error) => complain(&error, Exit::Usage),
        },
        Some(Command::SelfTest(args)) => match runtime.block_on(selftest::run(args)) {
            Ok(true) => Exit::Conformant.into(),
            Ok(false) => Exit::Failed.into(),
            Err(error) => complain(&error, Exit::Inconclusive),
        },
        Some(Command::Diff { old, new }) => match (load(&old), load(&new)) {
            (Ok(old), Ok(new)) => {
                let found = diff::diff(&old, &new);
                say(&found.text);
                if found.worse { Exit::Failed } else { Exit::Conformant }.into()
            }
            (Err(error), _) | (_, Err(error)) => complain(&error, Exit::Usage),
        },
        Some(Command::Reference(command)) => match runtime.block_on(reference::run(command)) {
            Ok(text) => {
                say(&text);
                Exit::Conformant.into()
            }
            Err(error) => complain(&error, Exit::Failed),
        },
    }
}

fn act(args: RunArgs, runtime: &tokio::runtime::Runtime) -> Result<Exit, String> {
    if args.catalogue {
        say(&catalogue::document());
        return Ok(Exit::Conformant);
    }
    if let Some(id) = &args.explain {
        say(&known(id)?.explain());
        return Ok(Exit::Conformant);
    }
    let checks = select(&args)?;
    if args.list {
        for check in checks {
            let (level, profile) = (check.level.name(), check.profile.name());
            say(&format!("{:<32} {level:<6} {profile:<11} {}\n", check.id, check.requirement));
        }
        return Ok(Exit::Conformant);
    }
    let mut destinations = args.report.clone();
    if !destinations.iter().any(|destination| destination.path.is_none()) {
        destinations.push(Destination { format: Format::Text, path: None });
    }
    let plan = plan(args, checks)?;
    let report = runtime.block_on(runner::run(plan));
    deliver(&report, &destinations)?;
    Ok(report.exit())
}

fn plan(args: RunArgs, checks: Vec<&'static Check>) -> Result<Plan, String> {
    if std::env::var_os("CI").is_some() && !args.skip.is_empty() {
        warn("--skip hides a check from CI; use --known-failing, which says when it is mended");
    }
    let known_failing = match &args.known_failing {
        Some(path) => read(path, expectations::parse)?,
        None => KnownFailing::new(),
    };
    let seed = match args.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(|error| format!("no random seed: {error}"))?,
    };
    let settings = Settings {
        timeout: args.timeout,
        rotation_window: args.rotation_window,
        outage_window: args.outage_window,
        polls: Polls::default(),
        load: Load::default(),
        hooks: args.hooks.hooks(&args.endpoint),
        endpoints: args.endpoint,
    };
    let implementation = Implementation {
        name: args.implementation,
        version: args.implementation_version,
        url: args.implementation_url,
    };
    let reproduce =
        args.reproduce.unwrap_or_else(|| this_command(std::env::args(), args.seed, seed));
    let (strict, jobs, deadline) = (args.strict, args.jobs, args.deadline);
    let quiet = false;
    Ok(Plan {
        checks,
        settings,
        implementation,
        reproduce,
        known_failing,
        strict,
        seed,
        jobs,
        deadline,
        quiet,
    })
}

/// This command for a shell, with its seed.
fn this_command(args: impl Iterator<Item = String>, given: Option<u64>, seed: u64) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+".contains(c);
    let quoted = |arg: String| {
        if !arg.is_empty() && arg.chars().all(plain) {
            arg
        } else {
            format!("'{}'", arg.replace('\'', r"'\''"))
        }
    };
    let mut command: Vec<String> = args.skip(1).map(quoted).collect();
    command.insert(0, "kms-conformance".to_owned());
    if given.is_none() {
        command.push(format!("--seed {seed}"));
    }
    command.join(" ")
}

/// The checks that the command line selects, in the catalogue's order; never none.
fn select(args: &RunArgs) -> Result<Vec<&'static Check>, String> {
    for id in args.run.iter().chain(&args.skip) {
        known(id)?;
    }
    let mut profiles: BTreeSet<Profile> = args.profile.iter().copied().collect();
    if profiles.is_empty() {
        profiles.extend([Profile::Core, Profile::Limits, Profile::Concurrency]);
        if args.list && args.endpoint.is_empty() {
            profiles.extend(Profile::ALL);
        } else if args.endpoint.len() > 1 {
            profiles.insert(Profile::Replicas);
        }
    }
    let wanted = |check: &&Check| {
        let id = check.id.to_owned();
        let named = if args.run.is_empty() {
            profiles.contains(&check.profile)
        } else {
            args.run.contains(&id)
        };
        named && !args.skip.contains(&id)
    };
    let checks: Vec<_> = catalogue::all().filter(wanted).collect();
    if checks.is_empty() {
        return Err("no check is left to run: look at --profile, --run and --skip".to_owned());
    }
    Ok(checks)
}

fn known(id: &str) -> Result<&'static Check, String> {
    catalogue::find(id).ok_or_else(|| format!("there is no check {id:?}; --list shows all"))
}

/// Writes the reports; whatever fails, the others are written.
fn deliver(report: &Report, destinations: &[Destination]) -> Result<(), String> {
    let mut troubles = Vec::new();
    for destination in destinations {
        let written = destination.format.write(report).and_then(|text| match &destination.path {
            None => {
                say(&text);
                Ok(())
            }
            Some(path) => fs::write(path, text).map_err(|error| error.to_string()),
        });
        if let Err(error) = written {
            troubles.push(format!("cannot write the report to {destination}: {error}"));
        }
    }
    if troubles.is_empty() { Ok(()) } else { Err(troubles.join("; ")) }
}

fn load(path: &Path) -> Result<Report, String> {
    read(path, |text| serde_json::from_str(text).map_err(|error| error.to_string()))
}

fn read<T>(path: &Path, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string());
    text.and_then(|text| parse(&text)).map_err(|error| format!("{}: {error}", path.display()))
}

/// Prints for the caller; that nobody reads it is no failure.
pub(crate) fn say(text: &str) {
    let _ = write!(std::io::stdout(), "{text}");
}

fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "kms-conformance: {text}");
}

fn complain(error: &str, exit: Exit) -> ExitCode {
    warn(error);
    exit.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_given_to_a_shell_again() {
        let args = ["/x/kms-conformance", "--endpoint", "unix:///a", "--on-stop", "kill 'it'", ""];
        let args = || args.iter().map(|arg| (*arg).to_owned());
        assert_eq!(
            this_command(args(), None, 7),
            r"kms-conformance --endpoint unix:///a --on-stop 'kill '\''it'\''' '' --seed 7"
        );
        assert!(!this_command(args(), Some(7), 7).contains("--seed"));
    }
}
