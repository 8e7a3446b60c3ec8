//! Decrypts that come together travel together.
//!
//! A kube-apiserver that starts asks for every seed that is in etcd, as fast as its clients list. While
//! one request is under way, whatever is asked for meanwhile waits and goes as one; what comes alone goes
//! alone, at once. A request that takes long holds up nobody for more than [`PATIENCE`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::{Act, meaning_of_item};
use super::json::{self, Object};
use super::login::parse;
use super::{Data, Inner};
use crate::backend::{BackendError, ErrorKind, UnwrapRequest};
use crate::secret::Secret;

/// Most items of a request: OpenBao refuses JSON of more than 1000 texts.
const ITEMS_MAX: usize = 100;

/// Most bytes of ciphertexts and AADs in a request.
const BYTES_MAX: usize = 256 * 1024;

/// How long a call waits for the request before it: about a slow round trip.
const PATIENCE: Duration = Duration::from_millis(10);

pub(super) const ATTEMPTED: &str = "unwrap a seed";

type Outcome = Result<Secret, BackendError>;

struct Item {
    request: Arc<UnwrapRequest>,
    deadline: Instant,
    answer: oneshot::Sender<Outcome>,
}

/// The calls that wait to be sent.
#[derive(Default)]
pub(super) struct Queue {
    items: Mutex<Vec<Item>>,
    /// Tasks that send what is in the queue.
    senders: AtomicUsize,
}

/// Whether an answer has the results of a batch.
pub(super) fn holds_results(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Results {
        #[allow(dead_code, reason = "that it is there is what counts")]
        batch_results: Vec<IgnoredAny>,
    }
    serde_json::from_slice::<Data<Results>>(body).is_ok()
}

/// Unwraps, alone or with others.
pub(super) async fn unwrap(
    inner: &Arc<Inner>,
    request: Arc<UnwrapRequest>,
    deadline: Instant,
) -> Outcome {
    let (answer, mut answered) = oneshot::channel();
    inner.queue.items.lock().push(Item { request, deadline, answer });
    if inner.queue.senders.load(Ordering::SeqCst) == 0 {
        send_all(inner);
    } else {
        match timeout(PATIENCE, &mut answered).await {
            Ok(outcome) => return outcome.unwrap_or_else(|_| Err(late())),
            // The request before takes long: what is still waiting goes beside it.
            Err(_) if !inner.queue.items.lock().is_empty() => send_all(inner),
            Err(_) => {}
        }
    }
    match timeout_at(deadline, answered).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) | Err(_) => Err(late()),
    }
}

fn late() -> BackendError {
    BackendError::new(ErrorKind::Timeout, ATTEMPTED, "no answer in time")
}

/// Sends what is in the queue, and what comes while it does so.
fn send_all(inner: &Arc<Inner>) {
    let inner = Arc::clone(inner);
    inner.queue.senders.fetch_add(1, Ordering::SeqCst);
    tokio::spawn(async move {
        loop {
            let items = inner.queue.take();
            if items.is_empty() {
                break;
            }
            inner.send(items).await;
        }
        inner.queue.senders.fetch_sub(1, Ordering::SeqCst);
        // One may have come between the last look and here.
        if !inner.queue.items.lock().is_empty() && inner.queue.senders.load(Ordering::SeqCst) == 0 {
            send_all(&inner);
        }
    });
}

impl Queue {
    /// The next items that still have time, as many as fit into a request.
    fn take(&self) -> Vec<Item> {
        let mut waiting = self.items.lock();
        let now = Instant::now();
        waiting.retain(|item| item.deadline > now && !item.answer.is_closed());
        let mut bytes = 0;
        let fit = waiting.iter().take(ITEMS_MAX).take_while(|item| {
            bytes += item.request.payload.len() + item.request.aad.len();
            bytes <= BYTES_MAX
        });
        // One that is too long by itself goes alone.
        let count = fit.count().max(1).min(waiting.len());
        waiting.drain(..count).collect()
    }
}

impl Inner {
    async fn send(&self, mut items: Vec<Item>) {
        if items.len() == 1
            && let Some(item) = items.pop()
        {
            let outcome = self.unwrap_one(&item.request, item.deadline).await;
            let _ = item.answer.send(outcome);
            return;
        }
        match self.send_batch(&items).await {
            Ok(outcomes) => {
                for (item, outcome) in items.into_iter().zip(outcomes) {
                    let outcome = match outcome {
                        Ok(seed) => Ok(seed),
                        Err(meaning) if meaning.act == Act::Later => {
                            self.unwrap_one(&item.request, item.deadline).await
                        }
                        Err(meaning) => {
                            Err(BackendError::new(meaning.kind, ATTEMPTED, meaning.reason)
                                .advise(meaning.advice))
                        }
                    };
                    let _ = item.answer.send(outcome);
                }
            }
            Err(error) => {
                for item in items {
                    let _ = item.answer.send(Err(error.clone()));
                }
            }
        }
    }

    async fn send_batch(
        &self,
        items: &[Item],
    ) -> Result<Vec<Result<Secret, super::answer::Meaning>>, BackendError> {
        #[derive(Deserialize)]
        struct Results<'a> {
            #[serde(borrow)]
            batch_results: Vec<ItemResult<'a>>,
        }
        #[derive(Deserialize)]
        struct ItemResult<'a> {
            #[serde(default)]
            plaintext: &'a str,
            #[serde(default)]
            error: Option<String>,
        }
        let size = |item: &Item| 2 * (item.request.payload.len() + item.request.aad.len()) + 64;
        let body = Object::with_capacity(items.iter().map(size).sum());
        let objects = items.iter().map(|item| {
            let ciphertext = String::from_utf8_lossy(&item.request.payload);
            Object::with_capacity(size(item))
                .text("ciphertext", &ciphertext)
                .bytes("associated_data", &item.request.aad)
        });
        let body = body.objects("batch_input", objects);
        let deadline = items.iter().map(|item| item.deadline).max().unwrap_or_else(Instant::now);
        let answer = self.call(ATTEMPTED, "decrypt", body, true, deadline).await?;
        let answer: Data<Results<'_>> = parse(ATTEMPTED, &answer)?;
        let results = answer.data.batch_results;
        if results.len() != items.len() {
            let reason = format!("{} answers to {} questions", results.len(), items.len());
            return Err(BackendError::new(ErrorKind::Unavailable, ATTEMPTED, reason));
        }
        Ok(results
            .into_iter()
            .map(|result| match result.error {
                Some(error) if !error.is_empty() => Err(meaning_of_item(&error)),
                _ => json::decode(result.plaintext)
                    .filter(|plaintext| !plaintext.is_empty())
                    .map(Secret::from)
                    .ok_or_else(|| meaning_of_item("the answer has neither plaintext nor error")),
            })
            .collect())
    }
}
