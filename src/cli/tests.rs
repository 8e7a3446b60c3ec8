//! What the help says, and the Go kleidi's flags.

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::{CommandFactory as _, Parser as _};

use super::{Cli, args};
use crate::config::DEFAULT_FILE;

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
    assert_eq!(help.matches(&format!("[default: {DEFAULT_FILE}]")).count(), 5);
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
    assert_eq!(cli.serve.config.config, Some("/opt/kleidi/config.json".into()));
    assert_eq!(cli.serve.debugmode, Some(true));
    assert_eq!(parse(&["-debugmode"]).unwrap().serve.debugmode, Some(true));
    assert_eq!(parse(&["-debugmode=false"]).unwrap().serve.debugmode, Some(false));
    // A short flag of ours is not mistaken for one of them.
    assert_eq!(parse(&["-c", "/x"]).unwrap().serve.config.config, Some("/x".into()));
    // Without -configfile none is named, not even by clap: the Go kleidi's default may stand in.
    assert_eq!(parse(&["-provider", "softhsm"]).unwrap().serve.config.config, None);
    assert!(parse(&["-provider", "hvault"]).is_err());
    assert!(parse(&["--listen-addr", "@x"]).is_ok());
    assert!(parse(&["--listen-address", "@x"]).is_ok());
}

/// The documents with commands and links in them.
const DOCUMENTS: [&str; 4] =
    ["README.md", "configuration/README.md", "configuration/vault/README.md", "harness/README.md"];

fn document(name: &str) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(root.join(name)).unwrap()
}

#[test]
fn the_documents_commands_exist() {
    let mut seen = 0;
    for name in DOCUMENTS {
        let text = document(name);
        let blocks = text.split("```").skip(1).step_by(2).filter(|block| block.starts_with("sh\n"));
        // With dots for whatever is behind it, it stands for all of them.
        let inline = text
            .split('`')
            .filter(|code| code.starts_with("as-kleidi kleidi ") && !code.ends_with('…'));
        for line in blocks.flat_map(str::lines).chain(inline) {
            let line = line.split(['#', '|', '>']).next().unwrap();
            let words: Vec<_> = line.split_whitespace().collect();
            // At the beginning, or behind a variable; elsewhere it is a user's name.
            let command = (0..words.len()).find(|at| {
                words[*at] == "kleidi"
                    && (*at == 0 || words[*at - 1] == "as-kleidi" || words[*at - 1].contains('='))
            });
            let Some(command) = command else { continue };
            seen += 1;
            let parsed = parse(&words[command + 1..]);
            assert!(parsed.is_ok(), "{name}: {line}: {}", parsed.err().unwrap());
        }
    }
    assert!(seen >= 10, "only {seen} commands were found");
}

#[test]
fn the_documents_links_lead_somewhere() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in DOCUMENTS {
        let text = document(name);
        let directory = root.join(name).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let file = if file.is_empty() { root.join(name) } else { directory.join(file) };
            assert!(file.exists(), "{name}: {link}");
            if !anchor.is_empty() {
                let target = std::fs::read_to_string(file).unwrap();
                assert!(anchors(&target).any(|found| found == anchor), "{name}: {link}");
            }
        }
    }
}

/// What links to a document's titles end in.
fn anchors(document: &str) -> impl Iterator<Item = String> {
    document.lines().filter(|line| line.starts_with('#')).map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

/// The exit codes are in the README as in the help.
#[test]
fn the_readme_has_every_exit_code() {
    let readme = document("README.md");
    for line in super::EXIT_CODES.lines().skip(1) {
        let code = line.split_whitespace().next().unwrap();
        assert!(readme.contains(&format!("| {code} | ")), "{line}");
    }
}

/// The files of an installation speak of one socket.
#[test]
fn the_installation_has_one_socket() {
    let socket = crate::config::DEFAULT_LISTEN;
    let path = socket.strip_prefix("unix://").unwrap_or(socket);
    for (file, wanted) in [
        ("configuration/kleidi.socket", format!("ListenStream={path}\n")),
        ("configuration/encryption.yaml", format!("endpoint: unix://{path}\n")),
        ("configuration/static-pod.yaml", path.to_owned()),
        ("configuration/kleidi.example.yaml", format!("listen: unix://{path}\n")),
    ] {
        assert!(document(file).contains(&wanted), "{file}: {wanted}");
    }
}
