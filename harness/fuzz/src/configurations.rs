//! Configuration files: the plugin's, and kube-apiserver's as the model reads it.

use std::path::Path;

use kleidi::config::{Config, Environment, Overrides};
use kleidi_sim::config::{load, verdict};
use kleidi_sim::version::Version;

/// Whatever a file holds, it is accepted or all that is wrong is said, with places that are in the file, and
/// without the PIN that the Go kleidi keeps there.
pub fn config_yaml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let path = Path::new("kleidi.yaml");
    let parse = || Config::parse(path, text, &Overrides::default(), &Environment::default());
    let parsed = parse();
    assert_eq!(parsed, parse(), "twice the same");
    let pin = pin(text);
    let shown = match &parsed {
        Ok(config) => format!("{config:?}"),
        Err(error) => error.to_string(),
    };
    assert!(pin.is_none_or(|pin| !shown.contains(&pin)), "the PIN is shown: {shown}");
    let Err(error) = parsed else { return };
    assert!(!error.0.is_empty(), "refused, and nothing said");
    for problem in error.0 {
        assert!(!problem.message.is_empty(), "{problem:?}");
        assert_eq!(problem.file.as_deref(), Some(path), "{problem:?}");
        let lines = u64::try_from(text.lines().count()).unwrap() + 1;
        if let Some((line, column)) = problem.position {
            assert!((1..=lines).contains(&line) && column > 0, "{problem:?}");
        }
    }
}

/// A PIN in the Go kleidi's format that is nothing else in the text, and no word of ours.
fn pin(text: &str) -> Option<String> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let pin = object.get("pin")?.as_str()?.to_owned();
    let digit = pin.bytes().any(|byte| byte.is_ascii_digit());
    (pin.len() >= 6 && digit && text.matches(&pin).count() == 1).then_some(pin)
}

/// Every release says of every file whether it is accepted, and what is wrong if it is not.
pub fn encryption_config_yaml(bytes: &[u8]) {
    for version in Version::ALL {
        for reload in [false, true] {
            let loaded = load(bytes, version, reload);
            let verdict = verdict(bytes, version, reload);
            assert_eq!(verdict["ok"], loaded.is_ok(), "{verdict}");
            let said = verdict["errors"].as_array().is_some_and(|errors| !errors.is_empty());
            assert_eq!(said, loaded.is_err(), "{verdict}");
            if let Ok(plan) = loaded {
                let last = plan.providers.len();
                let all = plan.resources.values().flatten();
                assert!(all.into_iter().all(|provider| *provider < last), "of no provider");
            }
        }
    }
}
