//! `kleidi-sim run | hunt | replay | shrink | explain | judge | mutants`: whole clusters in memory.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

mod hunt;

use super::say;
use crate::world::explain::timeline;
use crate::world::generate::{Profile, Size, plan};
use crate::world::history::{self, Record};
use crate::world::judge::{Violation, exit_code, judge};
use crate::world::page::page;
use crate::world::plan::Plan;
use crate::world::run::run;
use crate::world::shrink::shrink;

pub(super) use hunt::{hunt, mutants, twice};

/// What is drawn.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct RunArgs {
    /// What everything is drawn from
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(super) seed: u64,
    /// swarm, swizzle, rotation-storm, cold-start, calm or transit
    #[arg(long, default_value = "swarm", value_parser = profile)]
    pub(super) profile: Profile,
    #[command(flatten)]
    pub(super) size: SizeArgs,
    /// Write plan.toml, history.jsonl and verdict.json into this directory; on a failure they are
    /// written to target/sim/PROFILE-SEED in any case
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) keep: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct SizeArgs {
    /// Control-plane nodes
    #[arg(long, default_value_t = 3)]
    pub(super) nodes: usize,
    /// Hours of the cluster's time
    #[arg(long, default_value_t = 24)]
    pub(super) hours: u64,
}

impl SizeArgs {
    fn size(self) -> Size {
        Size { nodes: self.nodes.max(1), lasts: Duration::from_secs(self.hours * 3600) }
    }
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct HuntArgs {
    /// Look for so long; for a minute, if nothing is said of seeds either
    #[arg(long)]
    pub(super) seconds: Option<u64>,
    /// Play so many seeds
    #[arg(long, value_name = "NUMBER")]
    pub(super) seeds: Option<u64>,
    /// Processes at a time
    #[arg(long, default_value_t = 2)]
    pub(super) jobs: usize,
    /// The first seed; the next ones follow
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(super) from: u64,
    /// One profile; all in which something happens, in turn, if it is not said
    #[arg(long, value_parser = profile)]
    pub(super) profile: Option<Profile>,
    #[command(flatten)]
    pub(super) size: SizeArgs,
}

fn profile(name: &str) -> Result<Profile, String> {
    let names = Profile::ALL.map(|(name, _)| name).join(", ");
    Profile::named(name).ok_or_else(|| format!("there are {names}"))
}

/// One seed.
pub(super) fn run_one(args: &RunArgs) -> Result<ExitCode, String> {
    let plan = plan(args.seed, args.profile, args.size.size());
    say(&format!(
        "seed {}, {}, {} nodes ({}), {} s, a look at the KMS each {} s, {} events: {:?}",
        plan.seed,
        plan.profile,
        plan.nodes,
        plan.versions.join(", "),
        plan.lasts_s,
        plan.period_s,
        plan.events.len(),
        plan.summary()
    ));
    let SizeArgs { nodes, hours } = args.size;
    let (seed, profile) = (args.seed, args.profile.name());
    let again =
        format!("cargo sim run --seed {seed} --profile {profile} --nodes {nodes} --hours {hours}");
    conclude(&plan, args.keep.as_deref(), &again)
}

/// A plan from a file.
pub(super) fn replay(file: &Path, keep: Option<&Path>) -> Result<ExitCode, String> {
    let plan = read_plan(file)?;
    conclude(&plan, keep, &format!("cargo sim replay {}", file.display()))
}

fn read_plan(file: &Path) -> Result<Plan, String> {
    // A directory that a failed run has left behind will do.
    let file = if file.is_dir() { file.join("plan.toml") } else { file.to_owned() };
    let text = read(&file)?;
    Plan::from_toml(&text).map_err(|error| format!("{}: {error}", file.display()))
}

/// What a run has left.
fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| {
        let why = match error.kind() {
            ErrorKind::NotFound => {
                "there is none; a run in which everything held leaves no files, unless it is given \
                 --keep DIRECTORY"
                    .to_owned()
            }
            _ => error.to_string(),
        };
        format!("{}: {why}", file.display())
    })
}

/// Plays it, says what was found, and keeps it.
fn conclude(plan: &Plan, keep: Option<&Path>, again: &str) -> Result<ExitCode, String> {
    let records = run(plan, None)?;
    let found = judge(plan, &records);
    let (hash, counts) = (history::hash(&records), history::summary(&records));
    say(&format!("{} records, {counts:?}, trace {hash}", records.len()));
    let own = PathBuf::from(format!("target/sim/{}-{}", plan.profile, plan.seed));
    let directory = keep.or_else(|| (!found.is_empty()).then_some(own.as_path()));
    if let Some(directory) = directory {
        save(directory, plan, &records, &found)?;
        say(&format!("kept in {}", directory.display()));
    }
    for violation in &found {
        say(&violation.to_string());
    }
    match directory {
        _ if !found.is_empty() => say(&format!("reproduce: {again}")),
        Some(_) => say("everything held"),
        None => say("everything held, and no files were kept: --keep DIRECTORY keeps them"),
    }
    Ok(code(&found))
}

fn code(found: &[Violation]) -> ExitCode {
    exit_code(found).into()
}

fn save(
    directory: &Path,
    plan: &Plan,
    records: &[Record],
    found: &[Violation],
) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{}: {error}", directory.display());
    fs::create_dir_all(directory).map_err(fail)?;
    let verdict = serde_json::to_string_pretty(found).map_err(|error| error.to_string())?;
    for (name, text) in [
        ("plan.toml", plan.to_toml()?),
        ("history.jsonl", history::to_lines(records)?),
        ("verdict.json", verdict + "\n"),
    ] {
        fs::write(directory.join(name), text).map_err(fail)?;
    }
    Ok(())
}

/// Judges a history again that was kept.
pub(super) fn judge_again(directory: &Path) -> Result<ExitCode, String> {
    let (plan, records) = kept(directory)?;
    let found = judge(&plan, &records);
    for violation in &found {
        say(&violation.to_string());
    }
    say(&format!("{} records, {} violations", records.len(), found.len()));
    Ok(code(&found))
}

fn kept(directory: &Path) -> Result<(Plan, Vec<Record>), String> {
    let file = directory.join("history.jsonl");
    let text = read(&file)?;
    let records = history::from_lines(&text);
    Ok((read_plan(directory)?, records.map_err(|error| format!("{}: {error}", file.display()))?))
}

/// What happened around what went wrong first.
pub(super) fn explain(
    directory: &Path,
    to: Option<&Path>,
    before: u64,
) -> Result<ExitCode, String> {
    let (plan, records) = kept(directory)?;
    let found = judge(&plan, &records);
    match (found.first(), to) {
        (None, _) => say("everything held"),
        (Some(violation), None) => say(&timeline(&plan, &records, violation, before * 1000)),
        (Some(violation), Some(file)) => {
            let text = page(&plan, &records, violation, before * 1000);
            fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a plan smaller that fails.
pub(super) fn shrink_file(file: &Path) -> Result<ExitCode, String> {
    let plan = read_plan(file)?;
    let found = judge(&plan, &run(&plan, None)?);
    let Some(first) = found.first() else {
        say("everything held: there is nothing to be made smaller");
        return Ok(ExitCode::SUCCESS);
    };
    say(&format!("{} events: {first}", plan.events.len()));
    let small = shrink(&plan, None, first.invariant, |plan| {
        say(&format!("{} events, {} s, {} nodes", plan.events.len(), plan.lasts_s, plan.nodes));
    });
    let directory = if file.is_dir() { file } else { file.parent().unwrap_or(Path::new(".")) };
    let small_file = directory.join("small.toml");
    fs::write(&small_file, small.to_toml()?).map_err(|error| error.to_string())?;
    say(&format!("the smallest that fails alike: {}", small_file.display()));
    Ok(code(&found))
}
