//! Keys in an HSM or in SoftHSM, through PKCS#11.
//!
//! ```text
//!  Pkcs11 (async) ──► pool: bounded queue ──► worker: one OS thread, one session ──► module (C)
//!     deadline            drops what is late      recovers, by class of error          entered by
//!                         replaces lost threads   keys: find, try, choose              one generation
//! ```
//!
//! Facts that shape it, measured with SoftHSM 2.6.1 on Debian 12: two threads on one
//! session crash SoftHSM, and so does C_Finalize beside any other call; SoftHSM, kryoptic and softokn do
//! not get faster with threads; a token that was once unreadable stays dead in a process until
//! C_Finalize and C_Initialize; a call can hang for as long as somebody holds a lock on a file.
//!
//! **A call that never returns** cannot be ended, and the module cannot be initialised anew beside it.
//! After `callTimeout` calls fail at once; after 5 s a new thread takes over, at most twice; after a
//! minute [`Pkcs11::stuck_for`] has the process restarted (by systemd's watchdog, or by ending it).
//!
//! One Encrypt: [`Pkcs11::wrap`] → `Pool::run` → `Worker::wrap` → `Worker::attempt` →
//! `LoadedKey::apply` → `Tools::seal` → `CryptoCalls::encrypt` → C_EncryptInit, C_Encrypt; and the way
//! back through `LoadedKey::vouch_for`, which reads it back before it is given out.

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

mod class;
pub mod create;
mod foreign;
mod keys;
mod module;
mod pin;
mod pool;
mod raw;
mod renewed;
#[cfg(test)]
mod schedules;
mod sync;
mod tools;
mod uri;
mod worker;

use super::{
    Backend, BackendError, ForeignRequest, KeySet, Reply, Scheme, UnwrapRequest, WrapRequest,
    Wrapped,
};
use crate::random::Random;
use crate::secret::Secret;
pub use foreign::{ForeignFormat, Plugin};
pub use keys::KeySelector;
use module::Module;
pub use module::TokenSelector;
pub use pin::PinSource;
use pool::Pool;
pub use uri::{ParseUriError, Uri};
use worker::Worker;

/// Where the keys are and how to get at them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The module's file; an absolute path.
    pub module: PathBuf,
    /// What the module is initialised with, where it takes anything (NSS softokn does).
    pub module_parameters: Option<CString>,
    /// Which token.
    pub token: TokenSelector,
    /// Which keys on it.
    pub key: KeySelector,
    /// Where the user PIN is.
    pub pin: PinSource,
    /// Threads, each with a session of its own. More than one helps with network HSMs only.
    pub workers: usize,
    /// Calls that may wait for a thread; more are refused.
    pub queue: usize,
    /// How long one call into the module may take before the module counts as stuck.
    pub call_timeout: Duration,
    /// Formats of other plugins that are to be read.
    pub foreign: Vec<ForeignFormat>,
}

impl Settings {
    /// The defaults for everything that need not be said.
    #[must_use]
    pub fn new(module: PathBuf, token: TokenSelector, key: KeySelector, pin: PinSource) -> Self {
        Self {
            module,
            module_parameters: None,
            token,
            key,
            pin,
            workers: 1,
            queue: 1024,
            call_timeout: Duration::from_secs(2),
            foreign: Vec::new(),
        }
    }
}

/// A token behind a PKCS#11 module.
pub struct Pkcs11 {
    pool: Pool,
    call_timeout: Duration,
}

impl Pkcs11 {
    /// Loads the module. The token is opened by the first call, and again whenever it is lost.
    pub fn new(settings: Settings, random: Arc<dyn Random>) -> Result<Self, BackendError> {
        let module = Arc::new(Module::load(&settings, Arc::clone(&random))?);
        let call_timeout = settings.call_timeout;
        let pool = Pool::new(module, Arc::new(settings), random)?;
        Ok(Self { pool, call_timeout })
    }

    /// How long a call into the module has not returned; zero if none is overdue.
    #[must_use]
    pub fn stuck_for(&self) -> Duration {
        let longest = self.pool.longest_job();
        if longest > self.call_timeout { longest } else { Duration::ZERO }
    }
}

impl Backend for Pkcs11 {
    fn scheme(&self) -> Scheme {
        Scheme::AES_256_GCM
    }

    fn observe(&self, deadline: Instant) -> Reply<'_, KeySet> {
        Box::pin(self.pool.run_first("look at the token", deadline, Worker::observe))
    }

    fn wrap(&self, request: WrapRequest, deadline: Instant) -> Reply<'_, Wrapped> {
        let operation = move |worker: &mut Worker| worker.wrap(&request);
        Box::pin(self.pool.run("wrap a seed", deadline, operation))
    }

    fn unwrap(&self, request: Arc<UnwrapRequest>, deadline: Instant) -> Reply<'_, Secret> {
        let operation = move |worker: &mut Worker| worker.unwrap(&request);
        Box::pin(self.pool.run("unwrap a seed", deadline, operation))
    }

    fn unwrap_foreign(
        &self,
        request: Arc<ForeignRequest>,
        deadline: Instant,
    ) -> Reply<'_, Option<Secret>> {
        let operation = move |worker: &mut Worker| worker.unwrap_foreign(&request);
        Box::pin(self.pool.run("unwrap a seed of another plugin", deadline, operation))
    }
}
