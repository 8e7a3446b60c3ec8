//! A module that is not SoftHSM: NSS softokn, which takes parameters, has no key check values and says
//! a wrong length for the result of AES-GCM.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use kleidi_harness::{Plugin, SoftHsm, Stage, components};
use tonic::Code;

use crate::{SEED, wait_healthy};

#[test]
fn softokn_serves_as_well_as_softhsm() {
    let stage = Stage::new("softokn");
    let Some((module, certutil)) = components::softokn_module() else { return };
    let Some(token) = SoftHsm::empty(&stage, "token") else { return };
    token.write_pin(SoftHsm::PIN);
    let database = stage.make_dir("nss");
    fs::set_permissions(&database, fs::Permissions::from_mode(0o700)).unwrap();
    let directory = format!("sql:{}", database.display());
    let made = Command::new(certutil)
        .args(["-N", "-d", &directory, "-f"])
        .arg(token.pin_file())
        .status()
        .unwrap();
    assert!(made.success());
    let config = Plugin::new(&stage, "plugin", &token)
        .replace(&token.module().display().to_string(), &module.display().to_string())
        .replace("tokenLabel: kleidi", "tokenLabel: NSS Certificate DB")
        .append(&format!(
            "  moduleParameters: \"configdir='{directory}' certPrefix='' keyPrefix='' \
             secmod='secmod.db' flags=\"\n"
        ));
    let output = config.run(&["init"]);
    assert!(output.status.success(), "{output:?}");
    let output = config.run(&["check", "--live"]);
    assert!(output.status.success(), "{output:?}");

    let mut plugin = config.start();
    let id = wait_healthy(&plugin);
    let wrapped = plugin.client().encrypt(SEED).unwrap();
    assert_eq!(wrapped.ciphertext.len(), 2 + 12 + 32 + 16);
    let mut tampered = wrapped.clone();
    tampered.ciphertext[30] ^= 1;
    let error = plugin.client().decrypt(&tampered).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    plugin.process.kill();
    plugin.start_again();
    assert_eq!(wait_healthy(&plugin), id);
    assert_eq!(plugin.client().decrypt(&wrapped).unwrap(), SEED);
}
