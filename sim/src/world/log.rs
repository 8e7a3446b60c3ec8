//! The product's log: looked through for seeds, and not kept.

use std::io;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing::subscriber::{DefaultGuard, set_default};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

use super::history::{History, Is};

/// Reads the log of whatever runs on this thread, for as long as the guard lives.
#[must_use]
pub fn read(history: &Arc<History>) -> DefaultGuard {
    let history = Arc::clone(history);
    let lines = move || Lines(Arc::clone(&history));
    // All that an operator can have it say.
    let product = Targets::new().with_target("kleidi", LevelFilter::DEBUG);
    let layer = fmt::layer().with_writer(lines).with_ansi(false).without_time();
    set_default(tracing_subscriber::registry().with(layer.with_filter(product)))
}

struct Lines(Arc<History>);

impl io::Write for Lines {
    /// A whole line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.seeds.show_in(&String::from_utf8_lossy(line)) {
            self.0.push(Is::Shown { at: "a line of the log".to_owned() });
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
