//! What an observation changes, as plain function calls.

use std::time::Duration;

use tokio::time::Instant;

use super::fake::{key, outage};
use crate::backend::{BackendError, Key, KeySet};
use crate::provider::Error;
use crate::provider::snapshot::{Event, State};

/// An observation of keys by number, the current one last.
#[allow(clippy::unnecessary_wraps, reason = "an observation is a Result")]
fn keys(numbers: &[u8]) -> Result<KeySet, BackendError> {
    let mut keys = numbers.iter().rev().map(|n| key(*n));
    Ok(KeySet {
        current: keys.next().unwrap(),
        older: keys.collect(),
        without_id: Vec::new(),
        refused: Vec::new(),
        facts: std::sync::Arc::new([]),
    })
}

#[test]
fn an_outage_is_told_once_when_it_begins_and_once_when_it_ends() {
    let mut state = State::default();
    let begin = Instant::now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    assert_eq!(state.apply(keys(&[1]), at(0)), [Event::Ready(key(1).id)]);
    assert_eq!(state.apply(keys(&[1]), at(10)), []);
    assert_eq!(state.apply(Err(outage("a")), at(20)), [Event::OutageBegan(outage("a"))]);
    assert_eq!(state.apply(Err(outage("a")), at(21)), []);
    assert_eq!(state.apply(Err(outage("b")), at(22)), [Event::OutageChanged(outage("b"))]);
    assert_eq!(state.apply(Err(outage("b")), at(23)), []);
    let wanted = [Event::OutageEnded(Duration::from_secs(10))];
    assert_eq!(state.apply(keys(&[1]), at(30)), wanted);
    assert_eq!(state.apply(keys(&[1]), at(40)), []);
}

#[test]
fn an_outage_at_the_start_ends_with_the_first_key() {
    let (mut state, now) = (State::default(), Instant::now());
    assert_eq!(state.apply(Err(outage("a")), now), [Event::OutageBegan(outage("a"))]);
    let wanted = [Event::OutageEnded(Duration::ZERO), Event::Ready(key(1).id)];
    assert_eq!(state.apply(keys(&[1]), now), wanted);
}

#[test]
fn keys_that_come_and_go_are_told() {
    let (mut state, now) = (State::default(), Instant::now());
    let changed = |from, to| Event::CurrentKeyChanged { from: key(from).id, to: key(to).id };
    let gone = |n| Event::KeyGone(format!("key {n} (key_id {})", key(n).id));
    state.apply(keys(&[1]), now);
    assert_eq!(state.apply(keys(&[1, 2]), now), [changed(1, 2)]);
    let appeared = Event::KeyAppeared(format!("key 3 ({})", key(3).id));
    assert_eq!(state.apply(keys(&[1, 3, 2]), now), [appeared]);
    assert_eq!(state.apply(keys(&[3, 2]), now), [gone(1)]);
    assert_eq!(state.apply(keys(&[3]), now), [gone(2), changed(2, 3)]);
}

#[test]
fn a_key_that_still_unwraps_is_not_gone() {
    let (mut state, now) = (State::default(), Instant::now());
    let with = |names: &[&str]| {
        let without_id = names.iter().map(|name| (*name).to_owned()).collect();
        keys(&[2]).map(|keys| KeySet { without_id, ..keys })
    };
    state.apply(keys(&[1, 2]), now);
    // It has been forbidden to encrypt, and so has no id any more.
    assert_eq!(state.apply(with(&["key 1"]), now), []);
    assert_eq!(state.apply(keys(&[2]), now), [Event::KeyGone("key 1".to_owned())]);
    // The same material under another number.
    let renumbered = |n| {
        let version = crate::key_id::Version::of_number(n);
        let id = crate::key_id::KeyId::new(key(1).id.fingerprint(), &version);
        keys(&[2]).map(|keys| KeySet { older: vec![Key { id, ..key(1) }], ..keys })
    };
    state.apply(renumbered(7), now);
    let events = state.apply(renumbered(8), now);
    assert!(matches!(events[..], [Event::KeyAppeared(_)]), "{events:?}");
}

#[test]
fn refused_keys_are_told_once() {
    let (mut state, now) = (State::default(), Instant::now());
    let with = |refused: &[&str]| {
        let refused = refused.iter().map(|why| (*why).to_owned()).collect();
        keys(&[1]).map(|keys| KeySet { refused, ..keys })
    };
    state.apply(with(&["a"]), now);
    assert_eq!(state.apply(with(&["a"]), now), []);
    assert_eq!(state.apply(with(&["a", "b"]), now), [Event::KeyRefused("b".to_owned())]);
}

#[test]
fn health_is_vouched_for_only_so_long() {
    let (mut state, now) = (State::default(), Instant::now());
    let stale_after = Duration::from_secs(30);
    assert_eq!(state.healthy(now, stale_after), Err(Error::Starting));
    state.apply(keys(&[1]), now);
    assert!(state.healthy(now + stale_after, stale_after).is_ok());
    let late = stale_after + Duration::from_millis(1);
    assert_eq!(state.healthy(now + late, stale_after), Err(Error::Stale(late)));
    // The keys are kept through an outage, but they are not vouched for.
    state.apply(Err(outage("a")), now);
    assert!(state.keys.is_some());
    assert!(matches!(state.healthy(now, stale_after), Err(Error::Outage { .. })));
}
