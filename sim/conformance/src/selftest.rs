//! Shows that each check can fail: all of them, against the reference plugin and each of its mutants.

mod stage;
mod table;

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::catalogue;
use crate::cli::say;
use crate::reference::mutant::{Also, Fault, MUTANTS, Mutant};
use crate::report::Report;
use crate::verdict::Verdict;
use stage::Stage;
use table::Green;

/// What the self-test is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Only these mutants, beside the reference.
    #[arg(long, value_name = "NAME", hide_possible_values = true)]
    mutant: Vec<Fault>,
    /// How many plugins at a time; they mostly wait.
    #[arg(long, value_name = "NUMBER", default_value_t = 24)]
    jobs: usize,
    /// For order and inputs.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// The binary that serves the reference plugin [default: this one].
    #[arg(long, value_name = "FILE", hide = true)]
    binary: Option<PathBuf>,
}

/// What became of a mutant.
struct Caught {
    mutant: &'static Mutant,
    /// What is wrong; none if it turned its check and its blast radius red, and nothing else.
    wrong: Option<Wrong>,
    /// What was wrong the first time, beside many others.
    first: Option<Wrong>,
    /// The checks that could not be judged.
    unjudged: Vec<String>,
}

/// What a mutant's report shows that it should not, or the other way round.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wrong {
    /// Its own check did not catch it.
    missed: bool,
    /// For people.
    text: String,
}

/// How often a mutant that its check missed has to be caught afterwards.
const AGAIN: usize = 3;

impl Caught {
    /// Runs the checks against a mutant.
    async fn by(binary: &Path, mutant: &'static Mutant, seed: u64) -> Self {
        let report = match Stage::start(binary, Some(mutant.fault)).await {
            Ok(stage) => stage.run(seed, false).await,
            Err(text) => {
                let wrong = Some(Wrong { missed: false, text });
                return Self { mutant, wrong, first: None, unjudged: Vec::new() };
            }
        };
        let unjudged = ids(&report, |verdict| verdict == Verdict::NotRun);
        let unjudged = unjudged.into_iter().map(str::to_owned).collect();
        Self { mutant, wrong: judge(mutant, &report), first: None, unjudged }
    }
}

/// Runs it and prints a table; whether all is as it should be.
///
/// On a busy machine a call may take longer than its timeout, whatever the plugin. What is red though it
/// should not be is looked at again, alone; that counts, and both are shown. That a check misses its mutant
/// is no matter of load: then it has to catch it three times out of three.
pub async fn run(args: Args) -> Result<bool, String> {
    let begin = Instant::now();
    let binary = match args.binary.clone() {
        Some(binary) => binary,
        None => std::env::current_exe().map_err(|error| error.to_string())?,
    };
    let mutants = chosen(&args.mutant);
    let reference = tokio::spawn(reference(binary.clone(), args.seed));
    let mut caught = together(&binary, mutants, &args).await?;
    let mut green = reference.await.map_err(|error| error.to_string())??;
    for caught in &mut caught {
        if let Some(first) = caught.wrong.take() {
            let alone = async || Caught::by(&binary, caught.mutant, args.seed).await.wrong;
            caught.wrong = again(&first, alone).await;
            caught.first = Some(first);
        }
    }
    if !green.is_green {
        say(&format!("only when it ran alone; before:\n{}", green.text));
        green = self::reference(binary, args.seed).await?;
    }
    say(&green.text);
    say(&table::mutants(&caught));
    let missed = caught.iter().filter(|caught| caught.wrong.is_some()).count();
    say(&format!(
        "\n{} checks; reference {}; {} of {} mutants caught; {:.1} s\n",
        catalogue::all().count(),
        if green.is_green { "all green" } else { "NOT GREEN" },
        caught.len() - missed,
        caught.len(),
        begin.elapsed().as_secs_f64()
    ));
    Ok(green.is_green && missed == 0)
}

/// What stays wrong when it is looked at again.
async fn again(first: &Wrong, alone: impl AsyncFn() -> Option<Wrong>) -> Option<Wrong> {
    for _ in 0..if first.missed { AGAIN } else { 1 } {
        let wrong = alone().await;
        if wrong.is_some() {
            return wrong;
        }
    }
    None
}

/// The mutants with these faults; without any, all.
fn chosen(faults: &[Fault]) -> Vec<&'static Mutant> {
    let wanted = |mutant: &&Mutant| faults.is_empty() || faults.contains(&mutant.fault);
    MUTANTS.iter().filter(wanted).collect()
}

/// Runs the checks against the reference.
async fn reference(binary: PathBuf, seed: u64) -> Result<Green, String> {
    Ok(table::reference(&Stage::start(&binary, None).await?.run(seed, true).await))
}

/// Runs the checks against the mutants, several at a time; what became of them in their order.
async fn together(
    binary: &Path,
    mutants: Vec<&'static Mutant>,
    args: &Args,
) -> Result<Vec<Caught>, String> {
    let turns = Arc::new(Semaphore::new(args.jobs.max(1)));
    let (total, seed, shown) = (mutants.len(), args.seed, std::io::stderr().is_terminal());
    let mut running = JoinSet::new();
    for mutant in mutants {
        let (turns, binary) = (Arc::clone(&turns), binary.to_owned());
        running.spawn(async move {
            // Never closed.
            let _turn = turns.acquire_owned().await;
            Caught::by(&binary, mutant, seed).await
        });
    }
    let mut caught = Vec::new();
    while let Some(ended) = running.join_next().await {
        caught.push(ended.map_err(|error| error.to_string())?);
        if shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K[{}/{total}] mutants", caught.len());
        }
    }
    if shown {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    caught.sort_by_key(|caught| MUTANTS.iter().position(|m| m.fault == caught.mutant.fault));
    Ok(caught)
}

/// What a report shows of a mutant that it should not, or the other way round.
fn judge(mutant: &Mutant, report: &Report) -> Option<Wrong> {
    let red = ids(report, Verdict::is_failure);
    let broken = ids(report, |verdict| verdict == Verdict::EngineError);
    // A run that was cut off, or was not undone, shows nothing of the checks that it did not come to.
    let mut faults = report.troubles.clone();
    let missed = !red.contains(mutant.check);
    let wrong = |faults: Vec<String>| {
        (!faults.is_empty()).then(|| Wrong { missed, text: faults.join("; ") })
    };
    if missed {
        faults.push(format!("{} did not catch it", mutant.check));
    }
    let also = match mutant.also {
        Also::Anything => return wrong(faults),
        Also::These(also) | Also::Within(also) => also,
    };
    let allowed: BTreeSet<&str> = also.iter().copied().chain([mutant.check]).collect();
    for id in red.difference(&allowed) {
        faults.push(format!("{id} is red, too: {}", why(report, id)));
    }
    if let Also::These(also) = mutant.also {
        faults.extend(
            also.iter().filter(|id| !red.contains(**id)).map(|id| format!("{id} is not red")),
        );
    }
    faults.extend(broken.iter().map(|id| format!("{id} broke: {}", why(report, id))));
    wrong(faults)
}

/// The checks that ended like this.
fn ids(report: &Report, wanted: fn(Verdict) -> bool) -> BTreeSet<&str> {
    let checks = report.checks.iter().filter(|check| wanted(check.verdict));
    checks.map(|check| check.id.as_str()).collect()
}

fn why<'a>(report: &'a Report, id: &str) -> &'a str {
    let check = report.checks.iter().find(|check| check.id == id);
    check.and_then(|check| check.reason.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::of;
    use crate::verdict::Verdict::{EngineError, MustFailed, NotRun, Passed, ShouldFailed};

    /// `version-v1`: turns `status.version` red, and `status.version-v2`.
    fn fault(version: Verdict, v2: Verdict, healthz: Verdict) -> Option<Wrong> {
        let mutant = MUTANTS.iter().find(|mutant| mutant.check == "status.version").unwrap();
        let ids = ["status.version", "status.version-v2", "status.healthz-ok"];
        judge(mutant, &of(&[(ids[0], version), (ids[1], v2), (ids[2], healthz)]))
    }

    #[test]
    fn a_mutant_is_caught_by_its_check_and_by_what_is_declared() {
        assert_eq!(fault(MustFailed, ShouldFailed, Passed), None);
        assert_eq!(fault(MustFailed, ShouldFailed, NotRun), None);
        for (verdicts, says) in [
            ((Passed, ShouldFailed, Passed), "status.version did not catch it"),
            ((EngineError, ShouldFailed, Passed), "status.version did not catch it"),
            ((MustFailed, Passed, Passed), "status.version-v2 is not red"),
            ((MustFailed, ShouldFailed, MustFailed), "status.healthz-ok is red, too"),
            ((MustFailed, ShouldFailed, EngineError), "status.healthz-ok broke"),
        ] {
            let fault = fault(verdicts.0, verdicts.1, verdicts.2).unwrap();
            assert!(fault.text.contains(says), "{verdicts:?}: {fault:?}");
            assert_eq!(fault.missed, says.contains("did not catch"), "{verdicts:?}");
        }
    }

    #[test]
    fn a_run_that_was_cut_off_has_not_shown_the_blast_radius() {
        for check in ["status.version", "transport.unix-h2c"] {
            let mutant = MUTANTS.iter().find(|mutant| mutant.check == check).unwrap();
            let mut report = of(&[(check, MustFailed), ("status.version-v2", ShouldFailed)]);
            assert_eq!(judge(mutant, &report), None, "{check}");
            report.troubles.push("the deadline of 10m passed".to_owned());
            let wrong = judge(mutant, &report).unwrap();
            assert_eq!((wrong.missed, wrong.text.as_str()), (false, "the deadline of 10m passed"));
        }
    }

    #[tokio::test]
    async fn a_check_that_missed_its_mutant_has_to_catch_it_each_time() {
        let wrong = |missed| Wrong { missed, text: String::new() };
        for (first, alone, stays, looks) in [
            (false, vec![None], None, 1),
            (false, vec![Some(wrong(true))], Some(wrong(true)), 1),
            (true, vec![None, None, None], None, 3),
            (true, vec![None, None, Some(wrong(false))], Some(wrong(false)), 3),
            (true, vec![Some(wrong(true))], Some(wrong(true)), 1),
        ] {
            let left = parking_lot::Mutex::new(alone.into_iter());
            let looked = std::sync::atomic::AtomicUsize::new(0);
            let look = async || {
                looked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                left.lock().next().flatten()
            };
            assert_eq!(again(&wrong(first), look).await, stays);
            assert_eq!(looked.into_inner(), looks);
        }
    }
}
