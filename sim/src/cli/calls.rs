//! Prints calls as they end.

use std::sync::OnceLock;
use std::time::Duration;

use crate::client::text;
use crate::edges::{Outcome, Watch};
use crate::time::Time;

/// Prints to standard error; times are since the first call.
#[derive(Default)]
pub(super) struct Printer {
    first: OnceLock<Time>,
}

impl Watch for Printer {
    #[allow(clippy::print_stderr, reason = "it is a program")]
    fn called(&self, name: &str, method: &str, began: Time, took: Duration, outcome: Outcome) {
        let since = began.since(*self.first.get_or_init(|| began)).as_secs_f64();
        let milliseconds = took.as_secs_f64() * 1000.0;
        let outcome = match outcome {
            Ok(_) => "OK".to_owned(),
            Err(status) => text(status),
        };
        eprintln!("{since:9.3} s  {name}  {method:7} {milliseconds:7.1} ms  {outcome}");
    }
}
