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
use crate::client::{back, describe};
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
        asserts: "UNIMPLEMENTED.",
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
        procedure: "Encrypt and decrypt a seed; decrypt it again tampered with; call the hook, again and again \
                    for a second, or until the last call's uid is in the log.",
        asserts: "The seed is not in the log: as it is, escaped, in hex, in base64 or as numbers. Not run where \
                  the log is empty.",
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
    let client = cx.connect().await?;
    let seed = cx.seed();
    let wrapped = cx.wrapped(&client, &seed).await?;
    client.decrypt(back(&wrapped, cx.uid())).await.or_not_run("Decrypt")?;
    let last = cx.uid();
    let mut tampered = back(&wrapped, last.clone());
    if let Some(byte) = tampered.ciphertext.last_mut() {
        *byte ^= 1;
    }
    // Its error is other checks' affair.
    let _ = client.decrypt(tampered).await;
    let last = last.into_bytes();
    // Some write their log a little later.
    let begin = Instant::now();
    let mut log = Vec::new();
    while begin.elapsed() < Duration::from_secs(1)
        && !log.windows(last.len()).any(|window| window == last)
    {
        log = cx.hook(Hook::PrintLog).await?;
        demand(!secrets::has(&log, &seed), || "the plaintext is in the log".to_owned())?;
        sleep(Duration::from_millis(100)).await;
    }
    cx.note(format!("the log has {} bytes", log.len()));
    if log.iter().all(u8::is_ascii_whitespace) {
        return Err(Stop::NotRun("--print-log printed nothing".to_owned()));
    }
    Ok(())
}
