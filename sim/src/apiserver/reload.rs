//! The file is looked at each minute; a change makes a new generation, which replaces the old one once it
//! is healthy (upstream `encryptionconfig/controller/controller.go`; spec 7).

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout_at};

use super::Shared;
use super::generation::Generation;

/// How often the file is looked at (`EncryptionConfigFileChangePollDuration`).
const POLL: Duration = Duration::from_secs(60);

/// How long the new plugins have to be healthy at least.
const PATIENCE_MIN: Duration = Duration::from_secs(10);

/// How often that is asked meanwhile.
const ASK: Duration = Duration::from_millis(100);

/// First pause before a file that could not be loaded is tried again, doubled each time, and never reset.
const RETRY: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(1000);

/// Reloads until it is dropped.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut polls = interval(POLL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut retry, mut again) = (RETRY, None);
    loop {
        let retries = async {
            match again {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = polls.tick() => {}
            () = retries => {}
        }
        again = None;
        if !reload(&shared).await {
            again = Some(Instant::now() + retry);
            retry = (retry * 2).min(RETRY_MAX);
        }
    }
}

/// Looks at the file once; false if it has changed and cannot be used.
async fn reload(shared: &Arc<Shared>) -> bool {
    let old = shared.now();
    let options = &shared.options;
    let Ok(file) = (options.config)() else { return false };
    if options.version.config_hash(&file) == old.hash {
        return true;
    }
    let new = Generation::load(&shared.edges, options.version, &file, options.reload).await;
    let Ok(new) = new else { return false };
    let patience = new.plan.grace().max(PATIENCE_MIN);
    let healthy = async {
        while new.health().await.is_err() {
            sleep(ASK).await;
        }
    };
    if timeout_at(Instant::now() + patience, healthy).await.is_err() {
        return false;
    }
    *shared.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
    // Whoever reads with the old ones may go on for so long; dropped with the runtime at the latest.
    tokio::spawn(async move {
        sleep(old.plan.grace()).await;
        drop(old);
    });
    true
}
