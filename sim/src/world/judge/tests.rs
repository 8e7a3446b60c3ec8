//! What the judge excuses, and what it does not.

use super::{Invariant, judge};
use crate::world::generate::{Profile, Size, plan};
use crate::world::history::{Is, KeyState, Record};
use crate::world::plan::{Gate, Kms, Machine, Plan, Provider, Trouble, What};
use std::time::Duration;

/// Long after anything has settled, in milliseconds.
const LATER: u64 = 1_000_000;

fn quiet(kms: Kms) -> Plan {
    let size = Size { nodes: 1, lasts: Duration::from_secs(3600) };
    Plan { kms, period_s: 10, points: false, ..plan(1, Profile::Calm, size) }
}

/// What is found in a history that begins with one key, and ends as histories do.
fn found(kms: Kms, records: &[(u64, Is)]) -> Vec<Invariant> {
    let first = Is::Keys { current: Some("k-0".to_owned()), changed: vec![(0, KeyState::Usable)] };
    let end = records.last().map_or(0, |(at_ms, _)| *at_ms);
    let all = [(0, first)].into_iter().chain(records.iter().cloned());
    let all = all.chain([(end, Is::Tasks { count: 0 })]);
    let records: Vec<_> = all.map(|(at_ms, is)| Record { at_ms, is }).collect();
    judge(&quiet(kms), &records).into_iter().map(|violation| violation.invariant).collect()
}

fn keys(changed: &[(u64, KeyState)]) -> Is {
    Is::Keys { current: Some("k-1".to_owned()), changed: changed.to_vec() }
}

fn unreadable(version: u64, usable: bool) -> Is {
    Is::Read {
        node: 0,
        object: 0,
        revision: 1,
        same: false,
        tampered: false,
        wrapped_by: Some(version),
        usable,
        error: Some("it cannot be read".to_owned()),
    }
}

fn written(version: u64) -> Is {
    Is::Wrote {
        node: 0,
        object: 0,
        revision: Some(1),
        key_id: Some(format!("k-{version}")),
        wrapped_by: Some(version),
        truly: true,
        shows: false,
        error: None,
    }
}

fn called(rpc: &str, took_ms: u64, key_id: Option<&str>, error: Option<&str>) -> Is {
    Is::Called {
        node: 0,
        provider: "kms".to_owned(),
        rpc: rpc.to_owned(),
        took_ms,
        key_id: key_id.map(ToOwned::to_owned),
        illegal: None,
        error: error.map(ToOwned::to_owned),
    }
}

/// Who makes the key anew has lost what the old one wrapped, and nothing else.
#[test]
fn only_what_was_lost_is_excused() {
    let lost = [
        (10, Is::Event(What::KeyMadeAnew)),
        (10, keys(&[(0, KeyState::Gone), (1, KeyState::Usable)])),
    ];
    let after = |is: Is| found(Kms::Transit, &[&lost[..], &[(LATER, is)]].concat());
    assert_eq!(after(unreadable(0, false)), []);
    // The new key was not lost, and is there.
    assert_eq!(after(unreadable(1, true)), [Invariant::S7]);
    // A version that the event has not taken.
    assert_eq!(after(unreadable(7, false)), [Invariant::S9]);

    // What is lost can be destroyed, but not the other way round.
    let destroyed = [
        (10, Is::Event(What::OldDestroyed)),
        (10, keys(&[(0, KeyState::Gone), (1, KeyState::Usable)])),
        (20, Is::Event(What::KeyMadeAnew)),
        (20, keys(&[(1, KeyState::Gone), (2, KeyState::Usable)])),
        (LATER, unreadable(0, false)),
    ];
    assert_eq!(found(Kms::Transit, &destroyed), [Invariant::S9]);
}

/// A version that is there again has to be read again.
#[test]
fn what_is_back_is_excused_no_longer() {
    let back = [
        (10, Is::Event(What::KeyMadeAnew)),
        (10, keys(&[(0, KeyState::Gone), (1, KeyState::Usable)])),
        (20, Is::Event(What::Restored)),
        (20, keys(&[(0, KeyState::Usable), (1, KeyState::Gone)])),
    ];
    let after = |more: &[(u64, Is)]| found(Kms::Transit, &[&back[..], more].concat());
    assert_eq!(after(&[(LATER, unreadable(0, true))]), [Invariant::S7]);
    assert_eq!(after(&[(LATER, unreadable(1, false))]), []);
    let destroyed = [
        (30, Is::Event(What::OldDestroyed)),
        (30, keys(&[(0, KeyState::Gone)])),
        (LATER, unreadable(0, false)),
    ];
    assert_eq!(after(&destroyed), [Invariant::S9]);
}

/// A key that is barred excuses what it wrapped, and no other.
#[test]
fn what_is_barred_is_excused_while_it_is() {
    let barred = [
        (10, Is::Event(What::OldDisabled)),
        (10, keys(&[(0, KeyState::Barred), (1, KeyState::Usable)])),
    ];
    let after = |is: Is| found(Kms::Simulated, &[&barred[..], &[(LATER, is)]].concat());
    assert_eq!(after(unreadable(0, false)), []);
    assert_eq!(after(unreadable(1, true)), [Invariant::S7]);
    assert_eq!(after(unreadable(2, false)), [Invariant::S9]);
}

/// Writes under a key that is lost end when Status cannot have been good for three minutes.
#[test]
fn writes_under_a_lost_key_end() {
    let lost = [
        (10, Is::Event(What::KeyMadeAnew)),
        (10, keys(&[(0, KeyState::Gone), (1, KeyState::Usable)])),
    ];
    let at = |at_ms| found(Kms::Transit, &[&lost[..], &[(at_ms, written(0))]].concat());
    assert_eq!(at(180_000), []);
    assert_eq!(at(250_000), [Invariant::S8]);
    let new = [(250_000, written(1))];
    assert_eq!(found(Kms::Transit, &[&lost[..], &new].concat()), []);
}

/// And so do writes in an outage.
#[test]
fn writes_in_an_outage_end() {
    let outages =
        [What::Kms { node: 0, does: Trouble::Sealed }, What::KmsTakes { node: 0, ms: 5_100 }];
    for outage in outages {
        let outage = (10, Is::Event(outage));
        let at = |at_ms| found(Kms::Simulated, &[outage.clone(), (at_ms, written(0))]);
        assert_eq!(at(190_000), []);
        assert_eq!(at(220_000), [Invariant::S8]);
    }
}

/// A node all of whose ways to the servers are lost has an outage of its own.
#[test]
fn an_outage_may_be_of_the_ways() {
    let lost = |server| (10, Is::Event(What::Route { node: 0, server, is: Gate::Frozen }));
    let says_ok = (LATER, called("Status", 1, Some("k-0"), None));
    let all = [lost(0), lost(1), lost(2), says_ok.clone()];
    assert_eq!(found(Kms::Transit, &all), [Invariant::S8]);
    assert_eq!(found(Kms::Transit, &[&all[1..], &[says_ok]].concat()), []);
    let killed = (20, Is::Event(What::Server { server: 0, is: Machine::Killed }));
    assert_eq!(found(Kms::Transit, &[&[killed], &all[1..]].concat()), [Invariant::S8]);
}

/// A key_id that was told before may be told again after a backup was restored: once, and no other.
#[test]
fn a_restored_key_is_told_again_once() {
    let told = |at_ms, key_id: &str| (at_ms, called("Status", 1, Some(key_id), None));
    let restored = [
        told(1, "k-1"),
        told(2, "k-2"),
        (3, Is::Event(What::Restored)),
        (3, keys(&[(2, KeyState::Gone)])),
    ];
    let after = |more: &[(u64, Is)]| found(Kms::Transit, &[&restored[..], more].concat());
    assert_eq!(after(&[told(4, "k-2"), told(5, "k-1")]), []);
    assert_eq!(after(&[told(4, "k-1"), told(5, "k-2")]), [Invariant::S4]);
    assert_eq!(found(Kms::Transit, &[&restored[..2], &[told(5, "k-1")]].concat()), [Invariant::S4]);
}

/// The client's patience is not the plugin's: a plugin that says nothing is late, whatever its KMS does.
#[test]
fn a_call_is_answered_before_the_client_gives_up() {
    let late = called("Decrypt", 3_000, None, Some("context deadline exceeded"));
    let hangs = (1, Is::Event(What::Kms { node: 0, does: Trouble::Hangs }));
    assert_eq!(found(Kms::Simulated, &[hangs, (LATER, late.clone())]), [Invariant::L4]);
    let in_time = called("Decrypt", 2_510, None, Some("no answer in time"));
    assert_eq!(found(Kms::Simulated, &[(LATER, in_time)]), [Invariant::S7; 0]);
    // Who cannot be reached answers nobody.
    let cut = (LATER - 10_000, Is::Event(What::Cut { node: 0 }));
    assert_eq!(found(Kms::Simulated, &[cut, (LATER, late)]), []);
}

/// However few requests there are in a minute, they may not all be made at once.
#[test]
fn a_flood_of_requests_is_seen() {
    let asked = |under_way| {
        (LATER, Is::Asked { node: 0, path: "transit/decrypt/kms".to_owned(), under_way })
    };
    assert_eq!(found(Kms::Transit, &[asked(16)]), []);
    assert_eq!(found(Kms::Transit, &[asked(17)]), [Invariant::S11]);
    let cut = (LATER - 10_000, Is::Event(What::Cut { node: 0 }));
    assert_eq!(found(Kms::Transit, &[cut.clone(), asked(72 * 6)]), []);
    assert_eq!(found(Kms::Transit, &[cut, asked(72 * 6 + 1)]), [Invariant::S11]);
}

#[test]
fn between_faults_everything_works() {
    let failed = |error: &str| Some(error.to_owned());
    let write = Is::Wrote {
        node: 0,
        object: 0,
        revision: None,
        key_id: None,
        wrapped_by: None,
        truly: false,
        shows: false,
        error: failed("expired"),
    };
    let health = Is::Health { node: 0, error: failed("not well") };
    let killed = (LATER - 10_000, Is::Event(What::PluginKilled { node: 0 }));
    for (is, wanted) in [(write, Invariant::L2), (health, Invariant::L1)] {
        assert_eq!(found(Kms::Simulated, &[(LATER, is.clone())]), [wanted]);
        assert_eq!(found(Kms::Simulated, &[killed.clone(), (LATER, is)]), []);
    }
}

/// What is stored in clear is excused only where an operator wants it so.
#[test]
fn clear_is_what_is_configured_so() {
    let clear = Is::Wrote {
        node: 0,
        object: 0,
        revision: Some(1),
        key_id: None,
        wrapped_by: None,
        truly: false,
        shows: true,
        error: None,
    };
    let configured = |at_ms, providers: &[Provider]| {
        (at_ms, Is::Event(What::Configured { node: 0, providers: providers.to_vec() }))
    };
    let kms = Provider::Kms("kms".to_owned());
    let to_clear = configured(10, &[Provider::Identity, kms.clone()]);
    let back = configured(LATER, &[kms, Provider::Identity]);
    let at =
        |at_ms| found(Kms::Simulated, &[to_clear.clone(), back.clone(), (at_ms, clear.clone())]);
    assert_eq!(found(Kms::Simulated, &[(LATER, clear.clone())]), [Invariant::S2]);
    assert_eq!(found(Kms::Simulated, &[to_clear.clone(), (LATER, clear.clone())]), []);
    assert_eq!(at(LATER + 60_000), []);
    assert_eq!(at(LATER + 300_000), [Invariant::S2]);
}
