//! A list that is refused as a whole: whether it is the list that is refused, or what is in it, or whether
//! the refusal passes.
//!
//! A list carries references, which tell an answer that is another's; one alone does not. So that they are given up
//! takes a plain request of the same that is taken, and the same list, sent once more, that is refused once more, and
//! both times by the server itself: a proxy that reloads has pages of its own.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

use super::super::Inner;
use super::super::answer::{Meaning, is_foreign};
use super::{Item, Outcome, SENDERS_MAX, error, hire, settle_all};
use crate::backend::{BackendError, ErrorKind, UnwrapRequest};
use crate::secret::Secret;

impl Inner {
    /// Unwraps two at once, as they come, or one by one where the server takes no lists; from now on all
    /// go as these went.
    pub(in super::super) async fn unwrap_both(
        &self,
        requests: [Arc<UnwrapRequest>; 2],
        deadline: Instant,
    ) -> Result<[Outcome; 2], BackendError> {
        if self.queue.state.lock().size.most() > 1 {
            let answered = match self.exchange(&requests, deadline).await {
                Err(refusal) if !refusal.kind.retryable() => {
                    self.unwrap_one(&requests[0], deadline).await?;
                    self.exchange_again(&requests, &refusal, deadline).await
                }
                answered => answered,
            };
            match answered.map(<[_; 2]>::try_from) {
                Ok(Ok(both)) => return Ok(both.map(|outcome| outcome.map_err(error))),
                Err(refusal) if refusal.kind.retryable() => return Err(refusal),
                Ok(Err(_)) | Err(_) => {}
            }
        }
        let [first, second] = &requests;
        Ok([self.unwrap_one(first, deadline).await, self.unwrap_one(second, deadline).await])
    }

    /// The request was refused as a whole. What a plain one of the first says tells whether it is the list that is
    /// refused; then it is sent once more, and if that is of no use, in smaller ones.
    pub(super) async fn refused(self: &Arc<Self>, mut items: Vec<Item>, refusal: BackendError) {
        let requests: Vec<_> = items.iter().map(|item| Arc::clone(&item.request)).collect();
        let deadline = items.iter().map(|item| item.deadline).max().unwrap_or_else(Instant::now);
        let first = items.remove(0);
        let outcome = self.unwrap_one(&first.request, first.deadline).await;
        let (taken, outcome) = match outcome {
            Ok(seed) => (true, Ok(seed)),
            // No news, for instance because there is no time left.
            Err(lone) if lone.kind.retryable() => (false, Err(refusal.clone())),
            // What is said of the ciphertext, the list has not been read for.
            Err(lone) => {
                let read = matches!(lone.kind, ErrorKind::BadCiphertext | ErrorKind::KeyNotFound);
                (read && lone.kind != refusal.kind, Err(lone))
            }
        };
        first.settle(outcome);
        if !taken {
            settle_all(items, &refusal);
            return;
        }
        match self.exchange_again(&requests, &refusal, deadline).await {
            Ok(outcomes) => self.settle_each(items, outcomes.into_iter().skip(1)),
            Err(error) if error.kind.retryable() => settle_all(items, &error),
            Err(_) if self.queue.state.lock().size.most() < requests.len() => {
                {
                    let mut state = self.queue.state.lock();
                    for item in items.into_iter().rev() {
                        state.waiting.push_front(item);
                    }
                }
                hire(self);
            }
            // Nothing has been learned: these alone go one by one.
            Err(_) => {
                let lone = |item: Item| async move {
                    let outcome = self.unwrap_one(&item.request, item.deadline).await;
                    item.settle(outcome);
                };
                stream::iter(items).for_each_concurrent(SENDERS_MAX, lone).await;
            }
        }
    }

    /// Sends a list once more after `refusal`, though a plain request was taken; only what the server itself refuses
    /// twice is learned from.
    async fn exchange_again(
        &self,
        requests: &[Arc<UnwrapRequest>],
        refusal: &BackendError,
        deadline: Instant,
    ) -> Result<Vec<Result<Secret, Meaning>>, BackendError> {
        let answered = self.exchange(requests, deadline).await;
        if let Err(error) = &answered
            && !error.kind.retryable()
            && !is_foreign(error)
            && !is_foreign(refusal)
        {
            self.send_fewer(requests.len(), error);
        }
        answered
    }

    /// After so many in one request were refused and one by itself was taken.
    fn send_fewer(&self, items: usize, error: &BackendError) {
        let most = {
            let mut state = self.queue.state.lock();
            state.size.refused(items, error.kind);
            state.size.most()
        };
        tracing::warn!(
            items,
            most,
            %error,
            "the server refuses several decrypts in one request and takes single ones: fewer are sent at a time"
        );
    }
}
