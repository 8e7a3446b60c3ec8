//! What a scripted plugin does when.

use std::fmt;

/// What it does from a moment on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Answers well, with this key_id.
    Answers(&'static str),
    /// The same, but has been restarted: all connections are cut.
    Restarts(&'static str),
    /// Status says that it is not healthy, and this key_id.
    IsSick(&'static str),
    /// Status says one key_id, Encrypt another.
    Disagrees(&'static str, &'static str),
    /// Every call gets an error.
    Fails,
    /// No call is answered.
    Hangs,
    /// Connections are cut, and new ones as soon as they are made: nobody serves the socket, but every
    /// attempt is seen.
    Slams,
    /// Connections are cut; new ones are taken, and nothing is ever said on them.
    SaysNothing,
}

impl Does {
    /// Whether connections are cut when this begins.
    pub fn cuts(self) -> bool {
        matches!(self, Self::Restarts(_) | Self::Slams | Self::SaysNothing)
    }
}

/// Since how many seconds after the first Status it does what.
#[derive(Debug, Clone, Copy)]
pub struct Script(pub &'static [(u64, Does)]);

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (since, does)) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "; " };
            write!(f, "{comma}{since} s: {does:?}")?;
        }
        Ok(())
    }
}

/// A scenario that needs nothing but a plugin and time.
pub struct Scenario {
    pub name: &'static str,
    pub script: Script,
    /// Seconds that are recorded.
    pub lasts: u64,
}

const fn scenario(name: &'static str, lasts: u64, script: &'static [(u64, Does)]) -> Scenario {
    Scenario { name, script: Script(script), lasts }
}

use Does::{Answers, Disagrees, Fails, Hangs, IsSick, Restarts, SaysNothing, Slams};

/// All of them. What changes does so half-way between two polls, of 60 s or of 10 s.
pub const SCENARIOS: [Scenario; 12] = [
    scenario("idle", 200, &[(0, Answers("1"))]),
    scenario("rotate", 200, &[(0, Answers("1")), (30, Answers("2"))]),
    scenario("outage", 200, &[(0, Answers("1")), (30, Fails), (85, Answers("1"))]),
    scenario("hang", 200, &[(0, Answers("1")), (30, Hangs), (87, Answers("1"))]),
    scenario(
        "disagree",
        200,
        &[(0, Answers("1")), (30, Disagrees("2", "1")), (85, Answers("2"))],
    ),
    scenario("sick", 100, &[(0, IsSick("1"))]),
    scenario("late", 200, &[(0, Fails), (25, Answers("1"))]),
    scenario("plugin-restart", 130, &[(0, Answers("1")), (30, Restarts("1"))]),
    scenario(
        "plugin-restart-under-a-call",
        130,
        &[(0, Answers("1")), (30, Hangs), (61, Restarts("1"))],
    ),
    scenario("plugin-away-shortly", 130, &[(0, Answers("1")), (30, Slams), (62, Answers("1"))]),
    scenario("plugin-away", 200, &[(0, Answers("1")), (30, Slams)]),
    scenario("plugin-says-nothing", 130, &[(0, Answers("1")), (30, SaysNothing)]),
];
