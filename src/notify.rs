//! What systemd is told: ready, how it is going, stopping, alive.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error};

use crate::provider::snapshot::State;

/// A call into the backend that has not returned for this long is a reason to be restarted.
const STUCK_MAX: Duration = Duration::from_secs(60);

/// How often we look without a watchdog.
const LOOK_PERIOD: Duration = Duration::from_secs(5);

/// Sends to systemd, if it listens.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "cannot notify systemd");
    }
}

/// We serve, or are at least there to say why not.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// We are about to end.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("finishing the calls in flight")]);
}

/// Keeps `systemctl status` up to date.
pub(crate) async fn report(mut states: watch::Receiver<State>) {
    loop {
        let line = {
            let known = states.borrow_and_update();
            match (&known.outage, &known.keys) {
                (Some(outage), _) => format!("KMS out of order: {}", outage.error),
                (None, Some(keys)) => format!("in order, key {}", keys.current.id),
                (None, None) => "starting".to_owned(),
            }
        };
        notify(&[NotifyState::Status(&line)]);
        if states.changed().await.is_err() {
            return;
        }
    }
}

/// Has us restarted when a call into the backend does not return: nothing else can end that.
///
/// Where systemd's watchdog is there, it is fed until then; that this runs at all shows that the process
/// works. Where it is not, `give_up` ends the process, and whoever keeps it running starts it again. A
/// backend that is down is no reason for either.
pub(crate) async fn watchdog(stuck_for: impl Fn() -> Duration, give_up: impl Fn()) {
    let systemd = sd_notify::watchdog_enabled();
    let mut ticks = interval(systemd.map_or(LOOK_PERIOD, |timeout| timeout / 2));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut starved = false;
    loop {
        ticks.tick().await;
        let stuck = stuck_for();
        if stuck <= STUCK_MAX {
            if systemd.is_some() {
                notify(&[NotifyState::Watchdog]);
            }
        } else if !starved {
            error!(
                seconds = stuck.as_secs(),
                "a call into the KMS does not return: this process has to be restarted"
            );
            if systemd.is_none() {
                give_up();
            }
        }
        starved = stuck > STUCK_MAX;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::{Instant, timeout};

    use super::*;

    /// As in a container: nobody watches, and nobody else can end a call that hangs.
    #[tokio::test(start_paused = true)]
    async fn without_systemd_a_hung_call_ends_the_process() {
        let (begin, given_up) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&given_up);
        let hangs_after =
            |seconds| move || begin.elapsed().saturating_sub(Duration::from_secs(seconds));
        let watchdog = watchdog(hangs_after(100), move || told.store(true, Ordering::SeqCst));
        tokio::pin!(watchdog);
        assert!(timeout(Duration::from_secs(155), &mut watchdog).await.is_err());
        assert!(!given_up.load(Ordering::SeqCst));
        assert!(timeout(Duration::from_secs(15), &mut watchdog).await.is_err());
        assert!(given_up.load(Ordering::SeqCst));
    }
}
