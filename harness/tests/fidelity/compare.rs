//! A recording of a real apiserver against one of the model.

use crate::recording::{Call, Connection, Outcome, Recording};

/// How far apart the same event may be, in milliseconds: the real one ran on a busy machine.
pub const TOLERANCE: i64 = 1_000;

/// Panics with all that differs after `from` milliseconds.
pub fn assert_alike(real: &Recording, model: &Recording, from: i64, tolerance: i64) {
    let (real, model) = (after(real, from), after(model, from));
    let mut faults = Vec::new();
    if real.connections.len() != model.connections.len() {
        let (real, model) = (real.connections.len(), model.connections.len());
        faults.push(format!("{real} connections, the model has {model}"));
    }
    for (number, (real, model)) in real.connections.iter().zip(&model.connections).enumerate() {
        let found = connection(real, model, from, tolerance);
        faults.extend(found.into_iter().map(|fault| format!("connection {number}: {fault}")));
    }
    assert!(
        faults.is_empty(),
        "the model differs from kube-apiserver {} in {:?}:\n  {}\nreal: {real:#?}\nmodel: {model:#?}",
        real.version,
        real.scenario,
        faults.join("\n  "),
    );
}

/// Without what was over by then.
fn after(recording: &Recording, from: i64) -> Recording {
    let mut after = recording.clone();
    after.connections.retain(|connection| connection.ended.is_none_or(|(at, _)| at >= from));
    for connection in &mut after.connections {
        connection.calls.retain(|call| call.at >= from);
    }
    after
}

/// What differs between two connections after `from`.
pub fn connection(real: &Connection, model: &Connection, from: i64, tolerance: i64) -> Vec<String> {
    let mut faults = Vec::new();
    let apart = |what: &str, real: i64, model: i64| {
        let far = (real - model).abs() > tolerance;
        far.then(|| format!("{what} at {real} ms, that of the model at {model} ms"))
    };
    // When the first one was made depends on what came before.
    if real.at >= from {
        faults.extend(apart("it was made", real.at, model.at));
    }
    match (real.ended, model.ended) {
        (Some((real, by)), Some((model, model_by))) if by == model_by => {
            faults.extend(apart("it ended", real, model));
        }
        (real, model) if real == model => {}
        (real, model) => faults.push(format!("it ended: {real:?}, that of the model: {model:?}")),
    }
    if real.calls.len() != model.calls.len() {
        let (real, model) = (real.calls.len(), model.calls.len());
        faults.push(format!("{real} calls, the model makes {model}"));
    }
    for (real, model) in real.calls.iter().zip(&model.calls) {
        faults.extend(apart(&real.method, real.at, model.at));
        faults.extend(call(real, model, tolerance));
    }
    faults
}

/// What differs between two calls but for the moment.
pub fn call(real: &Call, model: &Call, tolerance: i64) -> Option<String> {
    let close = |real: i64, model: i64| (real - model).abs() <= tolerance;
    let outcomes = match (real.outcome, model.outcome) {
        (Outcome::GivenUp(real), Outcome::GivenUp(model)) => close(real, model),
        (real, model) => real == model,
    };
    let same = real.method == model.method
        && real.authority == model.authority
        && real.bytes == model.bytes
        && real.uid == model.uid
        && real.metadata == model.metadata
        && close(real.timeout, model.timeout)
        && outcomes;
    (!same).then(|| format!("a call differs: {real:?}, that of the model: {model:?}"))
}

/// Panics unless the pauses before these connections are those of grpc-go's backoff, each a fifth longer or
/// shorter: of each the end, and the beginning of the next.
pub fn assert_backoff(who: &str, connections: &[Connection]) {
    let pauses = connections.windows(2).map(|two| {
        let (ended, _) = two[0].ended.expect("the attempt failed");
        two[1].at - ended
    });
    let mut exact = 1000.0;
    for (number, pause) in pauses.enumerate() {
        let jitter = if number == 0 { 0.0 } else { 0.2 };
        #[allow(clippy::cast_precision_loss, reason = "minutes in milliseconds")]
        let pause = pause as f64;
        let legal = exact * (1.0 - jitter) - 50.0..=exact * (1.0 + jitter) + 300.0;
        assert!(legal.contains(&pause), "{who}: pause {number} is {pause} ms, not in {legal:?}");
        exact = (exact * 1.6).min(120_000.0);
    }
}
