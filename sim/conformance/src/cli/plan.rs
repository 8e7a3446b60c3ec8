//! From the command line to what is run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::args::{HookArgs, RunArgs};
use super::{read, warn};
use crate::catalogue;
use crate::check::{Check, Profile};
use crate::context::{Load, Polls, Settings};
use crate::endpoint::Endpoint;
use crate::expectations::{self, KnownFailing};
use crate::hooks::Hook;
use crate::report::{Implementation, Selection};
use crate::runner::Plan;

/// What the command line selects.
pub(super) struct Selected {
    /// In the catalogue's order; never empty.
    pub(super) checks: Vec<&'static Check>,
    /// By what.
    selection: Selection,
    /// What `--skip` left out.
    skipped: Vec<String>,
}

/// What the command line asks for; an error is the caller's.
pub(super) fn plan(args: RunArgs, selected: Selected) -> Result<Plan, String> {
    distinct(&args.endpoint)?;
    if std::env::var_os("CI").is_some() && !args.skip.is_empty() {
        warn(
            "--skip hides a check from CI; what fails is better listed for --known-failing, which says when it is mended",
        );
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
    let (strict, jobs) = (args.strict, args.jobs);
    let Selected { checks, selection, skipped } = selected;
    let quiet = false;
    Ok(Plan {
        checks,
        selection,
        skipped,
        settings,
        implementation,
        reproduce,
        known_failing,
        strict,
        seed,
        jobs,
        quiet,
    })
}

/// That no two endpoints are one socket: a plugin agrees with itself, which shows nothing of replicas.
pub(super) fn distinct(endpoints: &[Endpoint]) -> Result<(), String> {
    let place = |endpoint: &Endpoint| match endpoint.file() {
        Some(file) => file.canonicalize().unwrap_or_else(|_| to_be(file)),
        None => endpoint.address(),
    };
    for (nth, endpoint) in endpoints.iter().enumerate() {
        if let Some(same) = endpoints[..nth].iter().find(|other| place(other) == place(endpoint)) {
            return Err(format!(
                "--endpoint {same} and {endpoint} are one socket; replicas are several plugins: leave one out"
            ));
        }
    }
    Ok(())
}

/// Where a file will be that is not there yet.
fn to_be(file: &Path) -> PathBuf {
    let directory = file.parent().and_then(|directory| directory.canonicalize().ok());
    match (directory, file.file_name()) {
        (Some(directory), Some(name)) => directory.join(name),
        // As its name says.
        _ => file.to_owned(),
    }
}

/// This command for a shell, with its seed; without the hooks' commands, which may have secrets in them.
fn this_command(args: impl Iterator<Item = String>, given: Option<u64>, seed: u64) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+".contains(c);
    let quoted = |arg: &str| {
        if !arg.is_empty() && arg.chars().all(plain) {
            arg.to_owned()
        } else {
            format!("'{}'", arg.replace('\'', r"'\''"))
        }
    };
    let is_hook = |flag: &str| flag.starts_with("--on-") || flag == "--print-log";
    let mut command = vec!["kms-conformance".to_owned()];
    let mut args = args.skip(1);
    while let Some(arg) = args.next() {
        match arg.split_once('=') {
            Some((flag, _)) if is_hook(flag) => command.push(format!("{flag} '…'")),
            _ if is_hook(&arg) => {
                args.next();
                command.push(format!("{arg} '…'"));
            }
            _ => command.push(quoted(&arg)),
        }
    }
    if given.is_none() {
        command.push(format!("--seed {seed}"));
    }
    command.join(" ")
}

/// What the command line selects; never nothing.
pub(super) fn select(args: &RunArgs) -> Result<Selected, String> {
    for id in args.run.iter().chain(&args.skip) {
        known(id)?;
    }
    let profiles = profiles(args)?;
    let wanted = |check: &&Check| {
        if args.run.is_empty() {
            profiles.contains(&check.profile)
        } else {
            args.run.iter().any(|id| id == check.id)
        }
    };
    let (skipped, checks): (Vec<_>, Vec<_>) = catalogue::all()
        .filter(wanted)
        .partition(|check| args.skip.iter().any(|id| id == check.id));
    if checks.is_empty() {
        return Err("no check is left to run: look at --profile, --run and --skip".to_owned());
    }
    let selection = if args.run.is_empty() {
        Selection { profiles: profiles.into_iter().collect(), run: Vec::new() }
    } else {
        Selection { profiles: Vec::new(), run: args.run.clone() }
    };
    let skipped = skipped.into_iter().map(|check| check.id.to_owned()).collect();
    Ok(Selected { checks, selection, skipped })
}

/// The profiles that are named; otherwise those that need nothing, and those whose means are given.
fn profiles(args: &RunArgs) -> Result<BTreeSet<Profile>, String> {
    let mut profiles: BTreeSet<Profile> = args.profile.iter().copied().collect();
    if !profiles.is_empty() {
        if args.run.is_empty() {
            useful(&args.hooks, &profiles)?;
        }
        return Ok(profiles);
    }
    profiles.extend([Profile::Core, Profile::Limits, Profile::Concurrency]);
    if args.list && args.endpoint.is_empty() {
        profiles.extend(Profile::ALL);
    }
    let hooks = args.hooks.commands();
    profiles.extend(hooks.keys().flat_map(|hook| callers(*hook)));
    match args.endpoint.len() {
        0 => {}
        1 => {
            profiles.remove(&Profile::Replicas);
        }
        _ => {
            profiles.insert(Profile::Replicas);
        }
    }
    Ok(profiles)
}

/// That each hook is called by one of the profiles.
fn useful(hooks: &HookArgs, profiles: &BTreeSet<Profile>) -> Result<(), String> {
    let names = |profiles: &BTreeSet<Profile>| {
        profiles.iter().map(|profile| profile.name()).collect::<Vec<_>>().join(", ")
    };
    for hook in hooks.commands().into_keys() {
        let callers = callers(hook);
        if callers.is_disjoint(profiles) {
            return Err(format!(
                "--{} is of no use to the profiles {}; it is for {}: name that, too, or leave the \
                 hook out",
                hook.flag(),
                names(profiles),
                names(&callers)
            ));
        }
    }
    Ok(())
}

/// The profiles in which a hook is called.
fn callers(hook: Hook) -> BTreeSet<Profile> {
    let calls = catalogue::all().filter(|check| check.hooks.contains(&hook));
    calls.map(|check| check.profile).collect()
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
        let mut args = vec!["/x/kms-conformance", "--endpoint", "unix:///a"];
        args.extend(["--implementation", "it's", "--on-stop", "kill 'it'"]);
        args.extend(["--print-log=TOKEN=x log", ""]);
        let args = || args.iter().map(|arg| (*arg).to_owned());
        assert_eq!(
            this_command(args(), None, 7),
            r"kms-conformance --endpoint unix:///a --implementation 'it'\''s' --on-stop '…' "
                .to_owned()
                + "--print-log '…' '' --seed 7"
        );
        assert!(!this_command(args(), Some(7), 7).contains("--seed"));
    }
}
