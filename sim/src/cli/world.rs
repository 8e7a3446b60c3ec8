//! `kleidi-sim run | hunt | replay | shrink | explain | judge | mutants`: whole clusters in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use super::say;
use crate::world::explain::timeline;
use crate::world::generate::{Profile, Size, plan};
use crate::world::history::{self, Record};
use crate::world::judge::{Invariant, Violation, judge};
use crate::world::mutant::Mutant;
use crate::world::page::page;
use crate::world::plan::Plan;
use crate::world::run::run;
use crate::world::shrink::shrink;

/// Ends of the program, beside 0 and 2: safety or liveness did not hold; two runs of one plan differ.
const SAFETY: u8 = 1;
const LIVENESS: u8 = 4;
const DIFFERS: u8 = 5;

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
    /// written to target/sim/SEED in any case
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
    /// Look for so long
    #[arg(long, default_value_t = 60)]
    pub(super) seconds: u64,
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
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    Plan::from_toml(&text).map_err(|error| format!("{}: {error}", file.display()))
}

/// Plays it, says what was found, and keeps it.
fn conclude(plan: &Plan, keep: Option<&Path>, again: &str) -> Result<ExitCode, String> {
    let records = run(plan, None)?;
    let found = judge(plan, &records);
    say(&format!("{} records, trace {}", records.len(), history::hash(&records)));
    let own = PathBuf::from(format!("target/sim/{}", plan.seed));
    let directory = keep.or_else(|| (!found.is_empty()).then_some(own.as_path()));
    if let Some(directory) = directory {
        save(directory, plan, &records, &found)?;
        say(&format!("kept in {}", directory.display()));
    }
    for violation in &found {
        say(&violation.to_string());
    }
    if found.is_empty() {
        say("everything held");
    } else {
        say(&format!("reproduce: {again}"));
    }
    Ok(code(&found))
}

fn code(found: &[Violation]) -> ExitCode {
    match found {
        [] => ExitCode::SUCCESS,
        _ if found.iter().all(|violation| violation.invariant.is_liveness()) => LIVENESS.into(),
        _ => SAFETY.into(),
    }
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
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
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

/// Seed after seed, each in a process of its own and twice: what fails first, or not the same twice.
pub(super) fn hunt(args: &HuntArgs) -> Result<ExitCode, String> {
    let begin = Instant::now();
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let (mut seed, mut runs, mut worst) = (args.from, 0_u64, None);
    let SizeArgs { nodes, hours } = args.size;
    while begin.elapsed() < Duration::from_secs(args.seconds) && worst.is_none() {
        let mut children = Vec::new();
        for _ in 0..args.jobs.max(1) {
            let turn = if seed % 5 == 4 { Profile::Transit } else { Profile::of(seed % 5) };
            let name = args.profile.unwrap_or(turn).name();
            let child = Command::new(&program)
                .args(["run", "--profile", name])
                .args(["--seed", &seed.to_string()])
                .args(["--nodes", &nodes.to_string(), "--hours", &hours.to_string()])
                .stdout(Stdio::piped())
                .spawn()
                .map_err(|error| error.to_string())?;
            children.push((seed, child));
            seed += 1;
        }
        for (seed, child) in children {
            let output = child.wait_with_output().map_err(|error| error.to_string())?;
            runs += 1;
            if !output.status.success() {
                say(&String::from_utf8_lossy(&output.stdout));
                say(&format!("seed {seed}: {}", output.status));
                worst = worst.or(output.status.code().or(Some(101)));
            }
        }
    }
    let years = f64::from(u32::try_from(runs * hours).unwrap_or(u32::MAX)) / 24.0 / 365.0;
    let minutes = begin.elapsed().as_secs_f64() / 60.0;
    say(&format!(
        "{runs} runs, {years:.2} years of cluster time in {minutes:.1} min with {} processes: {:.2} a minute",
        args.jobs,
        years / minutes
    ));
    Ok(worst.map_or(ExitCode::SUCCESS, |code| ExitCode::from(u8::try_from(code).unwrap_or(101))))
}

/// Each mutant, until it is caught.
pub(super) fn mutants(seeds: u64) -> ExitCode {
    let mut survivors = 0;
    for mutant in Mutant::ALL {
        let name = format!("{mutant:?}");
        if let Some((seeds, invariant)) = (0..seeds).find_map(|seed| caught(mutant, seed)) {
            say(&format!("{name:22} {invariant:?} after {seeds} seeds"));
        } else {
            survivors += 1;
            say(&format!("{name:22} SURVIVES {seeds} seeds"));
        }
    }
    say(&format!("{} mutants, {survivors} survive", Mutant::ALL.len()));
    if survivors == 0 { ExitCode::SUCCESS } else { SAFETY.into() }
}

/// Seeds so far, and what has caught it with this one.
fn caught(mutant: Mutant, seed: u64) -> Option<(u64, Invariant)> {
    let profile = mutant.profile(seed);
    let size = Size { nodes: 3, lasts: Duration::from_secs(6 * 3600) };
    let plan = plan(seed, profile, size);
    let found = judge(&plan, &run(&plan, Some(mutant)).ok()?);
    let mut broken = found.iter().map(|violation| violation.invariant);
    broken.find(|broken| mutant.caught_by().contains(broken)).map(|broken| (seed + 1, broken))
}

/// The same plan in two processes: whether it gives one trace.
pub(super) fn twice(args: &RunArgs) -> Result<ExitCode, String> {
    let plan = plan(args.seed, args.profile, args.size.size());
    let here = history::hash(&run(&plan, None)?);
    let again = history::hash(&run(&plan, None)?);
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let SizeArgs { nodes, hours } = args.size;
    let output = Command::new(program)
        .args(["run", "--profile", args.profile.name(), "--seed", &args.seed.to_string()])
        .args(["--nodes", &nodes.to_string(), "--hours", &hours.to_string()])
        .output()
        .map_err(|error| error.to_string())?;
    let there = String::from_utf8_lossy(&output.stdout).contains(&format!("trace {here}"));
    if here == again && there {
        say(&format!("one trace three times, in two processes: {here}"));
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("traces differ: {here}, {again} here; the same in another process: {there}"));
    Ok(DIFFERS.into())
}
