//! The model makes the calls that real kube-apiservers were recorded making, when they made them.

use crate::compare::{TOLERANCE, assert_alike, assert_backoff, call, connection};
use crate::recording::{By, Call, Connection, Recording};
use crate::script::{LATE, SCENARIOS, Scenario};
use crate::{CHANGED_AT, DIFFERENT_SEEDS, HEALTH_FROM, VERSIONS, replay};

/// Until then the real one looks at its own health until it is ready, which takes it as long as the machine
/// lets it; each of its Statuses makes the next poll unnecessary for 20 s.
const READY: i64 = 110_000;

fn scenario(name: &str) -> &'static Scenario {
    SCENARIOS.iter().find(|scenario| scenario.name == name).expect("there is one")
}

fn poll(name: &str, tolerance: i64) {
    for version in VERSIONS {
        let real = Recording::load(version, name);
        assert_alike(&real, &replay::poll(version, scenario(name)), READY, tolerance);
    }
}

#[test]
fn idle() {
    poll("idle", TOLERANCE);
}

#[test]
fn rotate() {
    poll("rotate", TOLERANCE);
}

#[test]
fn outage() {
    poll("outage", TOLERANCE);
}

#[test]
fn hang() {
    poll("hang", TOLERANCE);
}

#[test]
fn disagree() {
    poll("disagree", TOLERANCE);
}

#[test]
fn plugin_restart() {
    poll("plugin-restart", TOLERANCE);
}

#[test]
fn plugin_restart_under_a_call() {
    poll("plugin-restart-under-a-call", TOLERANCE);
}

/// The call that finds nobody waits, and is made with what is left of its time.
#[test]
fn plugin_away_shortly() {
    poll("plugin-away-shortly", TOLERANCE);
}

/// Attempts of which each comes after a longer pause; their number depends on chance.
#[test]
fn plugin_away() {
    for version in VERSIONS {
        let model = replay::poll(version, scenario("plugin-away"));
        for (who, recording) in
            [(version, Recording::load(version, "plugin-away")), ("model", model)]
        {
            let attempts = attempts(&recording);
            assert_backoff(who, &attempts);
            assert!((8..=11).contains(&attempts.len()), "{who}: {} attempts", attempts.len());
            assert!((180_000 - attempts[0].at).abs() < TOLERANCE, "{who}: {}", attempts[0].at);
        }
    }
}

/// A connection on which the server says nothing is none: each attempt lasts 20 s.
#[test]
fn plugin_says_nothing() {
    for version in VERSIONS {
        let model = replay::poll(version, scenario("plugin-says-nothing"));
        let real = Recording::load(version, "plugin-says-nothing");
        for (who, recording) in [(version, real), ("model", model)] {
            let attempts = attempts(&recording);
            assert_backoff(who, &attempts);
            for attempt in &attempts[..attempts.len() - 1] {
                let (ended, _) = attempt.ended.expect("another came");
                assert!((ended - attempt.at - 20_000).abs() < TOLERANCE, "{who}: {attempt:?}");
            }
            assert_eq!(attempts.len(), 4, "{who}");
        }
    }
}

/// The connections behind the first.
fn attempts(recording: &Recording) -> Vec<Connection> {
    assert!(recording.connections[1..].iter().all(|connection| connection.calls.is_empty()));
    recording.connections[1..].to_vec()
}

/// While it is not ready, an apiserver looks at its plugin every 3 s; then each minute.
#[test]
fn late() {
    for version in VERSIONS {
        let model = replay::poll(version, &LATE);
        for (who, recording) in [(version, Recording::load(version, LATE.name)), ("model", model)] {
            let [connection] = &recording.connections[..] else { panic!("{recording:?}") };
            let statuses: Vec<_> =
                connection.calls.iter().filter(|call| call.method == "Status").collect();
            let asked: Vec<_> = statuses.iter().map(|call| call.at).collect();
            // It begins to ask itself some seconds after its start.
            let early: Vec<_> =
                asked.iter().copied().filter(|at| (10_000..45_000).contains(at)).collect();
            assert!(
                early.windows(2).all(|two| (3_000..4_000).contains(&(two[1] - two[0]))),
                "{who}: {early:?}"
            );
            let encrypts = connection.calls.len() - statuses.len();
            assert_eq!(encrypts, 1, "{who}: the first answer with a key_id, sick or not");
        }
    }
}

#[test]
fn start() {
    for version in VERSIONS {
        let (real, model) = (Recording::load(version, "start"), replay::start(version));
        let (real, model) = (&real.connections, &model.connections);
        let ([real], [model]) = (&real[..], &model[..]) else { panic!("{real:?}, {model:?}") };
        assert_eq!(real.calls.len(), 2 + DIFFERENT_SEEDS, "{version}");
        assert_eq!(model.calls.len(), 2 + DIFFERENT_SEEDS, "the model of {version}");
        // In whatever order, they are alike.
        for (real, model) in real.calls.iter().zip(&model.calls) {
            assert_eq!(call(real, model, TOLERANCE), None);
        }
        let at_once =
            |connection: &Connection| connection.calls.iter().map(|call| call.at_once).max();
        assert_eq!(at_once(real), at_once(model), "{version}: Decrypts at a time");
    }
}

/// A good result is given again for 20 s, and then until somebody asks, which is within a second.
#[test]
fn health() {
    for version in VERSIONS {
        let model = replay::health(version);
        for (who, recording) in [(version, Recording::load(version, "health")), ("model", model)] {
            let [connection] = &recording.connections[..] else { panic!("{recording:?}") };
            let calls =
                connection.calls.iter().filter(|call| call.at > HEALTH_FROM.cast_signed() * 1000);
            let at: Vec<_> = calls.map(|call| call.at).collect();
            assert!((5..=6).contains(&at.len()), "{who}: {at:?}");
            let legal = 20_000..21_000 + TOLERANCE;
            assert!(at.windows(2).all(|two| legal.contains(&(two[1] - two[0]))), "{who}: {at:?}");
        }
    }
}

/// When in its minute the file is looked at depends on when the apiserver was ready; all else follows from it.
#[test]
fn reload() {
    for version in VERSIONS {
        let (real, model) = (Recording::load(version, "reload"), replay::reload(version));
        for (who, recording) in [(version, &real), ("model", &model)] {
            let [old, new] = &recording.connections[..] else { panic!("{who}: {recording:?}") };
            let within =
                CHANGED_AT.cast_signed() * 1000..(CHANGED_AT.cast_signed() + 60) * 1000 + TOLERANCE;
            assert!(within.contains(&new.at), "{who}: {}", new.at);
            let (ended, by) = old.ended.expect("the old connection ends");
            assert_eq!(by, By::Apiserver);
            let grace = ended - new.calls[1].at;
            assert!((grace - 6_000).abs() < TOLERANCE, "{who}: twice the old timeout, {grace} ms");
            let late = old.calls.iter().filter(|call| call.at > READY);
            assert!(late.clone().count() >= 1, "{who}");
            for call in late {
                assert!((call.at + 500) % 60_000 < TOLERANCE, "{who}: polls go on: {call:?}");
                assert_eq!(call.timeout, 3_000, "{who}");
            }
        }
        let (real, model) = (since_it_was_made(&real), since_it_was_made(&model));
        assert_eq!(connection(&real.0, &model.0, READY, TOLERANCE), [""; 0], "{version}");
        assert_eq!(real.1.len(), 2, "{version}: the seeds are asked for again");
        for (real, model) in real.1.iter().zip(&model.1) {
            assert_eq!(call(real, model, TOLERANCE), None, "{version}");
        }
    }
}

/// The second connection with its first three calls but Decrypt, with their times since then; and its Decrypts.
fn since_it_was_made(recording: &Recording) -> (Connection, Vec<Call>) {
    let mut connection = recording.connections[1].clone();
    let calls = std::mem::take(&mut connection.calls);
    let (decrypts, mut others): (Vec<_>, Vec<_>) =
        calls.into_iter().partition(|call| call.method == "Decrypt");
    others.truncate(3);
    for call in &mut others {
        call.at -= connection.at;
    }
    (Connection { at: 0, calls: others, ..connection }, decrypts)
}
