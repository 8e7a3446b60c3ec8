//! A new key.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::check::Level::{Must, Should};
use crate::check::Profile::Rotation;
use crate::check::{Check, Outcome, Stop};
use crate::client::Client;
use crate::context::{Context, Demand as _, demand};
use crate::hooks::Hook;
use crate::source::Document::{Config, Envelope, Kep};
use crate::source::lines;

pub(crate) const CHECKS: &[Check] = &[
    Check {
        id: "rotation.key-id-changes",
        profile: Rotation,
        level: Must,
        hooks: &[Hook::Rotate],
        requirement: "After a rotation Status reports another key_id.",
        sources: &[lines(Kep, 149, 160, "the key_id is how kube-apiserver hears of a rotation")],
        procedure: "Call the hook; call Status until the key_id differs.",
        asserts: "It does so within --rotation-window.",
        run: |cx| Box::pin(key_id_changes(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "rotation.no-flip-flop",
        profile: Rotation,
        level: Must,
        hooks: &[Hook::Rotate],
        requirement: "The key_id changes once, and does not go back and forth.",
        sources: &[lines(Kep, 149, 160, "the key_id must not flip-flop")],
        procedure: "Call the hook; call Status ten times a second for --rotation-window, thirty times \
                    at least.",
        asserts: "The answers have at most one change.",
        run: |cx| Box::pin(no_flip_flop(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "rotation.status-encrypt-agree",
        profile: Rotation,
        level: Must,
        hooks: &[Hook::Rotate],
        requirement: "After the key_id has changed in Status, Encrypt answers with the new one.",
        sources: &[
            lines(Kep, 149, 160, "the two must agree"),
            lines(
                Config,
                411,
                453,
                "a seed whose key_id differs is thrown away, and the plugin unhealthy",
            ),
        ],
        procedure: "Call the hook; call Status and Encrypt in turn until the key_id differs from before; \
                    then until they agree; then fifteen times more.",
        asserts: "They agree within one poll of an unhealthy plugin (10 s), and from then on always. \
                  Disagreement before is counted and reported.",
        run: |cx| Box::pin(status_encrypt_agree(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "rotation.old-ciphertext",
        profile: Rotation,
        level: Must,
        hooks: &[Hook::Rotate],
        requirement: "What was encrypted before a rotation decrypts after it.",
        sources: &[
            lines(Envelope, 219, 219, "sends what is in etcd, whenever it was written"),
            lines(Config, 383, 453, "old objects stay as they are until somebody rewrites them"),
        ],
        procedure: "Encrypt; rotate; encrypt; rotate; decrypt both.",
        asserts: "Each plaintext is the seed.",
        run: |cx| Box::pin(old_ciphertext(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "rotation.no-reuse",
        profile: Rotation,
        level: Must,
        hooks: &[Hook::Rotate, Hook::RotateBack],
        requirement: "A key_id is never used again, not even when the same material comes back.",
        sources: &[lines(Kep, 149, 160, "a key_id must not be reused")],
        procedure: "Note the key_id; rotate; rotate back to the first material.",
        asserts: "The third key_id is neither the first nor the second.",
        run: |cx| Box::pin(no_reuse(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "rotation.settles-in-one-poll",
        profile: Rotation,
        level: Should,
        hooks: &[Hook::Rotate],
        requirement: "The new key_id is reported within a minute.",
        sources: &[lines(Config, 91, 96, "a healthy plugin is asked every 60 s")],
        rationale: "No apiserver looks more often; to be later means to be a poll later.",
        procedure: "Call the hook; call Status until the key_id differs.",
        asserts: "It does so within 60 s.",
        run: |cx| Box::pin(settles_in_one_poll(cx)),
        ..Check::DEFAULT
    },
];

/// Waits until Status reports another key_id than `before`.
async fn changed(cx: &Context, client: &Client, before: &str, window: Duration) -> Option<String> {
    let look = async || client.status().await.ok().map(|status| status.key_id);
    cx.poll(window, async || look().await.filter(|id| id != before)).await
}

/// Rotates, and waits until the first endpoint reports the new key_id; if it never does, that is
/// `rotation.key-id-changes`'s affair.
pub(crate) async fn rotated(cx: &Context) -> Result<(Client, String), Stop> {
    let (client, before) = cx.well().await?;
    cx.hook(Hook::Rotate).await?;
    after(cx, client, &before.key_id).await
}

async fn after(cx: &Context, client: Client, before: &str) -> Result<(Client, String), Stop> {
    match changed(cx, &client, before, cx.settings().rotation_window).await {
        Some(id) => Ok((client, id)),
        None => {
            Err(Stop::NotRun("the key_id did not change: see rotation.key-id-changes".to_owned()))
        }
    }
}

async fn change_within(cx: &Context, window: Duration) -> Outcome {
    let (client, before) = cx.well().await?;
    cx.hook(Hook::Rotate).await?;
    let begin = Instant::now();
    match changed(cx, &client, &before.key_id, window).await {
        Some(_) => cx.note(format!("after {:.1?}", begin.elapsed())),
        None => return Err(Stop::Failed(format!("the key_id was the same after {window:?}"))),
    }
    Ok(())
}

async fn key_id_changes(cx: &Context) -> Outcome {
    change_within(cx, cx.settings().rotation_window).await
}

async fn settles_in_one_poll(cx: &Context) -> Outcome {
    change_within(cx, cx.settings().polls.healthy).await
}

async fn no_flip_flop(cx: &Context) -> Outcome {
    let (client, before) = cx.well().await?;
    cx.hook(Hook::Rotate).await?;
    let mut ids = vec![before.key_id];
    let begin = Instant::now();
    let mut samples = 0;
    while begin.elapsed() < cx.settings().rotation_window || samples < 30 {
        let id = client.status().await.or_failed("Status")?.key_id;
        samples += 1;
        if ids.last() != Some(&id) {
            ids.push(id);
        }
        sleep(Duration::from_millis(100)).await;
    }
    cx.note(format!("{samples} samples, {} changes", ids.len() - 1));
    demand(ids.len() <= 2, || format!("the key_id changed {} times: {ids:?}", ids.len() - 1))
}

async fn status_encrypt_agree(cx: &Context) -> Outcome {
    let (client, new) = rotated(cx).await?;
    let encrypt = async || client.encrypt(&cx.seed(), cx.uid()).await.or_failed("Encrypt");
    let begin = Instant::now();
    let mut disagreed = 0;
    while encrypt().await?.key_id != new {
        disagreed += 1;
        demand(begin.elapsed() < cx.settings().polls.unhealthy, || {
            format!(
                "Status reports the new key_id, Encrypt answered {disagreed} times with another"
            )
        })?;
        sleep(Duration::from_millis(50)).await;
    }
    cx.note(format!("{disagreed} Encrypts disagreed after the change"));
    for _ in 0..15 {
        let status = client.status().await.or_failed("Status")?.key_id;
        let wrapped = encrypt().await?.key_id;
        demand(status == wrapped, || {
            format!("after they had agreed, Status reports {status:?}, Encrypt answers {wrapped:?}")
        })?;
    }
    Ok(())
}

async fn old_ciphertext(cx: &Context) -> Outcome {
    let (client, _) = cx.well().await?;
    let mut wrapped = Vec::new();
    for _ in 0..2 {
        let seed = cx.seed();
        wrapped.push((cx.wrapped(&client, &seed).await?, seed));
        rotated(cx).await?;
    }
    for client in [client, cx.connect().await?] {
        for (wrapped, seed) in &wrapped {
            cx.unwraps_to(&client, wrapped, seed).await?;
        }
    }
    Ok(())
}

async fn no_reuse(cx: &Context) -> Outcome {
    let (client, first) = cx.well().await?;
    cx.hook(Hook::Rotate).await?;
    let (client, second) = after(cx, client, &first.key_id).await?;
    cx.hook(Hook::RotateBack).await?;
    let (_, third) = after(cx, client, &second).await?;
    demand(third != first.key_id, || format!("key_id {third:?} was used before the rotation, too"))
}
