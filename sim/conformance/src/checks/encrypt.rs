//! What Encrypt answers.

use kleidi_proto::kms::EncryptResponse;

use crate::check::Level::{Must, Should};
use crate::check::{Check, Outcome, Stop};
use crate::client::back;
use crate::context::{Context, Demand as _, demand};
use crate::domain_name;
use crate::secrets;
use crate::source::Document::{Config, DomainName, Envelope, Kep, Manual, Proto, ServiceTest};
use crate::source::{lines, whole};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        id: "encrypt.key-id-matches-status",
        level: Must,
        requirement: "Encrypt answers with the key_id that Status reports.",
        sources: &[
            lines(Kep, 149, 160, "the two must agree"),
            lines(
                Config,
                411,
                453,
                "a seed whose key_id differs is thrown away, and the plugin unhealthy",
            ),
        ],
        procedure: "Call Status and then Encrypt, ten times.",
        asserts: "The key_ids of each pair are equal, byte for byte.",
        run: |cx| Box::pin(key_id_matches_status(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "encrypt.ciphertext-present",
        level: Must,
        requirement: "The ciphertext of a 32-byte seed has 1 to 1024 bytes.",
        sources: &[
            lines(Proto, 74, 76, "its limit"),
            lines(Envelope, 449, 487, "refuses an empty one and one of more than 1024 bytes"),
        ],
        procedure: "Encrypt ten seeds.",
        asserts: "The length of each ciphertext in bytes.",
        run: |cx| Box::pin(ciphertext_present(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "encrypt.annotations-fqdn",
        level: Must,
        requirement: "Keys of annotations are fully qualified domain names of at least two labels.",
        sources: &[
            lines(Proto, 86, 87, "keys must be fully qualified domain names"),
            lines(Envelope, 449, 487, "refuses others"),
            lines(
                DomainName,
                60,
                80,
                "lower-case labels of at most 63 bytes, 253 together; no slash",
            ),
        ],
        procedure: "Encrypt.",
        asserts: "Each key follows the rules; no annotations are fine.",
        run: |cx| Box::pin(annotations_fqdn(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "encrypt.annotations-size",
        level: Must,
        requirement: "Keys and values of annotations have at most 32 KiB together.",
        sources: &[
            lines(Proto, 88, 88, "their limit"),
            lines(Envelope, 449, 487, "refuses more than 32768 bytes"),
        ],
        procedure: "Encrypt.",
        asserts: "The sum of all lengths in bytes.",
        run: |cx| Box::pin(annotations_size(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "encrypt.uid-accepted",
        level: Must,
        requirement: "A fresh UUID of version 4 is accepted for a uid.",
        sources: &[
            lines(Proto, 68, 69, "a unique identifier of the request"),
            lines(Config, 509, 509, "a fresh UUID with each Encrypt"),
            lines(Envelope, 214, 214, "a fresh UUID with each Decrypt"),
        ],
        procedure: "Encrypt and decrypt four times, with a random uid for each call.",
        asserts: "All calls succeed.",
        run: |cx| Box::pin(uid_accepted(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "encrypt.uid-unusual",
        level: Should,
        requirement: "Any UUID is accepted for a uid, and one that was seen before, too.",
        rationale: "It is there to find a call in two logs. A plugin that judges it takes itself away over \
                    something that protects nothing.",
        procedure: "Encrypt and decrypt twice with one uid; then with the smallest and the greatest UUID.",
        asserts: "All calls succeed.",
        run: |cx| Box::pin(uid_unusual(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "encrypt.hides-plaintext",
        level: Must,
        requirement: "The plaintext is not in the ciphertext as it is, and in key_id and annotations in no form.",
        sources: &[
            lines(Proto, 73, 73, "the ciphertext is the encrypted data"),
            whole(ServiceTest, "TestGRPCService: the ciphertext is not the plaintext"),
            lines(
                Proto,
                84,
                85,
                "annotations are stored in clear: what is sensitive has to be encrypted",
            ),
            lines(Kep, 153, 153, "the key_id is public, and has nothing private in it"),
        ],
        rationale: "All of it is stored in etcd as it is.",
        procedure: "Encrypt four seeds; look for each in the ciphertext, the key_id, and the annotations' keys \
                    and values.",
        asserts: "It is not in the ciphertext as it is; in the others neither as it is nor escaped, in hex, in \
                  base64 or as numbers.",
        run: |cx| Box::pin(hides_plaintext(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "encrypt.hides-plaintext-encoded",
        level: Should,
        requirement: "The plaintext is not in the ciphertext in another form.",
        sources: &[lines(Proto, 73, 73, "the ciphertext is the encrypted data")],
        rationale: "What is encoded is not encrypted, though upstream's own test is content with base64.",
        procedure: "Encrypt four seeds; look for each in its ciphertext.",
        asserts: "It is not there escaped, in hex, in base64 or as numbers.",
        run: |cx| Box::pin(hides_plaintext_encoded(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "encrypt.triples-differ",
        level: Must,
        requirement: "Different plaintexts have different answers.",
        sources: &[
            whole(
                Manual,
                "distinct plaintexts have distinct responses of ciphertext, key_id and annotations",
            ),
            lines(Envelope, 219, 219, "a cache finds the plaintext by the three"),
        ],
        procedure: "Encrypt seeds that differ in one bit of the first, a middle and the last byte.",
        asserts: "No two answers have ciphertext, key_id and annotations in common.",
        run: |cx| Box::pin(triples_differ(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "encrypt.randomised",
        level: Should,
        requirement: "One plaintext encrypted twice has different answers.",
        rationale: "Otherwise whoever reads etcd sees which secrets are equal, and a pad that is the same each \
                    time gives all away with the first plaintext that becomes known.",
        procedure: "Encrypt one seed four times, on two connections.",
        asserts: "No two answers have ciphertext, key_id and annotations in common.",
        run: |cx| Box::pin(randomised(cx)),
        ..Check::DEFAULT
    },
];

async fn encrypt(cx: &Context) -> Result<EncryptResponse, Stop> {
    cx.connect().await?.encrypt(&cx.seed(), cx.uid()).await.or_failed("Encrypt")
}

async fn key_id_matches_status(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    for _ in 0..10 {
        let status = client.status().await.or_failed("Status")?.key_id;
        let wrapped = client.encrypt(&cx.seed(), cx.uid()).await.or_failed("Encrypt")?.key_id;
        demand(status == wrapped, || {
            format!("Status reports key_id {status:?}, Encrypt answers with {wrapped:?}")
        })?;
    }
    Ok(())
}

async fn ciphertext_present(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    let mut longest = 0;
    for _ in 0..10 {
        let wrapped = client.encrypt(&cx.seed(), cx.uid()).await.or_failed("Encrypt")?;
        let bytes = wrapped.ciphertext.len();
        demand((1..=1024).contains(&bytes), || {
            format!("the ciphertext has {bytes} bytes, wanted 1 to 1024")
        })?;
        longest = longest.max(bytes);
    }
    cx.note(format!("the longest ciphertext has {longest} bytes"));
    Ok(())
}

async fn annotations_fqdn(cx: &Context) -> Outcome {
    let wrapped = encrypt(cx).await?;
    cx.note(format!("{} annotations", wrapped.annotations.len()));
    for key in wrapped.annotations.keys() {
        if let Some(fault) = domain_name::fault(key) {
            return Err(Stop::Failed(format!("annotation key {key:?}: {fault}")));
        }
    }
    Ok(())
}

async fn annotations_size(cx: &Context) -> Outcome {
    let wrapped = encrypt(cx).await?;
    let bytes: usize = wrapped.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    cx.note(format!("{bytes} bytes"));
    demand(bytes <= 32 * 1024, || format!("annotations have {bytes} bytes, wanted at most 32768"))
}

async fn uid_accepted(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    for _ in 0..4 {
        let wrapped = client.encrypt(&cx.seed(), cx.uid()).await.or_failed("Encrypt")?;
        client.decrypt(back(&wrapped, cx.uid())).await.or_failed("Decrypt")?;
    }
    Ok(())
}

async fn hides_plaintext(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    for _ in 0..4 {
        let seed = cx.seed();
        let wrapped = client.encrypt(&seed, cx.uid()).await.or_failed("Encrypt")?;
        demand(!secrets::holds(&wrapped.ciphertext, &seed), || {
            "the plaintext is in the ciphertext".to_owned()
        })?;
        demand(!secrets::has(wrapped.key_id.as_bytes(), &seed), || {
            "the plaintext is in the key_id".to_owned()
        })?;
        for (key, value) in &wrapped.annotations {
            demand(!secrets::has(key.as_bytes(), &seed) && !secrets::has(value, &seed), || {
                format!("the plaintext is in an annotation of {} bytes", key.len() + value.len())
            })?;
        }
    }
    Ok(())
}

async fn hides_plaintext_encoded(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    for _ in 0..4 {
        let seed = cx.seed();
        let wrapped = client.encrypt(&seed, cx.uid()).await.or_failed("Encrypt")?;
        demand(!secrets::encoded(&wrapped.ciphertext, &seed), || {
            "the plaintext is in the ciphertext, encoded".to_owned()
        })?;
    }
    Ok(())
}

/// Demands that no two answers are the same.
fn distinct(answers: &[EncryptResponse]) -> Outcome {
    for (place, answer) in answers.iter().enumerate() {
        demand(!answers[..place].contains(answer), || {
            format!(
                "answer {} has the ciphertext, key_id and annotations of an earlier one",
                place + 1
            )
        })?;
    }
    Ok(())
}

async fn triples_differ(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    let seed = cx.seed();
    let mut answers = vec![client.encrypt(&seed, cx.uid()).await.or_failed("Encrypt")?];
    for place in [0, seed.len() / 2, seed.len() - 1] {
        let mut other = seed.clone();
        other[place] ^= 1;
        answers.push(client.encrypt(&other, cx.uid()).await.or_failed("Encrypt")?);
    }
    distinct(&answers)
}

async fn randomised(cx: &Context) -> Outcome {
    let seed = cx.seed();
    let mut answers = Vec::new();
    for _ in 0..2 {
        let client = cx.connect().await?;
        for _ in 0..2 {
            answers.push(client.encrypt(&seed, cx.uid()).await.or_failed("Encrypt")?);
        }
    }
    distinct(&answers)
}

async fn uid_unusual(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    let again = cx.uid();
    let least = "00000000-0000-0000-0000-000000000000".to_owned();
    let greatest = "ffffffff-ffff-ffff-ffff-ffffffffffff".to_owned();
    for uid in [again.clone(), again, least, greatest] {
        let what = format!("with uid {uid}");
        let seed = cx.seed();
        let wrapped =
            client.encrypt(&seed, uid.clone()).await.or_failed(&format!("Encrypt {what}"))?;
        client.decrypt(back(&wrapped, uid)).await.or_failed(&format!("Decrypt {what}"))?;
    }
    Ok(())
}
