//! The plugin interface over the reference plugin, with at most one fault.
//!
//! The reference itself ([`super::plugin`]) knows of no fault: they are put on here, before and after its
//! answers.

mod decrypt;
mod encrypt;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kleidi_proto::kms::key_management_service_server::KeyManagementService;
use kleidi_proto::kms::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, async_trait};

use super::keyring::{Flag, Key};
use super::mutant::Fault;
use super::plugin::Plugin;
use crate::client::code_name;

/// A header that the server takes for a request to cut the call off; its value says how.
pub(super) const CUT_OFF: &str = "reference-cut-off";
/// The stream is reset, as by a process that crashed.
pub(super) const BY_ERROR: &str = "error";
/// The stream is reset, as one for which nobody waits.
pub(super) const BY_CANCEL: &str = "cancel";
/// The stream ends in order, and too early.
pub(super) const BY_END: &str = "end";

/// From when on in an outage some do wrong that did right before.
const LATER: Duration = Duration::from_millis(500);

/// How long the slow ones are slow; the self-test's windows are chosen around these.
pub(super) const LATE_ROTATION: Duration = Duration::from_millis(1800);
pub(super) const LATE_NODE: Duration = Duration::from_millis(3750);
const LATE_CONNECTION: Duration = Duration::from_millis(500);
const SLOW_RECOVERY: Duration = Duration::from_millis(2000);
const SLOWER_RECOVERY: Duration = Duration::from_millis(3500);
const BEFORE_READY: Duration = Duration::from_millis(300);

/// What a call of Encrypt was about.
struct Remembered {
    key_id: String,
    annotations: BTreeMap<String, Vec<u8>>,
    plaintext: Vec<u8>,
}

/// What faults need to know of the process.
pub struct Process {
    /// Which of several plugins.
    pub name: String,
    /// Another one after each start.
    pub incarnation: String,
    /// The how manieth start of this plugin it is, from 1.
    pub starts: u64,
    /// When it started.
    pub started: Instant,
    /// The key that it began with.
    pub first: Key,
    /// Calls of Encrypt and Decrypt so far.
    calls: AtomicUsize,
    /// Held by each connection.
    connections: Arc<()>,
    /// Connections so far.
    accepted: AtomicUsize,
    /// Answers of Encrypt, by what is known of the plaintext.
    answers: Mutex<BTreeMap<Vec<u8>, EncryptResponse>>,
    /// Calls of Encrypt that wait for their turn.
    waiting: AtomicUsize,
    turn: tokio::sync::Mutex<()>,
    /// The plaintext that calls overwrite for each other.
    place: Mutex<Vec<u8>>,
    /// What was encrypted, by ciphertext.
    memory: Mutex<BTreeMap<Vec<u8>, Remembered>>,
    uids: Mutex<BTreeSet<(bool, String)>>,
    /// How often something was asked for.
    times: Mutex<BTreeMap<Vec<u8>, usize>>,
    away: AtomicBool,
    outages: AtomicUsize,
}

impl Process {
    /// Of a process that starts now.
    pub fn new(name: String, incarnation: String, starts: u64, first: Key) -> Self {
        Self {
            name,
            incarnation,
            starts,
            started: Instant::now(),
            first,
            calls: AtomicUsize::new(0),
            connections: Arc::default(),
            accepted: AtomicUsize::new(0),
            answers: Mutex::default(),
            waiting: AtomicUsize::new(0),
            turn: tokio::sync::Mutex::default(),
            place: Mutex::default(),
            memory: Mutex::default(),
            uids: Mutex::default(),
            times: Mutex::default(),
            away: AtomicBool::new(false),
            outages: AtomicUsize::new(0),
        }
    }

    /// The how manieth time this is asked for, from 1.
    fn time(&self, what: &[u8]) -> usize {
        let mut times = self.times.lock();
        let time = times.entry(what.to_vec()).or_default();
        *time += 1;
        *time
    }

    /// Whether there is more than one.
    fn has_other_connections(&self) -> bool {
        // One is the process's own.
        Arc::strong_count(&self.connections) > 2
    }
}

/// What faults need to know of a connection.
pub struct Connection {
    /// Calls of Encrypt and Decrypt so far.
    calls: AtomicUsize,
    _open: Arc<()>,
    statuses: AtomicUsize,
    issued: Mutex<BTreeSet<Vec<u8>>>,
    last_seed: Mutex<Vec<u8>>,
    slots: Arc<Semaphore>,
    /// Which of the process's connections it is.
    number: usize,
    /// When it began.
    begun: Instant,
    /// Whether a Decrypt was refused on it.
    refused: AtomicBool,
    /// The key_id that was seen last, the one before, and how many Status ago it changed.
    turn: Mutex<(String, String, usize)>,
}

impl Connection {
    /// A new one of this process.
    pub fn new(process: &Process) -> Self {
        Self {
            calls: AtomicUsize::new(0),
            _open: Arc::clone(&process.connections),
            statuses: AtomicUsize::new(0),
            issued: Mutex::default(),
            last_seed: Mutex::default(),
            slots: Arc::new(Semaphore::new(8)),
            number: process.accepted.fetch_add(1, Ordering::SeqCst),
            begun: Instant::now(),
            refused: AtomicBool::new(false),
            turn: Mutex::default(),
        }
    }
}

/// The service of one connection.
#[derive(Clone)]
pub struct Faulty {
    /// The reference.
    pub plugin: Arc<Plugin>,
    /// None: it is right.
    pub fault: Option<Fault>,
    /// Shared by all connections.
    pub process: Arc<Process>,
    /// This one's.
    pub connection: Arc<Connection>,
}

impl Faulty {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Counts a call.
    fn count(&self) {
        self.process.calls.fetch_add(1, Ordering::SeqCst);
        self.connection.calls.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether more Encrypts wait than it can take.
    fn is_stalled(&self) -> bool {
        self.process.waiting.load(Ordering::SeqCst) > 10
    }

    fn is_away(&self) -> bool {
        self.plugin.ring().is(Flag::Outage)
    }

    /// Cuts calls off during an outage on connections from before it.
    fn outlived(&self) -> Result<(), Status> {
        let outage = self.plugin.ring().lasts(Flag::Outage);
        match outage {
            Some(outage)
                if self.has(Fault::HangsInOutageAnew)
                    && self.connection.begun.elapsed() > outage =>
            {
                Err(cut_off(BY_ERROR))
            }
            _ => Ok(()),
        }
    }

    fn is_long_away(&self) -> bool {
        self.plugin.ring().lasts(Flag::Outage).is_some_and(|time| time >= LATER)
    }

    /// A key_id as this plugin shows it.
    fn outward(&self, id: String) -> String {
        let process = &self.process;
        match self.fault {
            Some(Fault::KeyIdTooLong) => format!("{id:x<1025}"),
            Some(Fault::KeyIdOf1024) => format!("{id:x<1024}"),
            Some(Fault::KeyIdWithNewline) => format!("{id}\n"),
            Some(Fault::KeyIdWithPem) => format!("{id}-----BEGIN PRIVATE KEY-----"),
            Some(Fault::KeyIdWithToken) => format!("{id}/hvs.CAESIJ"),
            Some(Fault::KeyIdByNode) => format!("{id}-{}", process.name),
            Some(Fault::KeyIdPerProcess) => format!("{id}-{}", process.incarnation),
            Some(Fault::KeyIdOfFifthCall)
                if self.connection.statuses.load(Ordering::SeqCst) >= 5 =>
            {
                format!("{id}-again")
            }
            Some(Fault::KeyIdAfterOutage) => match process.outages.load(Ordering::SeqCst) {
                0 => id,
                outages => format!("{id}-{outages}"),
            },
            Some(Fault::ReusesKeyId) => self.oldest_alike(id),
            _ => id,
        }
    }

    /// The id of the first key with the same material.
    fn oldest_alike(&self, id: String) -> String {
        let keys = self.plugin.ring().keys().unwrap_or_default();
        let material = keys.iter().find(|key| key.id == id).map(|key| key.material);
        keys.into_iter().find(|key| Some(key.material) == material).map_or(id, |key| key.id)
    }

    /// What [`Self::outward`] and Encrypt put on, taken off.
    fn inward(&self, id: &str) -> String {
        let puts_on = matches!(
            self.fault,
            Some(
                Fault::KeyIdTooLong
                    | Fault::KeyIdOf1024
                    | Fault::KeyIdWithNewline
                    | Fault::KeyIdWithPem
                    | Fault::KeyIdWithToken
                    | Fault::KeyIdByNode
                    | Fault::KeyIdPerProcess
                    | Fault::KeyIdOfFifthCall
                    | Fault::KeyIdAfterOutage
                    | Fault::EncryptsUnderOtherId
            )
        );
        // The reference's own have 32 digits.
        match id.get(..32) {
            Some(own) if puts_on => own.to_owned(),
            _ => id.to_owned(),
        }
    }

    /// Encrypt and Decrypt: for a while after an outage it is not over, and on other nodes than the first a while
    /// longer.
    fn recovers_slowly(&self) -> Result<(), Status> {
        if !self.has(Fault::SlowRecovery) || self.is_away() {
            return Ok(());
        }
        let slow = if self.process.name == "a" { SLOW_RECOVERY } else { SLOWER_RECOVERY };
        match self.plugin.ring().ended(Flag::Outage) {
            Some(ended) if ended < slow => Err(Status::unavailable("recovering")),
            _ => Ok(()),
        }
    }
}

/// Has the server cut the call off instead of answering it.
fn cut_off(how: &'static str) -> Status {
    let mut status = Status::unavailable("cut off");
    status.metadata_mut().insert(CUT_OFF, MetadataValue::from_static(how));
    status
}

/// One line a call: what, which, how it ended.
fn log<T>(rpc: &str, uid: &str, ended: &Result<Response<T>, Status>) {
    let code = ended.as_ref().map_or_else(|status| code_name(status.code()), |_| "OK");
    let _ = writeln!(std::io::stderr(), "{rpc} uid={uid:?} {code}");
}

#[async_trait]
impl KeyManagementService for Faulty {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let ended = status::status(self).await.map(Response::new);
        log("Status", "", &ended);
        ended
    }

    async fn encrypt(
        &self,
        request: Request<EncryptRequest>,
    ) -> Result<Response<EncryptResponse>, Status> {
        self.count();
        let request = request.into_inner();
        let ended = encrypt::encrypt(self, &request).await.map(Response::new);
        log("Encrypt", &request.uid, &ended);
        ended
    }

    async fn decrypt(
        &self,
        request: Request<DecryptRequest>,
    ) -> Result<Response<DecryptResponse>, Status> {
        self.count();
        let request = request.into_inner();
        let uid = request.uid.clone();
        let ended = decrypt::decrypt(self, request).await.map(Response::new);
        log("Decrypt", &uid, &ended);
        ended
    }
}
