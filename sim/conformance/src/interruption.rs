//! What ends a run before its end: its deadline, or a signal.

use std::io;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The moment at which nothing more is begun, and what runs is cut off. Clones share it.
#[derive(Debug, Clone)]
pub struct Interruption {
    deadline: Instant,
    limit: Duration,
    /// None if signals have the effect that they have anyway.
    signalled: Option<watch::Receiver<Option<Signal>>>,
}

impl Interruption {
    /// So long from now; signals end the process.
    #[must_use]
    pub fn after(limit: Duration) -> Self {
        Self { deadline: Instant::now() + limit, limit, signalled: None }
    }

    /// So long from now, or with the first SIGINT, SIGTERM or SIGHUP, which from now on do not end the
    /// process.
    pub fn after_or_signal(limit: Duration) -> io::Result<Self> {
        let (sender, receiver) = watch::channel(None);
        for name in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let mut caught = signal(SignalKind::from_raw(name as i32))?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while caught.recv().await.is_some() {
                    sender.send_if_modified(|first| {
                        let is_first = first.is_none();
                        first.get_or_insert(name);
                        is_first
                    });
                }
            });
        }
        Ok(Self { signalled: Some(receiver), ..Self::after(limit) })
    }

    /// Why the run is over, if it is.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        let signalled = self.signalled.as_ref().and_then(|signalled| *signalled.borrow());
        let passed = Instant::now() >= self.deadline;
        let passed = passed.then(|| format!("the deadline of {:?} passed", self.limit));
        signalled.map(|signal| format!("interrupted by {signal}")).or(passed)
    }

    /// Waits until it is; says why.
    pub async fn reached(&mut self) -> String {
        let passed = sleep_until(self.deadline);
        let signalled = &mut self.signalled;
        let signalled = async {
            if let Some(signalled) = signalled {
                // The senders live as long as the process.
                let _ = signalled.wait_for(Option::is_some).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = passed => {}
            () = signalled => {}
        }
        self.why().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_is_reached() {
        let mut soon = Interruption::after(Duration::from_millis(1));
        assert_eq!(soon.reached().await, "the deadline of 1ms passed");
        assert_eq!(Interruption::after(Duration::from_secs(60)).why(), None);
    }
}
