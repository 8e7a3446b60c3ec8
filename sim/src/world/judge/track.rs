//! What the plan has done to each node so far, and for how long it has been left alone.

use crate::world::plan::{Gate, Plan, Trouble, What};
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
    /// When its plugin was started last.
    pub(super) plugin_since: u64,
    /// When its configuration was changed last.
    pub(super) configured: Option<u64>,
}

/// All nodes.
#[derive(Debug, Clone)]
pub(super) struct Tracks {
    pub(super) nodes: Vec<Track>,
    /// Old keys may be used.
    pub(super) old_enabled: bool,
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
            plugin_since: 0,
            configured: None,
        };
        let settles = HEALS_IN.as_secs() + plan.period_s;
        Self { nodes: vec![node; plan.nodes], old_enabled: true, settles_ms: settles * 1000 }
    }

    pub(super) fn event(&mut self, at_ms: u64, what: &What) {
        if matches!(what, What::OldDisabled | What::OldEnabled) {
            self.old_enabled = *what == What::OldEnabled;
            for node in &mut self.nodes {
                node.changed = at_ms;
            }
        }
        let Some(node) = what.node().and_then(|node| self.nodes.get_mut(node)) else { return };
        if !matches!(what, What::Rewritten { .. }) {
            node.changed = at_ms;
        }
        match what {
            What::PluginKilled { .. } | What::PluginStopped { .. } => node.plugin = false,
            What::PluginStarted { .. } if !node.plugin => {
                (node.plugin, node.plugin_since) = (true, at_ms);
            }
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

    /// Everything is as it should be, and has been for long enough to be noticed.
    pub(super) fn is_settled(&self, node: usize, at_ms: u64) -> bool {
        self.nodes.get(node).is_some_and(|node| {
            node.plugin
                && node.gate == Gate::Open
                && !node.slow
                && node.takes_ms <= TAKES_MS
                && node.lag_ms == 0
                && node.trouble == Trouble::None
                && at_ms >= node.changed + self.settles_ms
        })
    }
}
