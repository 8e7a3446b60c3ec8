//! From the command line to what is run.

use std::collections::BTreeSet;

use super::args::RunArgs;
use super::{read, warn};
use crate::catalogue;
use crate::check::{Check, Profile};
use crate::context::{Load, Polls, Settings};
use crate::expectations::{self, KnownFailing};
use crate::report::Implementation;
use crate::runner::Plan;

/// What the command line asks for; an error is the caller's.
pub(super) fn plan(args: RunArgs, checks: Vec<&'static Check>) -> Result<Plan, String> {
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
pub(super) fn select(args: &RunArgs) -> Result<Vec<&'static Check>, String> {
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

/// The check with this id.
pub(super) fn known(id: &str) -> Result<&'static Check, String> {
    catalogue::find(id).ok_or_else(|| format!("there is no check {id:?}; --list shows all"))
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
