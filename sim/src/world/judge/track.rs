//! What the plan has done to each node so far, and for how long it has been left alone.

use crate::world::plan::{Gate, Machine, Plan, SERVERS, Trouble, What};
use crate::world::run::HEALS_IN;

/// A link that is slower than this, or takes smaller pieces, is not well.
const DELAY_MS: u64 = 50;
const PIECE: usize = 64;

/// A KMS that takes longer than this for one answer can make a call late: a call may need two.
const TAKES_MS: u64 = 500;

/// A node as the events left it.
#[derive(Debug, Clone)]
pub(super) struct Track {
    plugin: bool,
    gate: Gate,
    slow: bool,
    takes_ms: u64,
    lag_ms: u64,
    pub(super) trouble: Trouble,
    /// Since when the KMS does to it what it does.
    pub(super) trouble_since: u64,
    /// When something happened to it last.
    pub(super) changed: u64,
    /// When its configuration was changed last.
    pub(super) configured: Option<u64>,
}

/// A server that hears of what is written later than this is not well, in milliseconds: a new version is held
/// back for a second.
const LAG_MS: u64 = 900;

/// With answers that take longer than this, no time is left for a server that says nothing, in milliseconds.
const SLOW_MS: u64 = 50;

/// A server as the events left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Server {
    machine: Machine,
    lags: bool,
}

const WELL: Server = Server { machine: Machine::Up, lags: false };

/// All nodes.
#[derive(Debug, Clone)]
pub(super) struct Tracks {
    pub(super) nodes: Vec<Track>,
    /// Old keys may be used.
    pub(super) old_enabled: bool,
    /// The operator has done away with a key that was in use.
    pub(super) lost: bool,
    /// Since when no server serves.
    pub(super) nobody_serves: Option<u64>,
    servers: [Server; SERVERS],
    /// By node, by server.
    routes: Vec<[Gate; SERVERS]>,
    settles_ms: u64,
}

impl Tracks {
    pub(super) fn new(plan: &Plan) -> Self {
        let node = Track {
            plugin: true,
            gate: Gate::Open,
            slow: false,
            takes_ms: 0,
            lag_ms: 0,
            trouble: Trouble::None,
            trouble_since: 0,
            changed: 0,
            configured: None,
        };
        let settles = HEALS_IN.as_secs() + plan.period_s;
        Self {
            nodes: vec![node; plan.nodes],
            old_enabled: true,
            lost: false,
            nobody_serves: None,
            servers: [WELL; SERVERS],
            routes: vec![[Gate::Open; SERVERS]; plan.nodes],
            settles_ms: settles * 1000,
        }
    }

    /// All faults of servers and of the ways to them are over.
    pub(super) fn heal(&mut self, at_ms: u64) {
        self.servers = [WELL; SERVERS];
        self.routes.fill([Gate::Open; SERVERS]);
        self.nobody_serves = None;
        self.touch(at_ms);
    }

    /// Something happens to all.
    fn touch(&mut self, at_ms: u64) {
        for node in &mut self.nodes {
            node.changed = at_ms;
        }
    }

    /// What happens to the KMS as a whole.
    fn kms_event(&mut self, at_ms: u64, what: &What) {
        match what {
            What::OldDisabled | What::OldEnabled => {
                self.old_enabled = *what == What::OldEnabled;
            }
            What::Server { server, is } => self.servers[*server].machine = *is,
            What::ServerLag { server, ms } => self.servers[*server].lags = *ms > LAG_MS,
            What::Route { node, server, is } => {
                self.routes[*node][*server] = *is;
                return;
            }
            What::KeyMadeAnew | What::Restored => self.lost = true,
            What::SteppedDown | What::TokensRevoked => {}
            _ => return,
        }
        let serves = self.servers.iter().any(|server| server.machine == Machine::Up);
        self.nobody_serves = self.nobody_serves.or(Some(at_ms)).filter(|_| !serves);
        self.touch(at_ms);
    }

    pub(super) fn event(&mut self, at_ms: u64, what: &What) {
        self.kms_event(at_ms, what);
        let Some(node) = what.node().and_then(|node| self.nodes.get_mut(node)) else { return };
        if !matches!(what, What::Rewritten { .. }) {
            node.changed = at_ms;
        }
        match what {
            What::PluginKilled { .. } | What::PluginStopped { .. } => node.plugin = false,
            What::PluginStarted { .. } => node.plugin = true,
            What::Socket { is, .. } => node.gate = *is,
            What::Slow { delay_ms, piece, .. } => {
                node.slow = *delay_ms > DELAY_MS || *piece < PIECE;
            }
            What::Kms { does, .. } if node.trouble != *does => {
                (node.trouble, node.trouble_since) = (*does, at_ms);
            }
            What::KmsTakes { ms, .. } => node.takes_ms = *ms,
            What::KmsLag { ms, .. } => node.lag_ms = *ms,
            What::Configured { .. } => node.configured = Some(at_ms),
            _ => {}
        }
    }

    /// Enough servers are there for one to lead, one of them can be asked by this node and is not behind, and at
    /// most one of the others keeps it waiting. One that refuses everything may be the leader.
    fn is_served(&self, node: usize) -> bool {
        let Some(routes) = self.routes.get(node) else { return false };
        let count = |holds: &dyn Fn(Server, Gate) -> bool| {
            self.servers
                .iter()
                .zip(routes)
                .filter(|(server, route)| holds(**server, **route))
                .count()
        };
        let is_up = |server: Server| server.machine == Machine::Up;
        let leads = count(&|server, _| is_up(server)) * 2 > SERVERS
            && count(&|server, _| server.machine == Machine::Failing) == 0;
        let silent = count(&|server, route| {
            server.machine == Machine::Hung
                || matches!(route, Gate::Missing | Gate::Mute | Gate::Frozen)
        });
        let good = count(&|server, route| is_up(server) && !server.lags && route == Gate::Open);
        let slow = self.nodes.get(node).is_some_and(|node| node.takes_ms > SLOW_MS);
        leads && good > 0 && silent <= usize::from(!slow)
    }

    /// Everything is as it should be, and has been for long enough to be noticed.
    pub(super) fn is_settled(&self, node: usize, at_ms: u64) -> bool {
        let served = self.is_served(node);
        self.nodes.get(node).is_some_and(|node| {
            served
                && node.plugin
                && node.gate == Gate::Open
                && !node.slow
                && node.takes_ms <= TAKES_MS
                && node.lag_ms == 0
                && node.trouble == Trouble::None
                && at_ms >= node.changed + self.settles_ms
        })
    }
}
