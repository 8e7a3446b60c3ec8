//! What error messages say.

use kleidi_proto::kms::DecryptRequest;
use tonic::{Code, Status};

use crate::check::Level::Should;
use crate::check::{Check, Outcome, Stop};
use crate::client::{Client, answered, back, code_name, describe};
use crate::context::{Context, demand};
use crate::secrets;
use crate::source::Document::{Kep, StatusCodes};
use crate::source::{lines, whole};

/// Codes that take a fault of the caller, or a lost key, for a bug or an outage.
pub(crate) const MISLEADING: [Code; 4] =
    [Code::Unknown, Code::Internal, Code::Unavailable, Code::DeadlineExceeded];

pub(crate) const CHECKS: &[Check] = &[
    Check {
        id: "errors.no-secrets",
        level: Should,
        requirement: "No status message has a plaintext in it.",
        sources: &[lines(Kep, 149, 160, "what is logged is public")],
        rationale: "kube-apiserver logs the message and shows it to readers of /healthz.",
        procedure: "Encrypt a seed; provoke errors of Decrypt with it; then encrypt 128 KiB of it, on a connection \
                    of their own; do the same with 32 letters and digits.",
        asserts: "No message has the plaintext as it is, escaped, in hex, in base64 or as numbers. Errors of \
                  Decrypt are the plugin's own answers, and Status succeeds afterwards on the same connection; the \
                  stream of 128 KiB may be ended instead. Not run where nothing failed.",
        run: |cx| Box::pin(no_secrets(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "errors.codes",
        level: Should,
        requirement: "Faults of the caller have a code that says so.",
        sources: &[whole(
            StatusCodes,
            "INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION and others",
        )],
        rationale: "kube-apiserver's metrics are labelled with the code; UNKNOWN and INTERNAL look like \
                    bugs, UNAVAILABLE and DEADLINE_EXCEEDED like an outage.",
        procedure: "Encrypt and decrypt; decrypt garbage, an empty ciphertext and one that was tampered with.",
        asserts: "None fails with UNKNOWN, INTERNAL, UNAVAILABLE or DEADLINE_EXCEEDED, nor without an answer, and \
                  Status succeeds after each on the same connection. Not run where none fails.",
        run: |cx| Box::pin(codes(cx)),
        ..Check::DEFAULT
    },
];

/// Requests that ought to fail, by what is wrong with them.
fn faulty(cx: &Context, good: &DecryptRequest) -> Vec<(&'static str, DecryptRequest)> {
    let mut tampered = good.clone();
    if let Some(last) = tampered.ciphertext.last_mut() {
        *last ^= 1;
    }
    vec![
        ("garbage", DecryptRequest { ciphertext: cx.bytes(60), ..good.clone() }),
        ("an empty ciphertext", DecryptRequest { ciphertext: Vec::new(), ..good.clone() }),
        ("a tampered ciphertext", tampered),
    ]
}

async fn no_secrets(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    let mut errors = 0;
    // What prints bytes as text leaves little of a seed, and all of a text.
    for plaintext in [cx.seed(), cx.text()] {
        let tells = |what: &str, status: &Status| {
            demand(!secrets::has(status.message().as_bytes(), &plaintext), || {
                format!("the message about {what} has the plaintext in it")
            })
        };
        for (what, status) in provoke(cx, &client, &plaintext).await? {
            cx.survives(&client, what, &status).await?;
            tells(what, &status)?;
            errors += 1;
        }
        // What is too long may end the stream instead, and the connection with it.
        let oversize = cx.connect().await?.encrypt(&plaintext.repeat(4096), cx.uid()).await;
        if let Some(status) = oversize.err().filter(answered) {
            tells("128 KiB", &status)?;
            errors += 1;
        }
    }
    cx.note(format!("{errors} errors were looked at"));
    some(errors)
}

/// The errors of Decrypts that have to do with the plaintext, by what is wrong with them.
async fn provoke(
    cx: &Context,
    client: &Client,
    plaintext: &[u8],
) -> Result<Vec<(&'static str, Status)>, Stop> {
    let wrapped = cx.wrapped(client, plaintext).await?;
    let good = back(&wrapped, cx.uid());
    let lost = DecryptRequest { key_id: format!("never-issued-{}", cx.uid()), ..good.clone() };
    let mut errors = Vec::new();
    for (what, request) in faulty(cx, &good).into_iter().chain([("an unknown key_id", lost)]) {
        errors.extend(client.decrypt(request).await.err().map(|status| (what, status)));
    }
    Ok(errors)
}

async fn codes(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    let seed = cx.seed();
    let wrapped = cx.wrapped(&client, &seed).await?;
    cx.decrypts(&client, &wrapped, &seed).await?;
    let mut errors = 0;
    for (what, request) in faulty(cx, &back(&wrapped, cx.uid())) {
        if let Err(status) = client.decrypt(request).await {
            cx.survives(&client, what, &status).await?;
            errors += 1;
            cx.note(format!("{what}: {}", code_name(status.code())));
            demand(!MISLEADING.contains(&status.code()), || {
                format!("{what}: {}", describe(&status))
            })?;
        }
    }
    some(errors)
}

/// Without an error there is nothing to judge.
fn some(errors: usize) -> Result<(), Stop> {
    if errors > 0 {
        return Ok(());
    }
    Err(Stop::NotRun("nothing that was provoked ended with an error: see decrypt.*".to_owned()))
}
