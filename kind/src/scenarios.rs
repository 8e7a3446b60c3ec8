//! All scenarios, in the order in which a newcomer reads them.

mod daemon_set;
mod encrypts_at_rest;
mod highly_available;
mod migrates;
mod outage;
mod plugin_fails;
mod reboots;
mod rotates;
mod takes_over;

use crate::scenario::Scenario;

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    encrypts_at_rest::SCENARIO,
    migrates::SCENARIO,
    takes_over::SCENARIO,
    plugin_fails::SCENARIO,
    reboots::SCENARIO,
    rotates::SCENARIO,
    highly_available::SCENARIO,
    outage::SCENARIO,
    daemon_set::SCENARIO,
];
