//! Programs of this checkout that tests run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Everything but the plugin, which is built as it is delivered. All of it at once: one by one the features of
/// what they depend on would differ, and that be built each time. `ci/test` does the same.
const OTHERS: &[&str] = &["--workspace", "--exclude", "kleidi", "--features", "kleidi-sim/cli"];

/// The plugin: `KLEIDI_BIN`, or built from this checkout.
///
/// # Panics
///
/// If it cannot be built.
#[must_use]
pub fn plugin() -> PathBuf {
    match std::env::var_os("KLEIDI_BIN") {
        Some(binary) => binary.into(),
        None => build(&["--package", "kleidi", "--bin", "kleidi"], "kleidi"),
    }
}

/// A broken twin of the plugin: an example of the package `kleidi`.
///
/// # Panics
///
/// If it cannot be built.
#[must_use]
pub fn mutant(name: &str) -> PathBuf {
    let target = ["--package", "kleidi", "--example", name];
    build(&target, &format!("examples/{name}"))
}

/// The tool that makes and changes keys on a token.
///
/// # Panics
///
/// If it cannot be built.
#[must_use]
pub fn p11() -> PathBuf {
    build(OTHERS, "p11")
}

/// The conformance suite.
///
/// # Panics
///
/// If it cannot be built.
#[must_use]
pub fn conformance() -> PathBuf {
    build(OTHERS, "kms-conformance")
}

/// The model of kube-apiserver as a program.
///
/// # Panics
///
/// If it cannot be built.
#[must_use]
pub fn sim() -> PathBuf {
    build(OTHERS, "kleidi-sim")
}

/// The gRPC service that does nothing, for benchmarks.
///
/// # Panics
///
/// If it cannot be built.
#[must_use]
pub fn echo() -> PathBuf {
    build(OTHERS, "echo")
}

/// The PKCS#11 module that misbehaves by a script.
///
/// # Panics
///
/// If it cannot be built.
#[must_use]
pub fn pkcs11_shim() -> PathBuf {
    build(OTHERS, "libkleidi_pkcs11_shim.so")
}

/// A command in the checkout's root, which may call cargo: it builds where this test was built.
///
/// # Panics
///
/// If this is no test of cargo's.
#[must_use]
pub fn script(path: &str) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path));
    as_built(&mut command);
    command
}

/// Builds a target as this test was built, and gives the path of `file` in the target directory.
fn build(target: &[&str], file: &str) -> PathBuf {
    // One cargo at a time: the others would only wait for its lock.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut cargo = Command::new(env!("CARGO"));
    let profile = as_built(&mut cargo);
    cargo.args(["build", "--quiet"]).args(target);
    if profile.file_name().is_some_and(|profile| profile == "release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo can be run");
    assert!(status.success(), "cannot build {target:?}");
    profile.join(file)
}

/// Lets a command build in the target directory of this test; gives that of its profile.
fn as_built(command: &mut Command) -> PathBuf {
    // …/target/<profile>/deps/<this test>
    let this = std::env::current_exe().expect("a test knows its own path");
    let profile = this.ancestors().find(|path| path.join(".fingerprint").is_dir());
    let profile = profile.expect("a test is in target/<profile>");
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command.env("CARGO_TARGET_DIR", profile.parent().expect("target/<profile>"));
    // What cargo tells a test about its package is not about what is built here: build scripts that
    // look at it would run again, and half of the dependencies with them.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    profile.to_owned()
}
