//! What is accepted, and what is said of what is not.

use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;

use super::*;

const EXAMPLE: &str = include_str!("../../configuration/kleidi.example.yaml");

const TRANSIT: &str = include_str!("../../configuration/vault/kleidi.yaml");

const MINIMAL: &str = "\
apiVersion: kleidi.beezy.dev/v1
kind: PluginConfiguration
pkcs11:
  module: /usr/lib/softhsm/libsofthsm2.so
  tokenLabel: kleidi
  keyLabel: kek
  pinFile: /etc/kleidi/pin
";

fn parse(content: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("kleidi.yaml"), content, &Overrides::default())
}

/// The example with every key: a line that is commented out has no blank behind its '#'.
fn whole_example() -> String {
    uncommented(EXAMPLE)
}

fn uncommented(text: &str) -> String {
    let line = |line: &str| {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        match rest.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => format!("{indent}{key}\n"),
            _ => format!("{line}\n"),
        }
    };
    text.lines().map(line).collect()
}

#[test]
fn the_example_is_right_and_holds_every_key() {
    // As it is, it says nothing but what has to be said.
    assert_eq!(parse(EXAMPLE), parse(MINIMAL));
    let config = parse(&whole_example()).unwrap();
    let (Kms::Pkcs11(example), Kms::Pkcs11(minimal_keys)) =
        (&config.kms, parse(MINIMAL).unwrap().kms)
    else {
        panic!("they are about PKCS#11");
    };
    assert_eq!(example.foreign.len(), 2);
    assert_eq!(
        (example.workers, example.queue, example.call_timeout),
        (minimal_keys.workers, minimal_keys.queue, minimal_keys.call_timeout)
    );
    let mut keys = 0;
    for line in include_str!("raw.rs").lines() {
        let Some(field) = line.trim().strip_prefix("pub(super) ") else { continue };
        let Some((name, _)) = field.split_once(':') else { continue };
        let mut words = name.split('_');
        let mut key = words.next().unwrap().to_owned();
        words.for_each(|word| key += &(word[..1].to_uppercase() + &word[1..]));
        let there = [EXAMPLE, TRANSIT].iter().any(|text| text.contains(&format!("{key}:")));
        assert!(there, "{key} is not in the examples");
        keys += 1;
    }
    assert!(keys > 25, "the keys were found");
    // What the example states as defaults are the defaults.
    let minimal = parse(MINIMAL).unwrap();
    assert_eq!((config.listen, config.health), (minimal.listen, minimal.health));
    assert_eq!(config.shutdown_grace, minimal.shutdown_grace);
    assert_eq!(config.access.mode, minimal.access.mode);
}

#[test]
fn the_transit_example_is_right() {
    let config = parse(TRANSIT).unwrap();
    let Kms::Transit(settings) = config.kms else { panic!("it is about transit") };
    assert_eq!(settings.addresses.len(), 3);
    let config = parse(&uncommented(TRANSIT)).unwrap();
    let Kms::Transit(whole) = config.kms else { panic!("it is about transit") };
    assert_eq!((whole.mount, whole.addresses), (settings.mount, settings.addresses));
}

#[test]
fn the_manuals_configurations_are_right() {
    let manual = include_str!("../../configuration/README.md");
    let mut seen = 0;
    for block in manual.split("```yaml\n").skip(1) {
        let block = block.split("```").next().unwrap();
        if block.contains("kind: PluginConfiguration") {
            let indent = block.len() - block.trim_start().len();
            let lines = block.lines().map(|line| line.get(indent..).unwrap_or_default());
            parse(&lines.collect::<Vec<_>>().join("\n")).unwrap_or_else(|error| panic!("{error}"));
            seen += 1;
        }
    }
    assert_eq!(seen, 2);
}

#[test]
fn the_uri_says_the_same_as_the_fields() {
    let uri = "\
apiVersion: kleidi.beezy.dev/v1
kind: PluginConfiguration
pkcs11:
  uri: pkcs11:token=kleidi;object=kek?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/kleidi/pin
";
    assert_eq!(parse(uri), parse(MINIMAL));
}

/// A manifest of the Go kleidi's can switch images and nothing else: its defaults hold, too.
#[test]
fn the_go_kleidis_defaults_hold_for_its_file() {
    let config = parse(r#"{"path": "/m.so", "tokenLabel": "t", "pin": "1234"}"#).unwrap();
    assert_eq!(config.listen.to_string(), "unix:///tmp/kleidi/kleidi-kms-plugin.socket");
    let overrides = Overrides { listen: Some("@x".parse().unwrap()), ..Overrides::default() };
    let content = r#"{"path": "/m.so", "tokenLabel": "t", "pin": "1234"}"#;
    let config = Config::parse(Path::new("config.json"), content, &overrides).unwrap();
    assert_eq!(config.listen.to_string(), "unix:///@x");
}

#[test]
fn flags_and_environment_win() {
    let overrides = Overrides {
        listen: Some("@elsewhere".parse().unwrap()),
        log_level: Some(LogLevel::Debug),
        log_format: Some(LogFormat::Json),
    };
    let config = Config::parse(Path::new("kleidi.yaml"), EXAMPLE, &overrides).unwrap();
    assert_eq!(config.listen, Address::Abstract("elsewhere".to_owned()));
    assert_eq!((config.log_level, config.log_format), (LogLevel::Debug, LogFormat::Json));
}

/// Every kind of fault, and what is said of it: file, line, column, key, and what is allowed.
#[test]
fn faults_are_said_precisely() {
    let after = |text: &str| MINIMAL.to_owned() + text;
    let instead = |from: &str, to: &str| {
        assert!(MINIMAL.contains(from));
        MINIMAL.replace(from, to)
    };
    let mut said = String::new();
    for (what, content) in [
        ("empty", String::new()),
        ("not YAML", "apiVersion: [".to_owned()),
        ("a list", "- a\n".to_owned()),
        ("two documents", format!("{MINIMAL}---\n{MINIMAL}")),
        ("a tab", "apiVersion: kleidi.beezy.dev/v1\n\tkind: x\n".to_owned()),
        ("another apiVersion", instead("dev/v1", "dev/v9")),
        ("another kind", instead("PluginConfiguration", "Pod")),
        ("an unknown section", after("sockets: {}\n")),
        ("an unknown key", after("  pin: \"1234\"\n")),
        ("a key twice", after("  keyLabel: other\n")),
        ("no pkcs11", "apiVersion: kleidi.beezy.dev/v1\nkind: PluginConfiguration\n".to_owned()),
        ("no module", instead("  module: /usr/lib/softhsm/libsofthsm2.so\n", "")),
        ("no token", instead("  tokenLabel: kleidi\n", "")),
        ("no key", instead("  keyLabel: kek\n", "")),
        ("no PIN", instead("  pinFile: /etc/kleidi/pin\n", "")),
        ("a list for a text", instead("kek", "[kek]")),
        ("a relative module", instead("/usr/lib/softhsm/libsofthsm2.so", "libsofthsm2.so")),
        ("a relative PIN file", instead("/etc/kleidi/pin", "pin")),
        ("a long token label", instead("kleidi\n  key", &format!("{}\n  key", "k".repeat(33)))),
        ("an odd key id", after("  ckaId: \"1\"\n")),
        ("no hex in a key id", after("  ckaId: first\n")),
        ("a bad uri", after("  uri: pkcs11:slot-id=1\n")),
        ("a PIN in the uri", after("  uri: pkcs11:?pin-value=1234\n")),
        ("said twice", after("  uri: pkcs11:token=kleidi\n")),
        ("words for a number", after("  workers: many\n")),
        ("a number too large", after("  workers: 17\n")),
        ("a bare number for a duration", after("  callTimeout: 2\n")),
        ("a duration too long", after("  callTimeout: 10s\n")),
        ("neither true nor false", after("  allowWeakKeys: maybe\n")),
        ("an unknown plugin", after("  decryptAlso:\n  - plugin: trousseau\n")),
        ("a socket for everybody", after("socket:\n  mode: \"0666\"\n")),
        ("a decimal mode", after("socket:\n  mode: 384\n")),
        ("a user that is not there", after("socket:\n  allowedUsers: [root, nobody-at-all]\n")),
        ("a group that is not there", after("socket:\n  group: nobody-at-all\n")),
        ("another scheme", after("socket:\n  listen: tcp://127.0.0.1:1\n")),
        ("two slashes", after("socket:\n  listen: unix://run/kms.sock\n")),
        ("a period too long", after("health:\n  period: 2m\n")),
        ("stale too soon", after("health:\n  period: 30s\n  staleAfter: 40s\n")),
        ("an unknown level", after("log:\n  level: loud\n  format: xml\n")),
        ("several faults", after("  workers: 0\n  queue: 0\nlog:\n  level: loud\n")),
        ("the Go kleidi, transit", r#"{"address": "https://vault", "transitkey": "k"}"#.to_owned()),
        ("the Go kleidi, nothing", "{}".to_owned()),
        (
            "the Go kleidi, unknown",
            r#"{"path": "/m", "tokenLabel": 1, "pin": "1", "x": "y"}"#.into(),
        ),
    ] {
        let error = parse(&content).expect_err(what).to_string();
        assert!(!error.contains("1234"), "{what}: no PIN is repeated: {error}");
        let _ = writeln!(said, "--- {what}\n{error}\n");
    }
    insta::assert_snapshot!(said);
}

proptest! {
    #[test]
    fn parsing_is_total(content in "\\PC{0,200}") {
        let _ = parse(&content);
    }

    #[test]
    fn a_damaged_configuration_is_survived(at in 0..EXAMPLE.len(), with in "\\PC{0,3}") {
        let mut content = whole_example();
        if content.is_char_boundary(at) && content.is_char_boundary(at + 1) {
            content.replace_range(at..=at, &with);
        }
        let _ = parse(&content);
    }
}
