//! Observes the backend in the background, so that Status costs nothing and cannot hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info, warn};

use super::snapshot::{Event, State};
use crate::backend::Backend;
use crate::limits;
use crate::random::Random;
use crate::sim_point::sim_point;

/// What the provider holds of its monitor.
#[derive(Debug)]
pub struct Handle {
    states: watch::Receiver<State>,
    /// Observations that have begun.
    begun: Arc<AtomicU64>,
    wanted: Arc<Notify>,
    /// Told when an observation has ended. Wakes whoever has waited longest first; `states` would wake them in an
    /// order that is drawn anew each time.
    ended: Arc<Notify>,
}

impl Handle {
    /// What is known now.
    #[must_use]
    pub fn state(&self) -> State {
        self.states.borrow().clone()
    }

    /// Has the backend observed soon; does not wait for it.
    pub fn nudge(&self) {
        self.wanted.notify_one();
    }

    /// Waits for an observation that begins after this call, and for no longer than `deadline`.
    ///
    /// Callers that ask while one is under way share the one after it. `false` if it has not ended by then.
    pub async fn refresh(&self, deadline: Instant) -> bool {
        let wanted = self.begun.load(Ordering::SeqCst) + 1;
        self.nudge();
        self.wait_until(deadline, |state| state.observations >= wanted).await
    }

    /// Waits for the first observation, and for no longer than `deadline`.
    pub async fn first(&self, deadline: Instant) {
        self.wait_until(deadline, |state| state.observations > 0).await;
    }

    /// Whether it came to be by the deadline.
    async fn wait_until(&self, deadline: Instant, condition: impl Fn(&State) -> bool) -> bool {
        let until = async {
            loop {
                let ended = self.ended.notified();
                tokio::pin!(ended);
                // From here on no end is missed.
                ended.as_mut().enable();
                if condition(&self.states.borrow()) {
                    return;
                }
                ended.await;
            }
        };
        timeout_at(deadline, until).await.is_ok()
    }

    /// A receiver that is told of every change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.states.clone()
    }
}

/// Observes the backend until dropped.
pub struct Monitor {
    backend: Arc<dyn Backend>,
    random: Arc<dyn Random>,
    period: Duration,
    states: watch::Sender<State>,
    begun: Arc<AtomicU64>,
    wanted: Arc<Notify>,
    ended: Arc<Notify>,
}

impl Monitor {
    /// A monitor that observes once per `period`, and its handle.
    pub fn new(
        backend: Arc<dyn Backend>,
        random: Arc<dyn Random>,
        period: Duration,
    ) -> (Self, Handle) {
        let (states, receiver) = watch::channel(State::default());
        let (begun, wanted) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let ended = Arc::new(Notify::new());
        let handle = Handle {
            states: receiver,
            begun: Arc::clone(&begun),
            wanted: Arc::clone(&wanted),
            ended: Arc::clone(&ended),
        };
        (Self { backend, random, period, states, begun, wanted, ended }, handle)
    }

    /// Runs for ever.
    pub async fn run(self) {
        let mut retry = limits::OBSERVE_RETRY_MIN;
        loop {
            let (gap, pause) = if self.observe_once().await {
                retry = limits::OBSERVE_RETRY_MIN;
                (limits::OBSERVE_GAP_MIN, self.period)
            } else {
                let pause = self.random.jitter(retry);
                retry = (retry * 2).min(self.period);
                (limits::OBSERVE_RETRY_MIN, pause)
            };
            // However many calls fail, the KMS is not asked more often than this.
            tokio::time::sleep(gap.min(pause)).await;
            tokio::select! {
                biased;
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn observe_once(&self) -> bool {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let outcome = self.backend.observe(Instant::now() + limits::OBSERVE_TIMEOUT).await;
        let good = outcome.is_ok();
        sim_point!("seen, and not yet told");
        let now = Instant::now();
        let mut events = Vec::new();
        self.states.send_modify(|state| events = state.apply(outcome, now));
        self.ended.notify_waiters();
        events.iter().for_each(log);
        good
    }
}

fn log(event: &Event) {
    match event {
        Event::Ready(key_id) => info!(%key_id, "the KMS is in order"),
        Event::OutageBegan(reason) => error!(
            %reason,
            "the KMS is out of order: Status fails from now on, new writes stop in 3 minutes, \
             objects in the apiserver's cache stay readable"
        ),
        Event::OutageChanged(reason) => {
            warn!(%reason, "the KMS is out of order for another reason now");
        }
        Event::OutageEnded(after) => {
            info!(after_seconds = after.as_secs(), "the KMS is in order again");
        }
        Event::CurrentKeyChanged { from, to } => info!(
            %from, %to,
            "another key is current: Status announces it, then Encrypt uses it"
        ),
        Event::KeyGone(key) => error!(
            key,
            "a key is gone from the KMS: what it wrapped cannot be read until it is restored"
        ),
        Event::KeyAppeared(key) => debug!(key, "a key is there that only unwraps"),
        Event::KeyRefused(reason) => warn!(reason, "a key is not used for wrapping"),
    }
}
