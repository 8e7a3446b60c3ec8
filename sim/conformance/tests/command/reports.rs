//! What is written where; each form's text is compared with a golden file in `src/reports.rs`.

use crate::stage::{Stage, run};

#[test]
fn each_form_goes_to_its_file() {
    let stage = Stage::reference(Some("version-v1"));
    let place = |form: &str, name: &str| format!("{form}{}", stage.path(name).display());
    let places = [
        place("junit:", "out"),
        place("", "out.json"),
        place("markdown:", "out.md"),
        place("text:", "out.txt"),
    ];
    let mut args = vec!["--run", "status.version", "--implementation", "reference", "--seed", "3"];
    args.extend(["--implementation-version", "1.0", "--implementation-url", "https://x.example"]);
    args.extend(places.iter().flat_map(|place| ["--report", place]));
    let ended = stage.check(&args);
    assert_eq!(ended.code, 1, "{ended:?}");
    for (name, has) in [
        ("out", "<failure message=\"version is &quot;v1&quot;\" type=\"must_failed\">"),
        ("out.json", "\"verdict\": \"must_failed\""),
        ("out.md", "# KMS v2 conformance of reference 1.0"),
        ("out.txt", "FAIL   MUST   status.version"),
    ] {
        assert!(stage.read(name).contains(has), "{name}: {}", stage.read(name));
    }
    assert_eq!(stage.read("out.txt"), ended.said, "the terminal has it, too");
}

#[test]
fn two_reports_are_compared() {
    let (old, new) = (Stage::reference(None), Stage::reference(Some("version-v1")));
    let mut paths = Vec::new();
    for stage in [&old, &new] {
        let path = stage.path("out.json").display().to_string();
        stage.check(&["--run", "status.version", "--report", &path]);
        paths.push(path);
    }
    let worse = run(&["diff", &paths[0], &paths[1]]);
    assert_eq!(worse.code, 1, "{worse:?}");
    assert!(worse.said.contains("passed -> must_failed"), "{}", worse.said);
    assert_eq!(run(&["diff", &paths[1], &paths[0]]).code, 0);
    assert!(run(&["diff", &paths[0], &paths[0]]).said.contains("no check ended differently"));
}

#[test]
fn a_report_of_another_form_is_not_compared() {
    let stage = Stage::reference(None);
    let path = stage.path("out.json").display().to_string();
    stage.check(&["--run", "status.version", "--report", &path]);
    let other = stage.read("out.json").replace("kms-conformance/1", "kms-conformance/2");
    let other = stage.file("other.json", &other);
    let ended = run(&["diff", &path, &other]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.complained.contains("other.json: its schema is \"kms-conformance/2\""));
}

#[test]
fn a_should_that_does_not_count_is_no_failure_for_a_ci_server() {
    let stage = Stage::reference(Some("version-v2beta1"));
    let path = stage.path("out.xml").display().to_string();
    let args = ["--run", "status.version-v2", "status.version", "--report", &path];
    assert_eq!(stage.check(&args).code, 0);
    let xml = stage.read("out.xml");
    assert!(!xml.contains("<failure") && xml.contains("<skipped message=\"SHOULD"), "{xml}");
    assert_eq!(stage.check(&[&["--strict"], &args[..]].concat()).code, 1);
    assert!(stage.read("out.xml").contains("<failure"), "{}", stage.read("out.xml"));
}
