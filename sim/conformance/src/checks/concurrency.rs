//! Many calls at a time: kube-apiserver has one connection for all its requests.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

use crate::cancel::Caller;
use crate::check::Level::{Info, Must, Should};
use crate::check::Profile::Concurrency;
use crate::check::{Check, Outcome, Stop};
use crate::client::{Client, SERVICE, back, describe, overdue};
use crate::context::{Context, Demand as _, demand};
use crate::raw::{self, NO_WINDOW, Raw};
use crate::source::Document::{Grpc, GrpcTest, Manual};
use crate::source::{lines, whole};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        id: "concurrency.parallel-roundtrips",
        profile: Concurrency,
        level: Must,
        requirement: "Calls at the same time get their own answers.",
        sources: &[
            lines(Grpc, 42, 47, "one client for all requests"),
            whole(GrpcTest, "TestGRPCServiceConcurrentAccess: 100 pairs at a time"),
        ],
        procedure: "64 tasks on one connection, each encrypts and decrypts 16 seeds.",
        asserts: "Each plaintext is its own seed. Calls that take longer than --timeout are counted and \
                  reported: see concurrency.parallel-within-timeout. Not run where fewer than half of the round \
                  trips end before.",
        run: |cx| Box::pin(parallel_roundtrips(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "concurrency.parallel-within-timeout",
        profile: Concurrency,
        level: Should,
        requirement: "64 round trips at a time end within the timeout.",
        rationale: "After an apiserver's start many objects are read at once, each with a seed of its own.",
        procedure: "64 tasks on one connection, each encrypts and decrypts 16 seeds.",
        asserts: "Each call is answered within --timeout.",
        run: |cx| Box::pin(parallel_within_timeout(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "concurrency.status-under-load",
        profile: Concurrency,
        level: Should,
        requirement: "Status answers within the timeout while Encrypt and Decrypt are busy.",
        rationale: "A plugin that is merely busy must not be taken for dead: writes would stop.",
        procedure: "Keep 32 round trips going on one connection; when 64 have ended, in time or not, or --timeout \
                    has passed, call Status ten times on another, a hundredth of a second apart.",
        asserts: "Each Status is answered with OK within --timeout. Not run where round trips fail, but for being \
                  late, before the first.",
        run: |cx| Box::pin(status_under_load(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "concurrency.status-constant-load",
        profile: Concurrency,
        level: Must,
        requirement: "Status is answered on one connection however often it was before.",
        sources: &[
            whole(Manual, "Status is under constant load"),
            lines(Grpc, 42, 47, "one client, and one connection, for as long as it lasts"),
        ],
        rationale: "kube-apiserver asks once a minute, for months: whatever runs out takes writes away.",
        procedure: "Call Status 300 times on one connection, a hundredth of a second apart.",
        asserts: "Each call is answered with OK.",
        run: |cx| Box::pin(status_constant_load(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "concurrency.cancelled-calls",
        profile: Concurrency,
        level: Should,
        requirement: "Calls that were cancelled leave nothing behind.",
        rationale: "kube-apiserver cancels a Decrypt whose client went away.",
        procedure: "Time 100 Encrypts; cancel 1,000 by RST_STREAM, eight at a time with a whole call between, every \
                    other eight in one piece with their beginning, the others later, the sooner the fewer of the \
                    eight before were in time; time 100 again, on the same connection.",
        asserts: "All timed calls succeed; the second p95 is at most ten times the first, or 250 ms more. Not run \
                  where fewer than a tenth of those that were cancelled later were cut off before their answer.",
        run: |cx| Box::pin(cancelled_calls(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "concurrency.slow-reader",
        profile: Concurrency,
        level: Should,
        requirement: "A client that takes no answers keeps no other waiting.",
        rationale: "An apiserver that is stopped or swapped out must not take the others' plugin away.",
        procedure: "On one connection grant no flow-control window and call Status 64 times; then \
                    encrypt and decrypt on another; close the first; call on ten new ones, over half \
                    a second.",
        asserts: "All calls but those on the first succeed within --timeout.",
        run: |cx| Box::pin(slow_reader(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "concurrency.latency",
        profile: Concurrency,
        level: Info,
        requirement: "How long the calls take, one at a time.",
        rationale: "A figure to compare with oneself; not with others, on another machine.",
        procedure: "200 calls of each kind on one connection.",
        asserts: "p50 and p99 are reported.",
        run: |cx| Box::pin(latency(cx)),
        ..Check::DEFAULT
    },
];

/// One seed there and back.
async fn round_trip(client: &Client, seed: &[u8], uid: String) -> Result<Vec<u8>, Status> {
    let wrapped = client.encrypt(seed, uid.clone()).await?;
    client.decrypt(back(&wrapped, uid)).await
}

/// Whether a call took too long, as the client or the plugin says.
fn late(status: &Status) -> bool {
    overdue(status) || status.code() == Code::DeadlineExceeded
}

/// Makes round trips at a time; gives how many ended in time, and how many did not.
async fn parallel(cx: &Context) -> Result<(usize, usize), Stop> {
    let client = cx.connect().await?;
    let load = cx.settings().load;
    let mut tasks = JoinSet::new();
    for _ in 0..load.parallel {
        let client = client.clone();
        let seeds: Vec<_> = (0..load.rounds).map(|_| (cx.seed(), cx.uid())).collect();
        tasks.spawn(async move {
            let (mut in_time, mut too_late) = (0, 0);
            for (seed, uid) in seeds {
                match round_trip(&client, &seed, uid).await {
                    Err(status) if late(&status) => too_late += 1,
                    answer => {
                        let answer = answer.or_failed("a round trip")?;
                        demand(answer == seed, || {
                            "a Decrypt answered with another call's seed".to_owned()
                        })?;
                        in_time += 1;
                    }
                }
            }
            Ok::<_, Stop>((in_time, too_late))
        });
    }
    let mut sums = (0, 0);
    while let Some(ended) = tasks.join_next().await {
        let (in_time, too_late) = ended.map_err(|error| Stop::Broken(error.to_string()))??;
        sums = (sums.0 + in_time, sums.1 + too_late);
    }
    cx.note(format!("{} round trips ended in time, {} did not", sums.0, sums.1));
    Ok(sums)
}

async fn parallel_roundtrips(cx: &Context) -> Outcome {
    let (in_time, too_late) = parallel(cx).await?;
    enough(in_time, too_late)
}

/// What few answers show is not that calls at the same time get their own.
fn enough(in_time: usize, too_late: usize) -> Outcome {
    if in_time == 0 || in_time < too_late {
        let all = in_time + too_late;
        return Err(Stop::NotRun(format!("only {in_time} of {all} round trips ended in time")));
    }
    Ok(())
}

async fn parallel_within_timeout(cx: &Context) -> Outcome {
    match parallel(cx).await {
        Ok((_, 0)) => Ok(()),
        Ok((in_time, too_late)) => Err(Stop::Failed(format!(
            "{too_late} of {} round trips did not end within {:?}",
            in_time + too_late,
            cx.settings().timeout
        ))),
        Err(Stop::Failed(why)) => {
            Err(Stop::NotRun(format!("see concurrency.parallel-roundtrips: {why}")))
        }
        Err(stop) => Err(stop),
    }
}

async fn status_under_load(cx: &Context) -> Outcome {
    let busy = cx.connect().await?;
    let client = cx.connect().await?;
    let mut tasks = JoinSet::new();
    let (calls, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for _ in 0..32 {
        let (busy, seed) = (busy.clone(), cx.seed());
        let (calls, ended) = (Arc::clone(&calls), Arc::clone(&ended));
        tasks.spawn(async move {
            loop {
                let uid =
                    format!("00000000-0000-4000-8000-{:012}", calls.fetch_add(1, Ordering::SeqCst));
                match round_trip(&busy, &seed, uid).await {
                    Err(status) if !late(&status) => break describe(&status),
                    // A plugin with which they are late is under load more than any.
                    _ => ended.fetch_add(1, Ordering::SeqCst),
                };
            }
        });
    }
    let loaded = async || (ended.load(Ordering::SeqCst) >= 64).then_some(());
    // Thereafter the load is what is in flight.
    cx.poll(cx.settings().timeout, loaded).await;
    if let Some(failed) = tasks.try_join_next() {
        let why = failed.unwrap_or_else(|error| error.to_string());
        return Err(Stop::NotRun(format!("no load came about: a round trip failed: {why}")));
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        let begin = Instant::now();
        client.status().await.or_failed("Status under load")?;
        slowest = slowest.max(begin.elapsed());
        // Round trips that are late end all at once, and for a moment there is no load.
        sleep(PACE).await;
    }
    cx.note(format!("the slowest of 10 took {slowest:.1?}"));
    // A busy task ends only by an error.
    demand(tasks.len() == 32 && tasks.try_join_next().is_none(), || {
        "round trips failed under load".to_owned()
    })
}

/// The least, p50, p95 and p99, by nearest rank.
fn ranks(mut times: Vec<Duration>) -> [Duration; 4] {
    times.sort();
    let rank = |percent: usize| (times.len() * percent).div_ceil(100).saturating_sub(1);
    [0, 50, 95, 99].map(|percent| times.get(rank(percent)).copied().unwrap_or_default())
}

/// The times of calls, one after another; see [`ranks`].
async fn timed<T, F>(calls: usize, mut call: impl FnMut() -> F) -> Result<[Duration; 4], Status>
where
    F: Future<Output = Result<T, Status>>,
{
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let begin = Instant::now();
        call().await?;
        times.push(begin.elapsed());
    }
    Ok(ranks(times))
}

/// Between two calls of Status: a hundred a second are far more than any apiserver makes.
const PACE: Duration = Duration::from_millis(10);

async fn status_constant_load(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    for call in 1..=cx.settings().load.statuses {
        client.status().await.or_failed(&format!("Status number {call} on one connection"))?;
        sleep(PACE).await;
    }
    Ok(())
}

async fn cancelled_calls(cx: &Context) -> Outcome {
    let settings = cx.settings();
    let mut caller =
        Caller::connect(&settings.endpoints[0], settings.timeout).await.map_err(Stop::NotRun)?;
    let unwell = |why| Stop::NotRun(format!("it begins with an Encrypt, which failed: {why}"));
    let [least, _, before, _] = encrypts(cx, &mut caller).await.map_err(unwell)?;
    // Three quarters of a call: later the server would be done with them.
    let mut later = least * 3 / 4;
    let (mut left, mut begun) = (settings.load.cancelled, 0);
    while left > 0 {
        // Few at a time: servers take many resets at once for an attack (CVE-2023-44487).
        let batch = left.min(8);
        let calls = (0..batch).map(|_| (cx.seed(), cx.uid())).collect();
        let after = (left / 8 % 2 == 0).then_some(later);
        let cut_before = caller.cut();
        let failed = |why| Stop::Failed(format!("Encrypt after a cancelled call: {why}"));
        caller.cancel(calls, after).await.map_err(failed)?;
        // A whole call between: the server has seen the resets before there are more.
        caller.encrypt(cx.seed(), cx.uid()).await.map_err(failed)?;
        if after.is_some() {
            begun += batch;
            if (caller.cut() - cut_before) * 2 < batch {
                later /= 2;
            }
        }
        left -= batch;
    }
    let failed = |why| Stop::Failed(format!("Encrypt after the cancelled calls: {why}"));
    let [_, _, after, _] = encrypts(cx, &mut caller).await.map_err(failed)?;
    let cut = caller.cut();
    caller.close().await;
    cx.note(format!(
        "of {begun} calls that were cancelled after their beginning {cut} were cut off before their answer"
    ));
    cx.note(format!("p95 of Encrypt {before:.1?} before, {after:.1?} after"));
    demand(after <= before * 10 || after <= before + Duration::from_millis(250), || {
        format!("p95 of Encrypt was {before:.1?} before, and {after:.1?} after")
    })?;
    in_flight(cut, begun)
}

/// What is cancelled in one piece with its beginning is never answered, which shows nothing; nor does a reset
/// that comes after the answer.
fn in_flight(cut: usize, begun: usize) -> Outcome {
    if begun == 0 || cut * 10 < begun {
        return Err(Stop::NotRun(format!("only {cut} of {begun} calls were cut off in flight")));
    }
    Ok(())
}

/// The times of Encrypts, one after another; see [`ranks`].
async fn encrypts(cx: &Context, caller: &mut Caller) -> Result<[Duration; 4], String> {
    let mut times = Vec::new();
    for _ in 0..cx.settings().load.samples / 2 {
        let (seed, uid) = (cx.seed(), cx.uid());
        let begin = Instant::now();
        caller.encrypt(seed, uid).await?;
        times.push(begin.elapsed());
    }
    Ok(ranks(times))
}

async fn slow_reader(cx: &Context) -> Outcome {
    let settings = cx.settings();
    let mut slow = Raw::open(&settings.endpoints[0], settings.timeout, &NO_WINDOW)
        .await
        .map_err(Stop::Failed)?;
    for call in 0..64 {
        let bytes = raw::empty_call(2 * call + 1, "localhost", &format!("{SERVICE}Status"));
        slow.send(&bytes).await.map_err(Stop::NotRun)?;
    }
    // The answers' headers need no window: with the last one all calls have been made.
    let _ = slow.find(|frame| frame.stream == 127).await;
    let client = cx.connect().await?;
    let seed = cx.seed();
    let answer = round_trip(&client, &seed, cx.uid()).await;
    let answer = answer.or_failed("a round trip beside a slow reader")?;
    client.status().await.or_failed("Status beside a slow reader")?;
    demand(answer == seed, || "Decrypt answered something else than the seed".to_owned())?;
    drop(slow);
    cx.goes_on("a slow reader went away").await
}

async fn latency(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    let calls = cx.settings().load.samples;
    let seed = cx.seed();
    let wrapped = cx.wrapped(&client, &seed).await?;
    let failed = |status: Status| Stop::Failed(format!("a call failed: {}", describe(&status)));
    let report = |rpc: &str, [_, half, _, most]: [Duration; 4]| {
        cx.note(format!("{rpc}: p50 {half:.1?}, p99 {most:.1?} of {calls}"));
    };
    report("Status", timed(calls, || client.status()).await.map_err(failed)?);
    report("Encrypt", timed(calls, || client.encrypt(&seed, cx.uid())).await.map_err(failed)?);
    report(
        "Decrypt",
        timed(calls, || client.decrypt(back(&wrapped, cx.uid()))).await.map_err(failed)?,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_calls_that_were_cut_off_show_nothing() {
        assert_eq!(in_flight(50, 500), Ok(()));
        for (cut, begun) in [(0, 0), (0, 500), (49, 500)] {
            assert!(matches!(in_flight(cut, begun), Err(Stop::NotRun(_))), "{cut} of {begun}");
        }
    }

    #[test]
    fn few_round_trips_in_time_show_nothing() {
        assert_eq!(enough(512, 512), Ok(()));
        for (in_time, too_late) in [(0, 0), (0, 1024), (1, 1023), (511, 513)] {
            assert!(matches!(enough(in_time, too_late), Err(Stop::NotRun(_))), "{in_time}");
        }
    }
}
