//! What was encrypted comes back.

use kleidi_proto::kms::DecryptResponse;

use crate::check::Level::Must;
use crate::check::{Check, Outcome, Stop};
use crate::context::{Context, Demand as _, demand};
use crate::ordered::OrderedDecryptRequest;
use crate::source::Document::{Envelope, Kep, Proto};
use crate::source::lines;

pub(crate) const CHECKS: &[Check] = &[
    Check {
        id: "roundtrip.seed-32",
        level: Must,
        requirement: "A seed of 32 random bytes comes back exactly.",
        sources: &[
            lines(Envelope, 219, 219, "decrypts what is stored"),
            lines(Envelope, 367, 367, "encrypts 32 random bytes"),
        ],
        procedure: "Encrypt eight seeds; then decrypt them, the first one last.",
        asserts: "Each plaintext is the seed.",
        run: |cx| Box::pin(seed_32(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "roundtrip.binary",
        level: Must,
        requirement: "Plaintexts are bytes: zeros, 0xff and what is not UTF-8 are preserved.",
        sources: &[lines(Proto, 64, 69, "`bytes plaintext`")],
        procedure: "Encrypt and decrypt 32 bytes of 0x00, of 0xff, of broken UTF-8, of NUL-terminated text.",
        asserts: "Each comes back exactly.",
        run: |cx| Box::pin(binary(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "roundtrip.after-reconnect",
        level: Must,
        requirement: "Decrypt works on another connection than Encrypt.",
        sources: &[lines(Kep, 151, 151, "calls carry all that is needed")],
        procedure: "Encrypt, close the connection, decrypt on a new one.",
        asserts: "The plaintext is the seed.",
        run: |cx| Box::pin(after_reconnect(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "roundtrip.echoes-annotations",
        level: Must,
        requirement: "Decrypt works with the very key_id and annotations that Encrypt returned, in any \
                      order.",
        sources: &[lines(Kep, 177, 177, "DecryptRequest has the same key_id and annotations")],
        procedure: "Encrypt; decrypt with the annotations on the wire in order, in reverse, and with \
                    empty values written out as Go does.",
        asserts: "The plaintext is the seed each time.",
        run: |cx| Box::pin(echoes_annotations(cx)),
        ..Check::DEFAULT
    },
];

async fn seed_32(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    let mut wrapped = Vec::new();
    for _ in 0..8 {
        let seed = cx.seed();
        wrapped.push((client.encrypt(&seed, cx.uid()).await.or_failed("Encrypt")?, seed));
    }
    for (wrapped, seed) in wrapped.iter().rev() {
        cx.unwraps_to(&client, wrapped, seed).await?;
    }
    Ok(())
}

async fn binary(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    for (what, seed) in [
        ("zeros", vec![0; 32]),
        ("0xff", vec![0xff; 32]),
        ("broken UTF-8", b"\xc3\x28\xa0\xa1\xe2\x28\xa1\xf0\x28\x8c\xbc".repeat(3)[..32].to_vec()),
        ("text with a NUL", b"text\0text text text text text\r\n\0".to_vec()),
    ] {
        let wrapped =
            client.encrypt(&seed, cx.uid()).await.or_failed(&format!("Encrypt of {what}"))?;
        cx.unwraps_to(&client, &wrapped, &seed).await.map_err(|stop| match stop {
            Stop::Failed(why) => Stop::Failed(format!("{what}: {why}")),
            other => other,
        })?;
    }
    Ok(())
}

async fn after_reconnect(cx: &Context) -> Outcome {
    let seed = cx.seed();
    let first = cx.connect().await?;
    let wrapped = first.encrypt(&seed, cx.uid()).await.or_failed("Encrypt")?;
    drop(first);
    cx.unwraps_to(&cx.connect().await?, &wrapped, &seed).await
}

async fn echoes_annotations(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    let seed = cx.seed();
    let wrapped = client.encrypt(&seed, cx.uid()).await.or_failed("Encrypt")?;
    cx.note(format!("{} annotations", wrapped.annotations.len()));
    for reversed in [false, true] {
        let request = OrderedDecryptRequest::new(&wrapped, cx.uid(), reversed);
        let what = if reversed { "Decrypt with the annotations in reverse" } else { "Decrypt" };
        let answer: DecryptResponse = client.unary("Decrypt", request).await.or_failed(what)?;
        demand(answer.plaintext == seed, || {
            format!("{what} answered something else than the seed")
        })?;
    }
    Ok(())
}
