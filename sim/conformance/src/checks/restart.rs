//! The plugin's process ends and begins.

use std::error::Error as _;

use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::check::Level::{Must, Should};
use crate::check::Profile::Restart;
use crate::check::{Check, Outcome, Stop};
use crate::client::{Client, describe};
use crate::context::{Context, Demand as _, demand};
use crate::hooks::Hook;
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
        asserts: "Each ends with OK or UNAVAILABLE, or was turned away before it began; none is cut off.",
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
        // So that the checks after this one have a plugin; the failure stands.
        let _ = cx.settings().hooks.run(Hook::Start).await;
    }
    ended
}

/// How a call ended when the plugin stopped.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// With an answer that a stopping plugin may give, or before it began.
    InOrder,
    /// With its connection, in the middle.
    CutOff(String),
}

fn end(status: &Status) -> End {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.downcast_ref::<hyper::Error>().is_some_and(|e| e.is_canceled() || e.is_closed()) {
            return End::InOrder;
        }
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let turned_away = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
                || error.reason() == Some(h2::Reason::REFUSED_STREAM);
            if turned_away {
                return End::InOrder;
            }
        }
        cause = error.source();
    }
    if status.code() == Code::Unavailable && status.source().is_none() {
        return End::InOrder;
    }
    End::CutOff(describe(status))
}

async fn graceful_drain(cx: &Context) -> Outcome {
    let (client, _) = cx.well().await?;
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let (client, seed, uid) = (client.clone(), cx.seed(), cx.uid());
        tasks.spawn(async move {
            let mut answered = 0;
            loop {
                match client.encrypt(&seed, uid.clone()).await {
                    Ok(_) => answered += 1,
                    Err(status) => return (answered, end(&status)),
                }
            }
        });
    }
    cx.hook(Hook::Stop).await?;
    // Without the old connection a client may wait for ever: the tasks end by its end.
    let ended = tokio::time::timeout(cx.settings().timeout, tasks.join_all()).await;
    cx.hook(Hook::Start).await?;
    up(cx).await?;
    let ended = ended.map_err(|_| Stop::Failed("calls went on after the stop".to_owned()))?;
    cx.note(format!("{} were answered", ended.iter().map(|(answered, _)| answered).sum::<usize>()));
    let cut = ended.into_iter().find_map(|(_, end)| match end {
        End::CutOff(how) => Some(how),
        End::InOrder => None,
    });
    demand(cut.is_none(), || format!("a call was cut off: {}", cut.unwrap_or_default()))
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
    drop(stream);
    let first = match cx.connect().await {
        Ok(client) => client.status().await.or_failed("the first Status after the start"),
        Err(stop) => Err(stop),
    };
    up(cx).await?;
    first.map(|_| ())
}
