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

/// Since how many milliseconds after the first Status it does what.
#[derive(Debug, Clone, Copy)]
pub struct Script(pub &'static [(u64, Does)]);

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (since, does)) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "; " };
            write!(f, "{comma}{since} ms: {does:?}")?;
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

/// All of them. Nothing changes in the first two minutes, in which the apiserver itself looks at its health
/// until it is ready; then it does half-way between two polls, of 60 s or of 10 s.
pub const SCENARIOS: [Scenario; 10] = [
    scenario("idle", 320, &[(0, Answers("1"))]),
    scenario("rotate", 320, &[(0, Answers("1")), (150_000, Answers("2"))]),
    scenario("outage", 320, &[(0, Answers("1")), (150_000, Fails), (205_000, Answers("1"))]),
    scenario("hang", 320, &[(0, Answers("1")), (150_000, Hangs), (207_000, Answers("1"))]),
    scenario(
        "disagree",
        320,
        &[(0, Answers("1")), (150_000, Disagrees("2", "1")), (205_000, Answers("2"))],
    ),
    scenario("plugin-restart", 250, &[(0, Answers("1")), (150_000, Restarts("1"))]),
    scenario(
        "plugin-restart-under-a-call",
        250,
        &[(0, Answers("1")), (150_000, Hangs), (181_000, Restarts("1"))],
    ),
    scenario(
        "plugin-away-shortly",
        250,
        &[(0, Answers("1")), (150_000, Slams), (180_500, Answers("1"))],
    ),
    scenario("plugin-away", 320, &[(0, Answers("1")), (150_000, Slams)]),
    scenario("plugin-says-nothing", 250, &[(0, Answers("1")), (150_000, SaysNothing)]),
];

/// A plugin that is not healthy when the apiserver starts: for so long that is not ready, and looks at its
/// health all the time.
pub const LATE: Scenario =
    scenario("late", 150, &[(0, IsSick("1")), (20_000, Fails), (40_000, Answers("1"))]);

/// A plugin that answers well.
pub const STEADY: Script = Script(&[(0, Answers("1"))]);
