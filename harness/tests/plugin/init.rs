//! `kleidi init`: idempotent, killable, twice at once; changes nothing that exists.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use kleidi_harness::{Plugin, PluginConfig, Process, SoftHsm, Stage, components, eventually};

use crate::{SEED, running, wait_healthy};

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn key_id(output: &Output) -> String {
    let said = out(output);
    let line = said.lines().find_map(|line| line.strip_prefix("key_id")).unwrap_or_default();
    line.trim().to_owned()
}

/// A configuration for a token that is not there yet.
fn fresh(test: &str) -> Option<(Stage, SoftHsm, PluginConfig)> {
    let stage = Stage::new(test);
    let token = SoftHsm::empty(&stage, "token")?;
    let config = Plugin::new(&stage, "plugin", &token);
    Some((stage, token, config))
}

/// Every file of the token directory with its content.
fn content(token: &SoftHsm) -> BTreeMap<PathBuf, Vec<u8>> {
    token.object_files().into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

#[test]
fn a_token_its_pins_and_a_key_are_made_from_nothing() {
    let Some((_stage, token, config)) = fresh("init") else { return };
    let output = config.run(&["init"]);
    assert!(output.status.success(), "{output:?}");
    let said = out(&output);
    for text in ["token     created", "user PIN  created", "key       created", "CKA_ID 01"] {
        assert!(said.contains(text), "{said}");
    }
    for file in [token.pin_file(), token.pin_file().with_file_name("so-pin")] {
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{}", file.display());
        let pin = fs::read_to_string(&file).unwrap();
        assert_eq!(pin.len(), 24);
        assert!(!said.contains(&pin));
    }
    let before = content(&token);
    let again = config.run(&["init"]);
    assert!(again.status.success(), "{again:?}");
    for text in ["token     was there", "user PIN  was there", "key       was there"] {
        assert!(out(&again).contains(text), "{}", out(&again));
    }
    assert_eq!(content(&token), before, "nothing was touched");
    assert_eq!(key_id(&again), key_id(&output));

    let check = config.run(&["check", "--live"]);
    assert!(check.status.success(), "{check:?}");
    for text in [
        "private                 yes",
        "sensitive               yes",
        "extractable             no",
        "generated on the token  yes",
        "key check value         fits",
        "all is well",
    ] {
        assert!(out(&check).contains(text), "{}", out(&check));
    }
    let plugin = config.start();
    assert_eq!(wait_healthy(&plugin), key_id(&output));
    plugin.client().encrypt(SEED).unwrap();
}

#[test]
fn two_inits_at_once_make_one_token_and_one_key() {
    for _ in 0..5 {
        let Some((_stage, token, config)) = fresh("two inits") else { return };
        let outputs: Vec<_> = std::thread::scope(|scope| {
            let inits: Vec<_> = (0..4).map(|_| scope.spawn(|| config.run(&["init"]))).collect();
            inits.into_iter().map(|init| init.join().unwrap()).collect()
        });
        for output in &outputs {
            assert!(output.status.success(), "{output:?}");
            assert_eq!(key_id(output), key_id(&outputs[0]));
        }
        let made = |what: &str| outputs.iter().filter(|o| out(o).contains(what)).count();
        assert_eq!((made("token     created"), made("key       created")), (1, 1));
        assert_eq!(fs::read_dir(token.tokens()).unwrap().count(), 1);
        assert_eq!(token.object_files().len(), 1);
    }
}

/// Killed before each of its writes, one after the other: running it again ends well each time, with
/// one usable token and one usable key.
#[test]
fn an_init_that_is_killed_at_any_write_can_be_run_again() {
    let Some(strace) = components::strace() else { return };
    for call in ["write", "ftruncate", "rename", "mkdir"] {
        for number in 1.. {
            let Some((stage, _token, config)) = fresh("killed") else { return };
            let init = config.command(&["init"]);
            let mut command = Command::new(&strace);
            command.args(["-f", "-qq", "-o"]).arg(stage.path("strace"));
            command.args(["-e", &format!("inject={call}:signal=SIGKILL:when={number}")]);
            command
                .arg(init.get_program())
                .args(init.get_args())
                .env("KLEIDI_CONFIG", config.file());
            command.envs(init.get_envs().filter_map(|(name, value)| Some((name, value?))));
            let mut process = Process::spawn(&stage, "init", &mut command);
            let whole = process.wait() == 0;

            let what = format!("killed at {call} {number}");
            let again = config.run(&["init"]);
            assert!(again.status.success(), "{what}: {again:?}");
            let check = config.run(&["check", "--live"]);
            assert!(check.status.success(), "{what}: {check:?}");
            assert!(!out(&check).contains("only unwraps"), "{what}: {check:?}");
            if whole {
                assert!(number > 1 || call == "mkdir", "{call} is never called");
                break;
            }
        }
    }
}

#[test]
fn another_key_id_makes_another_key_and_leaves_the_first() {
    let Some((_stage, token, plugin)) = running("rotation") else { return };
    let first = plugin.key_id();
    let before = content(&token);
    let output = plugin.config().run(&["init", "--cka-id", "02"]);
    assert!(output.status.success(), "{output:?}");
    assert!(out(&output).contains("key       created: label \"kek\", CKA_ID 02"));
    let after = content(&token);
    assert_eq!(after.len(), 2);
    assert!(before.iter().all(|(file, bytes)| after.get(file) == Some(bytes)));
    assert_eq!(crate::wait_other_key(&plugin, &first), key_id(&output));
    let again = plugin.config().run(&["init", "--cka-id", "02"]);
    assert!(out(&again).contains("key       was there"), "{again:?}");
}

#[test]
fn a_token_that_is_there_keeps_its_pin() {
    let Some((_stage, token, config)) = fresh("token there") else { return };
    token.init_token();
    // The PIN is not in the file: none is invented, and the token is not touched.
    let output = config.run(&["init"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(!token.pin_file().exists());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("cannot read the PIN from"), "{error}");
    token.write_pin("not-the-pin-0000");
    let output = config.run(&["init"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    token.write_pin(SoftHsm::PIN);
    let output = config.run(&["init"]);
    assert!(output.status.success(), "{output:?}");
    assert!(out(&output).contains("token     was there"));
}

/// Whether there is a token's directory in sight of SoftHSM.
fn tokens_in_sight(token: &SoftHsm) -> usize {
    fs::read_dir(token.tokens()).unwrap().count()
}

/// Runs an init that has to refuse; gives what it says.
fn refuses(config: &PluginConfig) -> String {
    let output = config.run(&["init"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// PINs without their token: the token's directory is not mounted, or SOFTHSM2_CONF names another. Another key
/// would be written under until the first is back.
#[test]
fn where_a_token_was_no_other_is_made() {
    let Some((_stage, token, config)) = fresh("token gone") else { return };
    let first = config.run(&["init"]);
    assert!(first.status.success(), "{first:?}");
    let record = token.pin_file().with_file_name("pin.token");
    assert_eq!(fs::metadata(&record).unwrap().permissions().mode() & 0o777, 0o600);
    token.take_away();
    fs::create_dir(token.tokens()).unwrap();
    let error = refuses(&config);
    assert!(error.contains("it is not in sight; mount or restore its directory"), "{error}");
    assert!(error.contains(&format!("remove {}", record.display())), "{error}");
    assert_eq!(tokens_in_sight(&token), 0);
    // Nor with the security officer's PIN where it belongs, nor without either.
    let files = [token.pin_file().with_file_name("so-pin"), token.pin_file()];
    let pins: Vec<_> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    for file in &files {
        fs::remove_file(file).unwrap();
        assert!(refuses(&config).contains("it is not in sight"));
    }
    // What was begun and never finished is no token, either, whoever its security officer is.
    token.write_pin(&pins[1]);
    fs::write(&files[0], &pins[0]).unwrap();
    fs::set_permissions(&files[0], fs::Permissions::from_mode(0o600)).unwrap();
    token.init_without_user(&pins[0]);
    assert_eq!(tokens_in_sight(&token), 1);
    assert!(refuses(&config).contains("it is not in sight"));
    fs::remove_dir_all(token.tokens()).unwrap();
    token.bring_back();
    let again = config.run(&["init"]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(key_id(&again), key_id(&first));

    // Without its record, and without the security officer's PIN, as on a node that it was copied to.
    fs::remove_file(&record).unwrap();
    fs::remove_file(&files[0]).unwrap();
    token.take_away();
    fs::create_dir(token.tokens()).unwrap();
    let error = refuses(&config);
    assert!(error.contains("this node had a token"), "{error}");
    assert_eq!(tokens_in_sight(&token), 0);
}

/// One file of it that cannot be read, and SoftHSM lists it no more.
#[test]
fn beside_a_token_that_cannot_be_read_no_other_is_made() {
    let Some((_stage, token, config)) = fresh("token damaged") else { return };
    let first = config.run(&["init"]);
    assert!(first.status.success(), "{first:?}");
    let directory = fs::read_dir(token.tokens()).unwrap().next().unwrap().unwrap().path();
    let file = directory.join("token.object");
    let content = fs::read(&file).unwrap();
    fs::write(&file, b"").unwrap();
    assert!(refuses(&config).contains("it is not in sight"));
    assert_eq!(tokens_in_sight(&token), 1);
    fs::write(&file, content).unwrap();
    let again = config.run(&["init"]);
    assert_eq!(key_id(&again), key_id(&first), "{again:?}");
}

/// A token that was there before there were records, and PINs of the operator's own before there is a token.
#[test]
fn a_token_is_put_on_record_when_it_is_seen_and_not_before() {
    let Some((_stage, token, config)) = fresh("record") else { return };
    let (record, so_pin) =
        (token.pin_file().with_file_name("pin.token"), token.pin_file().with_file_name("so-pin"));
    token.write_pin("a-pin-of-the-operators-own");
    fs::write(&so_pin, "and-another-for-the-officer").unwrap();
    fs::set_permissions(&so_pin, fs::Permissions::from_mode(0o600)).unwrap();
    let output = config.run(&["init"]);
    assert!(output.status.success(), "{output:?}");
    for text in ["token     created", "user PIN  was there", "key       created"] {
        assert!(out(&output).contains(text), "{}", out(&output));
    }
    fs::remove_file(&record).unwrap();
    let output = config.run(&["init"]);
    assert!(out(&output).contains("token     was there"), "{output:?}");
    let text = fs::read_to_string(&record).unwrap();
    assert!(text.contains("\"kleidi\", serial "), "{text}");
    assert!(!text.contains("operators-own"), "{text}");
    token.take_away();
    fs::create_dir(token.tokens()).unwrap();
    assert!(refuses(&config).contains("it is not in sight"));
    // The operator's word that it is gone.
    fs::remove_file(&record).unwrap();
    let output = config.run(&["init"]);
    assert!(out(&output).contains("token     created"), "{output:?}");
}

/// Run by root, it would leave files that the plugin's user cannot read.
#[test]
fn init_is_run_by_the_user_of_the_plugin() {
    let Some((_stage, token, config)) = fresh("other user") else { return };
    if !nix::unistd::geteuid().is_root() {
        return components::skip("only root can give a directory away");
    }
    let directory = token.pin_file().parent().unwrap().to_owned();
    std::os::unix::fs::chown(&directory, Some(65534), None).unwrap();
    let output = config.run(&["init"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("it belongs to uid 65534; run kleidi init as that user"), "{error}");
    assert!(!token.pin_file().exists());
}

#[test]
fn init_beside_a_running_plugin_disturbs_nothing() {
    let Some((_stage, _token, plugin)) = running("beside") else { return };
    let mut client = plugin.client();
    let wrapped = client.encrypt(SEED).unwrap();
    std::thread::scope(|scope| {
        let inits = scope.spawn(|| {
            for _ in 0..10 {
                assert!(plugin.config().run(&["init"]).status.success());
            }
        });
        eventually("the inits to end", || {
            assert_eq!(client.decrypt(&wrapped).unwrap(), SEED);
            assert_eq!(client.encrypt(SEED).unwrap().key_id, wrapped.key_id);
            if inits.is_finished() { Ok(()) } else { Err(String::new()) }
        });
    });
    assert!(!plugin.process.log().contains("out of order"), "{}", plugin.process.log());
}
