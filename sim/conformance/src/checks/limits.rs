//! Sizes at and beyond the limits, and input that no apiserver sends.

use kleidi_proto::kms::{EncryptRequest, EncryptResponse};
use tonic::Code;

use crate::check::Level::{Info, Should};
use crate::check::Profile::Limits;
use crate::check::{Check, Outcome, Stop};
use crate::client::{SERVICE, answered, back, code_name, describe, overdue};
use crate::context::{Context, Demand as _, demand, fingerprint};
use crate::raw::{self, END_OR_ACK, Raw, kind};
use crate::source::Document::Proto;
use crate::source::lines;

pub(crate) const CHECKS: &[Check] = &[
    Check {
        id: "limits.key-id-under-1k",
        level: Should,
        profile: Limits,
        requirement: "`key_id` has less than 1024 bytes.",
        sources: &[lines(Proto, 41, 45, "says less than 1 kB; the code accepts 1024")],
        rationale: "The text is stricter than today's code.",
        procedure: "Call Status.",
        asserts: "The length of `key_id` in bytes.",
        run: |cx| Box::pin(key_id_under_1k(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "limits.ciphertext-under-1k",
        level: Should,
        profile: Limits,
        requirement: "The ciphertext of a seed has less than 1024 bytes.",
        sources: &[lines(Proto, 74, 76, "says less than 1 kB; the code accepts 1024")],
        rationale: "The text is stricter than today's code.",
        procedure: "Encrypt a seed.",
        asserts: "The length of the ciphertext in bytes.",
        run: |cx| Box::pin(ciphertext_under_1k(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "limits.plaintext-sizes",
        level: Should,
        profile: Limits,
        requirement: "Plaintexts of 1 to 64 bytes come back exactly.",
        rationale: "kube-apiserver encrypts 32 bytes today; the interface promises nothing of the kind.",
        procedure: "Encrypt and decrypt 1, 15, 16, 17, 24, 31, 32, 33, 48, 63 and 64 random bytes.",
        asserts: "Each comes back exactly.",
        run: |cx| Box::pin(plaintext_sizes(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "limits.empty-plaintext",
        level: Info,
        profile: Limits,
        requirement: "An empty plaintext is accepted, or refused with INVALID_ARGUMENT.",
        rationale: "Never sent; but a crash is never an answer.",
        procedure: "Encrypt no bytes; then call Status.",
        asserts: "OK or INVALID_ARGUMENT; then OK.",
        run: |cx| Box::pin(empty_plaintext(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "limits.oversize-request",
        level: Should,
        profile: Limits,
        requirement: "A request of 8 MiB is refused as too large, and the next call works.",
        rationale: "Whoever may open the socket must not be able to fill the machine's memory.",
        procedure: "Open a second connection; encrypt 8 MiB on the first; then call Status on the second, and \
                    on a new one.",
        asserts: "RESOURCE_EXHAUSTED, OUT_OF_RANGE or INVALID_ARGUMENT, or the stream is ended; then OK.",
        run: |cx| Box::pin(oversize_request(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "limits.many-annotations",
        level: Should,
        profile: Limits,
        requirement: "Ten thousand annotations in Decrypt neither hang the plugin nor bring a wrong plaintext.",
        rationale: "What lies in etcd is not under the plugin's control.",
        procedure: "Encrypt; decrypt with 10,000 annotations added; then call Status.",
        asserts: "An error of the plugin's own, or the seed, within --timeout; then OK, on the same connection \
                  and on a new one.",
        run: |cx| Box::pin(many_annotations(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "limits.malformed-frames",
        level: Should,
        profile: Limits,
        requirement: "Broken HTTP/2 or protobuf ends that connection or call and no other.",
        rationale: "kube-apiserver's one connection must not hang on what another client does.",
        procedure: "Keep a good connection; on others send noise, a frame that is too long, an unknown \
                    stream, broken HPACK, and a call with broken protobuf.",
        asserts: "The good connection and a new one go on working.",
        run: |cx| Box::pin(malformed_frames(cx)),
        ..Check::DEFAULT
    },
];

async fn key_id_under_1k(cx: &Context) -> Outcome {
    let bytes = cx.connect().await?.status().await.or_failed("Status")?.key_id.len();
    demand(bytes < 1024, || format!("key_id has {bytes} bytes, wanted less than 1024"))
}

async fn ciphertext_under_1k(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    let bytes = cx.wrapped(&client, &cx.seed()).await?.ciphertext.len();
    demand(bytes < 1024, || format!("the ciphertext has {bytes} bytes, wanted less than 1024"))
}

async fn plaintext_sizes(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    for length in [1, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64] {
        let plaintext = cx.bytes(length);
        let what = format!("Encrypt of {length} bytes");
        let wrapped = client.encrypt(&plaintext, cx.uid()).await.or_failed(&what)?;
        cx.unwraps_to(&client, &wrapped, &plaintext).await?;
    }
    Ok(())
}

async fn empty_plaintext(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    match client.encrypt(&[], cx.uid()).await {
        Ok(_) => cx.note("accepted"),
        Err(status) if status.code() == Code::InvalidArgument => cx.note("INVALID_ARGUMENT"),
        Err(status) => return Err(Stop::Failed(describe(&status))),
    }
    client.status().await.or_failed("Status afterwards")?;
    Ok(())
}

async fn oversize_request(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    let other = cx.connect().await?;
    other.status().await.or_not_run("Status before")?;
    let request = EncryptRequest { plaintext: vec![7; 8 << 20], uid: cx.uid() };
    // An answer of as many bytes must not be taken for a refusal.
    let client = client.receiving(64 << 20);
    match client.unary::<_, EncryptResponse>("Encrypt", request).await {
        Ok(_) => return Err(Stop::Failed("8 MiB were accepted".to_owned())),
        Err(status) if overdue(&status) => {
            return Err(Stop::Failed(format!("8 MiB: {}", describe(&status))));
        }
        Err(status) if answered(&status) => {
            let refusals = [Code::ResourceExhausted, Code::OutOfRange, Code::InvalidArgument];
            demand(refusals.contains(&status.code()), || {
                format!("8 MiB are not refused as too large, but with {}", describe(&status))
            })?;
            cx.note(code_name(status.code()));
        }
        // A server that stops reading ends the stream; the client's library words it.
        Err(_) => cx.note("the stream was ended"),
    }
    drop(client);
    other.status().await.or_failed("Status on another connection afterwards")?;
    cx.connect().await?.status().await.or_failed("Status afterwards")?;
    Ok(())
}

async fn many_annotations(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    let seed = cx.seed();
    let wrapped = cx.wrapped(&client, &seed).await?;
    let mut request = back(&wrapped, cx.uid());
    request
        .annotations
        .extend((0..cx.settings().load.annotations).map(|n| (format!("a{n}.example"), vec![0; 8])));
    match client.decrypt(request).await {
        Ok(answer) => {
            demand(answer == seed, || {
                format!("answered with OK and {}, which is not the seed", fingerprint(&answer))
            })?;
            cx.note("OK, and the seed");
            client.status().await.or_failed("Status on the same connection afterwards")?;
        }
        Err(status) => {
            cx.survives(&client, "10,000 annotations", &status).await?;
            cx.note(code_name(status.code()));
        }
    }
    drop(client);
    cx.connect().await?.status().await.or_failed("Status afterwards")?;
    Ok(())
}

/// Bytes that end a connection or a call.
fn broken() -> Vec<(&'static str, Vec<u8>)> {
    let mut protobuf = raw::empty_call(1, "localhost", &format!("{SERVICE}Decrypt"));
    protobuf.truncate(protobuf.len() - 14);
    // A field that claims to be longer than the message.
    let message = [0, 0, 0, 0, 4, 0x0a, 0xff, 0xff, 0x7f];
    protobuf.extend(raw::frame(kind::DATA, END_OR_ACK, 1, &message));
    vec![
        ("noise", vec![0xa5; 512]),
        ("a frame that is too long", vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]),
        ("a message on no stream", raw::frame(kind::DATA, 0, 0, &[0; 5])),
        ("broken HPACK", raw::frame(kind::HEADERS, 4 | END_OR_ACK, 1, &[0xff; 9])),
        ("broken protobuf", protobuf),
    ]
}

async fn malformed_frames(cx: &Context) -> Outcome {
    let settings = cx.settings();
    let good = cx.connect().await?;
    good.status().await.or_failed("Status before")?;
    for (what, bytes) in broken() {
        let mut raw =
            Raw::open(&settings.endpoints[0], settings.timeout, &[]).await.map_err(Stop::Failed)?;
        raw.send(&bytes).await.map_err(Stop::Failed)?;
        // Whatever the server makes of it, it has made it before the next call.
        let seen = raw.find(|frame| frame.kind == kind::GOAWAY || frame.stream == 1).await;
        cx.note(format!(
            "{what}: {}",
            seen.map_or_else(|end| end, |frame| format!("frame {}", frame.kind))
        ));
        let what = format!("Status on another connection after {what}");
        good.status().await.or_failed(&what)?;
    }
    cx.connect().await?.status().await.or_failed("Status on a new connection")?;
    Ok(())
}
