//! A cluster of three servers with transit, and the product's client on a network to them.
//!
//! ```text
//! process   the product's client: real requests, real retries, real logins
//!   wire    its network and files; HTTP/1.1 on pipes in memory
//! naive     clients that the judge has to catch
//! answer    what a server says: transit, AppRole, tokens, in the words of the real ones
//!   ring    the versions of the key
//!   tokens  how long they live
//! election  who leads, and how long nobody does
//! ```
//!
//! What was written is there at once on the leader, and on the others when they have heard of it. It knows which
//! key really wrapped what: the judge asks it, and no plugin can.

mod answer;
mod election;
mod naive;
mod process;
mod ring;
mod tokens;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use kleidi::backend::Scheme;
use kleidi::key_id::KeyId;
use kleidi::random::Random;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Kms, Process};
use crate::latest::Latest;
use crate::world::history::History;
use crate::world::mutant::Mutant;
use crate::world::net::Link;
use crate::world::plan::{self, Gate, Machine, Plan, SERVERS, Trouble, What};
use crate::world::random::Stream;
use election::Election;
use ring::{KeyVersion, Ring};
use tokens::Tokens;

/// Name of the key.
const KEY: &str = "kms";

/// What a login takes.
const ROLE_ID: &str = "role";
const SECRET_ID: &str = "secret";

/// How much later than the leader a server hears of something, when all is well.
const LAG: Duration = Duration::from_millis(40);

/// How long a server that comes back is where it was.
const CATCHES_UP: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(350));

struct Server {
    machine: Machine,
    lag: Duration,
    /// What it has heard of, by its place in the log.
    applied: usize,
    /// Until then it hears of nothing.
    deaf_until: Instant,
}

/// What a node gets to see.
#[derive(Clone, Copy)]
struct View {
    trouble: Trouble,
    takes: Duration,
}

const WELL: View = View { trouble: Trouble::None, takes: Duration::from_millis(1) };

struct State {
    servers: Vec<Server>,
    /// By node, by server.
    routes: Vec<Vec<Gate>>,
    views: Vec<View>,
    election: Election,
    /// What the key was, and since when.
    log: Vec<(Instant, Ring)>,
    tokens: Tokens,
    backup: Option<(Ring, Tokens)>,
    /// All versions that ever were, by their serial.
    versions: Vec<Arc<KeyVersion>>,
    /// Which version wrapped, by the ciphertext.
    wrapped: BTreeMap<String, u64>,
}

/// A cluster.
pub struct Cluster {
    state: Mutex<State>,
    /// By node, by server.
    links: Vec<Vec<Arc<Latest<Link>>>>,
    /// By node: requests at any server.
    under_way: Vec<AtomicU64>,
    /// Who stands by passes everything on.
    forwards: bool,
    random: Stream,
    history: Arc<History>,
}

impl State {
    /// What this server has of the key.
    fn ring(&mut self, server: usize) -> &Ring {
        let (now, end) = (Instant::now(), self.log.len() - 1);
        let is_leader = self.election.leader() == Ok(server);
        let Server { lag, applied, deaf_until, machine } = &mut self.servers[server];
        let listens = !matches!(machine, Machine::Hung | Machine::Killed | Machine::Stopped);
        if is_leader {
            *applied = end;
        } else if listens && now >= *deaf_until {
            let heard = self.log.iter().rposition(|(made, _)| *made + *lag <= now).unwrap_or(0);
            *applied = heard.max(*applied);
        }
        &self.log[*applied].1
    }

    fn newest(&self) -> &Ring {
        &self.log[self.log.len() - 1].1
    }

    fn write(&mut self, ring: Ring) {
        self.log.push((Instant::now(), ring));
    }

    /// A version that never was before.
    fn make(&mut self, number: u64, random: &Stream) -> Arc<KeyVersion> {
        let serial = u64::try_from(self.versions.len()).unwrap_or(u64::MAX);
        let version = KeyVersion::new(serial, number, random);
        self.versions.push(Arc::clone(&version));
        version
    }

    fn machines(&self) -> Vec<Machine> {
        self.servers.iter().map(|server| server.machine).collect()
    }
}

impl Cluster {
    /// With one key.
    #[must_use]
    pub fn new(plan: &Plan, history: Arc<History>) -> Arc<Self> {
        let (random, now) = (Stream::of(plan.seed, "transit"), Instant::now());
        let server = || Server { machine: Machine::Up, lag: LAG, applied: 0, deaf_until: now };
        let first = KeyVersion::new(0, 1, &random);
        let state = State {
            servers: std::iter::repeat_with(server).take(SERVERS).collect(),
            routes: vec![vec![Gate::Open; SERVERS]; plan.nodes],
            views: vec![WELL; plan.nodes],
            election: Election::new(),
            log: vec![(now, Ring::new(Arc::clone(&first)))],
            tokens: Tokens::new(&random),
            backup: None,
            versions: vec![first],
            wrapped: BTreeMap::new(),
        };
        let link = || Arc::new(Latest::new(Link::default()));
        let links = || std::iter::repeat_with(link).take(SERVERS).collect();
        Arc::new(Self {
            state: Mutex::new(state),
            links: std::iter::repeat_with(links).take(plan.nodes).collect(),
            under_way: std::iter::repeat_with(AtomicU64::default).take(plan.nodes).collect(),
            forwards: plan.kms == plan::Kms::TransitForwarding,
            random,
            history,
        })
    }

    /// Elects a leader if it is time.
    fn go_on(&self, state: &mut State) {
        let machines = state.machines();
        state.election.go_on(&machines, &self.random);
    }

    fn set_machine(&self, server: usize, machine: Machine) {
        {
            let mut state = self.state.lock();
            let state = &mut *state;
            self.go_on(state);
            state.ring(server);
            let before = std::mem::replace(&mut state.servers[server].machine, machine);
            if before == machine {
                return;
            }
            let catches_up = self.random.time(CATCHES_UP.0, CATCHES_UP.1);
            state.servers[server].deaf_until = Instant::now() + catches_up;
            let machines = state.machines();
            state.election.changed(server, &machines, &self.random);
        }
        if matches!(machine, Machine::Killed | Machine::Stopped) {
            self.cut(|_, of| of == server);
        }
    }

    /// What only a leader does.
    fn lead(&self, job: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        self.go_on(&mut state);
        if state.election.leader().is_ok() {
            job(&mut state);
        }
    }
}

impl Kms for Cluster {
    fn happen(&self, what: &What) {
        let millis = Duration::from_millis;
        match what {
            What::Kms { node, does } => {
                self.state.lock().views[*node].trouble = *does;
                // What was connected is not any more, either.
                if *does == Trouble::Unreachable {
                    self.cut(|of, _| of == *node);
                }
            }
            What::KmsTakes { node, ms } => self.state.lock().views[*node].takes = millis(*ms),
            What::Server { server, is } => self.set_machine(*server, *is),
            What::ServerLag { server, ms } => self.state.lock().servers[*server].lag = millis(*ms),
            What::Route { node, server, is } => self.state.lock().routes[*node][*server] = *is,
            What::SteppedDown => self.state.lock().election.step_down(),
            What::TokensRevoked => self.state.lock().tokens.revoke(),
            What::Rotated => self.lead(|state| {
                let version = state.make(state.newest().latest() + 1, &self.random);
                state.write(state.newest().clone().rotated(version));
            }),
            What::KeyMadeAnew => self.lead(|state| {
                let version = state.make(1, &self.random);
                state.write(Ring::new(version));
            }),
            // Whoever does this waits for a leader; it is as if he had waited for it before.
            What::OldDisabled | What::OldEnabled => {
                let mut state = self.state.lock();
                let ring = state.newest().clone().with_old(*what == What::OldEnabled);
                state.write(ring);
            }
            What::BackedUp => {
                self.lead(|state| {
                    state.backup = Some((state.newest().clone(), state.tokens.clone()));
                });
            }
            What::Restored => self.lead(|state| {
                if let Some((ring, tokens)) = state.backup.clone() {
                    state.write(ring);
                    state.tokens = tokens;
                }
            }),
            _ => {}
        }
        self.set_links();
    }

    fn heal(&self) {
        {
            let mut state = self.state.lock();
            for routes in &mut state.routes {
                routes.fill(Gate::Open);
            }
            state.views.fill(WELL);
            for server in &mut state.servers {
                server.lag = LAG;
            }
        }
        for server in 0..SERVERS {
            self.set_machine(server, Machine::Up);
        }
        self.happen(&What::OldEnabled);
    }

    fn destroy_old(&self) {
        self.lead(|state| state.write(state.newest().clone().trimmed()));
    }

    fn scheme(&self) -> Scheme {
        Scheme::TRANSIT
    }

    fn current(&self) -> u64 {
        self.state.lock().newest().current().map_or(0, |version| version.serial)
    }

    fn who_wrapped(&self, payload: &[u8]) -> Option<u64> {
        let ciphertext = std::str::from_utf8(payload).ok()?;
        self.state.lock().wrapped.get(ciphertext).copied()
    }

    fn keys(&self) -> BTreeMap<u64, bool> {
        self.state.lock().newest().all()
    }

    fn is_usable(&self, key: u64) -> bool {
        self.state.lock().newest().holds(key)
    }

    fn id_of(&self, key: u64) -> Option<KeyId> {
        let state = self.state.lock();
        Some(state.versions.get(usize::try_from(key).ok()?)?.id())
    }

    fn process(
        self: Arc<Self>,
        node: usize,
        random: Arc<dyn Random>,
        mutant: Option<Mutant>,
    ) -> Arc<dyn Process> {
        Arc::new(process::Client::new(self, node, random, mutant))
    }
}
