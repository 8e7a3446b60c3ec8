//! A new key.

use std::time::Duration;

use kleidi_proto::kms::StatusResponse;
use tokio::time::{Instant, sleep};
use tonic::Status;

use crate::check::Level::{Must, Should};
use crate::check::Profile::Rotation;
use crate::check::{Check, Outcome, Stop};
use crate::client::{Client, describe};
use crate::context::{Context, demand};
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
        procedure: "Call the hook; call Status on each of two connections ten times a second for \
                    --rotation-window, thirty times at least.",
        asserts: "The answers, on whichever connection, have exactly one change. Not run where they have \
                  none.",
        run: |cx| Box::pin(no_flip_flop(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "rotation.status-encrypt-agree",
        profile: Rotation,
        level: Must,
        hooks: &[Hook::Rotate],
        requirement: "Through a rotation Encrypt answers with the key_id that Status reports.",
        sources: &[
            lines(Kep, 149, 160, "the two must agree"),
            lines(
                Config,
                411,
                453,
                "a seed whose key_id differs is thrown away, and the plugin unhealthy",
            ),
        ],
        procedure: "Call the hook; call Status and Encrypt in turn until they agree on another key_id than \
                    before; then fifteen times more.",
        asserts: "They never disagree, whichever is ahead, for longer than a poll of an unhealthy plugin \
                  (10 s); once they have agreed on the new key_id, never again. Disagreement before is \
                  counted and reported.",
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
        asserts: "Within --rotation-window there is a third key_id, neither the first nor the second.",
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

/// Calls on a connection that is made anew when a call failed, as kube-apiserver's client does: a rotation
/// may restart the plugin.
struct Watch<'a> {
    cx: &'a Context,
    client: Option<Client>,
    /// What was seen last.
    last: String,
}

impl<'a> Watch<'a> {
    fn new(cx: &'a Context, client: Client) -> Self {
        Self { cx, client: Some(client), last: String::new() }
    }

    async fn client(&mut self) -> Option<Client> {
        if self.client.is_none() {
            let settings = self.cx.settings();
            match Client::connect(&settings.endpoints[0], settings.timeout).await {
                Ok(client) => self.client = Some(client),
                Err(error) => self.last = error,
            }
        }
        self.client.clone()
    }

    /// What the call gave, if it succeeded.
    fn saw<T>(&mut self, rpc: &str, answer: Result<T, Status>) -> Option<T> {
        answer
            .map_err(|status| {
                self.client = None;
                self.last = format!("{rpc}: {}", describe(&status));
            })
            .ok()
    }

    async fn status(&mut self) -> Option<StatusResponse> {
        let answer = self.client().await?.status().await;
        let status = self.saw("Status", answer)?;
        self.last = format!("key_id {:?}, healthz {:?}", status.key_id, status.healthz);
        Some(status)
    }

    /// The key_ids of Status and of the next Encrypt.
    async fn pair(&mut self) -> Option<(String, String)> {
        let status = self.status().await?.key_id;
        let (seed, uid) = (self.cx.seed(), self.cx.uid());
        let answer = self.client().await?.encrypt(&seed, uid).await;
        let wrapped = self.saw("Encrypt", answer)?.key_id;
        self.last = format!("Status reports {status:?}, Encrypt answers {wrapped:?}");
        Some((status, wrapped))
    }

    /// Waits until Status reports another key_id than `before`.
    async fn changed(&mut self, before: &str, window: Duration) -> Option<(Client, String)> {
        let begin = Instant::now();
        loop {
            let status = self.status().await.filter(|status| status.key_id != before);
            if let (Some(status), Some(client)) = (status, self.client.clone()) {
                return Some((client, status.key_id));
            }
            if begin.elapsed() >= window {
                return None;
            }
            sleep(PAUSE).await;
        }
    }
}

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Rotates, and waits until the first endpoint reports the new key_id; if it never does, that is
/// `rotation.key-id-changes`'s affair.
pub(crate) async fn rotated(cx: &Context) -> Result<(Client, String), Stop> {
    let (client, before) = cx.well().await?;
    cx.hook(Hook::Rotate).await?;
    after(cx, client, &before.key_id).await
}

fn unchanged(last: &str) -> Stop {
    Stop::NotRun(format!(
        "the key_id did not change: see rotation.key-id-changes; the last that was seen is {last}"
    ))
}

async fn after(cx: &Context, client: Client, before: &str) -> Result<(Client, String), Stop> {
    let mut watch = Watch::new(cx, client);
    let changed = watch.changed(before, cx.settings().rotation_window).await;
    changed.ok_or_else(|| unchanged(&watch.last))
}

async fn change_within(cx: &Context, window: Duration) -> Outcome {
    let (client, before) = cx.well().await?;
    cx.hook(Hook::Rotate).await?;
    let begin = Instant::now();
    let mut watch = Watch::new(cx, client);
    if watch.changed(&before.key_id, window).await.is_some() {
        cx.note(format!("after {:.1?}", begin.elapsed()));
        return Ok(());
    }
    let last = watch.last.clone();
    // So that no later check sees this rotation for its own.
    let settled = watch.changed(&before.key_id, cx.settings().rotation_window).await;
    if settled.is_some() {
        cx.note(format!("it changed {:.1?} after the hook", begin.elapsed()));
    }
    Err(Stop::Failed(format!(
        "the key_id was the same after {window:?}; the last that was seen is {last}"
    )))
}

async fn key_id_changes(cx: &Context) -> Outcome {
    change_within(cx, cx.settings().rotation_window).await
}

async fn settles_in_one_poll(cx: &Context) -> Outcome {
    change_within(cx, cx.settings().polls.healthy).await
}

async fn no_flip_flop(cx: &Context) -> Outcome {
    let (client, before) = cx.well().await?;
    let mut watches = [Watch::new(cx, client), Watch::new(cx, cx.connect().await?)];
    cx.hook(Hook::Rotate).await?;
    let mut ids = vec![before.key_id];
    let window = cx.settings().rotation_window;
    let begin = Instant::now();
    let mut samples = 0;
    while begin.elapsed() < window || samples < 60 {
        for watch in &mut watches {
            let Some(status) = watch.status().await else { continue };
            samples += 1;
            if ids.last() != Some(&status.key_id) {
                ids.push(status.key_id);
            }
        }
        if begin.elapsed() >= window + cx.settings().timeout * 5 {
            let last = &watches[0].last;
            return Err(Stop::NotRun(format!("Status did not answer often enough: {last}")));
        }
        sleep(Duration::from_millis(100)).await;
    }
    cx.note(format!("{samples} samples, {} changes", ids.len() - 1));
    demand(ids.len() <= 2, || format!("the key_id changed {} times: {ids:?}", ids.len() - 1))?;
    if ids.len() == 2 { Ok(()) } else { Err(unchanged(&watches[0].last)) }
}

async fn status_encrypt_agree(cx: &Context) -> Outcome {
    let (client, before) = cx.well().await?;
    cx.hook(Hook::Rotate).await?;
    let mut watch = Watch::new(cx, client);
    let agreed = agrees(cx, &mut watch, &before.key_id).await;
    if agreed.is_err() {
        // So that no later check sees this rotation for its own.
        let _ = watch.changed(&before.key_id, cx.settings().rotation_window).await;
    }
    agreed
}

/// Looks until Status and Encrypt have agreed on another key_id than `before`, and a little longer.
async fn agrees(cx: &Context, watch: &mut Watch<'_>, before: &str) -> Outcome {
    let settings = cx.settings();
    let begin = Instant::now();
    let mut disagrees_since = None;
    // Encrypt ahead of Status, and behind it; pairs that agreed on the new key_id.
    let (mut ahead, mut behind, mut agreed) = (0, 0, 0);
    while agreed < 16 {
        match watch.pair().await {
            Some((status, wrapped)) if status == wrapped => {
                disagrees_since = None;
                agreed += usize::from(status != before);
            }
            Some((status, _)) => {
                demand(agreed == 0, || format!("after they had agreed, {}", watch.last))?;
                *(if status == before { &mut ahead } else { &mut behind }) += 1;
                let since = *disagrees_since.get_or_insert_with(Instant::now);
                demand(since.elapsed() < settings.polls.unhealthy, || {
                    format!("for {:.1?} {}", since.elapsed(), watch.last)
                })?;
            }
            None => {}
        }
        if agreed == 0 && disagrees_since.is_none() && begin.elapsed() >= settings.rotation_window
            || begin.elapsed() >= settings.rotation_window + settings.timeout * 16
        {
            return Err(unchanged(&watch.last));
        }
        if agreed == 0 {
            sleep(PAUSE).await;
        }
    }
    cx.note(format!("Encrypt was ahead of Status {ahead} times, and behind it {behind} times"));
    Ok(())
}

async fn old_ciphertext(cx: &Context) -> Outcome {
    let (mut client, _) = cx.well().await?;
    let mut wrapped = Vec::new();
    for _ in 0..2 {
        let seed = cx.seed();
        wrapped.push((cx.wrapped(&client, &seed).await?, seed));
        (client, _) = rotated(cx).await?;
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
    let mut watch = Watch::new(cx, client);
    let window = cx.settings().rotation_window;
    let Some((_, third)) = watch.changed(&second, window).await else {
        return Err(Stop::Failed(format!(
            "the key_id was the same {window:?} after the material came back; the last that was seen is {}",
            watch.last
        )));
    };
    demand(third != first.key_id, || format!("key_id {third:?} was used before the rotation, too"))
}
