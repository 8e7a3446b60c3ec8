//! The KMS is away.

use std::time::Duration;

use kleidi_proto::kms::EncryptResponse;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::check::Level::{Must, Should};
use crate::check::Profile::Outage;
use crate::check::{Check, Outcome, Stop};
use crate::checks::restart::restarted;
use crate::client::{Client, answered, back, code_name, describe, overdue};
use crate::context::{Context, Demand as _, demand};
use crate::hooks::Hook;
use crate::source::Document::{Config, Kep, Proto};
use crate::source::lines;

const HOOKS: &[Hook] = &[Hook::BackendDown, Hook::BackendUp];

pub(crate) const CHECKS: &[Check] = &[
    Check {
        id: "outage.encrypt-honest",
        profile: Outage,
        level: Must,
        hooks: HOOKS,
        requirement: "During an outage Encrypt fails, or answers what decrypts afterwards.",
        sources: &[lines(Proto, 78, 83, "the key_id is that of the key which encrypted")],
        procedure: "Take the KMS away; encrypt ten seeds; give it back; wait until the plugin is well; \
                    decrypt what was answered, on each endpoint; with --on-stop and --on-start again \
                    after a restart.",
        asserts: "Each answer decrypts to its seed. That all fail is fine. Not run where neither Status, \
                  Encrypt nor Decrypt shows the outage within --outage-window.",
        run: |cx| Box::pin(encrypt_honest(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "outage.key-id-unchanged",
        profile: Outage,
        level: Must,
        hooks: HOOKS,
        requirement: "An outage does not change the key_id.",
        sources: &[lines(Kep, 149, 160, "the key_id must be stable")],
        procedure: "Call Status; take the KMS away; call Status; give it back; wait until it is well.",
        asserts: "Every key_id that is reported is the first one. Not run where neither Status, Encrypt nor \
                  Decrypt shows the outage within --outage-window.",
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
        procedure: "Encrypt; take the KMS away; call Status, Encrypt and Decrypt three times each.",
        asserts: "Each ends, however, before --timeout.",
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
        procedure: "Take the KMS away; wait until Status shows it; give it back; call Status, Encrypt and \
                    Decrypt until all succeed.",
        asserts: "They do within 10 s.",
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
        procedure: "Forbid decrypting; call Status, each time on a new connection, until it is answered with \
                    an error, or with another `healthz` than `ok`.",
        asserts: "It does so within --outage-window. That the connection ends does not count.",
        run: |cx| Box::pin(decrypt_permission_lost(cx)),
        ..Check::DEFAULT
    },
];

/// Whether Status is ok, and Encrypt and Decrypt work.
async fn works(cx: &Context) -> Option<()> {
    let (client, _) = cx.well_within(Duration::ZERO).await.ok()?;
    let seed = cx.seed();
    let wrapped = client.encrypt(&seed, cx.uid()).await.ok()?;
    let answer = client.decrypt(back(&wrapped, cx.uid())).await.ok()?;
    (answer == seed).then_some(())
}

/// Ends the outage, whatever was seen, and waits until the plugin is well; what was seen comes first.
async fn over<T>(cx: &Context, up: Hook, seen: Result<T, Stop>) -> Result<(Client, T), Stop> {
    cx.hook(up).await?;
    let window = cx.settings().outage_window.max(cx.settings().polls.unhealthy);
    // Status may not have noticed a short outage, whose end the other calls still have to see.
    cx.poll(window, async || works(cx).await).await;
    let well = cx.well_within(window).await;
    let seen = seen?;
    let (client, _) =
        well.map_err(|why| Stop::Failed(format!("it was not well after the outage: {why}")))?;
    Ok((client, seen))
}

/// How Status, on a connection of its own, shows an outage now; that a connection ends does not show it.
async fn shows(cx: &Context) -> Option<Code> {
    match cx.connect().await.ok()?.status().await {
        Err(status) => answered(&status).then(|| status.code()),
        Ok(status) => (status.healthz != "ok").then_some(Code::Ok),
    }
}

/// How Status shows an outage, as soon as it does.
async fn shown(cx: &Context) -> Option<Code> {
    cx.poll(cx.settings().outage_window, async || shows(cx).await).await
}

/// Waits until a call shows the outage, whichever: a hook that did nothing proves nothing.
async fn felt(cx: &Context, wrapped: &EncryptResponse) -> Result<(), Stop> {
    let look = async || {
        if shows(cx).await.is_some() {
            return Some(());
        }
        let client = cx.connect().await.ok()?;
        // No answer in time shows it, too.
        let shows = |status: Status| (answered(&status) || overdue(&status)).then_some(());
        let encrypt = client.encrypt(&cx.seed(), cx.uid()).await.err().and_then(shows);
        if encrypt.is_some() {
            return encrypt;
        }
        client.decrypt(back(wrapped, cx.uid())).await.err().and_then(shows)
    };
    cx.poll(cx.settings().outage_window, look).await.ok_or_else(|| {
        Stop::NotRun(
            "neither Status, Encrypt nor Decrypt showed that --on-backend-down took the KMS away"
                .to_owned(),
        )
    })
}

async fn encrypt_honest(cx: &Context) -> Outcome {
    let (client, _) = cx.well().await?;
    let old = cx.wrapped(&client, &cx.seed()).await?;
    cx.hook(Hook::BackendDown).await?;
    let (mut answered, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let seed = cx.seed();
        match client.encrypt(&seed, cx.uid()).await {
            Ok(wrapped) => answered.push((wrapped, seed)),
            Err(status) => refused.push(code_name(status.code())),
        }
    }
    refused.dedup();
    cx.note(format!("refused with {refused:?}"));
    let felt = felt(cx, &old).await;
    let (client, answered) = over(cx, Hook::BackendUp, Ok(answered)).await?;
    cx.note(format!("{} of 10 were answered during the outage", answered.len()));
    decrypts(cx, &client, &answered).await?;
    felt?;
    if answered.is_empty() {
        return Ok(());
    }
    decrypts_elsewhere(cx, &client, &answered).await
}

/// Ciphertexts and their seeds.
type Wrapped = [(EncryptResponse, Vec<u8>)];

async fn decrypts(cx: &Context, client: &Client, answered: &Wrapped) -> Outcome {
    for (wrapped, seed) in answered {
        cx.unwraps_to(client, wrapped, seed).await?;
    }
    Ok(())
}

/// Decrypts where nothing is known but what the KMS knows: a key in one process's memory is none.
async fn decrypts_elsewhere(cx: &Context, client: &Client, answered: &Wrapped) -> Outcome {
    let settings = cx.settings();
    let others = settings.endpoints.len() > 1;
    for endpoint in 1..settings.endpoints.len() {
        let client = cx.connect_to(endpoint).await?;
        client.status().await.or_not_run("Status of another endpoint")?;
        decrypts(cx, &client, answered).await?;
    }
    if settings.hooks.has(Hook::Stop) && settings.hooks.has(Hook::Start) {
        let (client, _) = restarted(cx, client).await?;
        return decrypts(cx, &client, answered).await;
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
    cx.hook(Hook::BackendDown).await?;
    let during = client.status().await.ok().map(|status| status.key_id);
    let felt = felt(cx, &old).await;
    let (client, during) = over(cx, Hook::BackendUp, Ok(during)).await?;
    let after = client.status().await.ok().map(|status| status.key_id);
    for id in during.into_iter().chain(after).filter(|id| !id.is_empty()) {
        demand(id == before.key_id, || {
            format!("key_id was {:?} before the outage, then {id:?}", before.key_id)
        })?;
    }
    felt
}

async fn calls_do_not_hang(cx: &Context) -> Outcome {
    let (client, _) = cx.well().await?;
    let wrapped = cx.wrapped(&client, &cx.seed()).await?;
    cx.hook(Hook::BackendDown).await?;
    let calls = async {
        for _ in 0..3 {
            for (rpc, ended) in [
                ("Status", client.status().await.err()),
                ("Encrypt", client.encrypt(&cx.seed(), cx.uid()).await.err()),
                ("Decrypt", client.decrypt(back(&wrapped, cx.uid())).await.err()),
            ] {
                if let Some(status) = ended.filter(overdue) {
                    return Err(Stop::Failed(format!("{rpc}: {}", describe(&status))));
                }
            }
        }
        Ok(())
    };
    let seen = calls.await;
    over(cx, Hook::BackendUp, seen).await.map(|_| ())
}

async fn status_reports(cx: &Context) -> Outcome {
    cx.well().await?;
    cx.hook(Hook::BackendDown).await?;
    let begin = Instant::now();
    let seen = match shown(cx).await {
        Some(code) => {
            cx.note(format!("{} after {:.1?}", code_name(code), begin.elapsed()));
            Ok(())
        }
        None => Err(Stop::Failed("Status went on saying ok for the whole window".to_owned())),
    };
    over(cx, Hook::BackendUp, seen).await.map(|_| ())
}

async fn status_is_error(cx: &Context) -> Outcome {
    cx.well().await?;
    cx.hook(Hook::BackendDown).await?;
    let look = async || shows(cx).await.filter(|code| *code != Code::Ok);
    let seen = match cx.poll(cx.settings().outage_window, look).await {
        Some(code) => {
            cx.note(code_name(code));
            Ok(())
        }
        None => Err(Stop::Failed("Status did not fail in the whole window".to_owned())),
    };
    over(cx, Hook::BackendUp, seen).await.map(|_| ())
}

async fn recovers_unaided(cx: &Context) -> Outcome {
    cx.well().await?;
    cx.hook(Hook::BackendDown).await?;
    // Whether it shows is status-reports' affair.
    shown(cx).await;
    cx.hook(Hook::BackendUp).await?;
    let begin = Instant::now();
    let window = cx.settings().polls.unhealthy;
    if cx.poll(window, async || works(cx).await).await.is_none() {
        return Err(Stop::Failed(format!(
            "not all calls worked {window:?} after the outage's end"
        )));
    }
    cx.note(format!("after {:.1?}", begin.elapsed()));
    Ok(())
}

async fn decrypt_permission_lost(cx: &Context) -> Outcome {
    cx.well().await?;
    cx.hook(Hook::DenyDecrypt).await?;
    let seen = match shown(cx).await {
        Some(code) => {
            cx.note(code_name(code));
            Ok(())
        }
        None => Err(Stop::Failed("Status went on saying ok for the whole window".to_owned())),
    };
    over(cx, Hook::AllowDecrypt, seen).await.map(|_| ())
}
