//! What the node that was asked does not know yet: items of a version that it has not heard of.
//!
//! They wait apart, so that nobody waits for them, and are asked for together after a pause, of another
//! node where there is one, until they are known or their time is over.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::Inner;
use super::Item;
use crate::backend::BackendError;

/// Longest pause before they are asked for again.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks again for these; `error` is for those that have no time for that.
pub(super) fn again(inner: &Arc<Inner>, items: Vec<(Item, BackendError)>) {
    let soon = Instant::now() + PAUSE;
    let mut waiting = Vec::new();
    for (item, error) in items {
        if item.deadline > soon {
            waiting.push(item);
        } else {
            item.settle(Err(error));
        }
    }
    if waiting.is_empty() {
        return;
    }
    let pause = inner.queue.random.jitter(PAUSE);
    let first = {
        let mut state = inner.queue.state.lock();
        let first = state.behind.is_empty();
        state.behind.append(&mut waiting);
        first
    };
    // Whoever is the first starts the round that takes all.
    if first {
        let inner = Arc::clone(inner);
        tokio::spawn(async move {
            sleep(pause).await;
            let mut items = mem::take(&mut inner.queue.state.lock().behind).into();
            inner.cluster.ask_another();
            loop {
                let some = inner.queue.fitting(&mut items);
                if some.is_empty() {
                    break;
                }
                inner.send(some).await;
            }
        });
    }
}
