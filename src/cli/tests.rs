//! What the help says, and the Go kleidi's flags.

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::{CommandFactory as _, Parser as _};

use super::{Cli, args};

fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
    let args = std::iter::once(&"kleidi").chain(args).map(OsString::from);
    Cli::try_parse_from(args::modern(args))
}

#[test]
fn the_help_of_every_command() {
    let mut command = Cli::command();
    command.build();
    let mut help = command.render_long_help().to_string();
    for subcommand in command.get_subcommands_mut() {
        let _ = write!(help, "\n\n===== {}\n\n", subcommand.get_name());
        help += &subcommand.render_long_help().to_string();
    }
    insta::assert_snapshot!(help);
}

#[test]
fn clap_finds_no_fault() {
    Cli::command().debug_assert();
}

#[test]
fn the_go_kleidis_flags_are_understood() {
    let cli = parse(&[
        "-listen",
        "unix:///tmp/kleidi/kleidi-kms-plugin.socket",
        "-provider=softhsm",
        "-configfile",
        "/opt/kleidi/config.json",
        "-debugmode=true",
    ])
    .unwrap();
    let listen = cli.serve.listen.unwrap();
    assert_eq!(listen.to_string(), "unix:///tmp/kleidi/kleidi-kms-plugin.socket");
    assert_eq!(cli.serve.config.config.to_str(), Some("/opt/kleidi/config.json"));
    assert_eq!(cli.serve.debugmode, Some(true));
    assert_eq!(parse(&["-debugmode"]).unwrap().serve.debugmode, Some(true));
    assert_eq!(parse(&["-debugmode=false"]).unwrap().serve.debugmode, Some(false));
    // A short flag of ours is not mistaken for one of them.
    assert_eq!(parse(&["-c", "/x"]).unwrap().serve.config.config.to_str(), Some("/x"));
    assert!(parse(&["-provider", "hvault"]).is_err());
    assert!(parse(&["--listen-addr", "@x"]).is_ok());
    assert!(parse(&["--listen-address", "@x"]).is_ok());
}
