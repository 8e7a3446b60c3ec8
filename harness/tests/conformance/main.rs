//! The conformance suite on kleidi, with SoftHSM and with OpenBao: every profile, with hooks that really
//! rotate, stop, kill and cut off.
//!
//! `sim/conformance/reports/make kleidi` keeps the reports.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "these are tests")]

mod director;
mod imported;
mod kms;
mod suite;

use kleidi_harness::{Plugin, PluginConfig, Product, SoftHsm, Stage, VaultServer, random_key};

use crate::director::Nodes;
use crate::imported::Imported;
use crate::kms::{Token, Transit};
use crate::suite::Checks;

#[test]
fn kleidi_conforms_with_softhsm() {
    let stage = Stage::new("conformance softhsm");
    let Some(token) = SoftHsm::with_token(&stage, "token") else { return };
    let key = random_key();
    token.add_key("kek", 1, &key);
    let nodes = ["a", "b"].map(|name| Plugin::new(&stage, name, &token).start());
    suite::conforms(
        &stage,
        "kleidi-softhsm",
        Nodes::new(nodes),
        Token::new(token, key),
        &Checks::AllBut(&[]),
    );
}

#[test]
fn kleidi_conforms_with_openbao() {
    let stage = Stage::new("conformance openbao");
    let Some(server) = VaultServer::start(&stage, "server", Product::OpenBao) else { return };
    let role = server.provision();
    let nodes = ["a", "b"].map(|name| Plugin::on_transit(&stage, name, &server, &role).start());
    suite::conforms(
        &stage,
        "kleidi-openbao",
        Nodes::new(nodes),
        Transit::new(server),
        &Checks::AllBut(&["rotation.no-reuse"]),
    );
}

/// What a rotation makes never comes back; what is imported may.
#[test]
fn material_that_is_imported_again_has_another_key_id() {
    const CHECKS: &[&str] =
        &["rotation.key-id-changes", "rotation.no-reuse", "rotation.old-ciphertext"];
    let stage = Stage::new("conformance imported");
    let Some(server) = VaultServer::start(&stage, "server", Product::OpenBao) else { return };
    let role = server.provision();
    let nodes = ["a", "b"].map(|name| Plugin::on_transit(&stage, name, &server, &role));
    let Some(key) = Imported::replace(&stage, server) else { return };
    let nodes = Nodes::new(nodes.map(PluginConfig::start));
    suite::conforms(&stage, "kleidi-openbao-imported", nodes, key, &Checks::Only(CHECKS));
}
