//! Which key is current, which are refused, and that nothing becomes unreadable.

use std::fs;
use std::path::Path;

use kleidi_harness::{Plugin, Shim, SoftHsm, Stage};
use tonic::Code;

use crate::{SEED, running, wait_healthy, wait_other_key, wait_outage, wait_says};

#[test]
fn a_new_key_with_a_higher_id_becomes_current_without_a_restart() {
    let Some((_stage, token, plugin)) = running("new key") else { return };
    let mut client = plugin.client();
    let first = client.status().unwrap().key_id;
    let old = client.encrypt(SEED).unwrap();
    assert_eq!(old.key_id, first);
    token.p11(&["generate", "kek", "02"]);
    let second = wait_other_key(&plugin, &first);
    // This connection has not been told of it yet: Encrypt agrees with its last Status.
    assert_eq!(client.encrypt(SEED).unwrap().key_id, first);
    assert_eq!(client.status().unwrap().key_id, second);
    let new = client.encrypt(SEED).unwrap();
    assert_eq!(new.key_id, second);
    for wrapped in [&old, &new] {
        assert_eq!(client.decrypt(wrapped).unwrap(), SEED);
    }
    // A lower id only unwraps, whenever it was made.
    token.p11(&["generate", "kek", "0100"]);
    let third = wait_other_key(&plugin, &second);
    token.p11(&["generate", "kek", "09"]);
    std::thread::scope(|_| wait_healthy(&plugin));
    assert_eq!(plugin.key_id(), third);
    assert_eq!(plugin.client().decrypt(&old).unwrap(), SEED);
}

#[test]
fn the_same_key_has_the_same_id_on_every_node_and_after_a_restart() {
    let Some((stage, token, mut plugin)) = running("same id") else { return };
    let id = plugin.key_id();
    let wrapped = plugin.client().encrypt(SEED).unwrap();
    plugin.process.kill();
    plugin.start_again();
    assert_eq!(plugin.key_id(), id);
    assert_eq!(plugin.client().decrypt(&wrapped).unwrap(), SEED);
    let other = Plugin::new(&stage, "other", &token.copy(&stage, "other-token")).start();
    assert_eq!(other.key_id(), id);
    assert_eq!(other.client().decrypt(&wrapped).unwrap(), SEED);
}

#[test]
fn another_key_under_the_same_name_has_another_id_and_opens_nothing() {
    let Some((_stage, token, plugin)) = running("recreated") else { return };
    let id = plugin.key_id();
    let wrapped = plugin.client().encrypt(SEED).unwrap();
    token.p11(&["delete", "kek", "01"]);
    token.p11(&["generate", "kek", "01"]);
    let other = wait_other_key(&plugin, &id);
    assert_ne!(id, other);
    let error = plugin.client().decrypt(&wrapped).unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    assert!(error.message().contains(&id), "{error}");
    assert!(plugin.process.log().contains("a key is gone from the KMS"));
}

#[test]
fn a_deleted_key_is_an_outage_that_says_so() {
    let Some((_stage, token, plugin)) = running("deleted") else { return };
    wait_healthy(&plugin);
    token.p11(&["delete", "kek", "01"]);
    let code = wait_says(&plugin, "cannot find an AES key with label \"kek\"");
    assert_eq!(code, Code::FailedPrecondition);
    let error = plugin.client().encrypt(SEED).unwrap_err();
    assert_ne!(error.code(), Code::Ok);
}

#[test]
fn a_weak_key_is_refused_unless_that_is_accepted() {
    let stage = Stage::new("weak");
    let Some(token) = SoftHsm::with_token(&stage, "token") else { return };
    token.p11(&["generate", "kek", "01", "weak"]);
    let config = Plugin::new(&stage, "plugin", &token);
    let output = config.run(&["check", "--live"]);
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for text in ["CKA_PRIVATE is not set", "CKA_SENSITIVE is not set", "CKA_EXTRACTABLE is set"] {
        assert!(said.contains(text), "{said}");
    }
    let plugin = config.clone().start();
    let error = wait_outage(&plugin);
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    drop(plugin);

    let plugin = config.append("  allowWeakKeys: true\n").start();
    wait_healthy(&plugin);
    assert!(plugin.process.log().contains("the current key is weak"), "{}", plugin.process.log());
}

#[test]
fn a_newer_weak_key_only_unwraps() {
    let Some((_stage, token, plugin)) = running("newer weak") else { return };
    let id = plugin.key_id();
    token.p11(&["generate", "kek", "02", "weak"]);
    kleidi_harness::eventually("a warning", || {
        let log = plugin.process.log();
        if log.contains("is newer but only unwraps") { Ok(()) } else { Err(log) }
    });
    assert_eq!(plugin.key_id(), id);
}

#[test]
fn two_keys_that_claim_to_be_current_are_an_outage_but_old_data_stays_readable() {
    let Some((_stage, token, plugin)) = running("ambiguous") else { return };
    let id = plugin.key_id();
    let wrapped = plugin.client().encrypt(SEED).unwrap();
    // None of the two is current by itself first, which would then be gone.
    token.p11(&["generate", "kek", "00"]);
    token.p11(&["generate", "kek", "00"]);
    token.p11(&["set", "kek", "00", "id=02"]);
    let code = wait_says(&plugin, "several keys have label \"kek\", CKA_ID 02");
    assert_eq!(code, Code::FailedPrecondition);
    assert_eq!(plugin.client().decrypt(&wrapped).unwrap(), SEED);
    token.p11(&["delete", "kek", "02"]);
    assert_eq!(wait_healthy(&plugin), id);
}

#[test]
fn the_configuration_can_name_the_current_key() {
    let stage = Stage::new("pinned");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let first = Plugin::new(&stage, "first", &token).start();
    let id = first.key_id();
    token.p11(&["generate", "kek", "02"]);
    let newer = wait_other_key(&first, &id);
    let wrapped = first.client().encrypt(SEED).unwrap();
    // Another node, which is to follow later: it reads what the first one writes.
    let pinned = Plugin::new(&stage, "pinned", &token).append("  ckaId: \"01\"\n").start();
    assert_eq!(pinned.key_id(), id);
    assert_eq!(pinned.client().decrypt(&wrapped).unwrap(), SEED);
    assert_eq!(wrapped.key_id, newer);
    let missing = Plugin::new(&stage, "missing", &token).append("  ckaId: \"07\"\n").start();
    wait_says(&missing, "no such key");
}

#[test]
fn a_key_that_may_not_encrypt_any_more_still_decrypts() {
    let Some((_stage, token, plugin)) = running("retired") else { return };
    let first = plugin.key_id();
    let old = plugin.client().encrypt(SEED).unwrap();
    token.p11(&["generate", "kek", "02"]);
    let second = wait_other_key(&plugin, &first);
    token.p11(&["set", "kek", "01", "encrypt=false"]);
    let mut plugin = plugin;
    for restart in [false, true] {
        if restart {
            plugin.process.terminate();
            plugin.start_again();
        }
        assert_eq!(wait_healthy(&plugin), second);
        assert_eq!(plugin.client().decrypt(&old).unwrap(), SEED);
        let mut tampered = old.clone();
        tampered.ciphertext[20] ^= 1;
        // Of a key without an id it cannot be told whether these are its data.
        kleidi_harness::eventually("the change to be seen", || {
            match plugin.client().decrypt(&tampered).unwrap_err() {
                error if error.code() == Code::NotFound => Ok(()),
                error if error.code() == Code::InvalidArgument => Err(error.to_string()),
                error => panic!("{error}"),
            }
        });
        assert!(!plugin.process.log().contains("a key is gone"), "{}", plugin.process.log());
    }
    let check = plugin.config().run(&["check", "--live"]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("only unwraps, and may not encrypt: label \"kek\", CKA_ID 01"), "{said}");
    // The other way round: with the current one retired, the older takes over, and is said to.
    token.p11(&["set", "kek", "01", "encrypt=true"]);
    token.p11(&["set", "kek", "02", "encrypt=false"]);
    assert_eq!(wait_other_key(&plugin, &second), first);
}

/// What it wrapped cannot be read: no reason to go back to an older key, and to call that well.
#[test]
fn a_current_key_that_may_not_decrypt_any_more_is_an_outage() {
    let Some((_stage, token, mut plugin)) = running("may not decrypt") else { return };
    let first = plugin.key_id();
    token.p11(&["generate", "kek", "02"]);
    let second = wait_other_key(&plugin, &first);
    // That it may not encrypt either makes it no better.
    for further in [&[][..], &["set", "kek", "02", "encrypt=false"][..]] {
        token.p11(&["set", "kek", "02", "decrypt=false"]);
        if !further.is_empty() {
            token.p11(further);
        }
        for restart in [false, true] {
            if restart {
                plugin.process.terminate();
                plugin.start_again();
            }
            wait_says(&plugin, "an older key is not taken instead");
        }
    }
    assert!(!plugin.process.log().contains(&format!("to={first}")), "{}", plugin.process.log());
    token.p11(&["set", "kek", "02", "encrypt=true"]);
    token.p11(&["set", "kek", "02", "decrypt=true"]);
    assert_eq!(wait_healthy(&plugin), second);
}

#[test]
fn a_key_that_is_given_another_id_stays_readable() {
    let Some((_stage, token, plugin)) = running("renumbered") else { return };
    let first = plugin.key_id();
    let old = plugin.client().encrypt(SEED).unwrap();
    token.p11(&["set", "kek", "01", "id=05"]);
    let renumbered = wait_other_key(&plugin, &first);
    assert_eq!(renumbered.split('-').next(), first.split('-').next(), "the same material");
    assert!(renumbered.ends_with("-05"));
    assert_eq!(plugin.client().decrypt(&old).unwrap(), SEED);
}

/// What another node wrote under a key that it made a moment ago is read at once, although there is a
/// key here of which it cannot be told whether it wrote that.
#[test]
fn a_retired_key_does_not_hide_that_another_is_unknown() {
    let stage = Stage::new("retired, unknown");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    token.p11(&["generate", "kek", "0a"]);
    token.p11(&["set", "kek", "01", "encrypt=false"]);
    let config = Plugin::new(&stage, "plugin", &token).replace("period: 1s", "period: 60s");
    let plugin = config.start();
    wait_healthy(&plugin);
    token.p11(&["generate", "kek", "0b"]);
    let other = Plugin::new(&stage, "other", &token).start();
    let wrapped = other.client().encrypt(SEED).unwrap();
    assert!(wrapped.key_id.ends_with("-0b"));
    assert_eq!(plugin.client().decrypt(&wrapped).unwrap(), SEED);
    let unknown = format!("{}-0b", "0".repeat(32));
    let error = plugin.client().decrypt_parts(&wrapped.ciphertext, &unknown, &wrapped.annotations);
    let error = error.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    assert!(error.message().contains("looked up afresh"), "{error}");
}

/// The module can use one of two keys: that is this key's fault, and no outage of the other.
#[test]
fn a_key_that_the_module_cannot_use_takes_no_other_down() {
    let Some((_stage, token, mut plugin)) = running("broken") else { return };
    let first = plugin.key_id();
    let old = plugin.client().encrypt(SEED).unwrap();
    let file = token.object_files().pop().unwrap();
    token.p11(&["generate", "kek", "02"]);
    let second = wait_other_key(&plugin, &first);
    let new = plugin.client().encrypt(SEED).unwrap();
    let newer = token.object_files().into_iter().find(|other| *other != file).unwrap();
    plugin.process.terminate();

    let good = fs::read(&file).unwrap();
    damage_padding(&file);
    plugin.start_again();
    assert_eq!(wait_healthy(&plugin), second);
    assert_eq!(plugin.client().encrypt(SEED).unwrap().key_id, second);
    assert_eq!(plugin.client().decrypt(&new).unwrap(), SEED);
    let log = plugin.process.log();
    assert!(log.contains("CKA_ID 01 is not used: the module cannot use it"), "{log}");
    plugin.client().decrypt(&old).unwrap_err();
    // It heals unaided, although SoftHSM does not look at such a file again by itself.
    fs::write(&file, good).unwrap();
    kleidi_harness::eventually("the old key to work again", || {
        plugin.client().decrypt(&old).map_err(|error| error.to_string())
    });
    plugin.process.terminate();

    // The current one: nothing else takes its place, and the others still unwrap.
    let good = fs::read(&newer).unwrap();
    damage_padding(&newer);
    plugin.start_again();
    let code = wait_says(&plugin, "CKA_ID 02 cannot be trusted: the module cannot use it");
    assert_eq!(code, Code::DataLoss);
    assert_eq!(plugin.client().decrypt(&old).unwrap(), SEED);
    plugin.client().encrypt(SEED).unwrap_err();
    fs::write(&newer, good).unwrap();
    assert_eq!(wait_healthy(&plugin), second);
}

/// Of keys that may not encrypt it cannot be told which one wrapped: all are tried, and one that the
/// module cannot use hides none of the others.
#[test]
fn a_broken_retired_key_hides_no_other() {
    let stage = Stage::new("broken, retired");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let shim = Shim::new(&stage);
    let mut plugin = Plugin::new(&stage, "plugin", &token).with_shim(&shim, &token).start();
    let old = plugin.client().encrypt(SEED).unwrap();
    let first = token.object_files();
    token.p11(&["generate", "kek", "02"]);
    let second = token.object_files().into_iter().find(|file| !first.contains(file)).unwrap();
    token.p11(&["generate", "kek", "03"]);
    plugin.process.terminate();
    for retired in ["01", "02"] {
        token.p11(&["set", "kek", retired, "encrypt=false"]);
    }
    damage_padding(&second);
    plugin.start_again();
    assert!(wait_healthy(&plugin).ends_with("-03"));
    let initialised = shim.count("C_Initialize");
    assert_eq!(plugin.client().decrypt(&old).unwrap(), SEED);
    assert_eq!(shim.count("C_Initialize"), initialised, "there is nothing to heal");
    // It is not said that there is no such key while one cannot be tried.
    let mut tampered = old.clone();
    tampered.ciphertext[20] ^= 1;
    let error = plugin.client().decrypt(&tampered).unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.message().contains("C_DecryptInit: CKR_GENERAL_ERROR"), "{error}");
}

/// A key is damaged while it is in use, and another works: that is no fault of what is in etcd.
#[test]
fn what_a_damaged_key_does_not_open_is_not_called_damaged() {
    let stage = Stage::new("damaged in use");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let plugin = Plugin::new(&stage, "plugin", &token).start();
    let old = plugin.client().encrypt(SEED).unwrap();
    drop(plugin);
    let file = token.object_files().pop().unwrap();
    token.p11(&["generate", "kek", "02"]);
    let config = Plugin::new(&stage, "plugin", &token).replace("period: 1s", "period: 60s");
    let plugin = config.start();
    assert!(wait_healthy(&plugin).ends_with("-02"));
    assert_eq!(plugin.client().decrypt(&old).unwrap(), SEED);
    damage_value(&file);
    // SoftHSM reads a key again when somebody else has changed it.
    token.p11(&["set", "kek", "01", "encrypt=true"]);
    // Initialising anew, which shows it, is allowed once a second.
    kleidi_harness::eventually("the key to be called damaged", || {
        match plugin.client().decrypt(&old).unwrap_err() {
            error if error.code() == Code::InvalidArgument => panic!("{error}"),
            error if error.code() == Code::NotFound => {}
            error => return Err(error.to_string()),
        }
        let log = plugin.process.log();
        let said = log.contains("CKA_ID 01 is not used: CKA_CHECK_VALUE does not fit");
        if said { Ok(()) } else { Err(log) }
    });
}

/// The module encrypts no more, as an HSM that has been switched to FIPS mode, which takes no IV of ours:
/// what is there is read all the same.
#[test]
fn what_the_module_does_not_encrypt_with_still_decrypts() {
    let stage = Stage::new("encrypts no more");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let shim = Shim::new(&stage);
    let mut plugin = Plugin::new(&stage, "plugin", &token).with_shim(&shim, &token).start();
    let first = plugin.key_id();
    let old = plugin.client().encrypt(SEED).unwrap();
    token.p11(&["generate", "kek", "02"]);
    let second = wait_other_key(&plugin, &first);
    let new = plugin.client().encrypt(SEED).unwrap();
    plugin.process.terminate();

    shim.order("C_EncryptInit rv=0x71"); // MECHANISM_PARAM_INVALID
    plugin.start_again();
    let code = wait_says(&plugin, "CKA_ID 01: C_EncryptInit: CKR_MECHANISM_PARAM_INVALID");
    assert_eq!(code, Code::FailedPrecondition);
    for wrapped in [&old, &new] {
        assert_eq!(plugin.client().decrypt(wrapped).unwrap(), SEED);
    }
    plugin.client().encrypt(SEED).unwrap_err();
    shim.order("");
    assert_eq!(wait_healthy(&plugin), second);
    assert_eq!(plugin.client().decrypt(&old).unwrap(), SEED);
    plugin.process.terminate();

    // One that does not decrypt either is of no use.
    shim.order("C_EncryptInit rv=0x71\nC_DecryptInit rv=0x68"); // KEY_FUNCTION_NOT_PERMITTED
    plugin.start_again();
    wait_says(&plugin, "CKA_ID 01: C_EncryptInit: CKR_MECHANISM_PARAM_INVALID");
    let error = plugin.client().decrypt(&old).unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
}

/// SoftHSM keeps no checksum of its files: one damaged byte is another key that works perfectly.
#[test]
fn a_key_damaged_on_the_disk_is_found_out_before_it_is_used() {
    let stage = Stage::new("damaged");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let config = Plugin::new(&stage, "plugin", &token);
    let plugin = config.clone().start();
    let wrapped = plugin.client().encrypt(SEED).unwrap();
    drop(plugin);
    let file = token.object_files().pop().expect("the key has a file");
    let good = fs::read(&file).unwrap();
    damage_value(&file);

    let output = config.run(&["check", "--live"]);
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    let plugin = config.start();
    let code = wait_says(&plugin, "CKA_CHECK_VALUE does not fit");
    assert_eq!(code, Code::DataLoss);
    assert!(plugin.client().encrypt(SEED).is_err());
    assert!(plugin.client().decrypt(&wrapped).is_err());
    // An older key does not take its place.
    token.p11(&["generate", "kek", "00"]);
    wait_says(&plugin, "CKA_CHECK_VALUE does not fit");

    fs::write(&file, good).unwrap();
    drop(plugin);
    let plugin = Plugin::new(&stage, "plugin", &token).start();
    wait_healthy(&plugin);
    assert_eq!(plugin.client().decrypt(&wrapped).unwrap(), SEED);
}

/// Flips a bit in the first block of `CKA_VALUE` (0x11), which SoftHSM keeps as IV and ciphertext: 16
/// and 48 bytes.
fn damage_value(file: &Path) {
    damage(file, 16);
}

/// Flips a bit in its last block, which holds nothing but padding: SoftHSM cannot decrypt it.
pub(crate) fn damage_padding(file: &Path) {
    damage(file, 16 + 47);
}

/// Flips a bit of `CKA_VALUE`, at this distance from its beginning.
fn damage(file: &Path, offset: usize) {
    let mut content = fs::read(file).unwrap();
    let mut header = [0; 16];
    (header[7], header[15]) = (0x11, 3);
    let at = content.windows(16).position(|window| window == header).expect("there is a value");
    content[at + 16 + 8 + offset] ^= 1;
    fs::write(file, content).unwrap();
}

/// `softhsm2-util --import` takes the file for a text and cuts it off: found by these very tests.
#[test]
fn a_key_that_an_import_has_cut_short_is_refused_in_words() {
    let stage = Stage::new("cut short");
    let Some(token) = SoftHsm::with_token(&stage, "token") else { return };
    let mut key = [b'k'; 32];
    key[10] = 0;
    token.add_key("kek", 1, &key);
    let plugin = Plugin::new(&stage, "plugin", &token).start();
    wait_says(&plugin, "it is 10 bytes long instead of 32 (softhsm2-util --import cuts");
}

/// Ids and ciphertexts are in etcd for years. These were computed once with another library
/// (Python's `cryptography`): any module that does AES-GCM to the standard gives the same.
#[test]
fn the_id_and_the_format_of_a_known_key_are_what_they_were() {
    const KEY_ID: &str = "73c7c82ef7f91328ff485666660b3b33-2a";
    const CIPHERTEXT: &str = "0101000102030405060708090a0bc53a3588c7bda16782d350390190928ede3393ba84\
                              efaaf97f156743c9e84fb89fc69bebc96d160e9165451a3709f6db";
    let stage = Stage::new("golden");
    let Some(token) = SoftHsm::with_token(&stage, "token") else { return };
    token.add_key("kek", 0x2a, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`");
    let plugin = Plugin::new(&stage, "plugin", &token).start();
    assert_eq!(wait_healthy(&plugin), KEY_ID);
    let ciphertext: Vec<u8> = (0..CIPHERTEXT.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&CIPHERTEXT[at..at + 2], 16).unwrap())
        .collect();
    let opened =
        plugin.client().decrypt_parts(&ciphertext, KEY_ID, &std::collections::BTreeMap::new());
    assert_eq!(opened.unwrap(), SEED);
}
