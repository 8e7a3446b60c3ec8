//! What the plan has done to each node so far, and for how long it has been left alone.

use crate::world::plan::{Gate, Kms, Machine, Plan, Provider, SERVERS, Trouble, What};
use crate::world::run::HEALS_IN;

/// A link that is slower than this, or takes smaller pieces, is not well.
const DELAY_MS: u64 = 50;
const PIECE: usize = 64;

/// A piece that holds any message.
const WHOLE: usize = 1 << 15;

/// A KMS that takes longer than this for one answer can make a call late: a call may need two.
const TAKES_MS: u64 = 500;

/// How long a plugin may take for one look at the KMS, in milliseconds: one that takes longer cannot be looked at.
pub(super) const LOOK_MS: u64 = 5_000;

/// A node as the events left it.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is true or not, whatever the others are")]
pub(super) struct Track {
    /// Its plugin's process runs.
    pub(super) plugin: bool,
    gate: Gate,
    /// How long what is sent takes, and in which pieces it comes.
    delay_ms: u64,
    piece: usize,
    takes_ms: u64,
    lag_ms: u64,
    pub(super) trouble: Trouble,
    /// Its apiserver may have a seed in memory that is none: it asks for each once, and keeps what it gets for a day.
    misled: bool,
    /// Since when the KMS does to it what it does.
    pub(super) trouble_since: u64,
    /// Since when the KMS is too slow to be looked at.
    pub(super) late_since: Option<u64>,
    /// Since when no server serves, or none that it has a way to.
    pub(super) unserved_since: Option<u64>,
    /// When something happened to it last.
    pub(super) changed: u64,
    /// When something happened last to its plugin's process or the way to it.
    way_changed: u64,
    /// An EncryptionConfiguration that it may still have begins with `identity`.
    in_clear: bool,
    /// The last one does.
    configured_clear: bool,
    /// When its configuration was changed last.
    pub(super) configured: Option<u64>,
}

const HEALTHY: Track = Track {
    plugin: true,
    gate: Gate::Open,
    delay_ms: 0,
    piece: WHOLE,
    takes_ms: 0,
    lag_ms: 0,
    trouble: Trouble::None,
    misled: false,
    trouble_since: 0,
    late_since: None,
    unserved_since: None,
    changed: 0,
    way_changed: 0,
    in_clear: false,
    configured_clear: false,
    configured: None,
};

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
    /// How much later than the others a server may hear of something, in milliseconds.
    pub(super) lags_ms: u64,
    servers: [Server; SERVERS],
    /// By node, by server.
    routes: Vec<[Gate; SERVERS]>,
    /// Each server can answer what only reads.
    standbys_answer: bool,
    settles_ms: u64,
}

impl Tracks {
    pub(super) fn new(plan: &Plan) -> Self {
        let lags = plan.events.iter().filter_map(|event| match event.what {
            What::ServerLag { ms, .. } => Some(ms),
            _ => None,
        });
        let settles = HEALS_IN.as_secs() + plan.period_s;
        Self {
            nodes: vec![HEALTHY; plan.nodes],
            lags_ms: lags.max().unwrap_or(0),
            servers: [WELL; SERVERS],
            routes: vec![[Gate::Open; SERVERS]; plan.nodes],
            standbys_answer: plan.kms == Kms::Transit,
            settles_ms: settles * 1000,
        }
    }

    /// All faults are over.
    pub(super) fn heal(&mut self, at_ms: u64) {
        for node in &mut self.nodes {
            let Track { configured, in_clear, .. } = *node;
            let configured = configured.map(|_| at_ms);
            *node = Track { configured, in_clear, way_changed: at_ms, ..HEALTHY };
            node.trouble_since = at_ms;
        }
        self.servers = [WELL; SERVERS];
        self.routes.fill([Gate::Open; SERVERS]);
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
        // Who is served all the time, whoever leads, has to go on.
        let elects =
            matches!(what, What::Server { .. } | What::ServerLag { .. } | What::SteppedDown);
        let goes_on = elects && self.standbys_answer;
        let served_before: Vec<_> =
            (0..self.nodes.len()).map(|node| goes_on && self.is_served(node)).collect();
        match what {
            What::Server { server, is } => self.servers[*server].machine = *is,
            What::ServerLag { server, ms } => self.servers[*server].lags = *ms > LAG_MS,
            What::Route { node, server, is } => {
                self.routes[*node][*server] = *is;
                self.note_unserved(at_ms);
                return;
            }
            What::OldDisabled
            | What::OldEnabled
            | What::KeyMadeAnew
            | What::Restored
            | What::SteppedDown
            | What::TokensRevoked => {}
            _ => return,
        }
        self.note_unserved(at_ms);
        for (node, served) in served_before.into_iter().enumerate() {
            if !(served && self.is_served(node)) {
                self.nodes[node].changed = at_ms;
            }
        }
    }

    /// Who has no server any more, or has one again. Where new connections are refused those that are there go on.
    fn note_unserved(&mut self, at_ms: u64) {
        for (node, routes) in self.nodes.iter_mut().zip(&self.routes) {
            let mut servers = self.servers.iter().zip(routes);
            let served =
                servers.any(|(server, route)| server.machine == Machine::Up && !route.is_silent());
            node.unserved_since = node.unserved_since.or(Some(at_ms)).filter(|_| !served);
        }
    }

    pub(super) fn event(&mut self, at_ms: u64, what: &What) {
        self.kms_event(at_ms, what);
        let Some(node) = what.node().and_then(|node| self.nodes.get_mut(node)) else { return };
        // Whatever asks it for something has to get it.
        match what {
            What::ApiserverRestarted { .. } => {
                node.misled = node.trouble == Trouble::UnwrapsWrongly;
                return;
            }
            What::Rewritten { .. } | What::Burst { .. } => return,
            _ => {}
        }
        node.changed = at_ms;
        if !matches!(what, What::Kms { .. } | What::KmsTakes { .. } | What::KmsLag { .. }) {
            node.way_changed = at_ms;
        }
        match what {
            What::PluginKilled { .. } | What::PluginStopped { .. } => node.plugin = false,
            What::PluginStarted { .. } => node.plugin = true,
            What::Socket { is, .. } => node.gate = *is,
            What::Slow { delay_ms, piece, .. } => {
                (node.delay_ms, node.piece) = (*delay_ms, *piece);
            }
            What::Kms { does, .. } if node.trouble != *does => {
                (node.trouble, node.trouble_since) = (*does, at_ms);
                node.misled |= *does == Trouble::UnwrapsWrongly;
            }
            What::KmsTakes { ms, .. } => {
                node.takes_ms = *ms;
                node.late_since = node.late_since.or(Some(at_ms)).filter(|_| *ms > LOOK_MS);
            }
            What::KmsLag { ms, .. } => node.lag_ms = *ms,
            What::Configured { providers, .. } => {
                node.configured = Some(at_ms);
                node.configured_clear = providers.first() == Some(&Provider::Identity);
                node.in_clear |= node.configured_clear;
            }
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
        let silent = count(&|server, route| server.machine == Machine::Hung || route.is_silent());
        let good = count(&|server, route| is_up(server) && !server.lags && route == Gate::Open);
        let slow = self.nodes.get(node).is_some_and(|node| node.takes_ms > SLOW_MS);
        leads && good > 0 && silent <= usize::from(!slow)
    }

    /// Its plugin runs and can be reached without delay, and has been so for long enough to be noticed; whatever
    /// the KMS does.
    pub(super) fn is_connected(&self, node: usize, at_ms: u64) -> bool {
        self.nodes.get(node).is_some_and(|node| {
            node.plugin
                && node.gate == Gate::Open
                && node.delay_ms == 0
                && node.piece >= WHOLE
                && at_ms >= node.way_changed + self.settles_ms
        })
    }

    /// Whether a configuration with which it writes in clear may still be in use.
    pub(super) fn may_write_in_clear(&mut self, node: usize, at_ms: u64) -> bool {
        let settled = self.is_settled(node, at_ms);
        let Some(node) = self.nodes.get_mut(node) else { return false };
        node.in_clear &= node.configured_clear || !settled;
        node.in_clear
    }

    /// Everything is as it should be, and has been for long enough to be noticed.
    pub(super) fn is_settled(&self, node: usize, at_ms: u64) -> bool {
        let served = self.is_served(node);
        self.nodes.get(node).is_some_and(|node| {
            served
                && node.plugin
                && node.gate == Gate::Open
                && node.delay_ms <= DELAY_MS
                && node.piece >= PIECE
                && node.takes_ms <= TAKES_MS
                && node.lag_ms == 0
                && node.trouble == Trouble::None
                && !node.misled
                && at_ms >= node.changed + self.settles_ms
        })
    }
}
