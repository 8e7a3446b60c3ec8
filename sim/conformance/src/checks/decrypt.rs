//! What was altered does not decrypt.

use kleidi_proto::kms::{DecryptRequest, EncryptResponse};
use tonic::Code;

use crate::check::Level::{Must, Should};
use crate::check::{Check, Outcome, Stop};
use crate::checks::errors::MISLEADING;
use crate::client::{Client, back, code_name, describe};
use crate::context::{Context, Demand as _, demand};
use crate::source::Document::{Envelope, Manual};
use crate::source::{Source, lines, whole};

/// A wrong answer of 32 bytes is kept by kube-apiserver for a day.
const POISON: &str = "kube-apiserver keeps an answer of the right length for up to a day before it is \
                      proven wrong, so an error is better than a doubtful answer.";

const NOT_OURS: &[Source] = &[whole(
    Manual,
    "plugins must not attempt to decrypt what they are not sure to have encrypted",
)];

pub(crate) const CHECKS: &[Check] = &[
    Check {
        id: "decrypt.repeated",
        level: Must,
        requirement: "A ciphertext decrypts to the same plaintext however often it is asked for.",
        sources: &[lines(
            Envelope,
            205,
            223,
            "asks whenever its cache does not have the answer, and keeps no count",
        )],
        procedure: "Encrypt a seed; decrypt it 200 times.",
        asserts: "Each plaintext is the seed.",
        run: |cx| Box::pin(repeated(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "decrypt.garbage-fails",
        level: Must,
        requirement: "Random bytes for a ciphertext are answered with an error.",
        sources: NOT_OURS,
        rationale: POISON,
        procedure: "Encrypt and decrypt; decrypt 1, 16, 28, 60 and 1024 random bytes with that key_id and those \
                    annotations.",
        asserts: "Each call fails with an answer of the plugin's own, and Status succeeds afterwards on the same \
                  connection.",
        run: |cx| Box::pin(garbage_fails(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "decrypt.tampered-fails",
        level: Must,
        requirement: "A ciphertext with one bit flipped is answered with an error.",
        sources: NOT_OURS,
        rationale: POISON,
        procedure: "Encrypt and decrypt; flip one bit of the first, the last and ten bytes between, one at a time; \
                    decrypt each.",
        asserts: "Each call fails with an answer of the plugin's own, and Status succeeds afterwards on the same \
                  connection.",
        run: |cx| Box::pin(tampered_fails(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "decrypt.truncated-fails",
        level: Must,
        requirement: "A ciphertext that was cut is answered with an error, soon.",
        sources: NOT_OURS,
        rationale: POISON,
        procedure: "Encrypt and decrypt; decrypt every beginning of the ciphertext (sixteen of a long one), the empty \
                    one among them.",
        asserts: "Each call fails with an answer of the plugin's own, within --timeout, and Status succeeds \
                  afterwards on the same connection.",
        run: |cx| Box::pin(truncated_fails(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "decrypt.wrong-key-id",
        level: Should,
        requirement: "With a key_id that was altered there is an error or the right plaintext, never \
                      another.",
        rationale: POISON,
        procedure: "Encrypt and decrypt; decrypt with the key_id's last character replaced, cut off, and one added.",
        asserts: "No answer is anything else than the seed; errors are the plugin's own answers, and Status \
                  succeeds after each on the same connection.",
        run: |cx| Box::pin(wrong_key_id(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "decrypt.unknown-key-id",
        level: Must,
        requirement: "A key_id that was never issued is answered with an error.",
        sources: &[whole(
            Manual,
            "plugins must verify that the key_id is one that they understand",
        )],
        rationale: POISON,
        procedure: "Encrypt and decrypt; decrypt with an unrelated key_id.",
        asserts: "The call fails with an answer of the plugin's own, and Status succeeds afterwards on the same \
                  connection.",
        run: |cx| Box::pin(unknown_key_id(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "decrypt.unknown-key-id-code",
        level: Should,
        requirement: "The error about a key_id that was never issued tells it apart from an outage and from a \
                      bug.",
        rationale: "It is what an operator sees who lost a key: waiting does not help, and the log has to \
                    say so.",
        procedure: "Encrypt and decrypt; decrypt with an unrelated key_id. Not run where that is no error: see \
                    decrypt.unknown-key-id.",
        asserts: "An answer of the plugin's own; none of UNKNOWN, INTERNAL, UNAVAILABLE, DEADLINE_EXCEEDED; and \
                  Status succeeds afterwards on the same connection.",
        run: |cx| Box::pin(unknown_key_id_code(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "decrypt.swapped-annotations",
        level: Should,
        requirement: "A ciphertext with another's annotations is answered with an error.",
        sources: &[lines(Envelope, 219, 219, "passes annotations on, and authenticates none")],
        rationale: "Nobody but the plugin can protect them: they lie in etcd in clear.",
        procedure: "Encrypt twice; decrypt the first, and then with the second's annotations. Not run where the \
                    annotations do not differ.",
        asserts: "The call fails with an answer of the plugin's own, and Status succeeds afterwards on the same \
                  connection.",
        run: |cx| Box::pin(swapped_annotations(cx)),
        ..Check::DEFAULT
    },
];

/// A connection and a ciphertext to alter, which decrypts as it is: where nothing does, that what was altered
/// does not shows nothing.
async fn begin(cx: &Context) -> Result<(Client, EncryptResponse, Vec<u8>), Stop> {
    let client = cx.connect().await?;
    let seed = cx.seed();
    let wrapped = cx.wrapped(&client, &seed).await?;
    cx.decrypts(&client, &wrapped, &seed).await?;
    Ok((client, wrapped, seed))
}

async fn repeated(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    let seed = cx.seed();
    let wrapped = cx.wrapped(&client, &seed).await?;
    for time in 1..=cx.settings().load.samples {
        cx.unwraps_to(&client, &wrapped, &seed).await.map_err(|stop| match stop {
            Stop::Failed(why) => Stop::Failed(format!("time {time}: {why}")),
            other => other,
        })?;
    }
    Ok(())
}

/// Demands an error of the server's own, which goes on serving the connection.
async fn refused(
    cx: &Context,
    client: &Client,
    request: DecryptRequest,
    what: &str,
) -> Result<Code, Stop> {
    match client.decrypt(request).await {
        Ok(answer) => Err(Stop::Failed(format!(
            "{what} was answered with OK and {} bytes, wanted an error",
            answer.len()
        ))),
        Err(status) => {
            cx.survives(client, what, &status).await?;
            Ok(status.code())
        }
    }
}

async fn garbage_fails(cx: &Context) -> Outcome {
    let (client, wrapped, _) = begin(cx).await?;
    for length in [1, 16, 28, 60, 1024] {
        let request = DecryptRequest { ciphertext: cx.bytes(length), ..back(&wrapped, cx.uid()) };
        let code = refused(cx, &client, request, &format!("garbage of {length} bytes")).await?;
        cx.note(format!("{length} bytes: {}", code_name(code)));
    }
    Ok(())
}

async fn tampered_fails(cx: &Context) -> Outcome {
    let (client, wrapped, _) = begin(cx).await?;
    let length = wrapped.ciphertext.len();
    demand(length > 0, || "the ciphertext is empty".to_owned())?;
    let mut places = vec![0, length - 1];
    places.extend((1..=10).map(|part| part * (length - 1) / 11));
    for place in places {
        let mut request = back(&wrapped, cx.uid());
        request.ciphertext[place] ^= 1 << cx.below(8);
        refused(cx, &client, request, &format!("a bit flipped in byte {place} of {length}"))
            .await?;
    }
    Ok(())
}

async fn truncated_fails(cx: &Context) -> Outcome {
    let (client, wrapped, _) = begin(cx).await?;
    let length = wrapped.ciphertext.len();
    let step = length.div_ceil(16).max(1);
    for kept in (0..length).filter(|kept| length <= 64 || kept % step == 0 || kept + 1 == length) {
        let mut request = back(&wrapped, cx.uid());
        request.ciphertext.truncate(kept);
        refused(cx, &client, request, &format!("a ciphertext of {kept} bytes out of {length}"))
            .await?;
    }
    Ok(())
}

async fn wrong_key_id(cx: &Context) -> Outcome {
    let (client, wrapped, seed) = begin(cx).await?;
    let mut cut = wrapped.key_id.clone();
    let last = cut.pop();
    let replaced = format!("{cut}{}", if last == Some('0') { '1' } else { '0' });
    for key_id in [replaced, cut, format!("{}0", wrapped.key_id)] {
        let what = format!("key_id of {} bytes, altered", key_id.len());
        let request = DecryptRequest { key_id, ..back(&wrapped, cx.uid()) };
        match client.decrypt(request).await {
            Ok(answer) => {
                demand(answer == seed, || format!("{what}: answered with OK and other bytes"))?;
                cx.note(format!("{what}: the right plaintext"));
            }
            Err(status) => {
                cx.survives(&client, &what, &status).await?;
                cx.note(format!("{what}: {}", code_name(status.code())));
            }
        }
    }
    Ok(())
}

/// A call with a key_id that was never issued.
async fn stranger(cx: &Context) -> Result<(Client, DecryptRequest), Stop> {
    let (client, wrapped, _) = begin(cx).await?;
    let key_id = format!("never-issued-{}", cx.uid());
    Ok((client, DecryptRequest { key_id, ..back(&wrapped, cx.uid()) }))
}

const STRANGER: &str = "a key_id that was never issued";

async fn unknown_key_id(cx: &Context) -> Outcome {
    let (client, request) = stranger(cx).await?;
    let code = refused(cx, &client, request, STRANGER).await?;
    cx.note(code_name(code));
    Ok(())
}

async fn unknown_key_id_code(cx: &Context) -> Outcome {
    let (client, request) = stranger(cx).await?;
    let Err(status) = client.decrypt(request).await else {
        return Err(Stop::NotRun("it is no error: see decrypt.unknown-key-id".to_owned()));
    };
    cx.survives(&client, STRANGER, &status).await?;
    demand(!MISLEADING.contains(&status.code()), || {
        format!("{} does not tell a lost key apart from a bug or an outage", describe(&status))
    })
}

async fn swapped_annotations(cx: &Context) -> Outcome {
    let (client, wrapped, _) = begin(cx).await?;
    let other = client.encrypt(&cx.seed(), cx.uid()).await.or_not_run("the second Encrypt")?;
    // Equal ones cannot be swapped.
    if other.annotations == wrapped.annotations {
        return Err(Stop::not_applicable("the annotations of two ciphertexts do not differ"));
    }
    let request = DecryptRequest { annotations: other.annotations, ..back(&wrapped, cx.uid()) };
    refused(cx, &client, request, "another ciphertext's annotations").await.map(|_| ())
}
