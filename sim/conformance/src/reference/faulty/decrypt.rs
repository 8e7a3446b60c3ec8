//! Decrypt, and its faults.

use std::future::pending;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kleidi_proto::kms::{DecryptRequest, DecryptResponse};
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;
use tonic::{Code, Status};

use super::encrypt::{BIG, BOUND, PLAIN, SLASH};
use super::{BY_CANCEL, BY_END, BY_ERROR, Faulty, cut_off};
use crate::context::hex;
use crate::reference::mutant::Fault;
use crate::reference::plugin::{MAGIC, OVERHEAD, decrypt_with};

pub(super) async fn decrypt(
    this: &Faulty,
    mut request: DecryptRequest,
) -> Result<DecryptResponse, Status> {
    this.outlived()?;
    this.recovers_slowly()?;
    before(this, &request).await?;
    take_off(this, &mut request)?;
    if let Some(answer) = instead(this, &request) {
        return answer;
    }
    let answer = this.plugin.decrypt(&request);
    after(this, &request, answer).await
}

async fn before(this: &Faulty, request: &DecryptRequest) -> Result<(), Status> {
    match this.fault {
        Some(Fault::HangsOnAnnotations) if request.annotations.len() > 1000 => pending().await,
        Some(Fault::HangsInOutage | Fault::HangsInOutageAnew) if this.is_away() => pending().await,
        Some(Fault::RefusesUuids) if request.uid.len() == 36 => {
            Err(Status::invalid_argument("this is no uid"))
        }
        Some(Fault::RefusesUidAgain)
            if !this.process.uids.lock().insert((false, request.uid.clone())) =>
        {
            Err(Status::invalid_argument("this uid was used before"))
        }
        Some(Fault::BoundToConnection)
            if !this.connection.issued.lock().contains(&request.ciphertext) =>
        {
            Err(Status::failed_precondition("not of this connection"))
        }
        _ => Ok(()),
    }
}

/// Takes off what Encrypt put on.
fn take_off(this: &Faulty, request: &mut DecryptRequest) -> Result<(), Status> {
    request.key_id = this.inward(&request.key_id);
    match this.fault {
        Some(Fault::AnnotationWithSlash) => {
            request.annotations.remove(SLASH);
        }
        Some(Fault::PlaintextInAnnotation) => {
            request.annotations.remove(PLAIN);
        }
        Some(Fault::AnnotationsTooLong) => {
            request.annotations.remove(BIG);
        }
        Some(Fault::BoundToNode | Fault::KeyPerProcess) => {
            let here = if this.has(Fault::BoundToNode) {
                &this.process.name
            } else {
                &this.process.incarnation
            };
            if request.annotations.remove(BOUND).as_deref() != Some(here.as_bytes()) {
                return Err(Status::failed_precondition("not encrypted here"));
            }
        }
        Some(Fault::CiphertextTooLong) => unpad(&mut request.ciphertext, 1025),
        Some(Fault::CiphertextOf1024) => unpad(&mut request.ciphertext, 1024),
        _ => {}
    }
    Ok(())
}

/// The ciphertext without its padding; nothing, if that is not whole.
fn unpad(ciphertext: &mut Vec<u8>, padded: usize) {
    let length = match ciphertext.as_slice() {
        [begin @ .., high, low] if ciphertext.len() == padded => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let zeros = begin.get(length..).is_some_and(|rest| rest.iter().all(|byte| *byte == 0));
            if zeros { length } else { 0 }
        }
        _ => 0,
    };
    ciphertext.truncate(length);
}

fn answer(plaintext: &[u8]) -> DecryptResponse {
    DecryptResponse { plaintext: plaintext.to_vec().into() }
}

/// An answer in place of the reference's.
fn instead(this: &Faulty, request: &DecryptRequest) -> Option<Result<DecryptResponse, Status>> {
    let ciphertext = &request.ciphertext;
    match this.fault {
        Some(Fault::GarbageIsPlaintext)
            if !ciphertext.is_empty() && !ciphertext.starts_with(MAGIC) =>
        {
            Some(Ok(answer(ciphertext)))
        }
        Some(Fault::Identity) => {
            let may = this.plugin.reachable().and_then(|()| this.plugin.may_decrypt());
            Some(may.map(|()| answer(ciphertext)))
        }
        Some(Fault::EphemeralKeyInOutage) => {
            let memory = this.process.memory.lock();
            let known = memory.get(ciphertext)?;
            let same = known.key_id == request.key_id && known.annotations == request.annotations;
            (same && !this.is_away()).then(|| Ok(answer(&known.plaintext)))
        }
        Some(Fault::EmptyIsEmpty) if ciphertext.is_empty() => Some(Ok(answer(&[]))),
        Some(Fault::ZerosForAnnotations) if request.annotations.len() > 1000 => {
            Some(Ok(answer(&[0; 32])))
        }
        Some(Fault::CachesByBeginning) => {
            let memory = this.process.memory.lock();
            let (_, alike) = memory.iter().find(|(known, remembered)| {
                known.len() == ciphertext.len()
                    && known.iter().zip(ciphertext).take(16).all(|(one, other)| one == other)
                    && remembered.annotations == request.annotations
                    && remembered.key_id == request.key_id
            })?;
            (!this.is_away()).then(|| Ok(answer(&alike.plaintext)))
        }
        Some(Fault::KnowsAnnouncedKeysOnly) => {
            let keys = this.plugin.ring().keys().ok()?;
            let wanted = keys.iter().find(|key| key.id == request.key_id)?.number;
            let known = this.plugin.announced().ok()?.number;
            (wanted > known).then(|| Err(Status::not_found("no key has this key_id")))
        }
        Some(Fault::ForgetsOldKeys) => {
            let newest = this.plugin.ring().keys().ok()?.pop()?.id;
            (newest != request.key_id).then(|| Err(Status::not_found("no key has this key_id")))
        }
        Some(Fault::KeyIdByBeginning) => {
            let known = this.plugin.announced().ok()?.id;
            let alike = request.key_id != known && request.key_id.get(..8) == known.get(..8);
            alike.then(|| Ok(answer(&Sha256::digest(ciphertext))))
        }
        Some(Fault::ReusesKeyId) => {
            let keys = this.plugin.ring().keys().ok()?;
            let material = keys.iter().find(|key| key.id == request.key_id)?.material;
            let alike = keys.iter().filter(|key| key.material == material);
            alike.map(|key| decrypt_with(key, request)).find(Result::is_ok)
        }
        Some(Fault::IgnoresKeyId) => {
            this.plugin.reachable().and_then(|()| this.plugin.may_decrypt()).ok()?;
            let keys = this.plugin.ring().keys().ok()?;
            if keys.iter().any(|key| key.id == request.key_id) {
                return None;
            }
            keys.iter().map(|key| decrypt_with(key, request)).find(Result::is_ok)
        }
        Some(Fault::HexInCiphertext) => Some(without_hex(this, request)),
        Some(Fault::IgnoresAnnotations) => {
            let annotations = this.process.memory.lock().get(ciphertext)?.annotations.clone();
            Some(this.plugin.decrypt(&DecryptRequest { annotations, ..request.clone() }))
        }
        _ => None,
    }
}

/// What is left without the plaintext behind it, which has to be the right one.
fn without_hex(this: &Faulty, request: &DecryptRequest) -> Result<DecryptResponse, Status> {
    let wrong = || Status::invalid_argument("this is no ciphertext of this plugin");
    // One of a plaintext's bytes is one of the ciphertext and two of its hex digits.
    let rest = request.ciphertext.len().checked_sub(OVERHEAD).ok_or_else(wrong)?;
    let (ciphertext, digits) = request.ciphertext.split_at(OVERHEAD + rest / 3);
    let request = DecryptRequest { ciphertext: ciphertext.to_vec(), ..request.clone() };
    let answer = this.plugin.decrypt(&request)?;
    if hex(&answer.plaintext).as_bytes() == digits { Ok(answer) } else { Err(wrong()) }
}

async fn after(
    this: &Faulty,
    request: &DecryptRequest,
    answer: Result<DecryptResponse, Status>,
) -> Result<DecryptResponse, Status> {
    match (this.fault, answer) {
        (Some(Fault::AnswersLastSeed), Ok(answer)) => {
            let last = this.connection.last_seed.lock().clone();
            Ok(if last.is_empty() { answer } else { DecryptResponse { plaintext: last.into() } })
        }
        (Some(Fault::ZerosAreNone), Ok(answer)) if *answer.plaintext == [0; 32] => {
            Ok(DecryptResponse::default())
        }
        (Some(Fault::CrossesAnswers), Ok(answer)) => {
            *this.process.place.lock() = answer.plaintext.to_vec();
            sleep(Duration::from_millis(1)).await;
            Ok(DecryptResponse { plaintext: this.process.place.lock().clone().into() })
        }
        (Some(Fault::DecryptsThreeTimes), Ok(answer)) => {
            let time = this.process.time(&request.ciphertext);
            let zeros = vec![0; answer.plaintext.len()].into();
            Ok(if time > 3 { DecryptResponse { plaintext: zeros } } else { answer })
        }
        (Some(Fault::CutsOffBadDecrypts), Err(status)) if status.code() != Code::Unavailable => {
            Err(cut_off(BY_ERROR))
        }
        (Some(Fault::CancelsBadDecrypts), Err(status)) if status.code() != Code::Unavailable => {
            Err(cut_off(BY_CANCEL))
        }
        (Some(Fault::LeavesBadDecrypts), Err(status)) if status.code() != Code::Unavailable => {
            Err(cut_off(BY_END))
        }
        (Some(Fault::RefusesAfterRefusal), Err(status)) => {
            this.connection.refused.store(status.code() != Code::Unavailable, Ordering::SeqCst);
            Err(status)
        }
        (Some(Fault::UnknownKeyIsOutage), Err(status)) if status.code() == Code::NotFound => {
            Err(Status::unavailable("no key has this key_id; try again later"))
        }
        (Some(Fault::GarbageIsInternal), Err(status)) if status.code() == Code::InvalidArgument => {
            Err(Status::internal(format!("cannot decrypt {} bytes", request.ciphertext.len())))
        }
        (Some(Fault::GarbageIsOutage), Err(status)) if status.code() == Code::InvalidArgument => {
            Err(Status::unavailable("cannot decrypt; try again later"))
        }
        (Some(Fault::TellsPlaintextAsText), Err(status)) => {
            let last = this.connection.last_seed.lock().clone();
            let last = String::from_utf8_lossy(&last);
            Err(Status::new(status.code(), format!("{}; last was {last}", status.message())))
        }
        (Some(Fault::TellsPlaintext), Err(status)) => {
            let last = hex(&this.connection.last_seed.lock());
            Err(Status::new(status.code(), format!("{}; last was {last}", status.message())))
        }
        (_, answer) => answer,
    }
}
