//! The plugin's process ends and begins.

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
use crate::source::Document::{Envelope, Kep};
use crate::source::lines;

pub(crate) const CHECKS: &[Check] = &[
    Check {
        id: "restart.decrypts-old",
        profile: Restart,
        level: Must,
        hooks: &[Hook::Stop, Hook::Start],
        requirement: "What was encrypted before a restart decrypts after it.",
        sources: &[lines(Envelope, 219, 219, "sends what is in etcd, whenever it was written")],
        procedure: "Encrypt; stop; start; decrypt.",
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
        procedure: "Call Status; stop; start; call Status.",
        asserts: "Both report the same key_id.",
        run: |cx| Box::pin(same_key_id(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "restart.stale-socket",
        profile: Restart,
        level: Should,
        hooks: &[Hook::Kill, Hook::Start],
        requirement: "A plugin starts though its socket's file was left behind.",
        rationale: "After a crash nobody is there to remove it.",
        procedure: "Kill; start; wait until Status says ok, for at most --outage-window.",
        asserts: "It does.",
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
        procedure: "Stop; start; connect again and again; at the first success call Status.",
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

async fn decrypts_old(cx: &Context) -> Outcome {
    let (client, _) = cx.well().await?;
    let seed = cx.seed();
    let wrapped = cx.wrapped(&client, &seed).await?;
    cx.hook(Hook::Stop).await?;
    cx.hook(Hook::Start).await?;
    let (client, _) = up(cx).await?;
    cx.unwraps_to(&client, &wrapped, &seed).await
}

async fn same_key_id(cx: &Context) -> Outcome {
    let (_, before) = cx.well().await?;
    cx.hook(Hook::Stop).await?;
    cx.hook(Hook::Start).await?;
    let (_, after) = up(cx).await?;
    demand(after == before.key_id, || {
        format!("key_id was {:?} before the restart, and is {after:?}", before.key_id)
    })
}

async fn stale_socket(cx: &Context) -> Outcome {
    cx.well().await?;
    cx.hook(Hook::Kill).await?;
    cx.hook(Hook::Start).await?;
    let ended = up(cx).await.map(|_| ());
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
        Err(_) => Err(Stop::Failed("the connection lived on after the stop".to_owned())),
    }
}

async fn ready_only_when_serving(cx: &Context) -> Outcome {
    cx.well().await?;
    cx.hook(Hook::Stop).await?;
    cx.hook(Hook::Start).await?;
    let address = cx.settings().endpoints[0].address();
    let connect = async || UnixStream::connect(&address).await.ok();
    let window = cx.settings().outage_window;
    let Some(stream) = cx.poll(window, connect).await else {
        return Err(Stop::Failed(
            "the socket could not be connected to after the start".to_owned(),
        ));
    };
    let first = match Client::over(stream, cx.settings().timeout).await {
        Ok(client) => client.status().await.or_failed("the first Status after the start"),
        Err(error) => Err(Stop::Failed(error)),
    };
    up(cx).await?;
    first.map(|_| ())
}
