//! The command line.

mod args;
mod plan;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use crate::report::Report;
use crate::reports::{Destination, Format};
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
        say(&plan::known(id)?.explain());
        return Ok(Exit::Conformant);
    }
    let checks = plan::select(&args)?;
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
    let report = runtime.block_on(runner::run(plan::plan(args, checks)?));
    deliver(&report, &destinations)?;
    Ok(report.exit())
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
