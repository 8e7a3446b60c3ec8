//! Conformance checks for any Kubernetes KMS v2 plugin, over its socket.
//!
//! [`catalogue`] has the checks: data, and a function each ([`check`]). [`runner`] carries them out
//! against [`context::Settings`], and gives a [`report::Report`], which [`reports`] writes. [`hooks`] do
//! what the protocol cannot ask for. [`selftest`] shows that each check can fail: it runs all of them
//! against a [`reference`] plugin that is right, and against its mutants, which are not.
//!
//! Nothing here knows a plugin from inside: the only other member of the workspace that it uses are the
//! bindings.

mod cancel;
pub mod catalogue;
pub mod check;
mod checks;
pub mod cli;
pub mod client;
pub mod context;
pub mod diff;
mod domain_name;
pub mod endpoint;
pub mod expectations;
mod heard;
pub mod hooks;
mod interruption;
mod load;
mod ordered;
mod progress;
mod raw;
pub mod reference;
pub mod report;
pub mod reports;
pub mod runner;
mod secrets;
pub mod selftest;
pub mod source;
pub mod verdict;
