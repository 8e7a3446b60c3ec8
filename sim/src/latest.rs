//! A value that others wait for. As tokio's `watch`, but whoever has waited longest is woken first: `watch` wakes in
//! an order that is drawn anew each time, and a run could not be had again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The latest value of something.
pub(crate) struct Latest<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T> Latest<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    /// What it is now. Not to be held for long.
    pub(crate) fn get(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is this from now on.
    pub(crate) fn set(&self, value: T) {
        self.change(|now| *now = value);
    }

    /// Changes it.
    pub(crate) fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.get());
        self.changed.notify_waiters();
    }

    /// Waits until there is something in it.
    pub(crate) async fn find<R>(&self, mut find: impl FnMut(&T) -> Option<R>) -> R {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            let found = find(&self.get());
            if let Some(found) = found {
                return found;
            }
            changed.await;
        }
    }

    /// Waits until it is so.
    pub(crate) async fn until(&self, mut is: impl FnMut(&T) -> bool) {
        self.find(|now| is(now).then_some(())).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn who_has_waited_longest_is_first() {
        let (latest, order) = (Arc::new(Latest::new(0)), Arc::new(Mutex::new(Vec::new())));
        let mut waiting = Vec::new();
        for number in 0..20 {
            let (latest, order) = (Arc::clone(&latest), Arc::clone(&order));
            waiting.push(tokio::spawn(async move {
                latest.until(|now| *now == 1).await;
                order.lock().unwrap().push(number);
            }));
            tokio::task::yield_now().await;
        }
        latest.set(1);
        for one in waiting {
            one.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
        latest.until(|now| *now == 1).await;
    }
}
