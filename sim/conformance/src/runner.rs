//! Carries out checks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::catalogue;
use crate::check::{Check, Level, Stop};
use crate::context::{Context, Settings};
use crate::expectations::{self, KnownFailing};
use crate::interruption::Interruption;
use crate::progress::Progress;
use crate::report::{CheckReport, Implementation, Report, SCHEMA, Selection};
use crate::verdict::Verdict;

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Not empty.
    pub checks: Vec<&'static Check>,
    /// Copied into the report.
    pub selection: Selection,
    /// Copied into the report.
    pub skipped: Vec<String>,
    /// Where, and with what limits.
    pub settings: Settings,
    /// Copied into the report.
    pub implementation: Implementation,
    /// Copied into the report.
    pub reproduce: String,
    /// What may fail.
    pub known_failing: KnownFailing,
    /// Whether SHOULDs count.
    pub strict: bool,
    /// For order and inputs.
    pub seed: u64,
    /// How many gentle checks at a time.
    pub jobs: usize,
    /// No progress on the terminal.
    pub quiet: bool,
}

/// Runs the plan, to its end or until it is interrupted. Gentle checks first, in random order; then one
/// profile after the other, their checks in random order, one at a time.
///
/// What hooks did to the KMS and the plugin is undone, however it ends.
pub async fn run(plan: Plan, end: Interruption) -> Report {
    let begin = Instant::now();
    let settings = Arc::new(plan.settings.clone());
    let mut report = blank(&plan);
    if let Some(trouble) = unreachable(&settings).await {
        report.checks = plan
            .checks
            .iter()
            .map(|check| CheckReport::new(check, Verdict::NotRun, Some(trouble.clone())))
            .collect();
        report.troubles.push(trouble);
    } else {
        (report.checks, report.troubles) = carry_out(&plan, &settings, &end).await;
        report.troubles.extend(end.why());
    }
    let place: BTreeMap<&str, usize> =
        catalogue::all().enumerate().map(|(place, check)| (check.id, place)).collect();
    report.checks.sort_by_key(|check| place.get(check.id.as_str()).copied());
    report.expectations = expectations::apply(&plan.known_failing, &mut report.checks);
    report.duration_ms = millis(begin.elapsed());
    report.sum_up();
    report
}

fn blank(plan: &Plan) -> Report {
    Report {
        schema: SCHEMA.to_owned(),
        suite_version: env!("CARGO_PKG_VERSION").to_owned(),
        implementation: plan.implementation.clone(),
        endpoints: plan.settings.endpoints.iter().map(ToString::to_string).collect(),
        reproduce: plan.reproduce.clone(),
        seed: plan.seed,
        started: now(),
        duration_ms: 0,
        strict: plan.strict,
        selection: plan.selection.clone(),
        skipped: plan.skipped.clone(),
        profiles: BTreeMap::new(),
        checks: Vec::new(),
        expectations: expectations::Expectations::default(),
        troubles: Vec::new(),
    }
}

/// The wall clock, for the report alone.
#[allow(clippy::disallowed_methods, reason = "a report says when it was made")]
fn now() -> String {
    humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string()
}

/// What is wrong with an endpoint that nobody listens on.
async fn unreachable(settings: &Settings) -> Option<String> {
    for endpoint in &settings.endpoints {
        let connecting = UnixStream::connect(endpoint.address());
        let trouble = match tokio::time::timeout(settings.timeout, connecting).await {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not within {:?}", settings.timeout),
        };
        return Some(format!("cannot connect to {endpoint}: {trouble}; is the plugin running?"));
    }
    None
}

/// The checks' ends, and what could not be undone; after that nothing more is run.
async fn carry_out(
    plan: &Plan,
    settings: &Arc<Settings>,
    end: &Interruption,
) -> (Vec<CheckReport>, Vec<String>) {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    // By catalogue, not by selection: a check has the same inputs whatever else is run.
    let seeds: BTreeMap<&str, u64> =
        catalogue::all().map(|check| (check.id, random.u64(..))).collect();
    let mut checks = plan.checks.clone();
    random.shuffle(&mut checks);
    let (gentle, mut others): (Vec<_>, Vec<_>) =
        checks.into_iter().partition(|check| check.profile.is_gentle());
    others.sort_by_key(|check| check.profile);

    let progress = Arc::new(Progress::new(plan.quiet, plan.checks.len()));
    let start = |check: &'static Check| {
        let context = Context::new(Arc::clone(settings), seeds[check.id]);
        one(check, context, end.clone(), Arc::clone(&progress))
    };
    let turns = Arc::new(Semaphore::new(plan.jobs.max(1)));
    let mut running = JoinSet::new();
    for check in gentle {
        // Before it is spawned: tasks begin in any order. It is never closed.
        let turn = Arc::clone(&turns).acquire_owned().await;
        let check = start(check);
        running.spawn(async move {
            let _turn = turn;
            check.await
        });
    }
    let mut reports = running.join_all().await;
    let mut troubles: Vec<String> = Vec::new();
    for check in others {
        if let Some(trouble) = troubles.first() {
            progress.ends(check.id);
            reports.push(CheckReport::new(check, Verdict::NotRun, Some(trouble.clone())));
            continue;
        }
        let mut report = start(check).await;
        match settings.hooks.undo().await {
            Ok(undone) => report.evidence.extend(undone),
            Err(trouble) => troubles.push(trouble),
        }
        reports.push(report);
    }
    (reports, troubles)
}

/// Carries out one check; it is cut off when the run is.
async fn one(
    check: &'static Check,
    context: Context,
    mut end: Interruption,
    progress: Arc<Progress>,
) -> CheckReport {
    if let Some(why) = lacks(check, context.settings()).or_else(|| end.why()) {
        progress.ends(check.id);
        return CheckReport::new(check, Verdict::NotRun, Some(why));
    }
    progress.begins(check.id);
    let begin = Instant::now();
    let context = Arc::new(context);
    let shared = Arc::clone(&context);
    // A task of its own: if the check itself panics, the others go on.
    let mut task = tokio::spawn(async move { (check.run)(&shared).await });
    let ended = tokio::select! {
        biased;
        ended = &mut task => Ok(ended),
        why = end.reached() => Err(why),
    };
    let (verdict, reason) = match ended {
        Ok(Ok(Ok(()))) => (Verdict::Passed, None),
        Ok(Ok(Err(Stop::NotRun(why)))) => (Verdict::NotRun, Some(why)),
        Ok(Ok(Err(Stop::Broken(why)))) => (Verdict::EngineError, Some(why)),
        Ok(Ok(Err(Stop::Failed(why)))) => (failed(check.level), Some(why)),
        Ok(Err(panicked)) => (Verdict::EngineError, Some(panicked.to_string())),
        Err(why) => {
            task.abort();
            // A hook that it had called has ended then.
            let _ = task.await;
            (Verdict::EngineError, Some(why))
        }
    };
    progress.ends(check.id);
    let reason = reason.map(|why| context.withheld(why));
    let evidence = context.evidence();
    let duration_ms = millis(begin.elapsed());
    CheckReport { duration_ms, evidence, ..CheckReport::new(check, verdict, reason) }
}

/// Which flags are missing.
fn lacks(check: &Check, settings: &Settings) -> Option<String> {
    let mut missing: Vec<String> = check
        .hooks
        .iter()
        .filter(|hook| !settings.hooks.has(**hook))
        .map(|hook| format!("--{}", hook.flag()))
        .collect();
    if settings.endpoints.len() < check.endpoints {
        missing.push("a second --endpoint".to_owned());
    }
    (!missing.is_empty()).then(|| format!("needs {}", missing.join(", ")))
}

fn failed(level: Level) -> Verdict {
    match level {
        Level::Must => Verdict::MustFailed,
        Level::Should => Verdict::ShouldFailed,
        Level::Info => Verdict::InfoFailed,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
