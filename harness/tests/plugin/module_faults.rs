//! What a module can answer that SoftHSM cannot be made to: one test per class of error, with the
//! scripted module in front of SoftHSM.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use kleidi_harness::{Call, Plugin, Shim, SoftHsm, Stage, eventually};
use tonic::Code;

use crate::{SEED, SOON, wait_healthy, wait_outage};
use tokio::time::Instant;

/// A plugin whose module does what it is told. Its background looks are a minute apart, so that what
/// is counted comes from the test's calls.
fn scripted(test: &str, more: &str) -> Option<(Stage, SoftHsm, Shim, Plugin)> {
    let stage = Stage::new(test);
    let token = SoftHsm::with_key(&stage, "token", "kek", 1)?;
    let shim = Shim::new(&stage);
    let config = Plugin::new(&stage, "plugin", &token).with_shim(&shim, &token);
    let plugin = config.replace("period: 1s", "period: 60s").append(more).start();
    wait_healthy(&plugin);
    Some((stage, token, shim, plugin))
}

/// Errors that one retry after the right remedy heals: the caller never sees them.
#[test]
fn what_can_be_healed_is_healed_within_the_call() {
    let Some((_stage, _token, shim, plugin)) = scripted("healed", "") else { return };
    let mut client = plugin.client();
    let wrapped = client.encrypt(SEED).unwrap();
    // Function, code, and the call that the remedy needs.
    for (function, rv, remedy) in [
        ("C_EncryptInit", "0xB3", "C_OpenSession"), // SESSION_HANDLE_INVALID
        ("C_Encrypt", "0xB0", "C_OpenSession"),     // SESSION_CLOSED
        ("C_EncryptInit", "0x90", "C_OpenSession"), // OPERATION_ACTIVE
        ("C_Encrypt", "0x91", "C_OpenSession"),     // OPERATION_NOT_INITIALIZED
        ("C_Encrypt", "0x150", "C_OpenSession"),    // BUFFER_TOO_SMALL
        ("C_DecryptInit", "0xB3", "C_OpenSession"), // SESSION_HANDLE_INVALID
        ("C_EncryptInit", "0x101", "C_Login"),      // USER_NOT_LOGGED_IN
        ("C_DecryptInit", "0x101", "C_Login"),      // USER_NOT_LOGGED_IN
        ("C_EncryptInit", "0x82", "C_FindObjectsInit"), // OBJECT_HANDLE_INVALID
        ("C_DecryptInit", "0x60", "C_FindObjectsInit"), // KEY_HANDLE_INVALID
        ("C_EncryptInit", "0x30", "C_Initialize"),  // DEVICE_ERROR
        ("C_Encrypt", "0x32", "C_Initialize"),      // DEVICE_REMOVED
        ("C_DecryptInit", "0xE0", "C_Initialize"),  // TOKEN_NOT_PRESENT
        ("C_DecryptInit", "0x05", "C_Initialize"),  // GENERAL_ERROR
        ("C_EncryptInit", "0x80000001", "C_Initialize"), // a vendor's own
        ("C_EncryptInit", "0x190", "C_Initialize"), // CRYPTOKI_NOT_INITIALIZED
    ] {
        // Once: the line's first call fails, all later ones are let through.
        settle(&shim);
        let before = shim.count(remedy);
        let counted = shim.count(function);
        let operation = if function.starts_with("C_Encrypt") { "encrypt" } else { "decrypt" };
        shim.order(&format!("{function} once rv={rv}"));
        let outcome = match operation {
            "encrypt" => client.encrypt(SEED).map(|_| ()),
            _ => client.decrypt(&wrapped).map(|_| ()),
        };
        let what = format!("{function} {rv}");
        outcome.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(shim.count(function) > counted + 1, "{what}: it was tried again");
        assert!(shim.count(remedy) > before, "{what}: {remedy} was called");
    }
}

/// Initialising anew is allowed once a second.
fn settle(shim: &Shim) {
    shim.order("");
    let end = Instant::now() + Duration::from_millis(1100);
    eventually(
        "a second to pass",
        || {
            if Instant::now() > end { Ok(()) } else { Err(String::new()) }
        },
    );
}

/// Errors that last: an answer in time, with the function and the code in it, and no crash.
#[test]
fn what_cannot_be_healed_is_an_error_with_the_code_in_it() {
    let Some((_stage, _token, shim, plugin)) = scripted("lasting", "") else { return };
    for (order, code, text) in [
        ("C_Encrypt rv=0x30", Code::Unavailable, "C_Encrypt: CKR_DEVICE_ERROR"),
        ("C_EncryptInit rv=0xB3", Code::Unavailable, "CKR_SESSION_HANDLE_INVALID"),
        ("C_EncryptInit rv=0x101", Code::Unavailable, "CKR_USER_NOT_LOGGED_IN"),
        ("C_EncryptInit rv=0x70", Code::FailedPrecondition, "CKR_MECHANISM_INVALID"),
        ("C_EncryptInit rv=0x80000001", Code::Unavailable, "code 0x80000001"),
    ] {
        settle(&shim);
        wait_healthy(&plugin);
        shim.order(order);
        let begin = Instant::now();
        let error = plugin.client().encrypt(SEED).unwrap_err();
        assert!(begin.elapsed() < Duration::from_secs(3), "{order}: {:?}", begin.elapsed());
        // The call itself, or the look at the keys that it made necessary, meets the error.
        assert!(error.message().contains("CKR_") || error.message().contains("code 0x"), "{error}");
        assert_eq!(error.code(), code, "{order}: {error}");
        assert!(error.message().contains(text), "{order}: {error}");
    }
}

/// SoftHSM says GENERAL_ERROR for a wrong tag. A canary tells a damaged row in etcd from a device that
/// is broken: no initialising anew for each such row.
#[test]
fn bad_data_does_not_drive_the_module_mad() {
    let Some((_stage, _token, shim, plugin)) = scripted("bad data", "") else { return };
    let mut client = plugin.client();
    let wrapped = client.encrypt(SEED).unwrap();
    let initialised = shim.count("C_Initialize");
    for bit in 0..wrapped.ciphertext.len() * 8 {
        let mut tampered = wrapped.clone();
        tampered.ciphertext[bit / 8] ^= 1 << (bit % 8);
        let error = client.decrypt(&tampered).expect_err("no bit may be flipped");
        assert_eq!(error.code(), Code::InvalidArgument, "bit {bit}: {error}");
    }
    for length in 0..wrapped.ciphertext.len() {
        let mut short = wrapped.clone();
        short.ciphertext.truncate(length);
        let error = client.decrypt(&short).expect_err("nothing may be cut off");
        assert_eq!(error.code(), Code::InvalidArgument, "{length} bytes: {error}");
    }
    assert_eq!(client.decrypt(&wrapped).unwrap(), SEED);
    assert_eq!(shim.count("C_Initialize"), initialised);

    settle(&shim);
    // The same code, but now the canary does not sing either: it is the device.
    shim.order("C_Decrypt rv=0x05");
    let error = client.decrypt(&wrapped).unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(shim.count("C_Initialize") > initialised);
    shim.order("");
    wait_healthy(&plugin);
}

/// A module that returns something else than it should is found out before anything is handed out.
#[test]
fn a_module_that_lies_is_found_out_at_the_start() {
    for (order, text) in [
        ("C_Decrypt flip", "it decrypts to something else than was encrypted"),
        ("C_Encrypt flip", ""),
    ] {
        let stage = Stage::new("lies");
        let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
        let shim = Shim::new(&stage);
        shim.order(order);
        let plugin = Plugin::new(&stage, "plugin", &token).with_shim(&shim, &token).start();
        let error = wait_outage(&plugin);
        assert!(error.message().contains(text), "{order}: {error}");
        assert!(plugin.client().encrypt(SEED).is_err());
    }
}

/// A call that does not come back: others are served by a new thread, and the lost one ends when it
/// does come back.
#[test]
fn a_thread_that_does_not_come_back_is_replaced() {
    let Some((_stage, _token, shim, plugin)) = scripted("replaced", "") else { return };
    let wrapped = plugin.client().encrypt(SEED).unwrap();
    // The next call hangs for 12 s, and only that one.
    shim.order("C_DecryptInit once ms=12000");
    let error = plugin.client().decrypt(&wrapped).unwrap_err();
    assert!(matches!(error.code(), Code::DeadlineExceeded | Code::Unavailable), "{error}");
    kleidi_harness::within(SOON, "the others to be served", || {
        plugin.client().decrypt(&wrapped).map(|_| ()).map_err(|error| error.to_string())
    });
    let log = plugin.process.log();
    assert!(log.contains("going on with a new thread"), "{log}");
    kleidi_harness::within(SOON, "the lost thread to come back", || {
        let log = plugin.process.log();
        if log.contains("has returned after all") { Ok(()) } else { Err(log) }
    });
    assert_eq!(plugin.client().decrypt(&wrapped).unwrap(), SEED);
}

/// The two rules that keep SoftHSM from crashing, seen from the module's side, under load with faults
/// and with several threads: a session is used by one thread, and nothing is called during C_Finalize.
#[test]
fn a_session_belongs_to_one_thread_and_finalising_is_done_alone() {
    let Some((_stage, token, shim, plugin)) = scripted("rules", "  workers: 4\n") else { return };
    let wrapped = plugin.client().encrypt(SEED).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (plugin, wrapped) = (&plugin, &wrapped);
            scope.spawn(move || {
                let mut client = plugin.client();
                for _ in 0..150 {
                    // Whether it succeeds is not the point here.
                    let _ = client.decrypt(wrapped);
                    let _ = client.encrypt(SEED);
                }
            });
        }
        for round in 0..4 {
            more_calls(&shim, 400);
            if round % 2 == 0 {
                token.take_away();
                more_calls(&shim, 10);
                token.bring_back();
            } else {
                shim.order("C_EncryptInit skip=5 rv=0x30");
                more_calls(&shim, 50);
                shim.order("");
            }
        }
    });
    wait_healthy(&plugin);
    assert_eq!(plugin.client().decrypt(&wrapped).unwrap(), SEED);
    let calls = shim.calls();
    assert!(shim.count("C_Finalize") > 1, "it was initialised anew meanwhile");
    assert!(calls.iter().map(|call| call.thread).collect::<BTreeSet<_>>().len() >= 4);
    check_rules(&calls);
}

/// Whoever asks for a key that the module cannot use has it initialised anew: the threads that serve the
/// others come after, and are not disturbed.
#[test]
fn initialising_anew_for_one_key_disturbs_no_other() {
    let stage = Stage::new("anew");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let config = Plugin::new(&stage, "plugin", &token).append("  workers: 3\n");
    let mut plugin = config.start();
    let old = plugin.client().encrypt(SEED).unwrap();
    let file = token.object_files().pop().unwrap();
    token.p11(&["generate", "kek", "02"]);
    crate::wait_other_key(&plugin, &old.key_id);
    let new = plugin.client().encrypt(SEED).unwrap();
    plugin.process.terminate();
    crate::keys::damage_padding(&file);
    plugin.start_again();
    wait_healthy(&plugin);
    let end = Instant::now() + Duration::from_secs(5);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = plugin.client();
                while Instant::now() < end {
                    assert_eq!(client.decrypt(&new).unwrap(), SEED);
                }
            });
        }
        let mut client = plugin.client();
        while Instant::now() < end {
            client.decrypt(&old).unwrap_err();
        }
    });
}

/// Waits until the module has been called that many times more.
fn more_calls(shim: &Shim, by: usize) {
    let before = shim.calls().len();
    eventually("more calls", || {
        let now = shim.calls().len();
        if now >= before + by { Ok(()) } else { Err(format!("{now} of {before} + {by}")) }
    });
}

fn check_rules(calls: &[Call]) {
    let mut inside: BTreeMap<usize, &str> = BTreeMap::new();
    let mut owner: BTreeMap<u64, usize> = BTreeMap::new();
    for call in calls {
        if !call.begins {
            inside.remove(&call.thread);
            continue;
        }
        if call.function == "C_Finalize" {
            assert!(inside.is_empty(), "C_Finalize beside {inside:?}");
            // Session numbers begin anew.
            owner.clear();
        } else {
            let finalising = inside.values().any(|function| *function == "C_Finalize");
            assert!(!finalising, "{} during C_Finalize", call.function);
        }
        let of_session = !matches!(
            call.function.as_str(),
            "C_Initialize" | "C_Finalize" | "C_OpenSession" | "C_GetTokenInfo" | "C_Login"
        );
        if of_session {
            let thread = *owner.entry(call.session).or_insert(call.thread);
            assert_eq!(thread, call.thread, "session {} in {}", call.session, call.function);
        }
        inside.insert(call.thread, &call.function);
    }
}

/// An Encrypt answer is kept for years: what the module got wrong is not given out.
#[test]
fn what_is_wrapped_is_read_back_before_it_is_given_out() {
    let Some((_stage, _token, shim, plugin)) = scripted("read back", "") else { return };
    let mut client = plugin.client();
    let mut answered = 0;
    for what in ["flip", "short"] {
        for order in ["C_Encrypt once", "C_Encrypt skip=1 once", "C_Encrypt"] {
            settle(&shim);
            shim.order(&format!("{order} {what}"));
            let answer = client.encrypt(SEED);
            shim.order("");
            if let Ok(wrapped) = answer {
                answered += 1;
                assert_eq!(client.decrypt(&wrapped).unwrap(), SEED, "{order} {what}");
            } else {
                assert!(!order.contains("once") || what == "short", "{order} {what} is healed");
            }
        }
    }
    assert!(answered >= 2, "what can be healed is");
    settle(&shim);
    let wrapped =
        eventually("it to wrap again", || client.encrypt(SEED).map_err(|error| error.to_string()));
    // And what is unwrapped has the length that it has to have.
    shim.order("C_Decrypt short");
    let error = client.decrypt(&wrapped).unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    shim.order("");
    eventually("it to unwrap again", || {
        client.decrypt(&wrapped).map_err(|error| error.to_string())
    });
}

#[test]
fn a_full_queue_is_said_at_once() {
    let Some((_stage, _token, shim, plugin)) = scripted("full", "  queue: 1\n") else { return };
    let wrapped = plugin.client().encrypt(SEED).unwrap();
    shim.order("C_DecryptInit ms=1000");
    let codes: Vec<_> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| plugin.client().decrypt(&wrapped).map_err(|e| e.code())))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap().err()).collect()
    });
    assert!(codes.contains(&Some(Code::ResourceExhausted)), "{codes:?}");
    shim.order("");
    wait_healthy(&plugin);
}

/// Many calls that wait are many calls, and say nothing of the token: Status stays as it is.
#[test]
fn a_full_queue_is_no_outage() {
    let stage = Stage::new("full, no outage");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let shim = Shim::new(&stage);
    let config = Plugin::new(&stage, "plugin", &token).with_shim(&shim, &token);
    let plugin = config.append("  queue: 2\n").start();
    wait_healthy(&plugin);
    let wrapped = plugin.client().encrypt(SEED).unwrap();
    shim.order("C_DecryptInit ms=100");
    let end = Instant::now() + Duration::from_secs(6);
    let refused: usize = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let (mut client, mut refused) = (plugin.client(), 0);
                    while Instant::now() < end {
                        match client.decrypt(&wrapped).map_err(|error| error.code()) {
                            Err(Code::ResourceExhausted) => refused += 1,
                            other => assert_eq!(other.as_deref(), Ok(&SEED[..])),
                        }
                    }
                    refused
                })
            })
            .collect();
        let mut client = plugin.client();
        while Instant::now() < end {
            client.status().expect("the token is in order");
        }
        callers.into_iter().map(|caller| caller.join().unwrap()).sum()
    });
    assert!(refused > 0, "the queue was full");
    assert!(!plugin.process.log().contains("out of order"), "{}", plugin.process.log());
}

#[test]
fn a_module_that_is_missing_or_no_module_is_a_configuration_fault() {
    let stage = Stage::new("no module");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let module = token.module().display().to_string();
    for (other, text) in [
        ("/nonexistent/module.so", "No such file"),
        ("/usr/lib", "not a regular file"),
        ("/etc/hostname", "libloading error"),
    ] {
        let config = Plugin::new(&stage, "plugin", &token).replace(&module, other);
        let mut process = config.spawn("no-module");
        assert_eq!(process.wait(), 78, "{}", process.log());
        assert!(process.log().contains(text), "{}", process.log());
    }
    let shared = stage.path("shared.so");
    fs::copy(&module, &shared).unwrap();
    Command::new("chmod").arg("0777").arg(&shared).status().unwrap();
    let config =
        Plugin::new(&stage, "plugin", &token).replace(&module, &shared.display().to_string());
    let mut process = config.spawn("writable-module");
    assert_eq!(process.wait(), 78);
    assert!(process.log().contains("others can change it"), "{}", process.log());
}

/// Whoever can write to a directory above the module can put another in its place before it is loaded.
#[test]
fn a_module_that_others_can_exchange_is_not_loaded() {
    let stage = Stage::new("module's directory");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let above = stage.make_dir("above");
    let copy = stage.make_dir("above/below").join("module.so");
    fs::copy(token.module(), &copy).unwrap();
    let (from, to) = (token.module().display().to_string(), copy.display().to_string());
    let config = Plugin::new(&stage, "plugin", &token).replace(&from, &to);
    let chmod = |mode| fs::set_permissions(&above, fs::Permissions::from_mode(mode)).unwrap();
    chmod(0o777);
    let mut process = config.spawn("writable-directory");
    assert_eq!(process.wait(), 78, "{}", process.log());
    let said = format!("{} is not safe: others can write to it (mode 0777)", above.display());
    assert!(process.log().contains(&said), "{}", process.log());
    // As /tmp is: nobody can exchange what is another's.
    chmod(0o1777);
    wait_healthy(&config.clone().start());
    if !nix::unistd::geteuid().is_root() {
        return kleidi_harness::components::skip("only root can give a directory away");
    }
    chmod(0o755);
    std::os::unix::fs::chown(&above, Some(12345), None).unwrap();
    let mut process = config.spawn("foreign-directory");
    assert_eq!(process.wait(), 78, "{}", process.log());
    assert!(process.log().contains("it belongs to uid 12345"), "{}", process.log());
}
