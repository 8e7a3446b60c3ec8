//! The socket's file, reflection and the log. On the plugin's own machine only.

use std::future::ready;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use kleidi_proto::kms::{StatusRequest, StatusResponse};
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
        asserts: "Not writable for others, nor for the group, unless sticky.",
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
        procedure: "Encrypt and decrypt a seed; decrypt it again tampered with; call the hook.",
        asserts: "The seed is not in the log: as it is, in hex, in base64 or as numbers.",
        run: |cx| Box::pin(log_canary(cx)),
        ..Check::DEFAULT
    },
];

/// Any permission for others.
const OTHERS: u32 = 0o007;
/// To write, for the group and for others.
const OTHERS_WRITE: u32 = 0o022;
/// Only its owner removes a file from the directory.
const STICKY: u32 = 0o1000;

fn file(cx: &Context) -> Result<PathBuf, Stop> {
    let file = cx.settings().endpoints[0].file();
    file.map(Into::into).ok_or_else(|| Stop::NotRun("an abstract socket has no file".to_owned()))
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
    demand(mode & OTHERS_WRITE == 0 || mode & STICKY != 0, || {
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
    let mut tampered = back(&wrapped, cx.uid());
    if let Some(last) = tampered.ciphertext.last_mut() {
        *last ^= 1;
    }
    // Its error is other checks' affair.
    let _ = client.decrypt(tampered).await;
    let log = cx.hook(Hook::PrintLog).await?;
    cx.note(format!("the log has {} bytes", log.len()));
    demand(!secrets::has(log.as_bytes(), &seed), || "the plaintext is in the log".to_owned())
}
