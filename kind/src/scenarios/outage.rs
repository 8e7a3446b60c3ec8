//! The KMS hangs for ten minutes, and comes back. `KLEIDI_OUTAGE_SECONDS` makes it another time.
//!
//! What has been read stays readable; writes end two to three minutes after the outage began; health and the
//! manual's alert say so; everything recovers unaided.

use std::time::Duration;

use crate::api::Api;
use crate::clock::{Stopwatch, throughout, within};
use crate::cluster::Cluster;
use crate::plan::{Kms, Plan};
use crate::scenario::{Scenario, Stage, ensure};

pub const SCENARIO: Scenario = Scenario {
    name: "outage",
    shows: "(not played to the end yet) the KMS is away for ten minutes: reads go on, writes end after two to three, all says so, all recovers",
    minutes: 13,
    run,
};

/// Writes go on at least so long.
const WRITES_AT_LEAST: Duration = Duration::from_secs(110);

/// And at most so long: a seed is good for three minutes after the last good Status, which is polled each minute.
const WRITES_AT_MOST: Duration = Duration::from_secs(250);

/// The manual's alert is about a kube-apiserver that has not heard from its plugin for so many seconds.
const ALERT: f64 = 150.0;

fn run(stage: &Stage) -> Result<(), String> {
    let seconds = std::env::var("KLEIDI_OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok());
    let outage = Duration::from_secs(seconds.unwrap_or(600));
    let cluster = stage.cluster(Plan::new(Kms::OpenBao))?;
    let openbao = cluster.openbao.as_ref().ok_or("there is no OpenBao")?;
    let api = cluster.api()?;
    let key_id = cluster.key_id()?;
    cluster.create_secrets("before", 20)?;

    let mut began = Duration::ZERO;
    let watch = Stopwatch::start();
    let written = cluster.under_load("load", || {
        began = watch.elapsed();
        openbao.hang()?;
        cluster.step(&format!("OpenBao hangs for {} s", outage.as_secs()));
        let unhealthy = wait_unhealthy(&api)?;
        stage.shown(format!("health says so after {} s", unhealthy.as_secs()));
        reads_go_on(&cluster, &api, outage.saturating_sub(unhealthy))?;
        if outage > WRITES_AT_MOST {
            alert(&cluster, &api)?;
            stage.shown("the manual's alert fires");
        }
        openbao.go_on()?;
        let recovery = Stopwatch::start();
        cluster.wait_healthy()?;
        stage.shown(format!("in order again {} s after OpenBao was", recovery.elapsed().as_secs()));
        Ok(())
    })?;

    let last_before = written.last_before_the_longest_gap.saturating_sub(began);
    let gap = written.longest_gap;
    ensure(last_before >= WRITES_AT_LEAST.min(outage), || {
        format!("writes ended {last_before:?} after the outage began")
    })?;
    ensure(last_before <= WRITES_AT_MOST, || format!("still written after {last_before:?}"))?;
    ensure(written.unread.is_empty(), || format!("reads failed: {:?}", written.unread.first()))?;
    stage.shown(format!(
        "writes ended {} s after the outage began, and went on after {} s; {} acknowledged, {} refused",
        last_before.as_secs(),
        gap.as_secs(),
        written.acknowledged.len(),
        written.refused.len()
    ));
    cluster.create_secrets("after", 5)?;
    stage.shown(cluster.encrypted_at_rest(&[&key_id], "load")?);
    cluster.finish();
    Ok(())
}

fn wait_unhealthy(api: &Api) -> Result<Duration, String> {
    let watch = Stopwatch::start();
    within(Duration::from_secs(120), "kube-apiserver to notice", || {
        ensure(api.kms_health().is_err(), || "it finds the KMS in order".to_owned())
    })?;
    Ok(watch.elapsed())
}

/// All Secrets from before can be read, all the time.
fn reads_go_on(cluster: &Cluster, api: &Api, time: Duration) -> Result<(), String> {
    let names: Vec<_> = (0..20).map(|number| format!("before-{number}")).collect();
    throughout(time, "reads during the outage", || {
        names.iter().try_for_each(|name| {
            let value = api.read_secret(name)?;
            ensure(value == cluster.value(name), || format!("{name} reads as {value}"))
        })
    })
}

/// The alert of the manual: too long since the last good Status.
fn alert(cluster: &Cluster, api: &Api) -> Result<(), String> {
    let name = "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds";
    let last = api
        .metrics(name)?
        .iter()
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .fold(0.0, f64::max);
    let now: f64 = cluster.node()?.sh("date +%s")?.parse().map_err(|_| "date prints no number")?;
    ensure(now - last > ALERT, || format!("the last good Status was {} s ago", now - last))
}
