//! Values of arguments, and arguments of the Go kleidi.

use std::ffi::OsString;

use crate::config::{LogFormat, LogLevel, parse_cka_id};

/// A `CKA_ID`; a type of its own because clap takes a plain `Vec` for a repeated argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CkaId(pub(super) Vec<u8>);

pub(super) fn cka_id(text: &str) -> Result<CkaId, String> {
    parse_cka_id(text).map(CkaId)
}

pub(super) fn log_level(text: &str) -> Result<LogLevel, String> {
    one_of(text, &LogLevel::ALL)
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    one_of(text, &LogFormat::ALL)
}

fn one_of<T: Copy>(text: &str, all: &[(&'static str, T)]) -> Result<T, String> {
    all.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
        format!("not one of: {}", names.join(", "))
    })
}

/// The Go kleidi's `-provider`.
pub(super) fn provider(text: &str) -> Result<String, String> {
    match text {
        "softhsm" => Ok(text.to_owned()),
        "hvault" => Err("write a configuration with a section transit instead".to_owned()),
        _ => Err("only softhsm is known".to_owned()),
    }
}

/// The Go kleidi's flags, which Go writes with one dash.
const LEGACY_FLAGS: [&str; 4] = ["listen", "provider", "configfile", "debugmode"];

/// The arguments with `-listen` turned into `--listen`, and so on for the Go kleidi's flags.
pub(super) fn modern(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    args.into_iter()
        .map(|arg| {
            let Some(text) = arg.to_str() else { return arg };
            let name = text.strip_prefix('-').map(|flag| flag.split('=').next().unwrap_or(flag));
            match name {
                Some(name) if LEGACY_FLAGS.contains(&name) => format!("-{text}").into(),
                _ => arg,
            }
        })
        .collect()
}
