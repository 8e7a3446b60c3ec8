//! The plugin's process ends and begins.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::UnixStream;

use crate::check::Level::{Must, Should};
use crate::check::Profile::Restart;
use crate::check::{Check, Outcome, Stop};
use crate::client::Client;
use crate::context::{Context, Demand as _, demand};
use crate::hooks::Hook;
use crate::load::Load;
use crate::source::Document::{Config, Envelope, Kep};
use crate::source::lines;

pub(crate) const CHECKS: &[Check] = &[
    Check {
        id: "restart.decrypts-old",
        profile: Restart,
        level: Must,
        hooks: &[Hook::Stop, Hook::Start],
        requirement: "What was encrypted before a restart decrypts after it.",
        sources: &[lines(Envelope, 219, 219, "sends what is in etcd, whenever it was written")],
        procedure: "Encrypt; stop, and wait until the connection has ended; start; decrypt.",
        asserts: "The plaintext is the seed.",
        run: |cx| Box::pin(decrypts_old(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "restart.same-key-id",
        profile: Restart,
        level: Must,
        hooks: &[Hook::Stop, Hook::Start],
        requirement: "A restart does not change the key_id.",
        sources: &[lines(Kep, 149, 160, "the key_id must be stable")],
        procedure: "Call Status; stop, and wait until the connection has ended; start; call Status.",
        asserts: "Both report the same key_id.",
        run: |cx| Box::pin(same_key_id(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "restart.same-version",
        profile: Restart,
        level: Must,
        hooks: &[Hook::Stop, Hook::Start],
        requirement: "A restart does not change the `version` in Status.",
        sources: &[lines(Config, 494, 500, "another than the first one is unhealthy from then on")],
        procedure: "Call Status; stop, and wait until the connection has ended; start; call Status.",
        asserts: "Both report the same version.",
        run: |cx| Box::pin(same_version(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "restart.stale-socket",
        profile: Restart,
        level: Should,
        hooks: &[Hook::Kill, Hook::Start],
        requirement: "A plugin starts though its socket's file was left behind.",
        rationale: "After a crash nobody is there to remove it.",
        procedure: "Kill, and wait until the connection has ended; start; wait until Status says ok, for at \
                    most --outage-window.",
        asserts: "It does. Not run where the kill leaves no file behind.",
        run: |cx| Box::pin(stale_socket(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "restart.graceful-drain",
        profile: Restart,
        level: Should,
        hooks: &[Hook::Stop, Hook::Start],
        requirement: "Calls in flight at a stop are answered.",
        rationale: "An upgrade of the plugin should not be seen by anybody.",
        procedure: "Keep eight Encrypts going on one connection; stop.",
        asserts: "Each that the server has begun is answered, whichever way; GOAWAY tells which it has not \
                  begun.",
        run: |cx| Box::pin(graceful_drain(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "restart.ready-only-when-serving",
        profile: Restart,
        level: Should,
        hooks: &[Hook::Stop, Hook::Start],
        requirement: "The socket can be connected to only when Status answers.",
        rationale: "kube-apiserver connects as soon as it can, and an error puts its next poll off.",
        procedure: "Stop, and wait until the connection has ended; start, and meanwhile connect again and \
                    again; at the first success call Status.",
        asserts: "Its answer is OK.",
        run: |cx| Box::pin(ready_only_when_serving(cx)),
        ..Check::DEFAULT
    },
];

/// Waits until the plugin is well again.
async fn up(cx: &Context) -> Result<(Client, String), Stop> {
    let well = cx.well_within(cx.settings().outage_window).await;
    let (client, status) = well
        .map_err(|seen| Stop::Failed(format!("it was not well again after the start: {seen}")))?;
    Ok((client, status.key_id))
}

/// Stops the plugin and starts it, and gives a new connection; `client` is one from before.
pub(crate) async fn restarted(cx: &Context, client: &Client) -> Result<(Client, String), Stop> {
    cx.hook(Hook::Stop).await?;
    let ended = cx.ended(client, Hook::Stop).await;
    cx.hook(Hook::Start).await?;
    let up = up(cx).await;
    ended?;
    up
}

async fn decrypts_old(cx: &Context) -> Outcome {
    let (client, _) = cx.well().await?;
    let seed = cx.seed();
    let wrapped = cx.wrapped(&client, &seed).await?;
    let (client, _) = restarted(cx, &client).await?;
    cx.unwraps_to(&client, &wrapped, &seed).await
}

async fn same_key_id(cx: &Context) -> Outcome {
    let (client, before) = cx.well().await?;
    let (_, after) = restarted(cx, &client).await?;
    demand(after == before.key_id, || {
        format!("key_id was {:?} before the restart, and is {after:?}", before.key_id)
    })
}

async fn same_version(cx: &Context) -> Outcome {
    let (client, before) = cx.well().await?;
    let (client, _) = restarted(cx, &client).await?;
    let after = client.status().await.or_failed("Status after the restart")?;
    demand(after.version == before.version, || {
        format!("version was {:?} before the restart, and is {:?}", before.version, after.version)
    })
}

async fn stale_socket(cx: &Context) -> Outcome {
    let (client, _) = cx.well().await?;
    let Some(file) = cx.settings().endpoints[0].file() else {
        return Err(Stop::not_applicable("an abstract socket leaves no file behind"));
    };
    cx.hook(Hook::Kill).await?;
    let stale = match cx.ended(&client, Hook::Kill).await {
        Ok(()) if !Path::new(file).exists() => {
            Err(Stop::NotRun("--on-kill left no socket's file behind".to_owned()))
        }
        other => other,
    };
    cx.hook(Hook::Start).await?;
    let ended = up(cx).await.map(|_| ());
    stale?;
    if ended.is_err() {
        // So that the checks after this one have a plugin; the failure stands. A service manager's stop
        // often removes what is left of the socket.
        let _ = cx.settings().hooks.run(Hook::Stop).await;
        let _ = cx.settings().hooks.run(Hook::Start).await;
    }
    ended
}

async fn graceful_drain(cx: &Context) -> Outcome {
    cx.well().await?;
    let settings = cx.settings();
    let load = Load::begin(&settings.endpoints[0], settings.timeout).await.map_err(Stop::NotRun)?;
    let answered = Arc::clone(&load.answered);
    let running = tokio::spawn(load.run());
    // It is under way.
    let busy = async || (answered.load(Ordering::SeqCst) >= 32).then_some(());
    cx.poll(settings.timeout, busy).await;
    let before = answered.load(Ordering::SeqCst);
    cx.hook(Hook::Stop).await?;
    let cut_off = tokio::time::timeout(settings.timeout, running).await;
    cx.hook(Hook::Start).await?;
    up(cx).await?;
    cx.note(format!(
        "{before} calls were answered before the stop, {} in all",
        answered.load(Ordering::SeqCst)
    ));
    match cut_off {
        Ok(Ok(0)) if before < 32 => {
            Err(Stop::NotRun("hardly a call was answered before the stop".to_owned()))
        }
        Ok(Ok(0)) => Ok(()),
        Ok(Ok(calls)) => Err(Stop::Failed(format!("{calls} calls were cut off"))),
        Ok(Err(error)) => Err(Stop::Broken(error.to_string())),
        Err(_) => Err(Stop::NotRun(
            "--on-stop did not stop the plugin: a connection from before it is still served"
                .to_owned(),
        )),
    }
}

async fn ready_only_when_serving(cx: &Context) -> Outcome {
    let (client, _) = cx.well().await?;
    cx.hook(Hook::Stop).await?;
    if let Err(stop) = cx.ended(&client, Hook::Stop).await {
        cx.hook(Hook::Start).await?;
        return Err(stop);
    }
    // At the same time: a hook may return only when the plugin serves.
    let (started, first) = tokio::join!(cx.hook(Hook::Start), first_status(cx));
    started?;
    up(cx).await?;
    first
}

/// Connects as soon as that is possible, and calls Status at once.
async fn first_status(cx: &Context) -> Outcome {
    let address = cx.settings().endpoints[0].address();
    let connect = async || UnixStream::connect(&address).await.ok();
    let Some(stream) = cx.poll(cx.settings().outage_window, connect).await else {
        return Err(Stop::Failed(
            "the socket could not be connected to after the start".to_owned(),
        ));
    };
    let client = Client::over(stream, cx.settings().timeout).await.map_err(Stop::Failed)?;
    client.status().await.or_failed("the first Status after the start").map(|_| ())
}
