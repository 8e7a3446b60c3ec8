//! What systemd is told: ready, how it is going, stopping, alive.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error};

use crate::provider::snapshot::State;

/// A call into the backend that has not returned for this long is a reason to be restarted.
const STUCK_MAX: Duration = Duration::from_secs(60);

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

/// Feeds systemd's watchdog, if there is one, as long as a restart would not help.
///
/// That this runs at all shows that the process works. A backend that is down is no reason to stop
/// feeding; a call into it that never returns is, because nothing else can end that.
pub(crate) async fn watchdog(stuck_for: impl Fn() -> Duration) {
    let Some(timeout) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = interval(timeout / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut starved = false;
    loop {
        ticks.tick().await;
        let stuck = stuck_for();
        if stuck <= STUCK_MAX {
            notify(&[NotifyState::Watchdog]);
        } else if !starved {
            error!(
                seconds = stuck.as_secs(),
                "a call into the KMS does not return: leaving it to systemd's watchdog to restart us"
            );
        }
        starved = stuck > STUCK_MAX;
    }
}
