//! What Status says.

use std::collections::BTreeSet;

use kleidi_proto::kms::StatusResponse;
use tokio::time::{Instant, sleep};

use crate::check::Level::{Must, Should};
use crate::check::{Check, Outcome, Stop};
use crate::context::{Context, Demand as _, demand};
use crate::source::Document::{Config, Defaults, Envelope, Kep, Proto};
use crate::source::lines;

pub(crate) const CHECKS: &[Check] = &[
    Check {
        id: "status.version",
        level: Must,
        requirement: "`version` is `v2` or `v2beta1`.",
        sources: &[lines(Config, 486, 515, "any other version is unhealthy")],
        procedure: "Call Status.",
        asserts: "`version` is exactly one of the two.",
        run: |cx| Box::pin(version(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "status.version-v2",
        level: Should,
        requirement: "`version` is `v2`.",
        sources: &[lines(Proto, 37, 37, "the interface's stable name")],
        rationale: "`v2beta1` is what kube-apiserver 1.27 and 1.28 want; both are out of support.",
        procedure: "Call Status.",
        asserts: "`version` is exactly `v2`.",
        run: |cx| Box::pin(version_v2(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "status.version-stable",
        level: Must,
        requirement: "`version` is the same in every answer.",
        sources: &[lines(Config, 494, 500, "another than the first one is unhealthy from then on")],
        procedure: "Call Status four times on each of three connections.",
        asserts: "All answers have one version.",
        run: |cx| Box::pin(version_stable(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "status.healthz-ok",
        level: Must,
        requirement: "`healthz` of a healthy plugin is exactly `ok`.",
        sources: &[
            lines(Proto, 39, 39, "anything else is an error, and is shown"),
            lines(Config, 486, 489, "compared letter by letter"),
        ],
        procedure: "Call Status.",
        asserts: "`healthz` is `ok`, in lower case, without spaces.",
        run: |cx| Box::pin(healthz_ok(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "status.key-id-present",
        level: Must,
        requirement: "`key_id` has 1 to 1024 bytes.",
        sources: &[
            lines(Proto, 41, 45, "never empty, and its limit"),
            lines(Envelope, 449, 487, "refuses an empty one and one of more than 1024 bytes"),
        ],
        procedure: "Call Status.",
        asserts: "The length of `key_id` in bytes.",
        run: |cx| Box::pin(key_id_present(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "status.key-id-stable",
        level: Must,
        requirement: "`key_id` stays while no key is rotated.",
        sources: &[lines(Kep, 149, 160, "the key_id must be stable")],
        procedure: "Call Status five times on each of four connections, over two seconds.",
        asserts: "All answers have one key_id.",
        run: |cx| Box::pin(key_id_stable(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "status.key-id-printable",
        level: Should,
        requirement: "`key_id` has no control characters and is no secret by the look of it.",
        sources: &[lines(Kep, 149, 160, "it is public: logged, and stored in clear")],
        rationale: "It appears in logs, metrics and etcd.",
        procedure: "Call Status.",
        asserts: "No control character; no PEM; none of the prefixes of well-known tokens.",
        run: |cx| Box::pin(key_id_printable(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "status.within-timeout",
        level: Must,
        requirement: "Status answers within the configured timeout.",
        sources: &[lines(Defaults, 28, 28, "3 seconds unless configured")],
        procedure: "Call Status twenty times on one connection.",
        asserts: "Each answer comes within --timeout.",
        run: |cx| Box::pin(within_timeout(cx)),
        ..Check::DEFAULT
    },
];

async fn status(cx: &Context) -> Result<StatusResponse, Stop> {
    cx.connect().await?.status().await.or_failed("Status")
}

async fn version(cx: &Context) -> Outcome {
    let version = status(cx).await?.version;
    demand(["v2", "v2beta1"].contains(&version.as_str()), || format!("version is {version:?}"))
}

async fn version_v2(cx: &Context) -> Outcome {
    let version = status(cx).await?.version;
    demand(version == "v2", || format!("version is {version:?}"))
}

/// What all the answers say, over several connections.
async fn said(
    cx: &Context,
    connections: usize,
    calls: usize,
    field: impl Fn(StatusResponse) -> String,
) -> Result<BTreeSet<String>, Stop> {
    let mut said = BTreeSet::new();
    for _ in 0..connections {
        let client = cx.connect().await?;
        for _ in 0..calls {
            said.insert(field(client.status().await.or_failed("Status")?));
            // A hundredth of a poll; twenty calls take two seconds.
            sleep(cx.settings().polls.unhealthy / 100).await;
        }
    }
    Ok(said)
}

async fn version_stable(cx: &Context) -> Outcome {
    let versions = said(cx, 3, 4, |status| status.version).await?;
    demand(versions.len() == 1, || format!("several versions were reported: {versions:?}"))
}

async fn healthz_ok(cx: &Context) -> Outcome {
    let healthz = status(cx).await?.healthz;
    demand(healthz == "ok", || format!("healthz is {healthz:?}, wanted \"ok\""))
}

async fn key_id_present(cx: &Context) -> Outcome {
    let bytes = status(cx).await?.key_id.len();
    cx.note(format!("key_id has {bytes} bytes"));
    demand((1..=1024).contains(&bytes), || format!("key_id has {bytes} bytes, wanted 1 to 1024"))
}

async fn key_id_stable(cx: &Context) -> Outcome {
    let ids = said(cx, 4, 5, |status| status.key_id).await?;
    demand(ids.len() == 1, || format!("several key_ids were reported: {ids:?}"))
}

/// Beginnings of what may not be shown to anybody.
const SECRETS: [&str; 8] =
    ["-----BEGIN", "hvs.", "hvb.", "hvr.", "AKIA", "ghp_", "AGE-SECRET-KEY", "eyJ"];

async fn key_id_printable(cx: &Context) -> Outcome {
    let key_id = status(cx).await?.key_id;
    demand(!key_id.chars().any(char::is_control), || {
        format!("key_id has a control character: {key_id:?}")
    })?;
    let secret = SECRETS.iter().find(|secret| key_id.contains(*secret));
    demand(secret.is_none(), || format!("key_id looks like a secret: it has {secret:?} in it"))
}

async fn within_timeout(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    let mut slowest = std::time::Duration::ZERO;
    for _ in 0..20 {
        let begin = Instant::now();
        client.status().await.or_failed("Status")?;
        slowest = slowest.max(begin.elapsed());
    }
    cx.note(format!("the slowest of 20 took {slowest:.1?}"));
    Ok(())
}
