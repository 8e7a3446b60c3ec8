//! What is accepted, and what is said of what is not.

use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;

use super::*;

const EXAMPLE: &str = include_str!("../../configuration/kleidi.example.yaml");

const TRANSIT: &str = include_str!("../../configuration/vault/kleidi.yaml");

const API: &str = "kleidi.beezy.dev/v1";

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
    parse_with(content, &Overrides::default())
}

fn parse_with(content: &str, overrides: &Overrides) -> Result<Config, ConfigError> {
    Config::parse(Path::new("kleidi.yaml"), content, overrides, &Environment::default())
}

fn parse_in(content: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment =
        environment.iter().fold(Environment::default(), |all, (name, value)| all.with(name, value));
    Config::parse(Path::new("kleidi.yaml"), content, &Overrides::default(), &environment)
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
    let (settings, _) = transit(parse(TRANSIT).unwrap());
    assert_eq!(settings.addresses.len(), 3);
    // With every key but the one that another stands for, and those of other methods.
    let others = ["    secretIdFile: ", "    tokenFile: ", "    jwtFile: "];
    let mut whole = uncommented(TRANSIT);
    for other in others {
        let (before, rest) = whole.split_once(other).unwrap();
        whole = before.to_owned() + rest.split_once('\n').unwrap().1;
    }
    let (whole, _) = transit(parse(&whole).unwrap());
    assert_eq!((whole.mount, whole.addresses), (settings.mount, settings.addresses));
    assert_eq!(whole.foreign.len(), 2);
    assert_eq!((&*whole.foreign[0].mount, &*whole.foreign[0].key), ("transit", "kms"));
    assert_eq!((&*whole.foreign[1].mount, &*whole.foreign[1].key), ("transit-old", "old"));
    assert!(matches!(whole.auth, transit::Auth::WrappedAppRole { role: Some(_), .. }));
}

const TRANSIT_MINIMAL: &str = "\
apiVersion: kleidi.beezy.dev/v1
kind: PluginConfiguration
transit:
  key: kms
  auth: {method: certificate}
";

fn transit(config: Config) -> (transit::Settings, Remarks) {
    let Kms::Transit(settings) = config.kms else { panic!("it is about transit") };
    (settings, config.remarks)
}

#[test]
fn the_environment_fills_what_the_file_leaves_out() {
    let environment = [
        ("VAULT_ADDR", "https://of-vault:8200"),
        ("BAO_ADDR", "https://of-bao:8200"),
        ("VAULT_CACERT", "/ca.pem"),
        ("VAULT_CLIENT_CERT", "/client.pem"),
        ("VAULT_CLIENT_KEY", "/client.key"),
        ("VAULT_NAMESPACE", "org/team1/"),
        ("BAO_NAMESPACE", ""),
        ("VAULT_TLS_SERVER_NAME", "vault.example"),
        ("VAULT_SKIP_VERIFY", "false"),
        ("PATH", "/bin"),
    ];
    let (settings, remarks) = transit(parse_in(TRANSIT_MINIMAL, &environment).unwrap());
    assert_eq!(settings.addresses, ["https://of-bao:8200"]);
    let tls = transit::Tls {
        ca_file: Some("/ca.pem".into()),
        certificate_file: Some("/client.pem".into()),
        key_file: Some("/client.key".into()),
        server_name: Some("vault.example".to_owned()),
    };
    assert_eq!(settings.tls, tls);
    assert_eq!(settings.namespace.as_deref(), Some("org/team1"));
    assert_eq!(settings.auth_namespace, settings.namespace);
    assert_eq!(remarks.taken[0], "transit.addresses from BAO_ADDR");
    assert_eq!((remarks.taken.len(), remarks.warnings.len()), (6, 0), "{remarks:?}");

    let file = TRANSIT_MINIMAL.to_owned()
        + "  addresses: ['https://of-file:8200']
  caFile: /file-ca.pem
  certificateFile: /both.pem
  namespace: other
  authNamespace: /
  serverName: other.example
";
    let (settings, remarks) = transit(parse_in(&file, &environment).unwrap());
    assert_eq!(settings.addresses, ["https://of-file:8200"]);
    // The key of another certificate would not fit.
    let tls = transit::Tls {
        ca_file: Some("/file-ca.pem".into()),
        certificate_file: Some("/both.pem".into()),
        key_file: None,
        server_name: Some("other.example".to_owned()),
    };
    assert_eq!(settings.tls, tls);
    assert_eq!((settings.namespace.as_deref(), settings.auth_namespace), (Some("other"), None));
    assert_eq!(remarks, Remarks::default());
}

#[test]
fn what_is_not_taken_from_the_environment_is_said() {
    let whole = TRANSIT_MINIMAL.to_owned()
        + "  addresses: ['http://vault:8200', 'http://127.0.0.1:8200']\n  certificateFile: /both.pem\n";
    let token = whole.replace("certificate}", "token}");
    let token_file = whole.replace("certificate}", "token, tokenFile: /token}");
    let mut said = String::new();
    for (content, variable, value) in [
        (&whole, "VAULT_SKIP_VERIFY", "true"),
        (&whole, "BAO_SKIP_VERIFY", "1"),
        (&whole, "VAULT_TOKEN", "s.canary"),
        (&token, "VAULT_TOKEN", "s.canary"),
        (&token_file, "BAO_TOKEN", "s.canary"),
        (&whole, "HTTPS_PROXY", "http://canary"),
        (&whole, "VAULT_HTTP_PROXY", "http://canary"),
        (&whole, "VAULT_AGENT_ADDR", "http://canary"),
        (&whole, "BAO_CAPATH", "/canary"),
        (&TRANSIT_MINIMAL.to_owned(), "VAULT_ADDR", "vault:8200"),
        (&whole, "VAULT_CACERT", "ca.pem"),
        (&whole, "VAULT_NAMESPACE", "a b"),
    ] {
        let outcome = match parse_in(content, &[(variable, value)]) {
            Ok(config) => config.remarks.warnings.join("\n"),
            Err(error) => format!("refused: {error}"),
        };
        assert!(!outcome.contains("canary"), "{outcome}");
        let _ = writeln!(said, "--- {variable}={value}\n{outcome}\n");
    }
    insta::assert_snapshot!(said);
}

/// The key of one certificate is none for another, wherever each comes from.
#[test]
fn a_certificate_and_its_key_are_of_one_family_of_variables() {
    let content = TRANSIT_MINIMAL.to_owned() + "  addresses: ['http://127.0.0.1:8200']\n";
    let mut said = String::new();
    for environment in [
        &[("BAO_CLIENT_CERT", "/bao.pem"), ("BAO_CLIENT_KEY", "/bao.key")][..],
        &[("BAO_CLIENT_CERT", "/bao.pem"), ("VAULT_CLIENT_KEY", "/vault.key")],
        &[("VAULT_CLIENT_CERT", "/vault.pem"), ("BAO_CLIENT_KEY", "/bao.key")],
        &[("VAULT_CLIENT_CERT", "/vault.pem"), ("VAULT_CLIENT_KEY", "/vault.key")],
        &[
            ("BAO_CLIENT_CERT", "/bao.pem"),
            ("VAULT_CLIENT_CERT", "/vault.pem"),
            ("VAULT_CLIENT_KEY", "/vault.key"),
        ],
        &[("VAULT_CLIENT_KEY", "/vault.key")],
    ] {
        let _ = writeln!(said, "--- {environment:?}");
        let _ = match parse_in(&content, environment).map(transit) {
            Ok((settings, remarks)) => {
                let transit::Tls { certificate_file, key_file, .. } = settings.tls;
                writeln!(said, "{certificate_file:?} {key_file:?}\n{remarks:#?}\n")
            }
            Err(error) => writeln!(said, "refused: {error}\n"),
        };
    }
    insta::assert_snapshot!(said);
}

#[test]
fn the_manuals_configurations_are_right() {
    let manual = include_str!("../../configuration/README.md");
    let transit = include_str!("../../configuration/vault/README.md");
    let mut seen = 0;
    let blocks = [manual, transit].into_iter().flat_map(|text| text.split("```yaml\n").skip(1));
    for block in blocks {
        let block = block.split("```").next().unwrap();
        if block.contains("kind: PluginConfiguration") {
            let indent = block.len() - block.trim_start().len();
            let lines = block.lines().map(|line| line.get(indent..).unwrap_or_default());
            parse(&lines.collect::<Vec<_>>().join("\n")).unwrap_or_else(|error| panic!("{error}"));
            seen += 1;
        }
    }
    assert_eq!(seen, 3);
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
    let config = parse_with(content, &overrides).unwrap();
    assert_eq!(config.listen.to_string(), "unix:///@x");
}

#[test]
fn flags_and_environment_win() {
    let overrides = Overrides {
        listen: Some("@elsewhere".parse().unwrap()),
        log_level: Some(LogLevel::Debug),
        log_format: Some(LogFormat::Json),
    };
    let config = parse_with(EXAMPLE, &overrides).unwrap();
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
        ("an empty label", instead("kek", "\"\"")),
        ("a blank token", instead("kleidi\n  key", "\" \"\n  tokenSerial: \"\"\n  key")),
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

#[test]
fn faults_of_transit_are_said_precisely() {
    let transit_with = |text: &str| TRANSIT_MINIMAL.to_owned() + text;
    let mut said = String::new();
    for (what, content) in [
        ("nothing", transit_with("")),
        ("no address", transit_with("  addresses: []\n")),
        ("no authority", transit_with("  addresses: ['https://vault']\n")),
        ("a bad address", transit_with("  addresses: ['https://vault/v1', vault]\n")),
        ("another scheme", transit_with("  addresses: ['unix:///x', 'ftp://vault', '/x']\n")),
        ("a password", transit_with("  addresses: ['https://user:word@vault:8200']\n")),
        ("no such port", transit_with("  addresses: ['https://a:82000', 'https://b:']\n")),
        ("a bad name", transit_with("  serverName: https://vault\n  namespace: a/../b\n")),
        ("a key alone", transit_with("  keyFile: /client.key\n")),
        (
            "two secret_ids",
            transit_with("").replace(
                "certificate}",
                "appRole, roleIdFile: /r, secretIdFile: /s, wrappedSecretIdFile: /w}",
            ),
        ),
        ("no secret_id", transit_with("").replace("certificate}", "appRole, roleIdFile: /r}")),
        ("no role", transit_with("").replace("certificate}", "jwt, jwtFile: /j}")),
        ("no such method", transit_with("").replace("certificate}", "ldap}")),
        ("a login aside", transit_with("  namespace: org/team1\n  authNamespace: org/team\n")),
        ("a login below", transit_with("  namespace: org\n  authNamespace: org/team1\n")),
        ("a login, and no namespace", transit_with("  authNamespace: team1\n")),
        ("a login, and the root", transit_with("  namespace: /\n  authNamespace: team1\n")),
        ("a login, and a bad namespace", transit_with("  namespace: a b\n  authNamespace: b\n")),
        (
            "an address twice",
            transit_with(
                "  addresses: ['http://a:1', 'http://b:1', 'http://A:1/', 'http://a:2']\n",
            ),
        ),
        (
            "empty texts",
            transit_with("  namespace: ''\n  mount: ''\n  caFile: ''\n  serverName: ''\n")
                .replace("certificate}", "certificate, role: '', mount: ''}")
                .replace("kms", "''"),
        ),
        ("an empty role", transit_with("").replace("certificate}", "jwt, jwtFile: /j, role: ' '}")),
        (
            "what a token does not need",
            transit_with("")
                .replace("certificate}", "token, tokenFile: /t, role: kms, mount: cert}"),
        ),
        (
            "what AppRole does not need",
            transit_with("").replace(
                "certificate}",
                "appRole, roleIdFile: /r, secretIdFile: /s, role: kms, tokenFile: /t, jwtFile: /j}",
            ),
        ),
        (
            "what a certificate does not need",
            transit_with("").replace(
                "certificate}",
                "certificate, roleIdFile: /r, secretIdFile: /s, wrappedSecretIdFile: /w}",
            ),
        ),
    ] {
        let error = parse(&content).expect_err(what).to_string();
        let _ = writeln!(said, "--- {what}\n{error}\n");
    }
    insta::assert_snapshot!(said);
}

/// A key with nothing behind it is most likely a template that was not filled in: it does not count as
/// absent.
#[test]
fn a_key_without_a_value_is_refused_with_its_place() {
    let mut seen = 0;
    for example in [whole_example(), uncommented(TRANSIT)] {
        let lines: Vec<_> = example.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let other =
                line.trim_start().starts_with('#') || key.contains('{') || key.contains("http");
            if other || value.trim_start().is_empty() {
                continue;
            }
            for nothing in ["", " ~", " null", " # nothing"] {
                let mut lines = lines.clone();
                let line = format!("{key}:{nothing}");
                lines[at] = &line;
                let error = parse(&lines.join("\n")).expect_err(&line).to_string();
                let (place, said) = error.split_once(' ').unwrap();
                let on_the_line = place.starts_with(&format!("kleidi.yaml:{}:", at + 1));
                assert!(on_the_line, "{line}: {error}");
                assert_eq!(said, NO_VALUE, "{line}");
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "only {seen} were tried");
    for section in ["socket", "health", "log", "pkcs11", "transit", "shutdownGrace", "lockMemory"] {
        let content = format!("apiVersion: {API}\nkind: PluginConfiguration\n{section}:\n");
        let error = parse(&content).expect_err(section).to_string();
        assert!(error.starts_with("kleidi.yaml:3:"), "{section}: {error}");
        assert!(error.ends_with(NO_VALUE), "{section}: {error}");
    }
    for (what, content) in [
        ("users", format!("{MINIMAL}socket:\n  allowedUsers:\n")),
        ("a user", format!("{MINIMAL}socket:\n  allowedUsers: [root, ~]\n")),
        ("formats", format!("{MINIMAL}  decryptAlso:\n")),
        ("addresses", format!("{TRANSIT_MINIMAL}  addresses:\n")),
        ("an address", format!("{TRANSIT_MINIMAL}  addresses:\n  -\n")),
        ("a format", format!("{TRANSIT_MINIMAL}  decryptAlso: ~\n")),
    ] {
        let environment = [("VAULT_ADDR", "http://127.0.0.1:8200")];
        let error = parse_in(&content, &environment).expect_err(what).to_string();
        assert!(error.ends_with(NO_VALUE), "{what}: {error}");
    }
}

/// What belongs into a file, and is put where the file's name belongs, does not come out in the error.
#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    let pkcs11 = |key: &str, value: &str| {
        let line = MINIMAL.lines().find(|line| line.contains(&format!(" {key}: "))).unwrap();
        MINIMAL.replace(line, &format!("  {key}: {value}"))
    };
    let transit = |keys: &str| format!("{TRANSIT_MINIMAL}  certificateFile: /c\n{keys}\n");
    let auth = |keys: &str| TRANSIT_MINIMAL.replace("method: certificate", keys);
    for secret in ["canary", "hvs.canary", "\"-----BEGIN PRIVATE KEY-----\\ncanary\\n\""] {
        for (key, content) in [
            ("pinFile", pkcs11("pinFile", secret)),
            ("module", pkcs11("module", secret)),
            ("caFile", transit(&format!("  caFile: {secret}"))),
            ("keyFile", transit(&format!("  keyFile: {secret}"))),
            ("certificateFile", format!("{TRANSIT_MINIMAL}  certificateFile: {secret}\n")),
            ("tokenFile", auth(&format!("method: token, tokenFile: {secret}"))),
            ("jwtFile", auth(&format!("method: jwt, role: r, jwtFile: {secret}"))),
            (
                "roleIdFile",
                auth(&format!("method: appRole, secretIdFile: /s, roleIdFile: {secret}")),
            ),
            (
                "secretIdFile",
                auth(&format!("method: appRole, roleIdFile: /r, secretIdFile: {secret}")),
            ),
            (
                "wrappedSecretIdFile",
                auth(&format!("method: appRole, roleIdFile: /r, wrappedSecretIdFile: {secret}")),
            ),
        ] {
            let error = parse(&content).expect_err(key).to_string();
            assert!(error.contains(&format!(".{key}: is not an absolute path")), "{key}: {error}");
            assert!(!error.contains("canary"), "{key}: {error}");
        }
    }
    // Nor by who only reads YAML.
    for content in [
        pkcs11("pinFile", "[canary]"),
        pkcs11("pinFile", "{canary: canary}"),
        pkcs11("pinFile", "\"canary"),
        pkcs11("pinFile", "*canary"),
        pkcs11("pinFile", "!!int canary"),
        pkcs11("pinFile", "/pin\n  canary"),
        MINIMAL.replace("pinFile: /etc", "pinFile:canary /etc"),
        auth("method: token, tokenFile hvs.canary"),
        TRANSIT_MINIMAL.replace("{method: certificate}", "hvs.canary"),
    ] {
        let error = parse(&content).expect_err(&content).to_string();
        assert!(!error.contains("canary"), "{content}: {error}");
    }
}

#[test]
fn a_secret_in_an_address_or_a_variable_is_not_repeated() {
    for address in [
        "https://user:canary@vault:8200",
        "https://canary@vault",
        "https://vault/canary",
        "https://vault:canary",
        "https://vault?token=canary",
        "hvs.canary",
    ] {
        let content = format!("{TRANSIT_MINIMAL}  addresses: ['{address}', '{address}']\n");
        let error = parse(&content).expect_err(address).to_string();
        assert!(error.contains("kleidi.yaml:6:15: transit.addresses: "), "{error}");
        assert!(!error.contains("canary"), "{error}");
        let error = parse_in(TRANSIT_MINIMAL, &[("VAULT_ADDR", address)]).expect_err(address);
        assert!(error.to_string().starts_with("VAULT_ADDR: "), "{error}");
        assert!(!error.to_string().contains("canary"), "{error}");
    }
    for variable in ["BAO_CLIENT_KEY", "BAO_CLIENT_CERT", "VAULT_CACERT"] {
        let pem = "-----BEGIN PRIVATE KEY-----\ncanary\n";
        let error = parse_in(TRANSIT_MINIMAL, &[(variable, pem)]).unwrap_err().to_string();
        assert!(error.contains(&format!("{variable}: is not an absolute path")), "{error}");
        assert!(!error.contains("canary"), "{error}");
    }
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
