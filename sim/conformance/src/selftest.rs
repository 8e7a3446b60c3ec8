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
use crate::reference::mutant::{Also, MUTANTS, Mutant};
use crate::report::Report;
use crate::verdict::Verdict;
use stage::Stage;
use table::Green;

/// What the self-test is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Only these mutants, beside the reference.
    #[arg(long, value_name = "NAME")]
    mutant: Vec<String>,
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
    fault: Option<String>,
    /// What was wrong the first time, beside many others.
    first: Option<String>,
}

impl Caught {
    /// Runs the checks against a mutant.
    async fn by(binary: &Path, mutant: &'static Mutant, seed: u64) -> Self {
        let fault = match Stage::start(binary, Some(mutant.fault)).await {
            Ok(stage) => judge(mutant, &stage.run(seed, false).await),
            Err(error) => Some(error),
        };
        Self { mutant, fault, first: None }
    }
}

/// Runs it and prints a table; whether all is as it should be.
///
/// On a busy machine a call may take longer than its timeout, whatever the plugin. What is not as
/// declared is seen again, alone; that counts, and both are shown.
pub async fn run(args: Args) -> Result<bool, String> {
    let begin = Instant::now();
    let binary = match args.binary.clone() {
        Some(binary) => binary,
        None => std::env::current_exe().map_err(|error| error.to_string())?,
    };
    let mutants = chosen(&args.mutant)?;
    let reference = tokio::spawn(reference(binary.clone(), args.seed));
    let mut caught = together(&binary, mutants, &args).await?;
    let mut green = reference.await.map_err(|error| error.to_string())??;
    for caught in caught.iter_mut().filter(|caught| caught.fault.is_some()) {
        let first = caught.fault.take();
        *caught = Caught { first, ..Caught::by(&binary, caught.mutant, args.seed).await };
    }
    if !green.is_green {
        say(&format!("only when it ran alone; before:\n{}", green.text));
        green = self::reference(binary, args.seed).await?;
    }
    say(&green.text);
    say(&table::mutants(&caught));
    let missed = caught.iter().filter(|caught| caught.fault.is_some()).count();
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

/// The mutants with these names; without names, all.
fn chosen(names: &[String]) -> Result<Vec<&'static Mutant>, String> {
    let exists = |name: &String| MUTANTS.iter().any(|mutant| mutant.fault.name() == *name);
    if let Some(name) = names.iter().find(|name| !exists(name)) {
        return Err(format!("there is no mutant {name:?}"));
    }
    let wanted = |mutant: &&Mutant| names.is_empty() || names.contains(&mutant.fault.name());
    Ok(MUTANTS.iter().filter(wanted).collect())
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
fn judge(mutant: &Mutant, report: &Report) -> Option<String> {
    let ids = |wanted: fn(Verdict) -> bool| -> BTreeSet<&str> {
        let checks = report.checks.iter().filter(|check| wanted(check.verdict));
        checks.map(|check| check.id.as_str()).collect()
    };
    let red = ids(Verdict::is_failure);
    let broken = ids(|verdict| verdict == Verdict::EngineError);
    let mut faults = Vec::new();
    if !red.contains(mutant.check) {
        faults.push(format!("{} did not catch it", mutant.check));
    }
    let also = match mutant.also {
        Also::Anything => return (!faults.is_empty()).then(|| faults.join("; ")),
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
    (!faults.is_empty()).then(|| faults.join("; "))
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
    fn fault(version: Verdict, v2: Verdict, healthz: Verdict) -> Option<String> {
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
            assert!(fault.contains(says), "{verdicts:?}: {fault}");
        }
    }
}
