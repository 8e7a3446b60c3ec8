//! Plugins on server stacks of other authors: what fails is what the lists say, and no report is older
//! than its list.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The folder of the reports.
fn reports() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reports")
}

/// The folder that `ci/setup` fills; nothing, visibly, without it.
fn cached(plugin: &str) -> Option<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache"),
    };
    let path = cache.join("kleidi/foreign-plugins/1.37.2").join(plugin);
    if path.is_file() {
        return Some(path);
    }
    let why = format!("SKIPPED: {} is missing; ci/setup builds it", path.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
    if let Some(list) = std::env::var_os("KLEIDI_SKIPPED") {
        let list = std::fs::File::options().create(true).append(true).open(list);
        writeln!(list.unwrap(), "{why}").unwrap();
    }
    let _ = writeln!(std::io::stderr(), "{why}");
    None
}

/// The ids of the checks that ended like this, in the catalogue's order.
fn ids(report: &Value, verdicts: &[&str]) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap().iter();
    checks
        .filter(|check| verdicts.contains(&check["verdict"].as_str().unwrap()))
        .map(|check| check["id"].as_str().unwrap().to_owned())
        .collect()
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Makes the report again, and compares it with the list and with the report that is kept.
fn as_listed(plugin: &str, not_run: &[&str]) {
    if cached(plugin).is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let made = Command::new(reports().join("make"))
        .arg(plugin)
        .env("REPORTS", directory.path())
        .env("KMS_CONFORMANCE", env!("CARGO_BIN_EXE_kms-conformance"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&made.stdout);
    assert!(made.status.success(), "{said}{}", String::from_utf8_lossy(&made.stderr));
    let name = format!("{plugin}.json");
    let (made, kept) = (read(&directory.path().join(&name)), read(&reports().join(&name)));
    let list = std::fs::read_to_string(reports().join("known-failing").join(plugin)).unwrap();
    let mut listed: Vec<&str> = list
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let failures = ["must_failed", "should_failed", "info_failed"];
    let mut failed = ids(&made, &failures);
    failed.sort();
    listed.sort_unstable();
    assert_eq!(failed, listed, "{said}");
    assert_eq!(ids(&made, &["not_run"]), not_run, "{said}");
    assert_eq!(ids(&made, &["engine_error"]), [""; 0], "{said}");
    for verdicts in [&failures[..], &["passed"], &["not_run"]] {
        assert_eq!(
            ids(&made, verdicts),
            ids(&kept, verdicts),
            "make it again: reports/make {plugin}"
        );
    }
    let markdown = std::fs::read_to_string(directory.path().join(format!("{plugin}.md"))).unwrap();
    assert!(markdown.contains("## Reproduce") && markdown.contains(&format!("make {plugin}")));
}

#[test]
fn a_plugin_over_upstreams_server_fails_what_is_listed() {
    // It has no annotations, and logs nothing.
    as_listed("aes-gcm", &["decrypt.swapped-annotations", "hardening.log-canary"]);
}

#[test]
fn the_plugin_of_upstreams_tests_fails_what_is_listed() {
    // It knows no key_id, its annotations are always the same, and it logs no call.
    let not_run =
        ["decrypt.unknown-key-id-code", "decrypt.swapped-annotations", "hardening.log-canary"];
    as_listed("base64", &not_run);
}
