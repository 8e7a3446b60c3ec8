//! Encrypt, and its faults.

use std::collections::BTreeMap;
use std::future::pending;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kleidi_proto::kms::{EncryptRequest, EncryptResponse};
use tokio::time::sleep;
use tonic::Status;

use super::{BY_ERROR, Faulty, Remembered, cut_off};
use crate::context::hex;
use crate::reference::mutant::Fault;
use crate::reference::plugin::{MAGIC, encrypt_with};

/// Where the mutants put what binds a ciphertext to something.
pub(super) const BOUND: &str = "bound.reference.example";
/// Where one of them puts the plaintext.
pub(super) const PLAIN: &str = "plain.reference.example";
/// Legal but for its size.
pub(super) const BIG: &str = "big.reference.example";
/// What Kubernetes' own manual once gave for an example.
pub(super) const SLASH: &str = "kms.example.io/id";

pub(super) async fn encrypt(
    this: &Faulty,
    request: &EncryptRequest,
) -> Result<EncryptResponse, Status> {
    before(this, request).await?;
    this.outlived()?;
    this.recovers_slowly()?;
    let mut answer = match this.fault {
        Some(Fault::NoRequestLimit) => {
            // The beginning is enough to show it, and takes no seconds.
            let length = request.plaintext.len().min(4096);
            encrypt_with(&this.plugin.announced()?, &request.plaintext[..length])
        }
        Some(Fault::EncryptLags) => this
            .plugin
            .reachable()
            .and_then(|()| encrypt_with(&this.process.first, &request.plaintext)),
        Some(Fault::FakesCiphertext | Fault::EphemeralKeyInOutage) if this.is_away() => fake(this),
        Some(Fault::FakesCiphertextLater) if this.is_long_away() => fake(this),
        // With a key that it has by heart, and that decrypts afterwards.
        Some(Fault::SlowRecovery) if this.is_away() => {
            encrypt_with(&this.plugin.announced()?, &request.plaintext)
        }
        Some(Fault::EncryptLeads) => this.plugin.reachable().and_then(|()| {
            let newest = this.plugin.ring().keys().ok().and_then(|mut keys| keys.pop());
            encrypt_with(&newest.unwrap_or(this.plugin.announced()?), &request.plaintext)
        }),
        Some(Fault::Identity) => this.plugin.encrypt(request).map(|answer| EncryptResponse {
            ciphertext: request.plaintext.clone(),
            annotations: BTreeMap::new(),
            ..answer
        }),
        Some(Fault::TakesSimilarForSame) => as_before(this, request, 31),
        Some(Fault::TakesSameForSame) => as_before(this, request, usize::MAX),
        _ => this.plugin.encrypt(request),
    }?;
    remember(this, request, &answer);
    after(this, request, &mut answer);
    answer.key_id = this.outward(answer.key_id);
    Ok(answer)
}

async fn before(this: &Faulty, request: &EncryptRequest) -> Result<(), Status> {
    let length = request.plaintext.len();
    match this.fault {
        Some(Fault::EmptyPlaintextPanics) if length == 0 => {
            Err(Status::unknown("panic: index out of range"))
        }
        Some(Fault::AesKeySizesOnly) if ![0, 16, 24, 32].contains(&length) => {
            Err(Status::invalid_argument("not the size of an AES key"))
        }
        Some(Fault::OversizeIsInternal) if length > 4 << 20 => {
            Err(Status::internal("cannot allocate"))
        }
        Some(Fault::OversizeIsInternal) if length > 64 << 10 => Err(cut_off(BY_ERROR)),
        Some(Fault::RefusesUuids) if request.uid.len() == 36 => {
            Err(Status::invalid_argument("this is no uid"))
        }
        Some(Fault::EncryptHangsInOutage) if this.is_away() => pending().await,
        Some(Fault::TiresOfPlaintext) if this.process.time(&request.plaintext) > 70 => {
            Err(Status::resource_exhausted("not this plaintext again"))
        }
        Some(Fault::SerialisesCalls) => {
            in_turn(this).await;
            Ok(())
        }
        Some(Fault::StallsUnderLoad) => {
            stall(this).await;
            Ok(())
        }
        Some(Fault::RefusesUidAgain)
            if !this.process.uids.lock().insert((true, request.uid.clone())) =>
        {
            Err(Status::invalid_argument("this uid was used before"))
        }
        Some(Fault::LogsPlaintext) => {
            let _ = writeln!(std::io::stderr(), "plaintext={}", hex(&request.plaintext));
            Ok(())
        }
        Some(Fault::LogsPlaintextRaw) => {
            let _ = std::io::stderr().write_all(&request.plaintext);
            Ok(())
        }
        Some(Fault::LogsPlaintextAsText) => {
            let text = String::from_utf8_lossy(&request.plaintext);
            let _ = writeln!(std::io::stderr(), "plaintext={text}");
            Ok(())
        }
        // So that calls are under way when the process ends.
        Some(Fault::DropsCallsAtStop) => {
            sleep(Duration::from_millis(30)).await;
            Ok(())
        }
        Some(Fault::CancelledCallsLeak | Fault::CancelledWorkLeaks) => {
            if this.has(Fault::CancelledWorkLeaks) {
                // What is cancelled until then is without a slot yet.
                sleep(Duration::from_millis(1)).await;
            }
            let slot = this.connection.slots.clone().acquire_owned().await;
            let leak = Leak(slot.ok());
            // So that it can be cancelled.
            sleep(Duration::from_millis(if this.has(Fault::CancelledWorkLeaks) { 10 } else { 1 }))
                .await;
            leak.give_back();
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A slot that is given back by those alone who come to the end.
struct Leak(Option<tokio::sync::OwnedSemaphorePermit>);

impl Leak {
    fn give_back(mut self) {
        self.0.take();
    }
}

impl Drop for Leak {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            slot.forget();
        }
    }
}

/// Answers as it did to a plaintext of as many bytes, of which the first ones were the same.
fn as_before(
    this: &Faulty,
    request: &EncryptRequest,
    bytes: usize,
) -> Result<EncryptResponse, Status> {
    let answer = this.plugin.encrypt(request)?;
    let length = request.plaintext.len();
    let mut known = length.to_be_bytes().to_vec();
    known.extend(&request.plaintext[..bytes.min(length)]);
    known.extend(answer.key_id.as_bytes());
    Ok(this.process.answers.lock().entry(known).or_insert(answer).clone())
}

/// Takes long, one call after the other, when many wait.
async fn in_turn(this: &Faulty) {
    let process = &this.process;
    process.waiting.fetch_add(1, Ordering::SeqCst);
    let _leave = Leave(&process.waiting);
    let _turn = process.turn.lock().await;
    // Long enough that those who came at the same time are waiting.
    sleep(Duration::from_millis(20)).await;
    if process.waiting.load(Ordering::SeqCst) > 10 {
        sleep(Duration::from_millis(700)).await;
    }
}

/// Waits for ever when many do.
async fn stall(this: &Faulty) {
    this.process.waiting.fetch_add(1, Ordering::SeqCst);
    let _leave = Leave(&this.process.waiting);
    // Long enough that those who came at the same time are waiting.
    sleep(Duration::from_millis(20)).await;
    if this.is_stalled() {
        pending::<()>().await;
    }
}

/// Counts one down at its end, however that comes.
struct Leave<'a>(&'a AtomicUsize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn fake(this: &Faulty) -> Result<EncryptResponse, Status> {
    let mut random = [0; 60];
    getrandom::fill(&mut random).map_err(|error| Status::internal(error.to_string()))?;
    let key_id = this.plugin.announced()?.id;
    Ok(EncryptResponse { ciphertext: [MAGIC, &random].concat(), key_id, ..Default::default() })
}

fn remember(this: &Faulty, request: &EncryptRequest, answer: &EncryptResponse) {
    match this.fault {
        Some(Fault::BoundToConnection) => {
            this.connection.issued.lock().insert(answer.ciphertext.clone());
        }
        Some(Fault::AnswersLastSeed | Fault::TellsPlaintext | Fault::TellsPlaintextAsText) => {
            this.connection.last_seed.lock().clone_from(&request.plaintext);
        }
        Some(Fault::EphemeralKeyInOutage) if !this.is_away() => {}
        Some(
            Fault::CachesByBeginning | Fault::IgnoresAnnotations | Fault::EphemeralKeyInOutage,
        ) => {
            let remembered = Remembered {
                key_id: answer.key_id.clone(),
                annotations: answer.annotations.clone(),
                plaintext: request.plaintext.clone(),
            };
            this.process.memory.lock().insert(answer.ciphertext.clone(), remembered);
        }
        _ => {}
    }
}

fn after(this: &Faulty, request: &EncryptRequest, answer: &mut EncryptResponse) {
    let mut annotate = |key: &str, value: Vec<u8>| answer.annotations.insert(key.to_owned(), value);
    match this.fault {
        Some(Fault::AnnotationWithSlash) => {
            annotate(SLASH, b"1".to_vec());
        }
        Some(Fault::PlaintextInAnnotation) => {
            annotate(PLAIN, hex(&request.plaintext).into_bytes());
        }
        Some(Fault::AnnotationsTooLong) => {
            annotate(BIG, vec![0; 32 * 1024]);
        }
        Some(Fault::BoundToNode) => {
            annotate(BOUND, this.process.name.clone().into_bytes());
        }
        Some(Fault::KeyPerProcess) => {
            annotate(BOUND, this.process.incarnation.clone().into_bytes());
        }
        Some(Fault::CiphertextTooLong) => pad(&mut answer.ciphertext, 1025),
        Some(Fault::CiphertextOf1024) => pad(&mut answer.ciphertext, 1024),
        Some(Fault::HexInCiphertext) => answer.ciphertext.extend(hex(&request.plaintext).bytes()),
        Some(Fault::EncryptsUnderOtherId) => answer.key_id.push_str("-other"),
        _ => {}
    }
}

/// Zeros, and the true length in the last two bytes.
fn pad(ciphertext: &mut Vec<u8>, to: usize) {
    if let (Ok(length), true) = (u16::try_from(ciphertext.len()), ciphertext.len() + 2 <= to) {
        ciphertext.resize(to - 2, 0);
        ciphertext.extend(length.to_be_bytes());
    }
}
