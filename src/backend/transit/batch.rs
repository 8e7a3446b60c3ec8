//! Decrypts that come together travel together.
//!
//! A kube-apiserver that starts asks for every seed that is in etcd, as fast as its clients list. While
//! one request is under way, whatever is asked for meanwhile waits and goes as one; what comes alone goes
//! alone, at once. A request that takes longer than usual holds up nobody: what waited for a usual round
//! trip goes beside it, in a few requests at a time, whatever the server does.
//!
//! ```text
//!  unwrap ──► queue ──► senders ──► exchange: one request, whose answer is whose
//!               ▲          │
//!               └ behind ◄─┘          pace: how long to wait, how much to send
//!                                     refusal: what it means that a list is refused
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::answer::{Act, Meaning};
use super::{Inner, checked};
use crate::backend::{BackendError, ErrorKind, UnwrapRequest};
use crate::random::Random;
use crate::secret::Secret;

mod behind;
mod exchange;
mod pace;
mod refusal;
#[cfg(test)]
mod tests;

pub(super) use exchange::{Decrypted, holds_results};
use pace::{Pace, Size};

/// Most bytes of ciphertexts and AADs in a request.
const BYTES_MAX: usize = 256 * 1024;

/// Most requests at a time.
const SENDERS_MAX: usize = 8;

/// The same where each request has one item, because the server takes no lists.
const SENDERS_MAX_PLAIN: usize = 64;

pub(super) const ATTEMPTED: &str = "unwrap a seed";

type Outcome = Result<Secret, BackendError>;

struct Item {
    request: Arc<UnwrapRequest>,
    /// Until then it waits for the requests that are under way.
    patient: Instant,
    deadline: Instant,
    answer: oneshot::Sender<Outcome>,
}

impl Item {
    fn settle(self, outcome: Outcome) {
        let _ = self.answer.send(outcome);
    }
}

/// The calls that wait to be sent.
pub(super) struct Queue {
    random: Arc<dyn Random>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Item>,
    /// Those that wait apart, until they are asked for again.
    behind: Vec<Item>,
    /// Tasks that send what is waiting.
    senders: usize,
    pace: Pace,
    size: Size,
}

/// Unwraps, alone or with others.
pub(super) async fn unwrap(
    inner: &Arc<Inner>,
    request: Arc<UnwrapRequest>,
    deadline: Instant,
) -> Outcome {
    // Before it meets others: what is wrong with it is said in the same words then.
    checked(&request.payload)?;
    let (answer, mut answered) = oneshot::channel();
    let patient = inner.queue.push(request, deadline, answer);
    hire(inner);
    if let Ok(outcome) = timeout_at(patient.min(deadline), &mut answered).await {
        return outcome.unwrap_or_else(|_| Err(late()));
    }
    hire(inner);
    match timeout_at(deadline, answered).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) | Err(_) => Err(late()),
    }
}

fn late() -> BackendError {
    BackendError::new(ErrorKind::Timeout, ATTEMPTED, "no answer in time")
}

/// What a meaning is to whoever asked.
pub(super) fn error(meaning: Meaning) -> BackendError {
    BackendError::new(meaning.kind, ATTEMPTED, meaning.reason).advise(meaning.advice)
}

/// A task that sends; it counts as one while it lives, however it ends.
struct Sender<'a>(&'a Queue);

impl Drop for Sender<'_> {
    fn drop(&mut self) {
        self.0.state.lock().senders -= 1;
    }
}

/// Starts a sender if one is needed: it sends what is in the queue, and what comes while it does so.
fn hire(inner: &Arc<Inner>) {
    if !inner.queue.is_short_of_senders() {
        return;
    }
    let inner = Arc::clone(inner);
    tokio::spawn(async move {
        let sender = Sender(&inner.queue);
        loop {
            let items = inner.queue.take();
            if items.is_empty() {
                break;
            }
            inner.send(items).await;
        }
        drop(sender);
        // One may have come between the last look and here.
        hire(&inner);
    });
}

impl Queue {
    pub(super) fn new(random: Arc<dyn Random>) -> Self {
        Self { random, state: Mutex::default() }
    }

    /// Says until when it waits for others.
    fn push(
        &self,
        request: Arc<UnwrapRequest>,
        deadline: Instant,
        answer: oneshot::Sender<Outcome>,
    ) -> Instant {
        let mut state = self.state.lock();
        let patient = Instant::now() + state.pace.patience();
        state.waiting.push_back(Item { request, patient, deadline, answer });
        patient
    }

    /// Whether one more is needed, which counts from now on: nobody sends, or the first has waited for
    /// long enough.
    fn is_short_of_senders(&self) -> bool {
        let mut state = self.state.lock();
        let Some(first) = state.waiting.front() else { return false };
        let most = if state.size.most() == 0 { SENDERS_MAX_PLAIN } else { SENDERS_MAX };
        let needed =
            state.senders == 0 || (first.patient <= Instant::now() && state.senders < most);
        state.senders += usize::from(needed);
        needed
    }

    /// The next items.
    fn take(&self) -> Vec<Item> {
        let mut state = self.state.lock();
        let most = state.size.most();
        fitting(&mut state.waiting, most)
    }

    /// The same of these.
    fn fitting(&self, items: &mut VecDeque<Item>) -> Vec<Item> {
        fitting(items, self.state.lock().size.most())
    }
}

/// Takes the first items that still have time, as many as fit into a request.
fn fitting(waiting: &mut VecDeque<Item>, most: usize) -> Vec<Item> {
    let now = Instant::now();
    waiting.retain(|item| item.deadline > now && !item.answer.is_closed());
    let mut bytes = 0;
    let fit = waiting.iter().take(most).take_while(|item| {
        bytes += item.request.payload.len() + item.request.aad.len();
        bytes <= BYTES_MAX
    });
    // One that is too long by itself goes alone.
    let count = fit.count().max(1).min(waiting.len());
    waiting.drain(..count).collect()
}

/// Ends when nobody waits for an answer any more.
async fn all_gone(items: &mut [Item]) {
    for item in items {
        item.answer.closed().await;
    }
}

impl Inner {
    /// Sends them in one request, and answers all that have an answer then.
    async fn send(self: &Arc<Self>, mut items: Vec<Item>) {
        let requests: Vec<_> = items.iter().map(|item| Arc::clone(&item.request)).collect();
        let deadline = items.iter().map(|item| item.deadline).max().unwrap_or_else(Instant::now);
        let plain = items.len() == 1 && self.queue.state.lock().size.most() == 0;
        let begin = Instant::now();
        let answered = tokio::select! {
            biased;
            answered = async {
                match &*requests {
                    [request] if plain => {
                        self.unwrap_one(request, deadline).await.map(|seed| vec![Ok(seed)])
                    }
                    _ => self.exchange(&requests, deadline).await,
                }
            } => answered,
            () = all_gone(&mut items) => return,
        };
        match answered {
            Ok(outcomes) => {
                self.queue.state.lock().pace.saw(begin.elapsed());
                self.settle_each(items, outcomes);
            }
            // A quota among them: more requests are the wrong answer to too many.
            Err(error) if plain || error.kind.retryable() => settle_all(items, &error),
            Err(error) => self.refused(items, error).await,
        }
    }

    /// Each by itself; what its node does not know yet is asked for again.
    fn settle_each(
        self: &Arc<Self>,
        items: Vec<Item>,
        outcomes: impl IntoIterator<Item = Result<Secret, Meaning>>,
    ) {
        let mut behind = Vec::new();
        for (item, outcome) in items.into_iter().zip(outcomes) {
            match outcome {
                Ok(seed) => item.settle(Ok(seed)),
                Err(meaning)
                    if matches!(meaning.act, Act::Elsewhere | Act::Behind | Act::Later) =>
                {
                    behind.push((item, error(meaning)));
                }
                Err(meaning) => item.settle(Err(error(meaning))),
            }
        }
        behind::again(self, behind);
    }
}

fn settle_all(items: Vec<Item>, error: &BackendError) {
    for item in items {
        item.settle(Err(error.clone()));
    }
}
