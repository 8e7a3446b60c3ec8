//! Plays scenarios one after the other and sums up.

use std::process::ExitCode;

use crate::clock::Stopwatch;
use crate::cluster::{self, Cluster, Images, PREFIX};
use crate::plan::{Broken, Kms, Plan};
use crate::scenario::{Scenario, Stage};
use crate::scenarios::SCENARIOS;
use crate::{command, evidence, progress, tools};

/// The cluster of `cargo kind up`.
const UP: &str = "up";

/// The label of containers in which the project's scripts build.
const BUILD: &str = "dev.beezy.kleidi.build=unfinished";

/// Prints the scenarios.
pub fn list() {
    let rows: Vec<_> = SCENARIOS
        .iter()
        .map(|each| {
            [each.name, "", &format!("{} min", each.minutes), each.shows].map(str::to_owned)
        })
        .collect();
    progress::answer(&progress::table(["scenario", "", "time", "shows"], &rows));
}

/// Plays those that are named, or all. 1 if one failed.
pub fn run(names: &[String], keep: bool, broken: Option<Broken>) -> Result<ExitCode, String> {
    let chosen = names.iter().map(|name| named(name)).collect::<Result<Vec<_>, _>>()?;
    let chosen = if chosen.is_empty() { SCENARIOS.to_vec() } else { chosen };
    let images = images(broken)?;
    let mut rows = Vec::new();
    let mut failed = false;
    for scenario in &chosen {
        let stage = Stage::new(scenario, images.clone(), keep);
        let watch = Stopwatch::start();
        let outcome = (scenario.run)(&stage);
        let time = progress::minutes(watch.elapsed());
        let (word, told) = match &outcome {
            Ok(()) => ("passed", stage.all_shown()),
            Err(error) => ("FAILED", error.clone()),
        };
        progress::step(watch, scenario.name, &format!("{word}: {told}"));
        failed |= outcome.is_err();
        rows.push([scenario.name.to_owned(), word.to_owned(), time, told]);
    }
    progress::answer(&progress::table(["scenario", "", "time", "what was shown"], &rows));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A cluster to look at, that stays.
pub fn up() -> Result<(), String> {
    let images = images(None)?;
    let cluster = Cluster::create(UP, Plan::new(Kms::SoftHsm), &images, Stopwatch::start(), true)?;
    cluster.finish();
    Ok(())
}

/// Writes what is to be seen of clusters that are there.
pub fn logs() -> Result<(), String> {
    for name in cluster::all()? {
        let at = cluster::directory(&name).join("evidence");
        evidence::collect(&name, &at);
        progress::answer(&at.display().to_string());
    }
    Ok(())
}

/// Removes those that are named, with or without `kleidi-` before it and with the others of the scenario, or all of
/// ours and what builds have left.
pub fn down(names: &[String]) -> Result<(), String> {
    let mut ours = cluster::all_and_left()?;
    ours.retain(|name| scenario(name) == UP || named(scenario(name)).is_ok());
    let chosen = names.iter().map(|name| {
        let full = if name.starts_with(PREFIX) { name.clone() } else { format!("{PREFIX}{name}") };
        let meant =
            |each: &&String| **each == full || format!("{PREFIX}{}", scenario(each)) == full;
        let meant: Vec<_> = ours.iter().filter(meant).cloned().collect();
        if !meant.is_empty() {
            return Ok(meant);
        }
        let there = if ours.is_empty() { "none".to_owned() } else { ours.join(", ") };
        Err(format!("there is no cluster {full} of ours; there are: {there}"))
    });
    let chosen = chosen.collect::<Result<Vec<_>, _>>()?.concat();
    let removed = if names.is_empty() { &ours } else { &chosen };
    let outcomes: Vec<_> = removed.iter().map(|name| cluster::remove(name)).collect();
    if names.is_empty() {
        // Of a build that was killed. One that runs is not as old.
        let label = format!("label={BUILD}");
        let old = ["container", "prune", "--force", "--filter", &label, "--filter", "until=1h"];
        command::run("docker", &old)?;
    }
    outcomes.into_iter().collect()
}

/// The scenario of a cluster: `rotates` of `kleidi-rotates`, and of `kleidi-rotates-2`.
fn scenario(cluster: &str) -> &str {
    let name = cluster.strip_prefix(PREFIX).unwrap_or(cluster);
    match name.rsplit_once('-') {
        Some((scenario, number)) if number.parse::<u32>().is_ok() => scenario,
        _ => name,
    }
}

fn named(name: &str) -> Result<Scenario, String> {
    let found = SCENARIOS.iter().find(|scenario| scenario.name == name).copied();
    found.ok_or_else(|| format!("there is no scenario {name}; `cargo kind list` prints them"))
}

/// Has everything built that clusters are made of; what is there already is used.
fn images(broken: Option<Broken>) -> Result<Images, String> {
    let registry = std::env::var("KIND_NODE_IMAGE").ok();
    let node = if let Some(image) = &registry {
        tools::script("ci/dockerd", &[])?;
        image.clone()
    } else {
        tools::script("kind/node/build", &[])?
    };
    let version =
        command::text("docker", &["run", "--rm", "--entrypoint", "cat", &node, "/kind/version"])?;
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse().ok());
    let minor =
        minor.ok_or_else(|| format!("{node} is no image of a kind node: version {version:?}"))?;
    let kleidi = match std::env::var("KLEIDI_IMAGE") {
        Ok(image) => image,
        Err(_) if registry.is_some() => tools::script("ci/image", &["--registry"])?,
        Err(_) => tools::script("ci/image", &[])?,
    };
    let broken = broken.map(|broken| Ok::<_, String>((broken, tools::image(broken.image(), &[])?)));
    Ok(Images { node, minor, kleidi, broken: broken.transpose()? })
}
