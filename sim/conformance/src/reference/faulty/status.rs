//! Status, and its faults.

use std::future::pending;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kleidi_proto::kms::StatusResponse;
use tonic::Status;

use super::{BEFORE_READY, BY_ERROR, Faulty, LATE_CONNECTION, cut_off};
use crate::reference::mutant::Fault;

pub(super) async fn status(this: &Faulty) -> Result<StatusResponse, Status> {
    let nth = 1 + this.connection.statuses.fetch_add(1, Ordering::SeqCst);
    match this.fault {
        Some(Fault::StatusHangs) if nth > 12 => pending().await,
        Some(Fault::CutsOffStatusInOutage) if this.is_away() => return Err(cut_off(BY_ERROR)),
        Some(Fault::StatusHangsInOutage) if this.is_away() => pending().await,
        Some(Fault::RefusesAfterRefusal) if this.connection.refused.load(Ordering::SeqCst) => {
            return Err(Status::unavailable("no more on this connection"));
        }
        Some(Fault::LimitsRate) if nth > 70 => {
            return Err(Status::resource_exhausted("too many calls"));
        }
        Some(Fault::ServesBeforeReady) if this.process.started.elapsed() < BEFORE_READY => {
            return Err(Status::unavailable("starting"));
        }
        Some(Fault::StallsUnderLoad) if this.is_stalled() => pending().await,
        Some(Fault::StatusWaitsForIdle) => idle(this).await,
        _ => {}
    }
    this.outlived()?;
    // Other nodes than the first say ok before the other calls work.
    if this.process.name == "a" {
        this.recovers_slowly()?;
    }
    count_outages(this);
    let mut answer = match this.fault {
        Some(Fault::SaysOkInOutage) => {
            this.plugin.may_decrypt().and_then(|()| this.plugin.healthy())
        }
        Some(Fault::HealthzInOutage) if this.is_away() => this.plugin.healthy().map(|answer| {
            StatusResponse { healthz: "the KMS does not answer".to_owned(), ..answer }
        }),
        Some(Fault::KeyIdInOutage) if this.is_away() => this.plugin.healthy().map(|answer| {
            let (healthz, key_id) = ("down".to_owned(), "unavailable".to_owned());
            StatusResponse { healthz, key_id, ..answer }
        }),
        Some(Fault::IgnoresDecryptDenied) => {
            this.plugin.reachable().and_then(|()| this.plugin.healthy())
        }
        _ => this.plugin.status(),
    }?;
    match this.fault {
        Some(Fault::VersionV1) => "v1".clone_into(&mut answer.version),
        Some(Fault::VersionV2beta1) => "v2beta1".clone_into(&mut answer.version),
        Some(Fault::VersionChanges) if nth > 2 => "v2beta1".clone_into(&mut answer.version),
        Some(Fault::VersionPerProcess) if this.process.starts.is_multiple_of(2) => {
            "v2beta1".clone_into(&mut answer.version);
        }
        Some(Fault::ConnectionsDisagree) if this.connection.number.is_multiple_of(2) => {
            answer.key_id = known_for(this, LATE_CONNECTION).unwrap_or(answer.key_id);
        }
        Some(Fault::HealthzInCapitals) => "OK".clone_into(&mut answer.healthz),
        Some(Fault::FlipFlops) => answer.key_id = flip_flop(this, answer.key_id),
        _ => {}
    }
    answer.key_id = this.outward(answer.key_id);
    Ok(answer)
}

/// The newest key_id of at least this age.
fn known_for(this: &Faulty, age: Duration) -> Option<String> {
    let keys = this.plugin.ring().keys().ok()?;
    keys.into_iter().rev().find(|key| key.age >= age).map(|key| key.id)
}

/// Waits until in fifty looks no other connection had a call, if there is one.
async fn idle(this: &Faulty) {
    let (all, own) = (&this.process.calls, &this.connection.calls);
    let of_others = || all.load(Ordering::SeqCst) - own.load(Ordering::SeqCst);
    let (mut quiet, mut seen) = (0, of_others());
    while this.process.has_other_connections() && quiet < 50 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        quiet = if of_others() == seen { quiet + 1 } else { 0 };
        seen = of_others();
    }
}

fn count_outages(this: &Faulty) {
    let away = this.is_away();
    if this.process.away.swap(away, Ordering::SeqCst) && !away {
        this.process.outages.fetch_add(1, Ordering::SeqCst);
    }
}

/// Back and forth in the twentieth to twenty-fourth Status of a connection that saw a change.
fn flip_flop(this: &Faulty, key_id: String) -> String {
    let mut turn = this.connection.turn.lock();
    let (current, before, since) = &mut *turn;
    if *current != key_id {
        *before = std::mem::replace(current, key_id.clone());
        *since = 0;
    }
    *since += 1;
    if !before.is_empty() && [20, 22, 24].contains(since) { before.clone() } else { key_id }
}
