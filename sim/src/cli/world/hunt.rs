//! `kleidi-sim hunt | mutants | twice`: many runs.

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

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

/// Seed after seed, each in a process of its own and twice: what fails first, or not the same twice.
pub(in crate::cli) fn hunt(args: &HuntArgs) -> Result<ExitCode, String> {
    canary()?;
    let begin = Instant::now();
    let seconds = args.seconds.or(args.seeds.is_none().then_some(60)).unwrap_or(u64::MAX);
    let end = args.seeds.map_or(u64::MAX, |seeds| args.from.saturating_add(seeds));
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let (mut seed, mut runs, mut worst) = (args.from, 0_u64, None);
    let SizeArgs { nodes, hours } = args.size;
    while begin.elapsed() < Duration::from_secs(seconds) && seed < end && worst.is_none() {
        let mut children = Vec::new();
        for _ in 0..args.jobs.max(1) {
            if seed >= end {
                break;
            }
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

/// A plan that has to fail: or failures are not seen.
fn canary() -> Result<(), String> {
    let plan = Plan::from_toml(include_str!("../../../canary.toml"))?;
    let found = judge(&plan, &run(&plan, None)?);
    if exit_code(&found) == 1 {
        return Ok(());
    }
    Err("sim/canary.toml has not failed: what fails is not seen".to_owned())
}

/// Each mutant, until it is caught.
pub(in crate::cli) fn mutants(seeds: u64) -> ExitCode {
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
