//! The model makes the calls that real kube-apiservers were recorded making, when they made them.

use crate::compare::{TOLERANCE, assert_alike, assert_backoff};
use crate::recording::{Connection, Recording};
use crate::script::{LATE, SCENARIOS, Scenario};
use crate::{VERSIONS, replay};

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
        let model = replay::start(version);
        let real = Recording::load(version, "start");
        for (who, recording) in [(version, &real), ("model", &model)] {
            let [connection] = &recording.connections[..] else { panic!("{recording:?}") };
            let methods: Vec<_> =
                connection.calls.iter().map(|call| call.method.as_str()).collect();
            assert_eq!(methods[..2], ["Status", "Encrypt"], "{who}");
            assert!(methods[2..].iter().all(|method| *method == "Decrypt"), "{who}");
        }
        let decrypts = |recording: &Recording| recording.connections[0].calls[2..].to_vec();
        let (real, model) = (decrypts(&real), decrypts(&model));
        let shape = |call: &crate::recording::Call| {
            (
                call.authority.clone(),
                call.bytes,
                call.uid.clone(),
                call.metadata.clone(),
                call.outcome,
            )
        };
        assert_eq!(shape(&real[0]), shape(&model[0]), "{version}");
        let at_once =
            |calls: &[crate::recording::Call]| calls.iter().map(|call| call.at_once).max();
        eprintln!("{version}: {} {:?} {:?}", real.len(), at_once(&real), at_once(&model));
        assert_eq!(real.len(), model.len(), "{version}");
        assert_eq!(at_once(&real), at_once(&model), "{version}");
    }
}

#[test]
fn health() {
    for version in VERSIONS {
        let real = Recording::load(version, "health");
        assert_alike(&real, &replay::health(version), READY, 2_000);
    }
}

#[test]
fn reload() {
    for version in VERSIONS {
        let real = Recording::load(version, "reload");
        assert_alike(&real, &replay::reload(version), READY, TOLERANCE);
    }
}
