//! The bindings in `src/gen` are what the `.proto` files say.
//!
//! `UPDATE=1 cargo test -p kleidi-proto --test regenerate` writes them anew.

#![allow(clippy::expect_used, reason = "this is a test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Messages that carry a seed in clear: `src/lib.rs` gives them a `Debug` that does not print it.
const SECRET_MESSAGES: [&str; 2] = [".v2.EncryptRequest", ".v2.DecryptResponse"];

#[test]
fn bindings_match_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for package in ["kms", "encryption"] {
        let generated = generate(root, package);
        let committed = root.join(format!("src/gen/{package}.rs"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&committed, &generated).expect("bindings can be written");
        }
        let current = fs::read_to_string(&committed).unwrap_or_default();
        assert!(
            current == generated,
            "{} differs from {package}/v2/api.proto; run: UPDATE=1 cargo test -p kleidi-proto --test regenerate",
            committed.display()
        );
    }
}

/// Compiles `<package>/v2/api.proto` and returns the Rust source.
fn generate(root: &Path, package: &str) -> String {
    let proto = root.join(package).join("v2/api.proto");
    let descriptors = protox::compile([&proto], [root.join(package)]).expect("proto compiles");
    let out_dir: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(package);
    fs::create_dir_all(&out_dir).expect("temporary directory can be made");
    tonic_prost_build::configure()
        .btree_map(".")
        .skip_debug(SECRET_MESSAGES)
        // Can have an owner that wipes it.
        .bytes(".v2.DecryptResponse.plaintext")
        // A connector of our own is always used: the sockets are Unix sockets.
        .build_transport(false)
        .out_dir(&out_dir)
        .compile_fds(descriptors)
        .expect("bindings can be generated");
    fs::read_to_string(out_dir.join("v2.rs")).expect("the package is named v2")
}
