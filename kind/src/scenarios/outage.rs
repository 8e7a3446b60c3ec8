//! The KMS hangs for ten minutes, and comes back. `KLEIDI_OUTAGE_SECONDS` makes it another time, of at least 310.
//!
//! What has been read stays readable; writes end two to three minutes after the outage began; health and the
//! manual's alert say so; everything recovers unaided.

use std::time::Duration;

use crate::api::Api;
use crate::clock::{Stopwatch, throughout, within};
use crate::cluster::Cluster;
use crate::load::Written;
use crate::plan::{Kms, Plan};
use crate::scenario::{Scenario, Stage, ensure};

pub const SCENARIO: Scenario = Scenario {
    name: "outage",
    shows: "the KMS is away for ten minutes: reads go on, writes end after two to three, all says so, all recovers",
    minutes: 13,
    run,
};

/// Writes go on at least so long.
const WRITES_AT_LEAST: Duration = Duration::from_secs(110);

/// And at most so long: a seed is good for three minutes after the last good Status, which is polled each minute.
const WRITES_AT_MOST: Duration = Duration::from_secs(250);

/// The manual's alert is about a kube-apiserver that has not heard from its plugin for so many seconds.
const ALERT: f64 = 150.0;

/// So it fires at most so long after the outage began.
const FIRED: Duration = Duration::from_secs(200);

fn run(stage: &Stage) -> Result<(), String> {
    let outage = wanted()?;
    let cluster = stage.cluster(Plan::new(Kms::OpenBao))?;
    let openbao = cluster.openbao.as_ref().ok_or("there is no OpenBao")?;
    let api = cluster.api()?;
    let key_id = cluster.key_id()?;
    cluster.create_secrets("before", 20)?;
    ensure(!alert(&cluster, &api)?, || "the alert fires before there is an outage".to_owned())?;

    let mut began = Duration::ZERO;
    let watch = Stopwatch::start();
    let written = cluster.under_load("load", || {
        began = watch.elapsed();
        openbao.hang()?;
        cluster.step(&format!("OpenBao hangs for {} s", outage.as_secs()));
        let unhealthy = wait_unhealthy(&api)?;
        stage.shown(format!("health says so after {} s", unhealthy.as_secs()));
        let fired = reads_go_on(&cluster, &api, outage.saturating_sub(unhealthy))?;
        let fired = fired.ok_or("the manual's alert has not fired")? + unhealthy;
        ensure(fired <= FIRED, || format!("the manual's alert fired after {fired:?}"))?;
        stage.shown(format!("the manual's alert fires after {} s", fired.as_secs()));
        openbao.go_on()?;
        let recovery = Stopwatch::start();
        cluster.wait_healthy()?;
        stage.shown(format!("in order again {} s after OpenBao was", recovery.elapsed().as_secs()));
        within(FIRED, "the alert to end", || {
            ensure(!alert(&cluster, &api)?, || "it fires".to_owned())
        })?;
        // A seed may be made a moment after health is.
        within(Duration::from_secs(60), "a write", || cluster.write_secret(&api, "again"))
    })?;
    judge(stage, &written, began, outage)?;
    cluster.create_secrets("after", 5)?;
    stage.shown(cluster.encrypted_at_rest(&[&key_id])?);
    cluster.finish();
    Ok(())
}

/// How long the outage is to be.
fn wanted() -> Result<Duration, String> {
    let least = WRITES_AT_MOST.as_secs() + 60;
    let Ok(text) = std::env::var("KLEIDI_OUTAGE_SECONDS") else {
        return Ok(Duration::from_secs(600));
    };
    match text.parse() {
        Ok(seconds) if seconds >= least => Ok(Duration::from_secs(seconds)),
        _ => Err(format!(
            "KLEIDI_OUTAGE_SECONDS={text}: a number from {least} on, so that writes have ended before it does"
        )),
    }
}

/// Writes ended in time, for the reason that they should, and not before it; no read failed.
fn judge(
    stage: &Stage,
    written: &Written,
    began: Duration,
    outage: Duration,
) -> Result<(), String> {
    let last_before = written.last_before_the_longest_gap.saturating_sub(began);
    let gap = written.longest_gap;
    ensure(last_before >= WRITES_AT_LEAST, || {
        format!("writes ended {last_before:?} after the outage began")
    })?;
    ensure(last_before <= WRITES_AT_MOST, || format!("still written after {last_before:?}"))?;
    ensure(last_before + gap >= outage, || {
        format!("writes went on {:?} after the outage began, within it", last_before + gap)
    })?;
    ensure(!written.refused.is_empty(), || "no write was refused".to_owned())?;
    let other = written.refused.iter().find(|(_, error)| !error.contains("expired"));
    ensure(other.is_none(), || format!("a write was refused for another reason: {other:?}"))?;
    ensure(written.unread.is_empty(), || format!("reads failed: {:?}", written.unread.first()))?;
    stage.shown(format!(
        "writes ended {} s after the outage began, and went on after {} s; {} acknowledged, {} refused",
        last_before.as_secs(),
        gap.as_secs(),
        written.acknowledged.len(),
        written.refused.len()
    ));
    Ok(())
}

fn wait_unhealthy(api: &Api) -> Result<Duration, String> {
    let watch = Stopwatch::start();
    within(Duration::from_secs(120), "kube-apiserver to notice", || {
        ensure(api.kms_health().is_err(), || "it finds the KMS in order".to_owned())
    })?;
    Ok(watch.elapsed())
}

/// All Secrets from before can be read, all the time; gives when the alert fired meanwhile.
fn reads_go_on(cluster: &Cluster, api: &Api, time: Duration) -> Result<Option<Duration>, String> {
    let names: Vec<_> = (0..20).map(|number| format!("before-{number}")).collect();
    let watch = Stopwatch::start();
    let mut fired = None;
    throughout(time, "reads during the outage", || {
        if fired.is_none() && alert(cluster, api)? {
            fired = Some(watch.elapsed());
        }
        names.iter().try_for_each(|name| {
            let value = api.read_secret(name)?;
            ensure(value == cluster.value(name), || format!("{name} reads as {value}"))
        })
    })?;
    Ok(fired)
}

/// Whether the alert of the manual fires: it is too long since the last good Status.
fn alert(cluster: &Cluster, api: &Api) -> Result<bool, String> {
    let name = "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds";
    let lines = api.metrics(name)?;
    let times = lines.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    let last = times.reduce(f64::max).ok_or_else(|| format!("there is no metric {name}"))?;
    let now: f64 = cluster.node()?.sh("date +%s")?.parse().map_err(|_| "date prints no number")?;
    Ok(now - last > ALERT)
}
