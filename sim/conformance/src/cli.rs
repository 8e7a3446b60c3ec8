//! The command line.

mod args;
mod deliver;
mod plan;
mod wait;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use serde_json::Value;

use crate::interruption::Interruption;
use crate::report::{Report, SCHEMA};
use crate::reports::{Destination, Format};
use crate::runner::Plan;
use crate::verdict::Exit;
use crate::{catalogue, diff, reference, runner, selftest};
use args::{Cli, Command, RunArgs};

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
            Err(error) => complain(&error, Exit::Inconclusive),
        },
    }
}

fn act(args: RunArgs, runtime: &tokio::runtime::Runtime) -> Result<Exit, String> {
    if args.catalogue {
        say(&catalogue::document());
        return Ok(Exit::Conformant);
    }
    if let Some(id) = &args.explain {
        say(&plan::known(id)?.explain());
        return Ok(Exit::Conformant);
    }
    let selected = plan::select(&args)?;
    if args.list {
        for check in selected.checks {
            let (level, profile) = (check.level.name(), check.profile.name());
            say(&format!("{:<32} {level:<6} {profile:<11} {}\n", check.id, check.requirement));
        }
        return Ok(Exit::Conformant);
    }
    let mut destinations = args.report.clone();
    if !destinations.iter().any(|destination| destination.path.is_none()) {
        destinations.push(Destination { format: Format::Text, path: None });
    }
    let (limit, wait) = (args.deadline, args.wait);
    let plan = plan::plan(args, selected)?;
    let opened = deliver::open(destinations)?;
    let report = runtime.block_on(carry_out(plan, limit, wait))?;
    let delivered = deliver::deliver(&report, opened);
    Ok(match (delivered, report.exit()) {
        (Ok(()), exit) => exit,
        (Err(error), Exit::Conformant) => return Err(error),
        // What was found out is not hidden by it.
        (Err(error), exit) => {
            warn(&error);
            exit
        }
    })
}

/// Waits for plugins that do not listen yet; runs the plan until its end, its deadline or a signal.
async fn carry_out(plan: Plan, limit: Duration, wait: Duration) -> Result<Report, String> {
    let end = Interruption::after_or_signal(limit)
        .map_err(|error| format!("cannot catch signals: {error}"))?;
    let mut cut_off = end.clone();
    let told = tokio::spawn(async move {
        let why = cut_off.reached().await;
        warn(&format!("{why}; what hooks did is undone before the end"));
    });
    if !wait.is_zero() {
        wait::until_listening(&plan.settings.endpoints, wait, end.clone()).await;
        // Only now it can be seen where a link leads that was not there.
        plan::distinct(&plan.settings.endpoints)?;
    }
    let report = runner::run(plan, end).await;
    told.abort();
    Ok(report)
}

fn load(path: &Path) -> Result<Report, String> {
    read(path, |text| {
        let json: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match json.get("schema").and_then(Value::as_str) {
            Some(SCHEMA) => serde_json::from_value(json).map_err(|error| error.to_string()),
            Some(other) => Err(format!("its schema is {other:?}, and this suite's {SCHEMA:?}")),
            None => Err("it is no report of this suite: it has no schema".to_owned()),
        }
    })
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
