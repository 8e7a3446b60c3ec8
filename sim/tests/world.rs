//! Whole clusters in memory: the same plan gives the same history, nothing is lost, and whoever is broken is
//! caught.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "these are tests")]

use std::time::Duration;

use kleidi_sim::world::explain::timeline;
use kleidi_sim::world::generate::{Profile, Size, plan};
use kleidi_sim::world::history::{self, Is};
use kleidi_sim::world::judge::{Invariant, judge};
use kleidi_sim::world::mutant::Mutant;
use kleidi_sim::world::page::page;
use kleidi_sim::world::plan::{Event, Kms, Machine, Plan, Trouble, What};
use kleidi_sim::world::run::run;
use kleidi_sim::world::shrink::{broken, shrink};

fn hours(hours: u64) -> Size {
    Size { nodes: 3, lasts: Duration::from_secs(hours * 3600) }
}

/// Nothing happens but for these.
fn quiet(events: &[(u64, What)]) -> Plan {
    let events =
        events.iter().map(|(seconds, what)| Event { at_ms: seconds * 1000, what: what.clone() });
    Plan { events: events.collect(), ..plan(1, Profile::Calm, hours(1)) }
}

#[test]
fn everything_holds_in_every_profile() {
    for (name, profile) in Profile::ALL {
        for seed in 0..3 {
            let plan = plan(seed, profile, hours(2));
            let records = run(&plan, None).unwrap();
            assert_eq!(judge(&plan, &records), [], "{name}, seed {seed}");
            let reads = records.iter().filter(|record| matches!(record.is, Is::Read { .. }));
            assert!(reads.count() > 36, "{name}, seed {seed}: it is used");
        }
    }
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

/// A key is rotated while a server wraps with another version than was asked for, standbys are behind, and
/// apiservers begin anew.
#[test]
fn clients_of_transit_that_do_not_look_are_caught() {
    let mut events = vec![(300, What::Rotated)];
    events.extend((0..3).map(|node| (310, What::Kms { node, does: Trouble::WrapsWithPrevious })));
    events.extend((0..3).map(|node| (600, What::ApiserverRestarted { node })));
    events.extend((0..3).map(|node| (900, What::Kms { node, does: Trouble::None })));
    events.push((1200, What::Rotated));
    events.extend((0..3).map(|node| (1800, What::ApiserverRestarted { node })));
    let plan = Plan { kms: Kms::Transit, ..quiet(&events) };
    assert_eq!(broken(&plan, None), []);
    for mutant in Mutant::ALL.into_iter().filter(|mutant| mutant.is_of_transit()) {
        let found = broken(&plan, Some(mutant));
        let caught = found.iter().any(|invariant| mutant.caught_by().contains(invariant));
        assert!(caught, "{mutant:?} survives: {found:?}");
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

/// What failed once does not fail any more.
#[test]
fn regressions_hold() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions");
    // There is none before something has failed.
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let file = entry.unwrap().path();
        let plan = Plan::from_toml(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let records = run(&plan, None).unwrap();
        assert_eq!(judge(&plan, &records), [], "{}", file.display());
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
    let text = timeline(&small, &records, &found[0], 60_000);
    for told in ["S3 (a key_id names the key that wrapped)", "■ rotated", "Encrypt: ", "writes "]
    {
        assert!(text.contains(told), "{told} is missing:\n{text}");
    }
    let drawn = page(&small, &records, &found[0], 60_000);
    for told in ["<svg", "node 0", "rotated", "Encrypt: ok", "written under", "</html>"] {
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
