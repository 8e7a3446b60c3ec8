//! Whole clusters in memory: the same plan gives the same history, nothing is lost, and whoever is broken is
//! caught.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "these are tests"
)]

use std::process::{Command, Stdio};
use std::time::Duration;

use kleidi_sim::world::explain::timeline;
use kleidi_sim::world::generate::{Profile, Size, plan};
use kleidi_sim::world::history::{self, Is};
use kleidi_sim::world::judge::{Invariant, exit_code, judge};
use kleidi_sim::world::mutant::Mutant;
use kleidi_sim::world::page::page;
use kleidi_sim::world::plan::{Event, Kms, Machine, Plan, Trouble, What};
use kleidi_sim::world::run::run;
use kleidi_sim::world::shrink::{broken, shrink};

/// Seeds that are played of each profile.
const SEEDS: u64 = 2;

fn hours(hours: u64) -> Size {
    Size { nodes: 3, lasts: Duration::from_secs(hours * 3600) }
}

/// Nothing happens but for these.
fn quiet(events: &[(u64, What)]) -> Plan {
    let events =
        events.iter().map(|(seconds, what)| Event { at_ms: seconds * 1000, what: what.clone() });
    let events = events.collect();
    Plan { events, points: false, kept: 6, ..plan(1, Profile::Calm, hours(1)) }
}

/// The first seeds of a profile, for two hours; `ci/test` plays whole days as well (`cargo sim hunt`).
fn holds(profile: Profile) {
    let (mut decrypts, mut reads) = (0, 0);
    for seed in 0..SEEDS {
        let plan = plan(seed, profile, hours(2));
        let records = run(&plan, None).unwrap();
        assert_eq!(judge(&plan, &records), [], "seed {seed}");
        let counts = history::summary(&records);
        decrypts += counts.get("Decrypt").unwrap_or(&0);
        reads += counts.get("reads").unwrap_or(&0);
    }
    assert!(decrypts > 0 && reads > 36 * decrypts.min(3), "{decrypts} of {reads} reads are real");
}

#[test]
fn swarms_hold() {
    holds(Profile::Swarm);
}

#[test]
fn swizzles_hold() {
    holds(Profile::Swizzle);
}

#[test]
fn rotation_storms_hold() {
    holds(Profile::RotationStorm);
}

#[test]
fn cold_starts_hold() {
    holds(Profile::ColdStart);
}

#[test]
fn calm_holds() {
    holds(Profile::Calm);
}

#[test]
fn transit_holds() {
    holds(Profile::Transit);
}

#[test]
fn one_plan_gives_one_history() {
    let mut hashes = Vec::new();
    for (seed, profile) in [(0, Profile::Swarm), (1, Profile::Swarm), (2, Profile::Transit)] {
        let plan = plan(seed, profile, hours(1));
        let again = Plan::from_toml(&plan.to_toml().unwrap()).unwrap();
        assert_eq!(plan, again);
        let records = run(&plan, None).unwrap();
        assert_eq!(records, run(&again, None).unwrap(), "seed {seed}");
        let lines = history::to_lines(&records).unwrap();
        assert_eq!(records, history::from_lines(&lines).unwrap());
        hashes.push(history::hash(&records));
    }
    assert_ne!(hashes[0], hashes[1]);
}

/// The judge is of no use if it passes what is broken. `cargo sim mutants` does the same in the build that is made for
/// it.
#[test]
#[ignore = "takes ten minutes in a development build: cargo sim mutants"]
fn every_mutant_is_caught() {
    for mutant in Mutant::ALL.into_iter().filter(|mutant| !mutant.is_of_transit()) {
        let caught = (0..12).any(|seed| {
            let found = broken(&plan(seed, mutant.profile(seed), hours(4)), Some(mutant));
            found.iter().any(|invariant| mutant.caught_by().contains(invariant))
        });
        assert!(caught, "{mutant:?} survives");
    }
}

/// What is read while the KMS is away comes from memory, and nobody claims that all is well.
#[test]
fn an_outage_is_told_and_heals() {
    let away = |does| (0..3).map(move |node| What::Kms { node, does });
    let mut events: Vec<_> = away(Trouble::Unreachable).map(|what| (600, what)).collect();
    events.extend(away(Trouble::None).map(|what| (1800, what)));
    let plan = quiet(&events);
    let records = run(&plan, None).unwrap();
    assert_eq!(judge(&plan, &records), []);
    let refused = records.iter().filter(|record| {
        let is_late = record.at_ms > 900_000;
        is_late && matches!(&record.is, Is::Wrote { error: Some(error), .. } if error.contains("expired"))
    });
    assert!(refused.count() > 0, "writes stop three minutes after the last good Status");
}

/// Standbys of OpenBao answer what only reads: that the leader is lost, and that nobody leads for a while, is
/// seen by no call.
#[test]
fn a_leader_is_lost_and_nobody_notices() {
    let lost = [Machine::Killed, Machine::Hung, Machine::Sealed, Machine::Stopped];
    for is in lost {
        let back = What::Server { server: 0, is: Machine::Up };
        let events = [(600, What::Server { server: 0, is }), (900, What::Rotated), (1800, back)];
        let plan = Plan { kms: Kms::Transit, ..quiet(&events) };
        let records = run(&plan, None).unwrap();
        assert_eq!(judge(&plan, &records), [], "{is:?}");
        let failed = records.iter().filter(|record| {
            matches!(&record.is, Is::Kms { error: Some(_), .. } | Is::Called { error: Some(_), .. })
        });
        assert_eq!(failed.count(), 0, "{is:?}");
    }
}

/// Plans that were kept hold, and catch what they are kept for.
#[test]
fn regressions_hold() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let file = entry.unwrap().path();
        let plan = Plan::from_toml(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let name = file.display();
        assert!(!plan.about.is_empty(), "{name} says what it is kept for");
        let records = run(&plan, None).unwrap();
        assert_eq!(judge(&plan, &records), [], "{name}");
        for mutant in &plan.catches {
            let found = broken(&plan, Some(*mutant));
            let caught = found.iter().any(|invariant| mutant.caught_by().contains(invariant));
            assert!(caught, "{name}: {mutant:?} survives: {found:?}");
        }
        count += 1;
    }
    assert!(count > 0, "there are some");
}

/// A plan that has to fail does: what fails is seen.
#[test]
fn the_canary_fails() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/canary.toml");
    let plan = Plan::from_toml(&std::fs::read_to_string(file).unwrap()).unwrap();
    let found = judge(&plan, &run(&plan, None).unwrap());
    assert!(found.iter().any(|violation| violation.invariant == Invariant::S9), "{found:?}");
    assert_eq!(exit_code(&found), 1);
}

/// What panics in a task of which nobody hears is seen.
#[test]
fn a_panic_is_seen() {
    let plan = quiet(&[(300, What::Rotated), (600, What::ApiserverRestarted { node: 0 })]);
    let records = run(&plan, Some(Mutant::Panics)).unwrap();
    let found = judge(&plan, &records);
    let panic = found.iter().find(|violation| violation.invariant == Invariant::NoPanic).unwrap();
    assert!(panic.what.contains("the fifth seed"), "{panic}");
    assert_eq!(exit_code(&found), 101);
}

/// The product has points at which it can be held up, and is.
#[test]
fn points_hold_the_product_up() {
    let trace = |seed, points| {
        let plan = Plan { seed, points, ..quiet(&[(300, What::Rotated)]) };
        let records = run(&plan, None).unwrap();
        assert_eq!(judge(&plan, &records), [], "seed {seed}");
        history::hash(&records)
    };
    assert!((1..4).any(|seed| trace(seed, true) != trace(seed, false)));
}

/// The plugin ends a connection of which it has heard the end: what would be sent on it would not arrive.
#[test]
fn what_is_half_closed_is_made_anew() {
    let events: Vec<_> = (0..3).map(|node| (300, What::HalfClosed { node })).collect();
    let plan = quiet(&events);
    let records = run(&plan, None).unwrap();
    assert_eq!(judge(&plan, &records), []);
    let lost = records.iter().filter(
        |record| matches!(&record.is, Is::Called { rpc, error: Some(_), .. } if rpc == "Status"),
    );
    assert_eq!(lost.count(), 0);
}

/// A plugin that is asked to end answers what it was asked before.
#[test]
fn calls_under_way_are_answered_by_a_plugin_that_ends() {
    let node = 0;
    let mut plan = quiet(&[
        (300, What::KmsTakes { node, ms: 1200 }),
        (301, What::ApiserverRestarted { node }),
        (303, What::PluginStarted { node }),
        (310, What::KmsTakes { node, ms: 2 }),
    ]);
    plan.events.insert(2, Event { at_ms: 301_500, what: What::PluginStopped { node } });
    let records = run(&plan, None).unwrap();
    assert_eq!(judge(&plan, &records), []);
    let under_way = records.iter().filter(|record| {
        matches!(&record.is, Is::Called { node: 0, error: None, took_ms, .. }
            if record.at_ms > 301_500 && record.at_ms - took_ms < 301_500)
    });
    assert!(under_way.count() > 0, "no call met the end");
    assert!(records.iter().any(|record| matches!(record.is, Is::Ended { node: 0, .. })));
}

/// Each invariant has a mutant which nothing else than its violation shows.
#[test]
fn every_invariant_can_be_seen_red() {
    for invariant in Invariant::ALL {
        let catches = |mutant: &Mutant| mutant.caught_by() == [invariant];
        assert!(Mutant::ALL.iter().any(catches), "{invariant:?} has no mutant");
    }
}

/// Seeds and profiles whose traces are compared between processes.
const COMPARED: [(u64, Profile); 8] = [
    (0, Profile::Swarm),
    (1, Profile::Swarm),
    (2, Profile::Swizzle),
    (3, Profile::RotationStorm),
    (4, Profile::ColdStart),
    (5, Profile::Transit),
    (6, Profile::Transit),
    (7, Profile::Transit),
];

fn traces() -> String {
    let hash = |(seed, profile)| history::hash(&run(&plan(seed, profile, hours(1)), None).unwrap());
    COMPARED.map(hash).join(" ")
}

/// As another process: of its own it shows nothing.
#[test]
#[ignore = "a part of one_plan_gives_one_history_in_every_process"]
fn prints_its_traces() {
    println!("traces: {}", traces());
}

#[test]
fn one_plan_gives_one_history_in_every_process() {
    let program = std::env::current_exe().unwrap();
    let others: Vec<_> = (0..2)
        .map(|_| {
            Command::new(&program)
                .args(["--exact", "prints_its_traces", "--ignored", "--nocapture"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let here = traces();
    assert_eq!(here, traces(), "twice in one process");
    for other in others {
        let output = other.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.contains(&format!("traces: {here}\n")),
            "{here} here; in another process {text}"
        );
    }
}

#[test]
fn a_plan_that_fails_is_made_smaller_and_explained() {
    let mut events = vec![(700, What::Rotated), (900, What::Rotated)];
    events.extend((0..3).map(|node| (300, What::Cut { node })));
    let plan = quiet(&events);
    let mutant = Some(Mutant::LabelsWithLatest);
    assert!(broken(&plan, mutant).contains(&Invariant::S3));
    let small = shrink(&plan, mutant, Invariant::S3, |_| ());
    assert_eq!(small.events.len(), 1, "{small:?}");
    assert_eq!(small.events[0].what, What::Rotated);

    let records = run(&small, mutant).unwrap();
    let found = judge(&small, &records);
    let text = timeline(&small, &records, &found[0], 3_600_000);
    for told in
        ["S3 (a key_id names the key that wrapped)", "■ the key is rotated", "Encrypt: ", "writes "]
    {
        assert!(text.contains(told), "{told} is missing:\n{text}");
    }
    let drawn = page(&small, &records, &found[0], 3_600_000);
    for told in ["<svg", "node 0", "the key is rotated", "Encrypt: ok", "written under", "</html>"]
    {
        assert!(drawn.contains(told), "{told} is missing");
    }
}

#[test]
fn a_plan_that_makes_no_sense_is_refused() {
    let good = quiet(&[(1, What::PluginKilled { node: 2 })]);
    for (from, to, wanted) in [
        ("node = 2", "node = 3", "there are 3 nodes"),
        ("what = \"plugin-killed\"", "what = \"plugin-mended\"", "plugin-mended"),
        ("nodes = 3", "nodes = 0", "needs a node"),
        ("seed = 1", "sed = 1", "sed"),
    ] {
        let text = good.to_toml().unwrap().replacen(from, to, 1);
        let error = Plan::from_toml(&text).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
}
