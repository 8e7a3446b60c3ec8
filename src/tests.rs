//! The architecture as the crate's documentation states it.

use std::fs;
use std::path::{Path, PathBuf};

/// Who may use whom, besides itself; leaves are listed, too. The picture is in `src/lib.rs`.
const ARROWS: [(&str, &[&str]); 17] = [
    ("authority", &[]),
    ("hardening", &[]),
    ("key_id", &[]),
    ("limits", &[]),
    ("random", &[]),
    ("secret", &[]),
    ("sim_point", &[]),
    ("trusted_path", &[]),
    ("backend", &["key_id", "random", "secret", "trusted_path"]),
    ("provider", &["backend", "key_id", "limits", "random", "secret", "sim_point"]),
    ("service", &["limits", "provider", "secret"]),
    ("server", &["authority", "limits", "provider", "service", "sim_point"]),
    ("socket", &["server", "trusted_path"]),
    ("config", &["backend", "limits", "provider", "socket"]),
    ("telemetry", &["config"]),
    ("notify", &["provider"]),
    (
        "cli",
        &[
            "backend",
            "config",
            "hardening",
            "limits",
            "notify",
            "provider",
            "random",
            "secret",
            "server",
            "service",
            "socket",
            "telemetry",
        ],
    ),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The top-level module that a file belongs to; tests may use whatever they like.
fn module(file: &Path) -> Option<String> {
    let inside = file.strip_prefix(source()).unwrap().with_extension("");
    if inside.iter().any(|part| part == "tests") {
        return None;
    }
    let module = inside.iter().next()?.to_str()?.to_owned();
    (module != "lib" && module != "main").then_some(module)
}

#[test]
fn arrows_point_one_way() {
    let mut all = Vec::new();
    files(&source(), &mut all);
    let mut seen = 0;
    for file in all {
        let Some(module) = module(&file) else { continue };
        let (_, allowed) = ARROWS.iter().find(|(name, _)| *name == module).unwrap_or_else(|| {
            panic!("{}: error: the module {module} is not in src/tests.rs", file.display())
        });
        let text = fs::read_to_string(&file).unwrap();
        // What follows is the file's own tests.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap();
            for used in line.split("crate::").skip(1) {
                let used: String =
                    used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                seen += 1;
                let fine = used.is_empty() || used == module || allowed.contains(&used.as_str());
                assert!(
                    fine,
                    "{}:{}: error: {module} must not use {used}",
                    file.display(),
                    number + 1
                );
            }
        }
    }
    assert!(seen > 50, "the uses were found");
}

/// The arrows have no circle: each module uses only those that come before it in a sorted order.
#[test]
fn the_arrows_have_no_circle() {
    let mut done: Vec<&str> = Vec::new();
    while done.len() < ARROWS.len() {
        let next = ARROWS.iter().find(|(name, uses)| {
            !done.contains(name) && uses.iter().all(|used| done.contains(used))
        });
        let (name, _) = next.unwrap_or_else(|| panic!("a circle, beyond {done:?}"));
        done.push(name);
    }
}

/// `unsafe` is in the one file that says why.
#[test]
fn unsafe_is_in_one_file() {
    let mut all = Vec::new();
    files(&source(), &mut all);
    let allowing: Vec<_> = all
        .into_iter()
        .filter(|file| fs::read_to_string(file).unwrap().contains("allow(unsafe_code)"))
        .filter(|file| module(file).is_some())
        .collect();
    assert_eq!(allowing, [source().join("backend/pkcs11/raw.rs")]);
}
