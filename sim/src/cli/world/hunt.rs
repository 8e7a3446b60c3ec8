//! `kleidi-sim hunt | mutants | twice`: many runs.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{HuntArgs, RunArgs, SizeArgs};
use crate::cli::say;
use crate::world::generate::{Profile, Size, plan};
use crate::world::history;
use crate::world::judge::{Invariant, exit_code, judge};
use crate::world::mutant::Mutant;
use crate::world::plan::Plan;
use crate::world::run::run;

/// End of the program when two runs of one plan differ.
const DIFFERS: u8 = 5;

/// End of a hunt when a run was killed.
const KILLED: u8 = 101;

/// A hunt says how far it is after so many runs.
const TELLS_EACH: u64 = 100;

/// Seeds, each in a process of its own, some at a time: until one fails or it is enough.
pub(in crate::cli) fn hunt(args: &HuntArgs) -> Result<ExitCode, String> {
    canary()?;
    let seconds = args.seconds.or(args.seeds.is_none().then_some(60)).unwrap_or(u64::MAX);
    let hunt = Hunt {
        args,
        program: std::env::current_exe().map_err(|error| error.to_string())?,
        begin: Instant::now(),
        lasts: Duration::from_secs(seconds),
        end: args.seeds.map_or(u64::MAX, |seeds| args.from.saturating_add(seeds)),
        next: AtomicU64::new(args.from),
        runs: AtomicU64::new(0),
        worst: Mutex::new(None),
    };
    at_a_time(args.jobs, || hunt.play());
    hunt.tell();
    match hunt.worst.into_inner() {
        None => Ok(ExitCode::SUCCESS),
        Some(Ok(code)) => Ok(ExitCode::from(code)),
        Some(Err(fault)) => Err(fault),
    }
}

/// The same job so often at a time.
fn at_a_time(jobs: usize, job: impl Fn() + Sync) {
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(&job);
        }
    });
}

struct Hunt<'a> {
    args: &'a HuntArgs,
    program: PathBuf,
    begin: Instant,
    lasts: Duration,
    /// Before this seed it is enough.
    end: u64,
    next: AtomicU64,
    runs: AtomicU64,
    /// How the first one ended that failed, or why it could not be played.
    worst: Mutex<Option<Result<u8, String>>>,
}

impl Hunt<'_> {
    /// Plays seeds, one after another.
    fn play(&self) {
        while self.begin.elapsed() < self.lasts && self.worst.lock().is_none() {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.end {
                return;
            }
            if let Some(outcome) = self.run(seed).transpose() {
                self.worst.lock().get_or_insert(outcome);
            }
            let runs = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
            if runs.is_multiple_of(TELLS_EACH) {
                self.tell();
            }
        }
    }

    /// How it ended, if not well.
    fn run(&self, seed: u64) -> Result<Option<u8>, String> {
        let SizeArgs { nodes, hours } = self.args.size;
        let turn = if seed % 5 == 4 { Profile::Transit } else { Profile::of(seed % 5) };
        let output = Command::new(&self.program)
            .args(["run", "--profile", self.args.profile.unwrap_or(turn).name()])
            .args(["--seed", &seed.to_string()])
            .args(["--nodes", &nodes.to_string(), "--hours", &hours.to_string()])
            .output()
            .map_err(|error| format!("{}: {error}", self.program.display()))?;
        if output.status.success() {
            return Ok(None);
        }
        let said = [output.stdout, output.stderr].concat();
        say(&format!("{}seed {seed}: {}", String::from_utf8_lossy(&said), output.status));
        Ok(Some(output.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(KILLED)))
    }

    fn tell(&self) {
        let (runs, hours) = (self.runs.load(Ordering::Relaxed), self.args.size.hours);
        let years = f64::from(u32::try_from(runs * hours).unwrap_or(u32::MAX)) / 24.0 / 365.0;
        let minutes = self.begin.elapsed().as_secs_f64() / 60.0;
        let a_minute = years / minutes;
        say(&format!(
            "{runs} runs, {years:.2} years of cluster time in {minutes:.1} min: {a_minute:.3} a minute with {} at a time",
            self.args.jobs
        ));
    }
}

/// A plan that has to fail: or failures are not seen.
fn canary() -> Result<(), String> {
    let plan = Plan::from_toml(include_str!("../../../canary.toml"))?;
    let found = judge(&plan, &run(&plan, None)?);
    if exit_code(&found) == 1 {
        return Ok(());
    }
    Err("sim/canary.toml has not failed: what fails is not seen".to_owned())
}

/// Each mutant, until it is caught; some at a time.
pub(in crate::cli) fn mutants(seeds: u64, jobs: usize) -> ExitCode {
    let (next, survivors) = (AtomicUsize::new(0), AtomicUsize::new(0));
    at_a_time(jobs, || {
        while let Some(mutant) = Mutant::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            let name = format!("{mutant:?}");
            if let Some((seeds, invariant)) = (0..seeds).find_map(|seed| caught(*mutant, seed)) {
                say(&format!("{name:22} {invariant:?} after {seeds} seeds"));
            } else {
                survivors.fetch_add(1, Ordering::Relaxed);
                say(&format!("{name:22} SURVIVES {seeds} seeds"));
            }
        }
    });
    let survivors = survivors.into_inner();
    say(&format!("{} mutants, {survivors} survive", Mutant::ALL.len()));
    ExitCode::from(u8::from(survivors > 0))
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
pub(in crate::cli) fn twice(args: &RunArgs) -> Result<ExitCode, String> {
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
