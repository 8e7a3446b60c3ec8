//! The log: to standard error, as text or as JSON.

use std::io;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt};

use crate::config::{LogFormat, LogLevel};

/// Starts logging for the whole process.
pub(crate) fn start(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
    };
    // Below this, libraries may print what they handle, and seeds are among it.
    let libraries = level.min(Level::WARN);
    let filter = Targets::new()
        .with_default(libraries)
        .with_target("kleidi", level)
        // It logs errors that we handle.
        .with_target("cryptoki", tracing::level_filters::LevelFilter::OFF);
    let layer = match format {
        LogFormat::Text => {
            fmt::layer().with_target(false).with_ansi(false).with_writer(io::stderr).boxed()
        }
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_target(false)
            .with_writer(io::stderr)
            .boxed(),
    };
    // It fails only if logging was started before; then it goes on as it was.
    let _ = Registry::default().with(layer.with_filter(filter)).try_init();
}
