//! Where the real components are.
//!
//! Looked for, in this order: in `KUBEBUILDER_ASSETS` (kube-apiserver only if it is of the version
//! asked for), in the cache that `ci/setup` fills (`$XDG_CACHE_HOME/kleidi`), in `PATH`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::stage::eprint;

/// The SoftHSM module's places on the common distributions.
const SOFTHSM_MODULES: [&str; 5] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
];

/// Versions of kube-apiserver that tests run with.
pub const KUBE_APISERVERS: [&str; 3] = ["1.29.6", "1.31.0", "1.37.2"];

/// Version of etcd that tests run with.
pub const ETCD: &str = "3.7.0";

/// Version of OpenBao that tests run with.
pub const OPENBAO: &str = "2.7.2";

/// Version of HashiCorp Vault that tests run with.
pub const VAULT: &str = "1.21.0";

/// A kube-apiserver of that version.
#[must_use]
pub fn kube_apiserver(version: &str) -> Option<PathBuf> {
    let asset = std::env::var_os("KUBEBUILDER_ASSETS")
        .map(|assets| PathBuf::from(assets).join("kube-apiserver"))
        .filter(|binary| prints(binary, &format!("Kubernetes v{version}")));
    let cached = || cached("kube-apiserver", version, "kube-apiserver");
    found(&format!("kube-apiserver {version}"), asset.or_else(cached))
}

/// An etcd.
#[must_use]
pub fn etcd() -> Option<PathBuf> {
    let asset = std::env::var_os("KUBEBUILDER_ASSETS")
        .map(|assets| PathBuf::from(assets).join("etcd"))
        .filter(|binary| binary.is_file());
    found("etcd", asset.or_else(|| cached("etcd", ETCD, "etcd")).or_else(|| in_path("etcd")))
}

/// An OpenBao.
#[must_use]
pub fn openbao() -> Option<PathBuf> {
    found("OpenBao", cached("openbao", OPENBAO, "bao").or_else(|| in_path("bao")))
}

/// A HashiCorp Vault.
#[must_use]
pub fn vault() -> Option<PathBuf> {
    found("Vault", cached("vault", VAULT, "vault").or_else(|| in_path("vault")))
}

/// The SoftHSM module.
#[must_use]
pub fn softhsm_module() -> Option<PathBuf> {
    let module = SOFTHSM_MODULES.iter().map(PathBuf::from).find(|path| path.is_file());
    found("the SoftHSM module (package softhsm2)", module)
}

/// The NSS softokn module and `certutil`, which makes its database.
#[must_use]
pub fn softokn_module() -> Option<(PathBuf, PathBuf)> {
    let module = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"]
        .iter()
        .map(|directory| Path::new(directory).join("libsoftokn3.so"))
        .find(|path| path.is_file());
    let both = module.zip(in_path("certutil"));
    found("NSS softokn and certutil (packages libnss3, libnss3-tools)", both)
}

/// `strace`, with which a process is killed at a chosen system call.
#[must_use]
pub fn strace() -> Option<PathBuf> {
    found("strace", in_path("strace"))
}

/// `openssl`, with which a transit key is wrapped for import.
#[must_use]
pub fn openssl() -> Option<PathBuf> {
    found("openssl", in_path("openssl"))
}

/// `softhsm2-util`.
#[must_use]
pub fn softhsm_util() -> Option<PathBuf> {
    found("softhsm2-util (package softhsm2)", in_path("softhsm2-util"))
}

fn found<T>(what: &str, component: Option<T>) -> Option<T> {
    if component.is_none() {
        skip(&format!("{what} is missing; ci/setup installs it"));
    }
    component
}

/// Says that a test cannot run.
///
/// # Panics
///
/// With `CI=true`: there, everything has to run.
#[allow(clippy::panic, reason = "a test that could not run is not a pass")]
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("SKIPPED {test}: {why}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{line}");
    // The file is how ci/test shows it, although the test harness captures what tests print.
    if let Some(file) = std::env::var_os("KLEIDI_SKIPPED") {
        use std::io::Write as _;
        let _ = std::fs::File::options()
            .create(true)
            .append(true)
            .open(file)
            .and_then(|mut file| writeln!(file, "{line}"));
    }
    eprint(&line);
}

fn cached(component: &str, version: &str, binary: &str) -> Option<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache"),
    };
    let path = cache.join("kleidi").join(component).join(version).join(binary);
    path.is_file().then_some(path)
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file())
}

fn prints(binary: &Path, version: &str) -> bool {
    Command::new(binary)
        .arg("--version")
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == version)
}
