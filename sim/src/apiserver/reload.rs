//! The file is looked at each minute; a change makes a new generation, which replaces the old one once it is
//! healthy. What to do when is [`crate::reload`]'s; this does it.

use std::sync::{Arc, PoisonError};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::Shared;
use super::generation::Generation;
use crate::reload::{EVERY, Failure, HEALTH_EVERY, Look, Reload};

/// Reloads until it is dropped.
pub(super) async fn watch(shared: Arc<Shared>, mut reload: Reload) {
    let mut polls = interval(EVERY);
    polls.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut again: Option<Instant> = None;
    loop {
        let retry = async {
            match again {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = polls.tick() => {}
            () = retry => again = None,
        }
        let failure = look(&shared, &mut reload).await;
        let later = failure.map(|failure| Instant::now() + failure.retry_after);
        // Of two times that are due the queue keeps the earlier.
        again = later.map(|later| again.map_or(later, |again| again.min(later)));
    }
}

/// Looks at the file once.
async fn look(shared: &Shared, reload: &mut Reload) -> Option<Failure> {
    let file = (shared.options.config)().map_err(|error| error.to_string());
    let candidate = match reload.look(file.as_deref().map_err(Clone::clone)) {
        Look::Unchanged => return None,
        Look::Failed(failure) => return Some(failure),
        Look::Try(candidate) => candidate,
    };
    let version = shared.options.version;
    let new = Generation::start(&shared.edges, version, candidate.plan.clone()).await;
    let mut last = String::new();
    let healthy = async {
        while let Err(error) = new.health().await {
            last = error;
            sleep(HEALTH_EVERY).await;
        }
    };
    if timeout(candidate.healthy_within(), healthy).await.is_err() {
        return Some(reload.unhealthy(&last));
    }
    let old = shared.now();
    let grace = reload.healthy(candidate, &old.plan);
    *shared.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
    tokio::spawn(async move {
        sleep(grace).await;
        drop(old);
    });
    None
}
