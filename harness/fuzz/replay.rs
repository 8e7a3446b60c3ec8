//! What was kept for the fuzz targets holds: everything in `corpus`, which reaches what there is, and in
//! `regressions`, which once did not hold.

#![allow(clippy::unwrap_used, reason = "these are tests")]

#[path = "src/lib.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use targets::{TARGETS, Target};

/// Longest time for one file. None takes a hundredth of it, but on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/fuzz").join(name)
}

/// Files of a folder, in the order of their names; none, if it is not there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let files: BTreeSet<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.into_iter().collect()
}

/// Runs one file; says what is wrong, also of what panics on a thread or a task of its own and is survived
/// there.
fn run(target: Target, file: &Path, panics: &mpsc::Receiver<String>) -> Option<String> {
    let bytes = fs::read(file).unwrap();
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        let outcome = panic::catch_unwind(|| (target.1)(&bytes));
        let _ = done.send(outcome.is_ok());
    });
    let fault = match ended.recv_timeout(PATIENCE) {
        Ok(_) => panics.try_iter().next()?,
        Err(_) => format!("takes longer than {PATIENCE:?}"),
    };
    Some(format!("{} on {}: {fault}", target.0, file.display()))
}

#[test]
fn everything_kept_holds() {
    let (sender, panics) = mpsc::channel();
    panic::set_hook(Box::new(move |panic| {
        let _ = sender.send(panic.to_string());
    }));
    let mut faults = Vec::new();
    for target in TARGETS {
        let corpus = files(&folder("corpus").join(target.0));
        if corpus.len() < 3 {
            faults.push(format!("{}: the corpus has {} files", target.0, corpus.len()));
        }
        let kept = corpus.into_iter().chain(files(&folder("regressions").join(target.0)));
        faults.extend(kept.filter_map(|file| run(target, &file, &panics)));
    }
    let _ = panic::take_hook();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Each target has its program, and nothing is kept for one that is not there.
#[test]
fn every_target_is_there() {
    let names: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let stems = |name: &str| -> BTreeSet<String> {
        let files = files(&folder(name));
        files.iter().map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(stems("fuzz_targets"), names);
    assert_eq!(stems("corpus"), names);
    assert!(stems("regressions").is_subset(&names));
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    for name in &names {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}
