//! What a check is given: the endpoints, the limits, the hooks, a source of inputs.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use kleidi_proto::kms::{EncryptResponse, StatusResponse};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};

use crate::check::Stop;
use crate::client::{Client, answered, back, cut_off, describe};
use crate::endpoint::Endpoint;
use crate::hooks::{Hook, Hooks};
use crate::secrets;

/// What a run is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// At least one.
    pub endpoints: Vec<Endpoint>,
    /// For one call; kube-apiserver's default is 3 s.
    pub timeout: Duration,
    /// How long after a rotation the key_id may stay.
    pub rotation_window: Duration,
    /// How long after an outage's begin, or end, Status may not show it.
    pub outage_window: Duration,
    /// kube-apiserver's polls.
    pub polls: Polls,
    /// How much is done at a time.
    pub load: Load,
    /// The commands.
    pub hooks: Hooks,
}

/// How often kube-apiserver looks.
#[derive(Debug, Clone, Copy)]
pub struct Polls {
    /// A healthy plugin: 60 s.
    pub healthy: Duration,
    /// An unhealthy one: 10 s.
    pub unhealthy: Duration,
}

impl Default for Polls {
    fn default() -> Self {
        Self { healthy: Duration::from_secs(60), unhealthy: Duration::from_secs(10) }
    }
}

/// How much is done at a time.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Round trips at a time.
    pub parallel: usize,
    /// Round trips of each.
    pub rounds: usize,
    /// Calls of Status on one connection.
    pub statuses: usize,
    /// Calls that are cancelled.
    pub cancelled: usize,
    /// Calls of each kind whose time is taken; Decrypts of one ciphertext.
    pub samples: usize,
    /// Annotations that are too many.
    pub annotations: usize,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            parallel: 64,
            rounds: 16,
            statuses: 300,
            cancelled: 1000,
            samples: 200,
            annotations: 10_000,
        }
    }
}

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// One check's view of a run.
pub struct Context {
    settings: Arc<Settings>,
    random: Mutex<fastrand::Rng>,
    evidence: Mutex<Vec<String>>,
    /// The beginnings of what was, or may have been, encrypted.
    plaintexts: Mutex<Vec<Vec<u8>>>,
}

/// So many bytes of a plaintext are one that is told: a message is cut before it ends, and chance does
/// not bring forth as many.
const TELLS: usize = 12;

impl Context {
    /// `seed` gives the same inputs again.
    #[must_use]
    pub fn new(settings: Arc<Settings>, seed: u64) -> Self {
        Self {
            settings,
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            evidence: Mutex::default(),
            plaintexts: Mutex::default(),
        }
    }

    /// What the run was told.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Keeps a fact for the report; never a plaintext, see [`fingerprint`].
    pub fn note(&self, fact: impl Into<String>) {
        self.evidence.lock().push(fact.into());
    }

    /// The facts that were kept, as a report may show them.
    #[must_use]
    pub fn evidence(&self) -> Vec<String> {
        self.evidence.lock().iter().map(|fact| self.withheld(fact.clone())).collect()
    }

    /// Text for the report, unless it has a plaintext of this check in it: a plugin may tell them.
    #[must_use]
    pub fn withheld(&self, text: String) -> String {
        let tells = |plaintext: &Vec<u8>| secrets::has(text.as_bytes(), plaintext);
        if self.plaintexts.lock().iter().any(tells) {
            return "withheld: it has a plaintext in it".to_owned();
        }
        text
    }

    /// Random bytes.
    #[must_use]
    pub fn bytes(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.random.lock().fill(&mut bytes);
        if length >= TELLS {
            self.plaintexts.lock().push(bytes[..TELLS].to_vec());
        }
        bytes
    }

    /// What kube-apiserver encrypts: 32 random bytes.
    #[must_use]
    pub fn seed(&self) -> Vec<u8> {
        self.bytes(32)
    }

    /// A plaintext as long as a seed, of letters and digits: what prints bytes as text may leave nothing of a
    /// seed, and all of this.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut random = self.random.lock();
        let text: String = (0..32).map(|_| random.alphanumeric()).collect();
        let text = text.into_bytes();
        self.plaintexts.lock().push(text[..TELLS].to_vec());
        text
    }

    /// A random number below `end`, which is not 0.
    #[must_use]
    pub fn below(&self, end: usize) -> usize {
        self.random.lock().usize(0..end)
    }

    /// A UUID of version 4, as kube-apiserver sends.
    #[must_use]
    pub fn uid(&self) -> String {
        let mut bytes = self.bytes(16);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex = hex(&bytes);
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// A new connection to the first endpoint.
    pub async fn connect(&self) -> Result<Client, Stop> {
        self.connect_to(0).await
    }

    /// A new connection to one of the endpoints.
    pub async fn connect_to(&self, endpoint: usize) -> Result<Client, Stop> {
        let Some(endpoint) = self.settings.endpoints.get(endpoint) else {
            return Err(Stop::Broken(format!("there is no endpoint {endpoint}")));
        };
        Client::connect(endpoint, self.settings.timeout).await.map_err(Stop::Failed)
    }

    /// Encrypts; a check that needs a ciphertext to begin with is not judged without.
    pub async fn wrapped(&self, client: &Client, seed: &[u8]) -> Result<EncryptResponse, Stop> {
        client.encrypt(seed, self.uid()).await.map_err(|status| {
            Stop::NotRun(format!("it begins with an Encrypt, which failed: {}", describe(&status)))
        })
    }

    /// Decrypts, and demands the plaintext.
    pub async fn unwraps_to(
        &self,
        client: &Client,
        wrapped: &EncryptResponse,
        seed: &[u8],
    ) -> Result<(), Stop> {
        let answer = client.decrypt(back(wrapped, self.uid())).await.or_failed("Decrypt")?;
        if answer == seed {
            return Ok(());
        }
        Err(Stop::Failed(format!(
            "Decrypt answered {}, Encrypt was given {}",
            fingerprint(&answer),
            fingerprint(seed)
        )))
    }

    /// Decrypts; a check of what is refused is not judged where nothing decrypts.
    pub async fn decrypts(
        &self,
        client: &Client,
        wrapped: &EncryptResponse,
        seed: &[u8],
    ) -> Result<(), Stop> {
        let answer = client.decrypt(back(wrapped, self.uid())).await;
        let answer = answer.or_not_run("it begins with a Decrypt, which")?;
        if answer == seed {
            return Ok(());
        }
        Err(Stop::NotRun("it begins with a Decrypt, which answered another plaintext".to_owned()))
    }

    /// Calls the hook; what it printed is kept for the report, unless it is the log.
    pub async fn hook(&self, hook: Hook) -> Result<Vec<u8>, Stop> {
        let printed = self.settings.hooks.run(hook).await.map_err(Stop::Broken)?;
        let text = String::from_utf8_lossy(&printed);
        if hook != Hook::PrintLog && !text.trim().is_empty() {
            self.note(format!("--{} printed: {}", hook.flag(), text.trim()));
        }
        Ok(printed)
    }

    /// Waits until the plugin is well on the first endpoint: connects, and Status says ok.
    ///
    /// The error says what was seen last.
    pub async fn well_within(&self, window: Duration) -> Result<(Client, StatusResponse), String> {
        let begin = Instant::now();
        loop {
            let seen = match self.look().await {
                Ok(well) => return Ok(well),
                Err(seen) => seen,
            };
            if begin.elapsed() >= window {
                return Err(seen);
            }
            sleep(PAUSE).await;
        }
    }

    async fn look(&self) -> Result<(Client, StatusResponse), String> {
        let client = Client::connect(&self.settings.endpoints[0], self.settings.timeout).await?;
        let status = client.status().await.map_err(|status| describe(&status))?;
        if status.healthz == "ok" {
            Ok((client, status))
        } else {
            Err(format!("healthz is {:?}", status.healthz))
        }
    }

    /// Demands that a refusal was the plugin's own answer, and that it goes on serving the connection: a
    /// crash is no answer.
    pub async fn survives(
        &self,
        client: &Client,
        what: &str,
        refusal: &tonic::Status,
    ) -> Result<(), Stop> {
        demand(answered(refusal), || {
            format!("{what} got no answer of the plugin's own: {}", describe(refusal))
        })?;
        client.status().await.or_failed(&format!("Status on the same connection after {what}"))?;
        Ok(())
    }

    /// Waits until the connection has ended, as it does when the plugin's process has: a hook that did
    /// nothing proves nothing.
    pub async fn ended(&self, client: &Client, hook: Hook) -> Result<(), Stop> {
        let look = async || client.status().await.err().filter(cut_off);
        match self.poll(self.settings.timeout, look).await {
            Some(_) => Ok(()),
            None => Err(Stop::NotRun(format!(
                "--{} did not stop the plugin: a connection from before it is still served",
                hook.flag()
            ))),
        }
    }

    /// Demands that new connections are served for half a second `after` something happened: the plugin
    /// may learn of it only after the first of them.
    pub async fn goes_on(&self, after: &str) -> Result<(), Stop> {
        for _ in 0..10 {
            let client = self.connect().await?;
            client.status().await.or_failed(&format!("Status after {after}"))?;
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// A healthy plugin to begin with: one that an earlier check broke is not judged again.
    pub async fn well(&self) -> Result<(Client, StatusResponse), Stop> {
        self.well_within(self.settings.outage_window).await.map_err(|seen| {
            Stop::NotRun(format!("the plugin is not well before the check begins: {seen}"))
        })
    }

    /// Looks again and again until there is a value, for at most `window`.
    pub async fn poll<T, F>(&self, window: Duration, mut look: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Option<T>>,
    {
        let begin = Instant::now();
        loop {
            if let Some(found) = look().await {
                return Some(found);
            }
            if begin.elapsed() >= window {
                return None;
            }
            sleep(PAUSE).await;
        }
    }
}

/// Turns an error into a check's end.
pub trait Demand<T> {
    /// The plugin failed at `what`.
    fn or_failed(self, what: &str) -> Result<T, Stop>;

    /// The check cannot be judged because `what` failed.
    fn or_not_run(self, what: &str) -> Result<T, Stop>;
}

impl<T> Demand<T> for Result<T, tonic::Status> {
    fn or_failed(self, what: &str) -> Result<T, Stop> {
        self.map_err(|status| Stop::Failed(format!("{what} failed: {}", describe(&status))))
    }

    fn or_not_run(self, what: &str) -> Result<T, Stop> {
        self.map_err(|status| Stop::NotRun(format!("{what} failed: {}", describe(&status))))
    }
}

/// Fails the check unless it holds.
pub fn demand(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Stop> {
    if holds { Ok(()) } else { Err(Stop::Failed(otherwise())) }
}

/// Bytes as a report may show them: their length and the beginning of their SHA-256.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> String {
    format!("{} bytes sha256:{}", bytes.len(), hex(&Sha256::digest(bytes)[..6]))
}

/// Bytes in hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plaintext_that_is_told_is_withheld() {
        let settings = Settings {
            endpoints: Vec::new(),
            timeout: Duration::ZERO,
            rotation_window: Duration::ZERO,
            outage_window: Duration::ZERO,
            polls: Polls::default(),
            load: Load::default(),
            hooks: Hooks::default(),
        };
        let cx = Context::new(Arc::new(settings), 1);
        let seed = cx.seed();
        cx.note("INTERNAL (\"no\")");
        cx.note(format!("INTERNAL (\"cannot encrypt {}\")", &hex(&seed)[..40]));
        assert_eq!(cx.evidence()[0], "INTERNAL (\"no\")");
        assert_eq!(cx.evidence()[1], "withheld: it has a plaintext in it");
        assert_eq!(cx.withheld(fingerprint(&seed)), fingerprint(&seed));
    }
}
