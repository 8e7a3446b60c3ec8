//! The plugin as a process on real SoftHSM tokens, without a cluster: what goes wrong with tokens,
//! keys, PINs, sockets and modules, and what the plugin then says and does.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "these are tests")]

mod as_kleidi;
mod cli;
mod foreign;
mod init;
mod keys;
mod lifecycle;
mod module_faults;
mod other_module;
mod socket;
mod token_faults;
mod transit;
mod transit_calls;

use std::time::Duration;

use kleidi_harness::{Plugin, SoftHsm, Stage, within};
use tonic::Code;

/// Long enough for a backend to be found out of order, or in order again: the tests' plugins look
/// once a second, and twice as long apart each time while it fails.
const SOON: Duration = Duration::from_secs(30);

/// A stage, a token with a key, and a plugin on it.
fn running(test: &str) -> Option<(Stage, SoftHsm, Plugin)> {
    let stage = Stage::new(test);
    let token = SoftHsm::with_key(&stage, "token", "kek", 1)?;
    let plugin = Plugin::new(&stage, "plugin", &token).start();
    Some((stage, token, plugin))
}

/// Waits until Status is an error; gives it.
fn wait_outage(plugin: &Plugin) -> tonic::Status {
    within(SOON, "Status to be an error", || match plugin.client().status() {
        Ok(status) => Err(format!("{status:?}")),
        Err(error) => Ok(error),
    })
}

/// Waits until Status is an error with that text; gives its code.
fn wait_says(plugin: &Plugin, text: &str) -> Code {
    within(SOON, text, || match plugin.client().status() {
        Err(error) if error.message().contains(text) => Ok(error.code()),
        other => Err(format!("{other:?}")),
    })
}

/// Waits until Status is ok; gives the key_id.
fn wait_healthy(plugin: &Plugin) -> String {
    kleidi_harness::wait_healthy(plugin, SOON)
}

/// Waits until Status gives another key_id than `before`.
fn wait_other_key(plugin: &Plugin, before: &str) -> String {
    within(SOON, "another key_id", || match plugin.client().status() {
        Ok(status) if status.key_id != before => Ok(status.key_id),
        other => Err(format!("{other:?}")),
    })
}

const SEED: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
