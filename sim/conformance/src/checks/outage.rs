//! The KMS is away.

mod seen;

use std::time::Duration;

use kleidi_proto::kms::EncryptResponse;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::check::Level::{Must, Should};
use crate::check::Profile::Outage;
use crate::check::{Check, Outcome, Stop};
use crate::checks::restart::restarted;
use crate::client::{Client, answered, back, code_name, describe, overdue};
use crate::context::{Context, demand};
use crate::hooks::Hook;
use crate::source::Document::{Config, Kep, Proto};
use crate::source::lines;
use seen::{Seen, Wrapped};

const HOOKS: &[Hook] = &[Hook::BackendDown, Hook::BackendUp];

pub(crate) const CHECKS: &[Check] = &[
    Check {
        id: "outage.encrypt-honest",
        profile: Outage,
        level: Must,
        hooks: HOOKS,
        requirement: "During an outage Encrypt fails, or answers what decrypts afterwards.",
        sources: &[lines(Proto, 78, 83, "the key_id is that of the key which encrypted")],
        procedure: "Take the KMS away; encrypt ten seeds; go on until the outage shows, and for a poll of an \
                    unhealthy plugin (10 s) longer; give it back; wait until the plugin is well; decrypt what \
                    was answered, on each endpoint as soon as it is well, too; with --on-stop and --on-start \
                    again after a restart.",
        asserts: "Each answer decrypts to its seed. That all fail is fine. Not run where neither Status, \
                  Encrypt nor Decrypt shows the outage within --outage-window, or where another endpoint is \
                  not well within it after the outage.",
        run: |cx| Box::pin(encrypt_honest(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "outage.key-id-unchanged",
        profile: Outage,
        level: Must,
        hooks: HOOKS,
        requirement: "An outage does not change the key_id.",
        sources: &[
            lines(Kep, 149, 160, "the key_id must be stable"),
            lines(Proto, 41, 43, "and is never empty"),
        ],
        procedure: "Call Status, and Encrypt; take the KMS away; call Status again and again, on the same connection and on \
                    others, and Encrypt, and Decrypt of what was encrypted before, until the outage shows; Status \
                    and Encrypt for a poll of an unhealthy plugin (10 s) longer; give it back; go on until it \
                    is well.",
        asserts: "Every key_id that Status reports, whatever `healthz` beside it says, is the first one. Not run \
                  where the first Encrypt fails, or where neither Status, Encrypt nor Decrypt shows the outage within --outage-window.",
        run: |cx| Box::pin(key_id_unchanged(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "outage.calls-do-not-hang",
        profile: Outage,
        level: Should,
        hooks: HOOKS,
        requirement: "During an outage each call ends within the client's timeout.",
        rationale: "A call that hangs says nothing of the reason, and holds kube-apiserver's health check \
                    up.",
        procedure: "Encrypt; take the KMS away; call Status, Encrypt and Decrypt three times each, each time on a \
                    new connection, and again when the outage shows.",
        asserts: "Each ends, however, before --timeout. That the connection ends does not count: not run where it \
                  does with every call of one kind, or where neither Status, Encrypt nor Decrypt shows the \
                  outage within --outage-window.",
        run: |cx| Box::pin(calls_do_not_hang(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "outage.status-reports",
        profile: Outage,
        level: Should,
        hooks: HOOKS,
        requirement: "Status shows the outage within the window.",
        sources: &[lines(Proto, 39, 39, "how it is shown; nothing says when")],
        rationale: "Operators learn of it from kube-apiserver's /healthz, and nowhere earlier.",
        procedure: "Take the KMS away; call Status, each time on a new connection, until it is answered with \
                    an error, or with another `healthz` than `ok`.",
        asserts: "It does so within --outage-window. That the connection ends does not count.",
        run: |cx| Box::pin(status_reports(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "outage.status-is-error",
        profile: Outage,
        level: Should,
        hooks: HOOKS,
        requirement: "Status shows the outage by an error of gRPC's, not by `healthz`.",
        sources: &[lines(
            Config,
            486,
            507,
            "a key_id beside a bad healthz still extends the write seed",
        )],
        rationale: "Otherwise writes go on for as long as the outage lasts, though no restarted apiserver \
                    could read them (kubernetes/kubernetes#138950).",
        procedure: "Take the KMS away; call Status, each time on a new connection, until it is answered with \
                    an error.",
        asserts: "It does so within --outage-window. That the connection ends does not count.",
        run: |cx| Box::pin(status_is_error(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "outage.recovers-unaided",
        profile: Outage,
        level: Should,
        hooks: HOOKS,
        requirement: "The plugin is well again within 10 s of the outage's end, without a restart.",
        sources: &[lines(Config, 91, 96, "an unhealthy plugin is asked every 10 s")],
        rationale: "Nobody is awake to restart it.",
        procedure: "Encrypt; take the KMS away; wait until Status shows it, or another call if Status does not; \
                    give it back; call Status, Encrypt and Decrypt until all succeed.",
        asserts: "They do within 10 s. Not run where neither Status, Encrypt nor Decrypt shows the outage within \
                  --outage-window.",
        run: |cx| Box::pin(recovers_unaided(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "outage.decrypt-permission-lost",
        profile: Outage,
        level: Should,
        hooks: &[Hook::DenyDecrypt, Hook::AllowDecrypt],
        requirement: "Status notices when decrypting alone is forbidden.",
        rationale: "kube-apiserver never tests Decrypt: without this it writes what nobody can read \
                    (cf. kubernetes-sigs/aws-encryption-provider#139).",
        procedure: "Encrypt; forbid decrypting; encrypt; call Status, each time on a new connection, until it is \
                    answered with an error, or with another `healthz` than `ok`; otherwise decrypt, on a new \
                    connection.",
        asserts: "It does so within --outage-window. That the connection ends does not count. Not run where \
                  Encrypt ends as in an outage (UNAVAILABLE, DEADLINE_EXCEEDED, no answer), or where Decrypt \
                  works, or its connection ends. That Encrypt is refused, too, is noted: a plugin may encrypt only what it can decrypt.",
        run: |cx| Box::pin(decrypt_permission_lost(cx)),
        ..Check::DEFAULT
    },
];

async fn encrypt_honest(cx: &Context) -> Outcome {
    let (client, _) = cx.well().await?;
    let old = cx.wrapped(&client, &cx.seed()).await?;
    let seen = Seen::new(cx);
    cx.hook(Hook::BackendDown).await?;
    for _ in 0..10 {
        // What it answers is looked at afterwards.
        let _ = seen.encrypt(&client).await;
    }
    let felt = seen.felt(&old).await;
    if felt.is_ok() {
        seen.lasts(&client).await;
    }
    let client = seen.over(Hook::BackendUp, Ok(())).await?;
    let wrapped = seen.wrapped();
    cx.note(seen.failures());
    cx.note(format!("{} seeds were encrypted during the outage", wrapped.len()));
    decrypts(cx, &client, &wrapped).await?;
    felt?;
    if wrapped.is_empty() {
        return Ok(());
    }
    decrypts_elsewhere(cx, &seen, &client, &wrapped).await
}

async fn decrypts(cx: &Context, client: &Client, wrapped: &[Wrapped]) -> Outcome {
    for (wrapped, seed) in wrapped {
        cx.unwraps_to(client, wrapped, seed).await?;
    }
    Ok(())
}

/// Decrypts where nothing is known but what the KMS knows: a key in one process's memory is none.
async fn decrypts_elsewhere(
    cx: &Context,
    seen: &Seen<'_>,
    client: &Client,
    wrapped: &[Wrapped],
) -> Outcome {
    let settings = cx.settings();
    let others = settings.endpoints.len() > 1;
    for endpoint in 1..settings.endpoints.len() {
        // It may see the end of the outage later than the first.
        seen.recovers(endpoint).await?;
        let client = cx.connect_to(endpoint).await?;
        decrypts(cx, &client, wrapped).await?;
    }
    if settings.hooks.has(Hook::Stop) && settings.hooks.has(Hook::Start) {
        let (client, _) = restarted(cx, client).await?;
        return decrypts(cx, &client, wrapped).await;
    }
    if !others {
        cx.note(
            "decrypted by the same process only: no --on-stop and --on-start, no second --endpoint",
        );
    }
    Ok(())
}

async fn key_id_unchanged(cx: &Context) -> Outcome {
    let (client, before) = cx.well().await?;
    let old = cx.wrapped(&client, &cx.seed()).await?;
    let seen = Seen::new(cx);
    cx.hook(Hook::BackendDown).await?;
    // An error has no key_id.
    let _ = seen.status(&client).await;
    let felt = seen.felt(&old).await;
    if felt.is_ok() {
        seen.lasts(&client).await;
    }
    seen.over(Hook::BackendUp, Ok(())).await?;
    let _ = seen.status(&client).await;
    let key_ids = seen.key_ids();
    cx.note(format!("Status reported a key_id {} times", key_ids.len()));
    for id in key_ids {
        demand(id == before.key_id, || {
            format!("key_id was {:?} before the outage, then {id:?}", before.key_id)
        })?;
    }
    felt
}

async fn calls_do_not_hang(cx: &Context) -> Outcome {
    let (client, _) = cx.well().await?;
    let wrapped = cx.wrapped(&client, &cx.seed()).await?;
    let seen = Seen::new(cx);
    cx.hook(Hook::BackendDown).await?;
    let mut ended = in_time(cx, &wrapped).await;
    let mut felt = Ok(());
    if ended.is_ok() {
        // The hook may take effect later than it says.
        felt = seen.felt(&wrapped).await;
        ended = in_time(cx, &wrapped).await;
    }
    seen.over(Hook::BackendUp, ended).await?;
    felt
}

/// Demands that calls end in time, three of each kind.
async fn in_time(cx: &Context, wrapped: &EncryptResponse) -> Outcome {
    for rpc in ["Status", "Encrypt", "Decrypt"] {
        let mut unanswered = Vec::new();
        for _ in 0..3 {
            // One from before may have ended, and on that every call does at once.
            let client = cx.connect().await?;
            let ended = match rpc {
                "Status" => client.status().await.err(),
                "Encrypt" => client.encrypt(&cx.seed(), cx.uid()).await.err(),
                _ => client.decrypt(back(wrapped, cx.uid())).await.err(),
            };
            match ended {
                Some(status) if overdue(&status) => {
                    return Err(Stop::Failed(format!("{rpc}: {}", describe(&status))));
                }
                Some(status) if !answered(&status) => unanswered.push(status),
                _ => {}
            }
        }
        if let [_, _, last] = unanswered.as_slice() {
            return Err(Stop::NotRun(format!("{rpc} got no answer: {}", describe(last))));
        }
    }
    Ok(())
}

async fn status_reports(cx: &Context) -> Outcome {
    cx.well().await?;
    let seen = Seen::new(cx);
    cx.hook(Hook::BackendDown).await?;
    let begin = Instant::now();
    let reported = match seen.shown().await {
        Some(code) => {
            cx.note(format!("{} after {:.1?}", code_name(code), begin.elapsed()));
            Ok(())
        }
        None => Err(Stop::Failed("Status went on saying ok for the whole window".to_owned())),
    };
    seen.over(Hook::BackendUp, reported).await.map(|_| ())
}

async fn status_is_error(cx: &Context) -> Outcome {
    cx.well().await?;
    let seen = Seen::new(cx);
    cx.hook(Hook::BackendDown).await?;
    let look = async || seen.shows().await.filter(|code| *code != Code::Ok);
    let failed = match cx.poll(cx.settings().outage_window, look).await {
        Some(code) => {
            cx.note(code_name(code));
            Ok(())
        }
        None => Err(Stop::Failed("Status did not fail in the whole window".to_owned())),
    };
    seen.over(Hook::BackendUp, failed).await.map(|_| ())
}

async fn recovers_unaided(cx: &Context) -> Outcome {
    let (client, _) = cx.well().await?;
    let wrapped = cx.wrapped(&client, &cx.seed()).await?;
    let seen = Seen::new(cx);
    cx.hook(Hook::BackendDown).await?;
    // Whether Status shows it is status-reports' affair; that something does, is not.
    let felt = match seen.shown().await {
        Some(_) => Ok(()),
        None => seen.felt(&wrapped).await,
    };
    cx.hook(Hook::BackendUp).await?;
    let begin = Instant::now();
    let window = cx.settings().polls.unhealthy;
    if cx.poll(window, async || seen.works(0).await).await.is_none() {
        return Err(Stop::Failed(format!(
            "not all calls worked {window:?} after the outage's end"
        )));
    }
    cx.note(format!("after {:.1?}", begin.elapsed()));
    felt
}

async fn decrypt_permission_lost(cx: &Context) -> Outcome {
    let (client, _) = cx.well().await?;
    let wrapped = cx.wrapped(&client, &cx.seed()).await?;
    let seen = Seen::new(cx);
    cx.hook(Hook::DenyDecrypt).await?;
    let noticed = match seen.encrypt(&client).await {
        Err(status) if outage(&status) => Err(Stop::NotRun(format!(
            "--on-deny-decrypt must forbid decrypting alone, and Encrypt ends as in an outage: {}",
            describe(&status)
        ))),
        encrypted => {
            if let Err(status) = encrypted {
                cx.note(format!("Encrypt is refused, too: {}", describe(&status)));
            }
            match seen.shown().await {
                Some(code) => {
                    cx.note(code_name(code));
                    Ok(())
                }
                None => Err(unnoticed(cx, &wrapped).await),
            }
        }
    };
    seen.over(Hook::AllowDecrypt, noticed).await.map(|_| ())
}

/// Whether a call ended as one does whose KMS is away: not even a refusal came from there.
fn outage(status: &Status) -> bool {
    !answered(status) || [Code::Unavailable, Code::DeadlineExceeded].contains(&status.code())
}

/// Status says ok: whose fault it is depends on whether the plugin still decrypts, on a new connection, since
/// one from before may have ended.
async fn unnoticed(cx: &Context, wrapped: &EncryptResponse) -> Stop {
    let client = match cx.connect().await {
        Ok(client) => client,
        Err(stop) => return stop,
    };
    let decrypted = client.decrypt(back(wrapped, cx.uid())).await;
    judged(decrypted.map(|_| ()), cx.settings().outage_window)
}

/// What Decrypt shows where Status said ok for the whole window.
fn judged(decrypted: Result<(), Status>, window: Duration) -> Stop {
    match decrypted {
        Ok(()) => Stop::NotRun(
            "neither Status nor Decrypt showed that --on-deny-decrypt forbade decrypting"
                .to_owned(),
        ),
        Err(status) if !answered(&status) && !overdue(&status) => {
            Stop::NotRun(format!("Decrypt got no answer: {}", describe(&status)))
        }
        Err(_) => {
            Stop::Failed(format!("Decrypt fails, and Status went on saying ok for {window:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_connection_that_ended_shows_nothing_of_decrypt() {
        let window = Duration::from_secs(1);
        let mut ended = Status::unavailable("closed");
        ended.set_source(Arc::new(io::Error::other("closed")));
        for decrypted in [Ok(()), Err(ended)] {
            assert!(matches!(judged(decrypted, window), Stop::NotRun(_)));
        }
        let refused = Err(Status::permission_denied("no"));
        assert!(matches!(judged(refused, window), Stop::Failed(_)));
    }
}
