//! The socket's file, reflection and the log. On the plugin's own machine only.

use std::future::ready;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use kleidi_proto::kms::{StatusRequest, StatusResponse};
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::check::Level::Should;
use crate::check::Profile::Hardening;
use crate::check::{Check, Outcome, Stop};
use crate::client::{Client, answered, back, describe};
use crate::context::{Context, Demand as _, demand};
use crate::hooks::Hook;
use crate::secrets;

/// Who can open the socket, can decrypt.
const WHO: &str = "Whoever may open the socket can have everything decrypted.";

pub(crate) const CHECKS: &[Check] = &[
    Check {
        id: "hardening.socket-mode",
        profile: Hardening,
        level: Should,
        requirement: "The socket is not open to everybody.",
        rationale: WHO,
        procedure: "Look at the socket's mode. Not run for an abstract socket, which has none.",
        asserts: "No permission for others.",
        run: |cx| Box::pin(ready(socket_mode(cx))),
        ..Check::DEFAULT
    },
    Check {
        id: "hardening.socket-dir",
        profile: Hardening,
        level: Should,
        requirement: "Nobody else can put another socket in its place.",
        rationale: "kube-apiserver would hand its seeds to whoever listens there.",
        procedure: "Look at the mode of the socket's directory. Not run for an abstract socket.",
        asserts: "Not writable for others: sticky or not, whoever may write there can be first. Not writable \
                  for the group, unless sticky.",
        run: |cx| Box::pin(ready(socket_dir(cx))),
        ..Check::DEFAULT
    },
    Check {
        id: "hardening.reflection-off",
        profile: Hardening,
        level: Should,
        requirement: "gRPC reflection is off.",
        rationale: "Its only client needs none; each further service is something more to attack.",
        procedure: "Call ServerReflectionInfo of grpc.reflection.v1 and v1alpha.",
        asserts: "UNIMPLEMENTED, in an answer of gRPC's and not by an HTTP status alone.",
        run: |cx| Box::pin(reflection_off(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "hardening.log-canary",
        profile: Hardening,
        level: Should,
        hooks: &[Hook::PrintLog],
        requirement: "No plaintext is logged.",
        rationale: "Logs are kept, shipped and read by many.",
        procedure: "Call the hook, again and again for a second; encrypt and decrypt a seed; decrypt it again \
                    tampered with; the same with 32 letters and digits; call the hook, again and again for a \
                    second, or until the last call's uid is in the log.",
        asserts: "Neither plaintext is in the log: as it is, escaped, in hex, in base64 or as numbers. Not run \
                  where the log tells nothing of the calls: it has not the last one's uid, and has not grown by \
                  more than twice what it grew in the second before them.",
        run: |cx| Box::pin(log_canary(cx)),
        ..Check::DEFAULT
    },
];

/// Any permission for others.
const OTHERS: u32 = 0o007;
/// To write, for others.
const OTHERS_WRITE: u32 = 0o002;
/// To write, for the group.
const GROUP_WRITES: u32 = 0o020;
/// Only its owner removes a file from the directory.
const STICKY: u32 = 0o1000;

fn file(cx: &Context) -> Result<PathBuf, Stop> {
    let file = cx.settings().endpoints[0].file();
    file.map(Into::into).ok_or_else(|| Stop::not_applicable("an abstract socket has no file"))
}

fn mode(path: &std::path::Path) -> Result<u32, Stop> {
    let looked = std::fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o7777);
    looked.map_err(|error| Stop::Broken(format!("cannot look at {}: {error}", path.display())))
}

fn socket_mode(cx: &Context) -> Outcome {
    let mode = mode(&file(cx)?)?;
    cx.note(format!("mode {mode:04o}"));
    demand(mode & OTHERS == 0, || format!("the socket's mode is {mode:04o}: others may use it"))
}

fn socket_dir(cx: &Context) -> Outcome {
    let file = file(cx)?;
    let Some(directory) = file.parent() else {
        return Err(Stop::Broken(format!("{} has no directory", file.display())));
    };
    let mode = mode(directory)?;
    cx.note(format!("mode {mode:04o}"));
    let replaceable = mode & OTHERS_WRITE != 0 || mode & GROUP_WRITES != 0 && mode & STICKY == 0;
    demand(!replaceable, || {
        format!("the mode of {} is {mode:04o}: others may replace the socket", directory.display())
    })
}

async fn reflection_off(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        match client.call::<StatusRequest, StatusResponse>(&path, StatusRequest {}).await {
            // The library makes UNIMPLEMENTED of an HTTP status, too.
            Err(status) if !answered(&status) => {
                return Err(Stop::Failed(format!(
                    "{path}: no answer of gRPC's: {}",
                    describe(&status)
                )));
            }
            Err(status) if status.code() == Code::Unimplemented => {}
            Err(status) => {
                return Err(Stop::Failed(format!("{path}: {}", describe(&status))));
            }
            Ok(_) => return Err(Stop::Failed(format!("{path} is answered"))),
        }
    }
    Ok(())
}

async fn log_canary(cx: &Context) -> Outcome {
    let first = cx.hook(Hook::PrintLog).await?.len();
    // It may grow by itself, or because it is looked at.
    let before = log(cx, |_| Ok(false)).await?.len();
    let client = cx.connect().await?;
    // What prints bytes as text leaves little of a seed, and all of a text.
    let plaintexts = [cx.seed(), cx.text()];
    let mut last = String::new();
    for plaintext in &plaintexts {
        last = used(cx, &client, plaintext).await?;
    }
    // Some write their log a little later.
    let after = log(cx, |log| {
        for plaintext in &plaintexts {
            demand(!secrets::has(log, plaintext), || "the plaintext is in the log".to_owned())?;
        }
        Ok(secrets::holds(log, last.as_bytes()))
    });
    let after = after.await?;
    let told = secrets::holds(&after, last.as_bytes());
    let has = if told { "it has" } else { "it has not" };
    let after = after.len();
    cx.note(format!(
        "{first} bytes, {before} a second later, {after} after the calls; {has} the last uid"
    ));
    if !told && after.saturating_sub(before) <= 2 * before.saturating_sub(first) {
        return Err(Stop::NotRun(
            "what --print-log printed tells nothing of the calls: it has not the last one's uid, and has hardly \
             grown more than without them"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Looks at the log again and again, for a second, or until it is `enough`; gives what was there last.
async fn log(cx: &Context, enough: impl Fn(&[u8]) -> Result<bool, Stop>) -> Result<Vec<u8>, Stop> {
    let begin = Instant::now();
    loop {
        let log = cx.hook(Hook::PrintLog).await?;
        if enough(&log)? || begin.elapsed() >= Duration::from_secs(1) {
            return Ok(log);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Encrypts and decrypts, well and tampered with; gives the last call's uid.
async fn used(cx: &Context, client: &Client, plaintext: &[u8]) -> Result<String, Stop> {
    let wrapped = cx.wrapped(client, plaintext).await?;
    client.decrypt(back(&wrapped, cx.uid())).await.or_not_run("Decrypt")?;
    let last = cx.uid();
    let mut tampered = back(&wrapped, last.clone());
    if let Some(byte) = tampered.ciphertext.last_mut() {
        *byte ^= 1;
    }
    // Its error is other checks' affair.
    let _ = client.decrypt(tampered).await;
    Ok(last)
}
