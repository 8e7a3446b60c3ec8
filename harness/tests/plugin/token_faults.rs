//! Tokens that go, hang, forget and come back; PINs that are wrong or missing.

use std::fs;
use std::time::Duration;

use kleidi_harness::{Plugin, Shim, SoftHsm, Stage, eventually, within};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use tonic::Code;

use crate::{SEED, SOON, running, wait_healthy, wait_outage, wait_says};
use tokio::time::Instant;

#[test]
fn a_token_that_is_missing_at_the_start_is_waited_for() {
    let stage = Stage::new("missing");
    let Some(token) = SoftHsm::empty(&stage, "token") else { return };
    token.write_pin(SoftHsm::PIN);
    let plugin = Plugin::new(&stage, "plugin", &token).start();
    let code = wait_says(&plugin, "no such token is present");
    assert_eq!(code, Code::Unavailable);
    token.init_token();
    wait_says(&plugin, "there is none on the token");
    token.p11(&["generate", "kek", "01"]);
    wait_healthy(&plugin);
    plugin.client().encrypt(SEED).unwrap();
}

#[test]
fn a_token_that_goes_away_and_comes_back_heals_unaided() {
    let Some((_stage, token, plugin)) = running("away and back") else { return };
    let id = plugin.key_id();
    let wrapped = plugin.client().encrypt(SEED).unwrap();
    for _ in 0..3 {
        token.take_away();
        let error = wait_outage(&plugin);
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        let error = plugin.client().encrypt(SEED).unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        let error = plugin.client().decrypt(&wrapped).unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        token.bring_back();
        assert_eq!(wait_healthy(&plugin), id);
        assert_eq!(plugin.client().decrypt(&wrapped).unwrap(), SEED);
        assert_eq!(plugin.client().encrypt(SEED).unwrap().key_id, id);
    }
}

/// One bad read of an object poisons it for SoftHSM until it is initialised anew.
#[test]
fn a_key_file_that_was_empty_for_a_moment_heals_unaided() {
    let Some((_stage, token, plugin)) = running("truncated") else { return };
    let id = plugin.key_id();
    let wrapped = plugin.client().encrypt(SEED).unwrap();
    let file = token.object_files().pop().unwrap();
    let content = fs::read(&file).unwrap();
    fs::write(&file, b"").unwrap();
    wait_outage(&plugin);
    fs::write(&file, content).unwrap();
    assert_eq!(wait_healthy(&plugin), id);
    assert_eq!(plugin.client().decrypt(&wrapped).unwrap(), SEED);
}

/// With two keys: the current one unreadable for a moment must not make the older one current.
#[test]
fn a_key_that_is_lost_from_sight_is_not_replaced_by_an_older_one() {
    let Some((_stage, token, plugin)) = running("lost from sight") else { return };
    let old = plugin.key_id();
    let first: Vec<_> = token.object_files();
    token.p11(&["generate", "kek", "02"]);
    let current = crate::wait_other_key(&plugin, &old);
    let file = token.object_files().into_iter().find(|file| !first.contains(file)).unwrap();
    let content = fs::read(&file).unwrap();
    fs::write(&file, b"").unwrap();
    fs::write(&file, &content).unwrap();
    // Whether or not SoftHSM has seen the empty file, it is looked at again before it is believed.
    let end = Instant::now() + Duration::from_secs(4);
    within(SOON, "a few observations", || match plugin.client().status() {
        Ok(status) => {
            assert_eq!(status.key_id, current);
            if Instant::now() > end { Ok(()) } else { Err("not yet".to_owned()) }
        }
        Err(error) => Err(error.to_string()),
    });
}

/// A key that is not there for longer may come back: an older one takes its place after a minute, not
/// before, and not without a word.
#[test]
fn a_current_key_that_is_gone_is_waited_for() {
    let Some((_stage, token, plugin)) = running("current gone") else { return };
    let first = plugin.key_id();
    let old = plugin.client().encrypt(SEED).unwrap();
    let before = token.object_files();
    token.p11(&["generate", "kek", "02"]);
    let second = crate::wait_other_key(&plugin, &first);
    let new = plugin.client().encrypt(SEED).unwrap();
    let file = token.object_files().into_iter().find(|file| !before.contains(file)).unwrap();
    let content = fs::read(&file).unwrap();

    fs::remove_file(&file).unwrap();
    let code = wait_says(&plugin, "it is not on the token any more; restore it now");
    assert_eq!(code, Code::NotFound);
    assert_eq!(plugin.client().decrypt(&old).unwrap(), SEED);
    plugin.client().encrypt(SEED).unwrap_err();
    fs::write(&file, &content).unwrap();
    assert_eq!(wait_healthy(&plugin), second);
    assert_eq!(plugin.client().decrypt(&new).unwrap(), SEED);

    fs::remove_file(&file).unwrap();
    wait_says(&plugin, "after a minute without it kleidi goes on with label \"kek\", CKA_ID 01");
    let begin = Instant::now();
    let current = kleidi_harness::wait_healthy(&plugin, Duration::from_secs(120));
    assert_eq!(current, first);
    assert!(begin.elapsed() > Duration::from_secs(50), "after {:?}", begin.elapsed());
    assert!(
        plugin.process.log().contains("a key is gone from the KMS"),
        "{}",
        plugin.process.log()
    );
    assert_eq!(plugin.client().encrypt(SEED).unwrap().key_id, first);
    assert_eq!(plugin.client().decrypt(&new).unwrap_err().code(), Code::NotFound);
}

/// SoftHSM sees a file that is put back only when it is initialised anew: whoever asks for a key that is
/// not known has that done, and not more than once a minute.
#[test]
fn a_key_that_is_put_back_is_found_without_a_restart() {
    let stage = Stage::new("put back");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let shim = Shim::new(&stage);
    let config = Plugin::new(&stage, "plugin", &token).with_shim(&shim, &token);
    let mut plugin = config.start();
    let old = plugin.client().encrypt(SEED).unwrap();
    let file = token.object_files().pop().unwrap();
    token.p11(&["generate", "kek", "02"]);
    let second = crate::wait_other_key(&plugin, &old.key_id);
    plugin.process.terminate();
    let content = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    plugin.start_again();
    assert_eq!(wait_healthy(&plugin), second);
    fs::write(&file, content).unwrap();

    let initialised = shim.count("C_Initialize");
    let begin = Instant::now();
    let (mut client, mut other) = (plugin.client(), plugin.client());
    let new = other.encrypt(SEED).unwrap();
    let unknown = format!("{}-07", "0".repeat(32));
    let read = within(Duration::from_secs(120), "the old key to be read with", || {
        // What others do is not disturbed.
        assert_eq!(other.decrypt(&new).unwrap(), SEED);
        let error = other.decrypt_parts(&old.ciphertext, &unknown, &old.annotations).unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{error}");
        match client.decrypt(&old) {
            Err(error) if error.code() == Code::NotFound => Err(error.to_string()),
            outcome => Ok(outcome.unwrap()),
        }
    });
    assert_eq!(read, SEED);
    let minutes = usize::try_from(begin.elapsed().as_secs() / 60).unwrap();
    assert!(shim.count("C_Initialize") <= initialised + minutes + 1);
    assert_eq!(other.status().unwrap().key_id, second);
}

#[test]
fn a_wrong_pin_is_tried_once_and_a_right_one_at_once() {
    let stage = Stage::new("wrong PIN");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let shim = Shim::new(&stage);
    token.write_pin("not-the-pin-6b1d-canary");
    let plugin = Plugin::new(&stage, "plugin", &token).with_shim(&shim, &token).start();
    let code = wait_says(&plugin, "is the one that the token has refused");
    assert_eq!(code, Code::Unauthenticated);
    more_observations(&shim);
    assert_eq!(shim.count("C_Login"), 1, "a token locks after a few wrong PINs");
    token.write_pin(SoftHsm::PIN);
    wait_healthy(&plugin);
    assert_eq!(shim.count("C_Login"), 2);
    stage.assert_absent(&[b"not-the-pin-6b1d-canary", SoftHsm::PIN.as_bytes()], |file| {
        file.file_name() != Some("pin".as_ref())
    });
}

/// Waits until the module has been initialised anew twice.
fn more_observations(shim: &Shim) {
    let tries = shim.count("C_Initialize");
    within(SOON, "more observations", || {
        let now = shim.count("C_Initialize");
        if now >= tries + 2 { Ok(()) } else { Err(format!("{now}")) }
    });
}

/// The PIN file stays as it is, and another token is put in the place of the right one for a while.
#[test]
fn a_pin_that_another_token_has_refused_is_right_for_this_one() {
    let stage = Stage::new("wrong token");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let Some(other) = SoftHsm::empty(&stage, "other") else { return };
    let pins = ["--pin", "pin-of-another-token", "--so-pin", SoftHsm::SO_PIN];
    let args = ["--init-token", "--free", "--label", other.token_label()];
    other.util(&[&args[..], &pins[..]].concat());
    token.take_away();
    fs::rename(other.tokens(), token.tokens()).unwrap();
    let plugin = Plugin::new(&stage, "plugin", &token).start();
    wait_says(&plugin, "is the one that the token has refused");
    fs::rename(token.tokens(), other.tokens()).unwrap();
    token.bring_back();
    wait_healthy(&plugin);
}

/// A token that refuses its own PIN for a while: the file is touched when that is over.
#[test]
fn a_refused_pin_is_tried_again_when_its_file_is_touched() {
    let stage = Stage::new("touched PIN");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let shim = Shim::new(&stage);
    shim.order("C_Login rv=0xA0"); // PIN_INCORRECT
    let plugin = Plugin::new(&stage, "plugin", &token).with_shim(&shim, &token).start();
    wait_says(&plugin, "if it is right after all, touch the file");
    shim.order("");
    more_observations(&shim);
    assert_eq!(shim.count("C_Login"), 1);
    token.write_pin(SoftHsm::PIN);
    wait_healthy(&plugin);
    assert_eq!(shim.count("C_Login"), 2);
}

/// Locked after too many wrong PINs, of whomever: unlocked by the security officer, it takes the same PIN again.
#[test]
fn a_token_that_was_unlocked_is_logged_in_to_again() {
    let stage = Stage::new("locked");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let shim = Shim::new(&stage);
    shim.order("C_Login rv=0xA4\nC_GetTokenInfo flags=0x40000"); // PIN_LOCKED, CKF_USER_PIN_LOCKED
    let plugin = Plugin::new(&stage, "plugin", &token).with_shim(&shim, &token).start();
    wait_says(&plugin, "is the one that the token has refused");
    more_observations(&shim);
    assert_eq!(shim.count("C_Login"), 1, "as long as it is locked");
    shim.order("");
    wait_healthy(&plugin);
    assert_eq!(shim.count("C_Login"), 2);
}

#[test]
fn a_pin_file_that_comes_later_is_waited_for() {
    let stage = Stage::new("PIN file");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    fs::remove_file(token.pin_file()).unwrap();
    let plugin = Plugin::new(&stage, "plugin", &token).start();
    wait_says(&plugin, "cannot read the PIN from");
    token.write_pin(SoftHsm::PIN);
    wait_healthy(&plugin);
}

#[test]
fn two_tokens_of_one_name_are_not_guessed_between() {
    let stage = Stage::new("two tokens");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    token.init_token();
    let plugin = Plugin::new(&stage, "plugin", &token).start();
    let code = wait_says(&plugin, "2 tokens match");
    assert_eq!(code, Code::FailedPrecondition);
    // The serial number tells them apart.
    let output = plugin.config().run(&["check"]);
    assert!(output.status.success());
}

/// A lock on the token's files, set by a process that was stopped: SoftHSM waits for it for ever.
#[test]
fn a_hung_module_blocks_neither_status_nor_shutdown() {
    let Some((_stage, token, mut plugin)) = running("hung") else { return };
    let id = plugin.key_id();
    let wrapped = plugin.client().encrypt(SEED).unwrap();
    let lock = Lock::on(&token);
    // Status answers at once all the time, first well, then with the reason.
    let mut client = plugin.client();
    let error = within(SOON, "Status to be an error", || {
        let begin = Instant::now();
        let answer = client.status();
        assert!(begin.elapsed() < Duration::from_millis(500), "Status took {:?}", begin.elapsed());
        answer.map(|status| status.key_id).map_or_else(Ok, Err)
    });
    assert!(matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded), "{error}");
    let code = wait_says(&plugin, "a call into the PKCS#11 module does not return");
    assert_eq!(code, Code::Unavailable);
    // A call fails before the apiserver's own timeout of 3 s, with the reason.
    let error = plugin.client().decrypt(&wrapped).unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    drop(lock);
    assert_eq!(wait_healthy(&plugin), id);
    assert_eq!(plugin.client().decrypt(&wrapped).unwrap(), SEED);

    let _lock = Lock::on(&token);
    wait_outage(&plugin);
    let begin = Instant::now();
    assert_eq!(plugin.process.terminate(), 0);
    assert!(begin.elapsed() < Duration::from_secs(12), "it ended after {:?}", begin.elapsed());
}

/// With every thread lost that is replaced, calls fail at once and keep nothing waiting.
#[test]
fn with_all_threads_lost_calls_fail_at_once() {
    let Some((_stage, token, plugin)) = running("all lost") else { return };
    let wrapped = plugin.client().encrypt(SEED).unwrap();
    let lock = Lock::on(&token);
    let mut quick = 0;
    within(Duration::from_secs(60), "ten answers in a row without a wait", || {
        let begin = Instant::now();
        // The first one may not need the token's files.
        let answer = plugin.client().decrypt(&wrapped);
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
        let at_once = begin.elapsed() < Duration::from_millis(300);
        let lost = plugin.process.log().matches("going on with a new thread").count() == 2;
        quick = if answer.is_err() && at_once && lost { quick + 1 } else { 0 };
        if quick == 10 { Ok(()) } else { Err(format!("{quick}; {answer:?}")) }
    });
    drop(lock);
    wait_healthy(&plugin);
    assert_eq!(plugin.client().decrypt(&wrapped).unwrap(), SEED);
}

/// A write lock on every object of a token; gone when dropped, as `fcntl` locks are with their file.
struct Lock(#[allow(dead_code, reason = "it is held")] Vec<fs::File>);

impl Lock {
    fn on(token: &SoftHsm) -> Self {
        let files = token.object_files().into_iter().map(|path| {
            let file = fs::File::options().read(true).write(true).open(path).unwrap();
            // Of the open file and not of this process, so that tests do not share them.
            let whole = libc::flock {
                l_type: i16::try_from(libc::F_WRLCK).unwrap(),
                l_whence: i16::try_from(libc::SEEK_SET).unwrap(),
                l_start: 0,
                l_len: 0,
                l_pid: 0,
            };
            eventually("the lock", || {
                fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)).map_err(|error| error.to_string())
            });
            file
        });
        Self(files.collect())
    }
}

/// SoftHSM 2.6.1 does not see a token for a moment while another process logs in to it.
#[test]
fn many_plugins_that_start_at_once_all_find_the_token() {
    let stage = Stage::new("start race");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let configs: Vec<_> =
        (0..6).map(|n| Plugin::new(&stage, &format!("plugin-{n}"), &token)).collect();
    let plugins: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> =
            configs.into_iter().map(|config| scope.spawn(|| config.start())).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    for plugin in &plugins {
        wait_healthy(plugin);
    }
}
