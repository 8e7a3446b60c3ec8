//! What is run and what is not; either is said.

use crate::stage::{Stage, run};

const NOWHERE: [&str; 3] = ["--list", "--endpoint", "unix:///nowhere"];

#[test]
fn a_hook_selects_its_profile() {
    for (hooks, profiles) in [
        (&[][..], &[][..]),
        (&["--on-backend-down", "--on-backend-up"], &["outage"]),
        (&["--on-deny-decrypt"], &["outage"]),
        (&["--on-rotate"], &["rotation"]),
        (&["--on-stop", "--on-start"], &["restart"]),
        (&["--print-log"], &["hardening"]),
    ] {
        let hooks: Vec<&str> = hooks.iter().flat_map(|hook| [*hook, "true"]).collect();
        let ended = run(&[&NOWHERE, &hooks[..]].concat());
        assert_eq!(ended.code, 0, "{ended:?}");
        for profile in ["hardening", "replicas", "rotation", "restart", "outage"] {
            let is_of = |line: &str| line.split_whitespace().nth(2) == Some(profile);
            let listed = ended.said.lines().any(is_of);
            assert_eq!(listed, profiles.contains(&profile), "{hooks:?} {profile}: {}", ended.said);
        }
    }
    let two = run(&[&NOWHERE[..], &["--endpoint", "unix:///too", "--on-rotate", "true"]].concat());
    assert!(two.said.contains("replicas.converge"), "{two:?}");
}

#[test]
fn a_hook_of_no_use_is_a_mistake() {
    let ended = run(&[&NOWHERE[..], &["--profile", "core,restart", "--on-rotate", "x"]].concat());
    assert_eq!(ended.code, 2, "{ended:?}");
    let says =
        "--on-rotate is of no use to the profiles core, restart; it is for replicas, rotation";
    assert!(ended.complained.contains(says), "{}", ended.complained);
}

#[test]
fn what_was_selected_and_skipped_is_in_every_form() {
    let stage = Stage::reference(None);
    let place = |form: &str| format!("{form}:{}", stage.path(form).display());
    let places = ["junit", "json", "markdown", "text"].map(place);
    let mut args = vec!["--profile", "core", "--skip", "status.version", "status.healthz-ok"];
    args.extend(["--reproduce", "make reports"]);
    args.extend(places.iter().flat_map(|place| ["--report", place]));
    let ended = stage.check(&args);
    assert_eq!(ended.code, 0, "{ended:?}");
    for (form, says) in [
        ("text", "skipped: status.version, status.healthz-ok"),
        ("text", "profiles not selected: limits, hardening, concurrency, replicas, rotation"),
        ("text", "conformant but for 2 checks that were skipped"),
        ("markdown", "Skipped: `status.version`, `status.healthz-ok`."),
        ("markdown", "Profiles not selected: limits, hardening, concurrency"),
        ("json", "\"skipped\": [\n    \"status.version\",\n    \"status.healthz-ok\"\n  ]"),
        ("json", "\"selection\": {"),
        ("junit", "<skipped message=\"left out by --skip\"/>"),
        ("junit", "<property name=\"profiles\" value=\"core\"/>"),
    ] {
        assert!(stage.read(form).contains(says), "{form}: {says}: {}", stage.read(form));
    }
}
