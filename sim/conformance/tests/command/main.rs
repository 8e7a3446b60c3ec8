//! The command as its users run it: exit codes, files, hooks, reports; and that it tests itself.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "these are tests")]

mod action;
mod catalogue;
mod dependencies;
mod doubtful_hooks;
mod evidence;
mod exit_codes;
mod expectations;
mod foreign;
mod hooks;
mod interrupted;
mod readme;
mod reference;
mod reports;
mod selection;
mod self_test;
mod stage;
mod terminal;
mod vacuous;
