//! The ways in which the reference plugin can be broken: at least one for each check.

use clap::ValueEnum as _;

/// A fault; what it does is in [`MUTANTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs, reason = "MUTANTS says what they do")]
pub enum Fault {
    SpeaksNoHttp2,
    AnswersNotFound,
    IgnoresPings,
    RefusesLocalhost,
    BusyAfterBrokenConnection,
    OneConnectionAtATime,
    UnknownMethodIsInternal,
    UnknownMethodIsNotFound,
    VersionV1,
    VersionV2beta1,
    VersionChanges,
    HealthzInCapitals,
    KeyIdTooLong,
    KeyIdOfFifthCall,
    KeyIdWithNewline,
    KeyIdWithPem,
    KeyIdWithToken,
    StatusHangs,
    EncryptsUnderOtherId,
    CiphertextTooLong,
    AnnotationWithSlash,
    AnnotationsTooLong,
    RefusesUuids,
    RefusesUidAgain,
    Identity,
    PlaintextInAnnotation,
    HexInCiphertext,
    TakesSimilarForSame,
    TakesSameForSame,
    AnswersLastSeed,
    ZerosAreNone,
    BoundToConnection,
    WantsAnnotationsInOrder,
    DecryptsThreeTimes,
    GarbageIsPlaintext,
    CutsOffBadDecrypts,
    CancelsBadDecrypts,
    LeavesBadDecrypts,
    RefusesAfterRefusal,
    CachesByBeginning,
    EmptyIsEmpty,
    KeyIdByBeginning,
    IgnoresKeyId,
    UnknownKeyIsOutage,
    IgnoresAnnotations,
    TellsPlaintext,
    TellsPlaintextAsText,
    GarbageIsInternal,
    GarbageIsOutage,
    KeyIdOf1024,
    CiphertextOf1024,
    AesKeySizesOnly,
    EmptyPlaintextPanics,
    NoRequestLimit,
    OversizeIsInternal,
    HangsOnAnnotations,
    ZerosForAnnotations,
    ProtocolErrorEndsAll,
    BrokenMessageEndsAll,
    CrossesAnswers,
    SerialisesCalls,
    StatusWaitsForIdle,
    StallsUnderLoad,
    CancelledCallsLeak,
    CancelledWorkLeaks,
    SlotsUntilRead,
    LimitsRate,
    TiresOfPlaintext,
    SocketForAll,
    DirectoryForAll,
    StickyDirectoryForAll,
    Reflection,
    ReflectionIsNotFound,
    LogsPlaintext,
    LogsPlaintextRaw,
    LogsPlaintextAsText,
    BoundToNode,
    KnowsAnnouncedKeysOnly,
    KeyIdByNode,
    LateNode,
    NeverRotates,
    FlipFlops,
    ConnectionsDisagree,
    EncryptLags,
    EncryptLeads,
    ForgetsOldKeys,
    ReusesKeyId,
    MissesRotationBack,
    LateRotation,
    KeyPerProcess,
    KeyIdPerProcess,
    VersionPerProcess,
    StumblesOverStaleSocket,
    DropsCallsAtStop,
    ServesBeforeReady,
    FakesCiphertext,
    FakesCiphertextLater,
    EphemeralKeyInOutage,
    KeyIdInOutage,
    KeyIdAfterOutage,
    StatusHangsInOutage,
    EncryptHangsInOutage,
    HangsInOutage,
    HangsInOutageAnew,
    SaysOkInOutage,
    CutsOffStatusInOutage,
    HealthzInOutage,
    SlowRecovery,
    IgnoresDecryptDenied,
}

impl Fault {
    /// As on the command line.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// What else a mutant turns red.
#[derive(Debug, Clone, Copy)]
pub enum Also {
    /// Exactly these.
    These(&'static [&'static str]),
    /// These, and no others; which of them depends on the machine's load.
    Within(&'static [&'static str]),
    /// Whatever: with it hardly a call works.
    Anything,
}

/// A broken reference plugin.
#[derive(Debug, Clone, Copy)]
pub struct Mutant {
    /// Its fault.
    pub fault: Fault,
    /// The check that is to catch it.
    pub check: &'static str,
    /// Its blast radius.
    pub also: Also,
    /// What it does.
    pub does: &'static str,
}

const fn only(fault: Fault, check: &'static str, does: &'static str) -> Mutant {
    Mutant { fault, check, also: Also::These(&[]), does }
}

const fn with(
    fault: Fault,
    check: &'static str,
    also: &'static [&'static str],
    does: &'static str,
) -> Mutant {
    Mutant { fault, check, also: Also::These(also), does }
}

const fn within(
    fault: Fault,
    check: &'static str,
    also: &'static [&'static str],
    does: &'static str,
) -> Mutant {
    Mutant { fault, check, also: Also::Within(also), does }
}

const fn all(fault: Fault, check: &'static str, does: &'static str) -> Mutant {
    Mutant { fault, check, also: Also::Anything, does }
}

use Fault as F;

/// The checks that look at a refused Decrypt, and at what comes after it.
const AFTER_REFUSALS: &[&str] = &[
    "decrypt.garbage-fails",
    "decrypt.swapped-annotations",
    "decrypt.tampered-fails",
    "decrypt.truncated-fails",
    "decrypt.unknown-key-id",
    "decrypt.unknown-key-id-code",
    "decrypt.wrong-key-id",
    "errors.codes",
    "errors.no-secrets",
    "limits.many-annotations",
];

/// All mutants.
#[rustfmt::skip]
pub const MUTANTS: &[Mutant] = &[
    all(F::SpeaksNoHttp2, "transport.unix-h2c", "answers with HTTP/1.1 400 and closes"),
    all(F::AnswersNotFound, "transport.unix-h2c", "answers every call with HTTP status 404"),
    only(F::IgnoresPings, "transport.unix-h2c", "acknowledges no PING"),
    all(F::RefusesLocalhost, "transport.authority-localhost", "refuses calls to localhost"),
    // It may notice late that a connection was broken off, and whichever check comes next finds it busy.
    all(F::BusyAfterBrokenConnection, "transport.reconnect",
        "turns the next connection away after one that was broken off"),
    within(F::OneConnectionAtATime, "transport.two-connections",
        &["concurrency.slow-reader", "concurrency.status-under-load",
            "limits.malformed-frames", "limits.oversize-request",
            "outage.calls-do-not-hang", "outage.decrypt-permission-lost", "outage.encrypt-honest",
            "outage.key-id-unchanged", "outage.recovers-unaided", "outage.status-is-error", "outage.status-reports"],
        "serves a connection when the one before has ended"),
    only(F::UnknownMethodIsInternal, "transport.unknown-method", "answers INTERNAL to methods that it does not have"),
    only(F::UnknownMethodIsNotFound, "transport.unknown-method",
        "answers HTTP status 404 to methods that it does not have"),
    with(F::VersionV1, "status.version", &["status.version-v2"], "reports version v1"),
    only(F::VersionV2beta1, "status.version-v2", "reports version v2beta1"),
    only(F::VersionChanges, "status.version-stable", "reports v2beta1 from the third Status of a connection on"),
    only(F::HealthzInCapitals, "status.healthz-ok", "reports OK"),
    with(F::KeyIdTooLong, "status.key-id-present", &["limits.key-id-under-1k"], "has key_ids of 1025 bytes"),
    with(F::KeyIdOfFifthCall, "status.key-id-stable", &["outage.key-id-unchanged", "rotation.no-flip-flop"],
        "has another key_id from the fifth Status of a connection on"),
    only(F::KeyIdWithNewline, "status.key-id-printable", "has key_ids that end with a newline"),
    only(F::KeyIdWithPem, "status.key-id-printable", "has the first line of a private key in its key_ids"),
    only(F::KeyIdWithToken, "status.key-id-printable", "has a token of Vault's in its key_ids"),
    with(F::StatusHangs, "status.within-timeout",
        &["concurrency.latency", "concurrency.status-constant-load", "decrypt.truncated-fails"],
        "does not answer from the thirteenth Status of a connection on"),
    with(F::EncryptsUnderOtherId, "encrypt.key-id-matches-status", &["rotation.status-encrypt-agree"],
        "answers Encrypt with another key_id than Status"),
    with(F::CiphertextTooLong, "encrypt.ciphertext-present", &["limits.ciphertext-under-1k"],
        "has ciphertexts of 1025 bytes"),
    only(F::AnnotationWithSlash, "encrypt.annotations-fqdn", "has an annotation kms.example.io/id"),
    only(F::AnnotationsTooLong, "encrypt.annotations-size", "has an annotation of 32 KiB"),
    all(F::RefusesUuids, "encrypt.uid-accepted", "refuses uids of 36 characters"),
    only(F::RefusesUidAgain, "encrypt.uid-unusual", "refuses a uid that it has seen"),
    with(F::Identity, "encrypt.hides-plaintext",
        &["decrypt.garbage-fails", "decrypt.tampered-fails", "decrypt.truncated-fails", "decrypt.unknown-key-id",
            "encrypt.randomised"],
        "has the plaintext for the ciphertext"),
    only(F::PlaintextInAnnotation, "encrypt.hides-plaintext", "has the plaintext in hex in an annotation"),
    only(F::HexInCiphertext, "encrypt.hides-plaintext-encoded", "has the plaintext in hex behind its ciphertexts"),
    with(F::TakesSimilarForSame, "encrypt.triples-differ", &["encrypt.randomised"],
        "answers as before to a plaintext with the first 31 bytes of an earlier one"),
    only(F::TakesSameForSame, "encrypt.randomised", "answers as before to a plaintext that it has seen"),
    with(F::AnswersLastSeed, "roundtrip.seed-32", &["concurrency.parallel-roundtrips"],
        "answers Decrypt with what the connection encrypted last"),
    only(F::ZerosAreNone, "roundtrip.binary", "takes 32 zeros for no plaintext"),
    with(F::BoundToConnection, "roundtrip.after-reconnect",
        &["replicas.cross-decrypt", "replicas.decrypts-ahead", "restart.decrypts-old", "rotation.old-ciphertext"],
        "decrypts only what the same connection encrypted"),
    only(F::WantsAnnotationsInOrder, "roundtrip.echoes-annotations", "refuses annotations that are not sorted on the wire"),
    only(F::DecryptsThreeTimes, "decrypt.repeated", "answers with zeros when it has decrypted a ciphertext three times"),
    with(F::GarbageIsPlaintext, "decrypt.garbage-fails", &["decrypt.tampered-fails", "decrypt.truncated-fails"],
        "gives back as it is what does not look like a ciphertext"),
    with(F::CutsOffBadDecrypts, "decrypt.garbage-fails", AFTER_REFUSALS, "cuts bad Decrypts off, as one that crashed"),
    with(F::CancelsBadDecrypts, "decrypt.garbage-fails", AFTER_REFUSALS, "ends bad Decrypts with RST_STREAM, CANCEL"),
    with(F::LeavesBadDecrypts, "decrypt.garbage-fails", AFTER_REFUSALS, "ends bad Decrypts without a grpc-status"),
    with(F::RefusesAfterRefusal, "decrypt.tampered-fails", AFTER_REFUSALS,
        "answers no Status on a connection on which it refused a Decrypt"),
    only(F::CachesByBeginning, "decrypt.tampered-fails", "finds plaintexts by the first 16 bytes of the ciphertext"),
    only(F::EmptyIsEmpty, "decrypt.truncated-fails", "decrypts nothing to nothing"),
    only(F::KeyIdByBeginning, "decrypt.wrong-key-id", "takes a similar key_id, and does not authenticate"),
    only(F::IgnoresKeyId, "decrypt.unknown-key-id", "decrypts with whichever key fits, whatever the key_id"),
    only(F::UnknownKeyIsOutage, "decrypt.unknown-key-id-code", "answers UNAVAILABLE to a key_id that it does not know"),
    only(F::IgnoresAnnotations, "decrypt.swapped-annotations", "does not authenticate annotations"),
    only(F::TellsPlaintext, "errors.no-secrets", "has the last plaintext in its errors"),
    only(F::TellsPlaintextAsText, "errors.no-secrets", "has the last plaintext in its errors, as text, as far as it is UTF-8"),
    only(F::GarbageIsInternal, "errors.codes", "answers INTERNAL to bad ciphertexts"),
    only(F::GarbageIsOutage, "errors.codes", "answers UNAVAILABLE to bad ciphertexts"),
    only(F::KeyIdOf1024, "limits.key-id-under-1k", "has key_ids of 1024 bytes"),
    only(F::CiphertextOf1024, "limits.ciphertext-under-1k", "has ciphertexts of 1024 bytes"),
    only(F::AesKeySizesOnly, "limits.plaintext-sizes", "encrypts 0, 16, 24 and 32 bytes only"),
    only(F::EmptyPlaintextPanics, "limits.empty-plaintext", "answers UNKNOWN to an empty plaintext, as a recovered panic"),
    only(F::NoRequestLimit, "limits.oversize-request", "takes requests of any size"),
    only(F::OversizeIsInternal, "limits.oversize-request", "cuts off what has more than 64 KiB, and answers INTERNAL to more than 4 MiB"),
    only(F::HangsOnAnnotations, "limits.many-annotations", "does not answer to more than 1000 annotations"),
    only(F::ZerosForAnnotations, "limits.many-annotations", "answers with zeros to more than 1000 annotations"),
    only(F::ProtocolErrorEndsAll, "limits.malformed-frames", "closes all connections when one breaks the protocol"),
    only(F::BrokenMessageEndsAll, "limits.malformed-frames", "closes all connections over a message that is no protobuf"),
    only(F::CrossesAnswers, "concurrency.parallel-roundtrips", "keeps the plaintext of all calls in one place"),
    only(F::SerialisesCalls, "concurrency.parallel-within-timeout",
        "takes 700 ms for each Encrypt, one after the other, when more than ten wait"),
    only(F::StatusWaitsForIdle, "concurrency.status-under-load", "answers Status when no other connection has calls"),
    with(F::StallsUnderLoad, "concurrency.status-under-load", &["concurrency.parallel-within-timeout"],
        "answers neither Encrypt nor Status when more than ten Encrypts wait"),
    only(F::CancelledCallsLeak, "concurrency.cancelled-calls", "loses one of 8 slots with each Encrypt that is cancelled"),
    only(F::CancelledWorkLeaks, "concurrency.cancelled-calls",
        "loses one of 8 slots with each Encrypt that is cancelled when the work has begun"),
    only(F::SlotsUntilRead, "concurrency.slow-reader", "has 16 slots, each taken until the answer has been read"),
    with(F::LimitsRate, "concurrency.status-constant-load", &["concurrency.latency"],
        "refuses more than 70 Status on a connection"),
    // How often one is encrypted under load depends on the load.
    within(F::TiresOfPlaintext, "concurrency.latency", &["concurrency.status-under-load"],
        "refuses a plaintext that it has encrypted 70 times"),
    only(F::SocketForAll, "hardening.socket-mode", "has a socket of mode 0666"),
    only(F::DirectoryForAll, "hardening.socket-dir", "has a directory of mode 0777"),
    only(F::StickyDirectoryForAll, "hardening.socket-dir", "has a directory of mode 1777"),
    only(F::Reflection, "hardening.reflection-off", "answers reflection"),
    only(F::ReflectionIsNotFound, "hardening.reflection-off", "answers HTTP status 404 to reflection"),
    only(F::LogsPlaintext, "hardening.log-canary", "logs plaintexts in hex"),
    only(F::LogsPlaintextRaw, "hardening.log-canary", "logs plaintexts as they are"),
    only(F::LogsPlaintextAsText, "hardening.log-canary", "logs plaintexts as text, as far as they are UTF-8"),
    with(F::BoundToNode, "replicas.cross-decrypt", &["replicas.decrypts-ahead"], "decrypts only what the same node encrypted"),
    only(F::KnowsAnnouncedKeysOnly, "replicas.decrypts-ahead", "decrypts with keys only that it has announced"),
    with(F::KeyIdByNode, "replicas.same-key-id", &["replicas.converge"], "has the node's name in its key_ids"),
    only(F::LateNode, "replicas.converge", "announces a new key on the second node long after the first"),
    with(F::NeverRotates, "rotation.key-id-changes", &["replicas.converge", "rotation.settles-in-one-poll"],
        "announces the first key for ever"),
    only(F::FlipFlops, "rotation.no-flip-flop", "goes back and forth between the new key_id and the old one for a while"),
    within(F::ConnectionsDisagree, "rotation.no-flip-flop", &["restart.same-key-id"],
        "announces a new key on every other connection half a second later"),
    only(F::EncryptLags, "rotation.status-encrypt-agree", "encrypts with the key that it began with"),
    with(F::EncryptLeads, "rotation.status-encrypt-agree", &["rotation.settles-in-one-poll"],
        "encrypts with a new key long before it announces it"),
    only(F::ForgetsOldKeys, "rotation.old-ciphertext", "decrypts with the newest key only"),
    only(F::ReusesKeyId, "rotation.no-reuse", "derives key_ids from the material alone"),
    only(F::MissesRotationBack, "rotation.no-reuse", "goes on announcing the key before when old material comes back"),
    only(F::LateRotation, "rotation.settles-in-one-poll", "announces a new key late"),
    with(F::KeyPerProcess, "restart.decrypts-old", &["replicas.cross-decrypt", "replicas.decrypts-ahead"],
        "decrypts only what the same process encrypted"),
    with(F::KeyIdPerProcess, "restart.same-key-id", &["replicas.converge", "replicas.same-key-id"],
        "has something of the process in its key_ids"),
    only(F::VersionPerProcess, "restart.same-version", "reports v2beta1 after every other start"),
    only(F::StumblesOverStaleSocket, "restart.stale-socket", "does not start where a socket was left behind"),
    only(F::DropsCallsAtStop, "restart.graceful-drain", "takes 30 ms for an Encrypt, and ends at SIGTERM without finishing calls"),
    only(F::ServesBeforeReady, "restart.ready-only-when-serving", "listens for 300 ms before Status is ok"),
    only(F::FakesCiphertext, "outage.encrypt-honest", "answers Encrypt with random bytes during an outage"),
    only(F::FakesCiphertextLater, "outage.encrypt-honest",
        "answers Encrypt with random bytes when an outage has lasted half a second"),
    only(F::EphemeralKeyInOutage, "outage.encrypt-honest",
        "encrypts during an outage with a key that only its memory has"),
    with(F::KeyIdInOutage, "outage.key-id-unchanged", &["outage.status-is-error"],
        "reports another key_id during an outage, beside a bad healthz"),
    only(F::KeyIdAfterOutage, "outage.key-id-unchanged", "has another key_id after an outage"),
    with(F::StatusHangsInOutage, "outage.calls-do-not-hang", &["outage.status-is-error", "outage.status-reports"],
        "does not answer Status during an outage"),
    only(F::EncryptHangsInOutage, "outage.calls-do-not-hang", "does not answer Encrypt during an outage"),
    only(F::HangsInOutage, "outage.calls-do-not-hang", "does not answer Decrypt during an outage"),
    only(F::HangsInOutageAnew, "outage.calls-do-not-hang",
        "cuts calls off during an outage on connections from before it, and does not answer Decrypt on others"),
    with(F::SaysOkInOutage, "outage.status-reports", &["outage.status-is-error"], "reports ok during an outage"),
    with(F::CutsOffStatusInOutage, "outage.status-reports", &["outage.status-is-error"],
        "cuts Status off during an outage"),
    only(F::HealthzInOutage, "outage.status-is-error", "reports an outage in healthz, beside a key_id"),
    only(F::SlowRecovery, "outage.recovers-unaided",
        "encrypts during an outage, and stays unavailable for a while after it, the second node a while longer"),
    only(F::IgnoresDecryptDenied, "outage.decrypt-permission-lost", "does not test decrypting"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::catalogue;

    #[test]
    fn every_check_has_a_mutant_and_every_fault_is_one() {
        let caught: BTreeSet<&str> = MUTANTS.iter().map(|mutant| mutant.check).collect();
        for check in catalogue::all() {
            assert!(caught.contains(check.id), "no mutant for {}", check.id);
        }
        let named = MUTANTS.iter().flat_map(|mutant| match mutant.also {
            Also::These(ids) | Also::Within(ids) => {
                ids.iter().chain([&mutant.check]).copied().collect()
            }
            Also::Anything => vec![mutant.check],
        });
        for id in named {
            assert!(catalogue::find(id).is_some(), "there is no check {id}");
        }
        let faults: BTreeSet<String> = MUTANTS.iter().map(|mutant| mutant.fault.name()).collect();
        assert_eq!(faults.len(), MUTANTS.len());
        assert_eq!(faults.len(), Fault::value_variants().len());
    }
}
