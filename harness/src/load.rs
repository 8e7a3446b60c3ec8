//! Load on a plugin: clients that call its socket at the same time, as kube-apiservers do, and write
//! down what came of each call.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kleidi_proto::kms::EncryptResponse;
use tokio::time::Instant;

use crate::{Client, eventually, random_key};

/// Pause of a client between two rounds: Status, Encrypt, Decrypt.
const PAUSE: Duration = Duration::from_millis(100);

/// Rounds until a client asks for a seed back: what was wrapped before an outage is read in it.
const BEHIND: usize = 10;

/// Which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rpc {
    /// Status.
    Status,
    /// Encrypt.
    Encrypt,
    /// Decrypt.
    Decrypt,
}

/// A call that was made, and what came of it.
#[derive(Debug, Clone)]
pub struct Made {
    /// Which call.
    pub rpc: Rpc,
    /// Number of the client, which has a connection of its own.
    pub client: usize,
    /// When it was made.
    pub began: Instant,
    /// When it was answered.
    pub ended: Instant,
    /// What Status and Encrypt answered, and what Decrypt was asked with.
    pub key_id: String,
    /// What Encrypt answered.
    pub ciphertext: Vec<u8>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// Clients that call until they are told to finish.
///
/// Each asks Status, has a new seed wrapped and an earlier one unwrapped, again and again; every seed
/// that was wrapped is asked for and compared. Calls have the deadline that kube-apiserver gives them.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    made: Mutex<Vec<Made>>,
}

impl Load {
    /// Starts that many clients of a socket.
    #[must_use]
    pub fn start(socket: &Path, clients: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let clients = (0..clients)
            .map(|number| {
                let (shared, client) = (Arc::clone(&shared), Client::new(socket));
                std::thread::spawn(move || Worker { number, shared, client }.run())
            })
            .collect();
        Self { shared, clients }
    }

    /// Waits until that many more calls have been made and answered.
    ///
    /// # Panics
    ///
    /// If they have not in a minute.
    pub fn more(&self, calls: usize) {
        let wanted = self.shared.lock().len() + calls;
        eventually("more calls to be answered", || match self.shared.lock().len() {
            made if made >= wanted => Ok(()),
            made => Err(format!("{made} of {wanted}")),
        });
    }

    /// Ends it: all calls in the order in which they ended.
    ///
    /// # Panics
    ///
    /// If a seed that was wrapped cannot be unwrapped within a minute from now.
    #[must_use]
    pub fn finish(mut self) -> Vec<Made> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            if let Err(panic) = client.join() {
                std::panic::resume_unwind(panic);
            }
        }
        std::mem::take(&mut *self.shared.lock())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the clients.
struct Worker {
    number: usize,
    shared: Arc<Shared>,
    client: Client,
}

impl Worker {
    fn run(mut self) {
        let mut wrapped = VecDeque::new();
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.ask_status();
            wrapped.extend(self.wrap());
            if wrapped.len() > BEHIND
                && let Some((seed, answer)) = wrapped.pop_front()
                && !self.unwrap(seed, &answer)
            {
                // It was answered, so it has to be readable: once more, later.
                wrapped.push_back((seed, answer));
            }
            std::thread::park_timeout(PAUSE);
        }
        for (seed, answer) in wrapped {
            eventually("every seed that was wrapped to be unwrapped", || {
                match self.client.decrypt(&answer) {
                    Ok(plaintext) if plaintext == seed => Ok(()),
                    Ok(_) => Err("another seed".to_owned()),
                    Err(error) => Err(error.to_string()),
                }
            });
        }
    }

    fn ask_status(&mut self) {
        let began = Instant::now();
        let (key_id, error) = match self.client.status() {
            Ok(status) => (status.key_id, None),
            Err(error) => (String::new(), Some(error.to_string())),
        };
        self.note(Rpc::Status, began, key_id, Vec::new(), error);
    }

    fn wrap(&mut self) -> Option<([u8; 32], EncryptResponse)> {
        let (seed, began) = (random_key(), Instant::now());
        match self.client.encrypt(&seed) {
            Ok(answer) => {
                let (key_id, ciphertext) = (answer.key_id.clone(), answer.ciphertext.clone());
                self.note(Rpc::Encrypt, began, key_id, ciphertext, None);
                Some((seed, answer))
            }
            Err(error) => {
                let error = Some(error.to_string());
                self.note(Rpc::Encrypt, began, String::new(), Vec::new(), error);
                None
            }
        }
    }

    /// Whether it is the seed that was wrapped.
    fn unwrap(&mut self, seed: [u8; 32], answer: &EncryptResponse) -> bool {
        let began = Instant::now();
        let error = match self.client.decrypt(answer) {
            Ok(plaintext) if plaintext == seed => None,
            Ok(_) => Some("it is another seed than the one that was wrapped".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        let good = error.is_none();
        self.note(Rpc::Decrypt, began, answer.key_id.clone(), Vec::new(), error);
        good
    }

    fn note(
        &self,
        rpc: Rpc,
        began: Instant,
        key_id: String,
        ciphertext: Vec<u8>,
        error: Option<String>,
    ) {
        let (client, ended) = (self.number, Instant::now());
        self.shared.lock().push(Made { rpc, client, began, ended, key_id, ciphertext, error });
    }
}

/// How many calls there were, how many of them failed and how long they took; in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How many there were.
    pub calls: usize,
    /// How many failed.
    pub failed: usize,
    /// How long they took, shortest first.
    times: Vec<Duration>,
}

impl Summary {
    /// Of these calls.
    pub fn of<'a>(calls: impl IntoIterator<Item = &'a Made>) -> Self {
        let mut summary = Self { calls: 0, failed: 0, times: Vec::new() };
        for made in calls {
            summary.calls += 1;
            summary.failed += usize::from(made.error.is_some());
            summary.times.push(made.ended.duration_since(made.began));
        }
        summary.times.sort_unstable();
        summary
    }

    /// The time that so many of a hundred calls did not exceed.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.times.len() * percent).div_ceil(100).max(1);
        self.times.get(rank - 1).copied().unwrap_or_default()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1000.0;
        write!(f, "{} calls, {} failed; ", self.calls, self.failed)?;
        write!(f, "p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms", ms(50), ms(99), ms(100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_and_ranks() {
        let began = Instant::now();
        let made = |ms: u64| Made {
            rpc: Rpc::Status,
            client: 0,
            began,
            ended: began + Duration::from_millis(ms),
            key_id: String::new(),
            ciphertext: Vec::new(),
            error: (ms == 200).then(|| "slow".to_owned()),
        };
        let calls: Vec<_> = (1..=200).rev().map(made).collect();
        let summary = Summary::of(&calls);
        let said = "200 calls, 1 failed; p50 100.0 ms, p99 198.0 ms, max 200.0 ms";
        assert_eq!(summary.to_string(), said);
        assert_eq!(Summary::of([]).percentile(99), Duration::ZERO);
    }
}
