//! Several plugins with one KMS, as on several control-plane nodes.

use std::time::Duration;

use crate::check::Level::{Must, Should};
use crate::check::Profile::Replicas;
use crate::check::{Check, Outcome, Stop};
use crate::checks::rotation::rotated;
use crate::context::{Context, Demand as _};
use crate::hooks::Hook;
use crate::source::Document::{Envelope, Kep};
use crate::source::lines;

pub(crate) const CHECKS: &[Check] = &[
    Check {
        id: "replicas.cross-decrypt",
        profile: Replicas,
        level: Must,
        endpoints: 2,
        requirement: "What one plugin encrypted, the others decrypt.",
        sources: &[lines(Envelope, 219, 219, "sends what is in etcd to its own node's plugin")],
        procedure: "Encrypt on each endpoint; decrypt on each other.",
        asserts: "Each plaintext is the seed.",
        run: |cx| Box::pin(cross_decrypt(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "replicas.decrypts-ahead",
        profile: Replicas,
        level: Must,
        endpoints: 2,
        hooks: &[Hook::Rotate],
        requirement: "A plugin that has not announced the new key yet decrypts what another one wrote \
                      with it.",
        sources: &[lines(Envelope, 219, 219, "sends what is in etcd to its own node's plugin")],
        procedure: "Rotate; wait until the first endpoint reports the new key_id, without asking the \
                    others; encrypt there; decrypt on the others at once; then call Status there.",
        asserts: "Each plaintext is the seed. How many of the others still reported another key_id afterwards is \
                  noted: where none did, that they decrypt what they have not announced was not seen.",
        run: |cx| Box::pin(decrypts_ahead(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "replicas.same-key-id",
        profile: Replicas,
        level: Should,
        endpoints: 2,
        requirement: "At rest all plugins report one key_id.",
        sources: &[lines(Kep, 149, 160, "a key_id stands for a key")],
        rationale: "Otherwise each apiserver takes the others' objects for stale and rewrites them.",
        procedure: "Call Status on each endpoint, for at most twice --rotation-window, in case a \
                    rotation is still under way.",
        asserts: "All key_ids are equal.",
        run: |cx| Box::pin(same_key_id(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "replicas.converge",
        profile: Replicas,
        level: Should,
        endpoints: 2,
        hooks: &[Hook::Rotate],
        requirement: "After a rotation all plugins report the same new key_id within the window.",
        rationale: "Storage migration begins when the last one does.",
        procedure: "Rotate; call Status on each endpoint until all differ from before and agree.",
        asserts: "It happens within --rotation-window.",
        run: |cx| Box::pin(converge(cx)),
        ..Check::DEFAULT
    },
];

async fn cross_decrypt(cx: &Context) -> Outcome {
    let count = cx.settings().endpoints.len();
    for from in 0..count {
        let seed = cx.seed();
        let client = cx.connect_to(from).await?;
        // As kube-apiserver does before it encrypts.
        client.status().await.or_not_run("Status")?;
        let wrapped = cx.wrapped(&client, &seed).await?;
        for to in (0..count).filter(|to| *to != from) {
            let client = cx.connect_to(to).await?;
            client.status().await.or_not_run("Status")?;
            cx.unwraps_to(&client, &wrapped, &seed).await.map_err(|stop| at(cx, to, stop))?;
        }
    }
    Ok(())
}

/// Says on which endpoint it was seen.
fn at(cx: &Context, endpoint: usize, stop: Stop) -> Stop {
    match stop {
        Stop::Failed(why) => Stop::Failed(format!("{}: {why}", cx.settings().endpoints[endpoint])),
        other => other,
    }
}

async fn decrypts_ahead(cx: &Context) -> Outcome {
    let (client, _) = rotated(cx).await?;
    let seed = cx.seed();
    let wrapped = cx.wrapped(&client, &seed).await?;
    let others = cx.settings().endpoints.len() - 1;
    let mut behind = 0;
    for to in 1..=others {
        let client = cx.connect_to(to).await?;
        cx.unwraps_to(&client, &wrapped, &seed).await.map_err(|stop| at(cx, to, stop))?;
        // Not before: a plugin may look for new keys when it is asked.
        let status = client.status().await.or_failed("Status").map_err(|stop| at(cx, to, stop))?;
        behind += usize::from(status.key_id != wrapped.key_id);
    }
    cx.note(format!(
        "{behind} of {others} other endpoints still reported another key_id afterwards"
    ));
    Ok(())
}

/// What each endpoint reports.
async fn reported(cx: &Context) -> Result<Vec<String>, Stop> {
    let mut ids = Vec::new();
    for endpoint in 0..cx.settings().endpoints.len() {
        let client = cx.connect_to(endpoint).await?;
        ids.push(
            client
                .status()
                .await
                .or_failed("Status")
                .map_err(|stop| at(cx, endpoint, stop))?
                .key_id,
        );
    }
    Ok(ids)
}

/// Waits until all endpoints report one key_id other than `not`.
async fn agree(cx: &Context, not: Option<&str>, window: Duration) -> Outcome {
    let last = parking_lot::Mutex::new(String::new());
    let agreed = cx.poll(window, async || match reported(cx).await {
        Ok(ids) => {
            *last.lock() = format!("{ids:?}");
            ids.iter().all(|id| *id == ids[0] && Some(id.as_str()) != not).then_some(())
        }
        Err(Stop::Failed(why) | Stop::NotRun(why) | Stop::Broken(why)) => {
            *last.lock() = why;
            None
        }
    });
    agreed.await.ok_or_else(|| {
        let last = last.lock();
        Stop::Failed(format!(
            "within the window they did not agree on a key_id; what was seen last: {last}"
        ))
    })
}

async fn same_key_id(cx: &Context) -> Outcome {
    agree(cx, None, cx.settings().rotation_window * 2).await
}

async fn converge(cx: &Context) -> Outcome {
    let before = cx.connect().await?.status().await.or_not_run("Status")?.key_id;
    cx.hook(Hook::Rotate).await?;
    let window = cx.settings().rotation_window;
    let agreed = agree(cx, Some(&before), window).await;
    if agreed.is_err() {
        // So that no later check sees this rotation for its own.
        let _ = agree(cx, Some(&before), window).await;
    }
    agreed
}
