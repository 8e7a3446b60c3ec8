//! The command line: exit codes that tell a fault of the configuration from an outage.

use std::process::Output;

use kleidi_harness::{Plugin, SoftHsm, Stage};

use crate::{running, wait_healthy, wait_outage};

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn exit_codes_tell_whose_fault_it_is() {
    let stage = Stage::new("exit codes");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let config = Plugin::new(&stage, "plugin", &token);
    let code = |args: &[&str]| {
        let output = config.run(args);
        (output.status.code().unwrap(), text(&output))
    };
    for (args, wanted) in [
        (&["version"][..], 0),
        (&["--version"], 0),
        (&["--help"], 0),
        (&["completions", "bash"], 0),
        (&["check"], 0),
        (&["check", "--live"], 0),
        (&["--nonsense"], 64),
        (&["nonsense"], 64),
        (&["--log-level", "loud"], 64),
        (&["--listen", "tcp://127.0.0.1:1"], 64),
        (&["check", "--config", "/nonexistent.yaml"], 78),
        (&["serve", "--config", "/nonexistent.yaml"], 78),
        (&["init", "--config", "/nonexistent.yaml"], 78),
        (&["status", "--config", "/nonexistent.yaml"], 78),
        (&["status", "--socket", "/nonexistent.sock"], 69),
        (&["-provider", "hvault"], 64),
    ] {
        let (code, said) = code(args);
        assert_eq!(code, wanted, "{args:?}: {said}");
        assert!(!said.is_empty(), "{args:?} says something");
    }
    token.take_away();
    let (unavailable, said) = code(&["check", "--live"]);
    assert_eq!(unavailable, 69, "an outage: {said}");
    token.bring_back();
    token.write_pin("not-the-pin-1111");
    let (refused, said) = code(&["check", "--live"]);
    assert_eq!(refused, 78, "a wrong PIN: {said}");
    assert!(said.contains("CKR_PIN_INCORRECT"), "{said}");
}

#[test]
fn status_is_fit_for_a_probe() {
    let Some((_stage, token, plugin)) = running("status") else { return };
    let socket = plugin.socket().display().to_string();
    let status = || plugin.config().run(&["status", "--socket", &socket]);
    let key_id = plugin.key_id();
    let output = status();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, format!("healthz  ok\nversion  v2\nkey_id   {key_id}\n"));
    token.take_away();
    wait_outage(&plugin);
    let output = status();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(text(&output).contains("Unavailable: the KMS is out of order"), "{output:?}");
}

/// Whoever names a configuration asks its plugin: none other answers in its place.
#[test]
fn status_asks_the_plugin_of_the_file_that_was_named() {
    let stage = Stage::new("status of a file");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let config = Plugin::new(&stage, "plugin", &token);
    let status = || {
        let output = config.run(&["status"]);
        (output.status.code().unwrap(), text(&output))
    };
    // The plugin may have an environment and credentials that we have not: its socket is the same.
    let pin = stage.path("token/pin").display().to_string();
    let elsewhere = config.clone().replace(&pin, "credential");
    let (code, said) = status();
    assert_eq!(code, 69, "{said}");
    assert!(said.contains(&config.socket().display().to_string()), "{said}");
    let _right = elsewhere.replace("credential", &pin);
    let plugin = config.clone().start();
    wait_healthy(&plugin);
    assert_eq!(status().0, 0);
    // The file is faulty.
    let socket = config.socket().display().to_string();
    let faulty = config.clone().replace("listen: ", "listens: ");
    let (code, said) = status();
    assert!(code == 78 && said.contains("unknown field `listens`"), "{said}");
    let faulty = faulty.replace(&format!("listens: {socket}"), "listen: kms.sock");
    let (code, said) = status();
    assert!(code == 78 && said.contains("socket.listen: "), "{said}");
    // It cannot be read.
    std::fs::remove_file(faulty.file()).unwrap();
    let (code, said) = status();
    assert!(code == 78 && said.contains("No such file or directory"), "{said}");
    std::fs::create_dir(faulty.file()).unwrap();
    let (code, said) = status();
    assert!(code == 78 && said.contains("Is a directory"), "{said}");
}

/// A PIN where its file's name belongs could be the name of a credential: it is not repeated.
#[test]
fn a_pin_for_a_credential_is_not_repeated() {
    let stage = Stage::new("credential");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let config = Plugin::new(&stage, "plugin", &token);
    let pin = stage.path("token/pin").display().to_string();
    let config = config.replace(&pin, SoftHsm::PIN);
    let check = |directory: Option<&std::path::Path>| {
        let mut command = config.command(&["check", "--live", "--config"]);
        command.arg(config.file()).env_remove("CREDENTIALS_DIRECTORY");
        command.envs(directory.map(|directory| ("CREDENTIALS_DIRECTORY", directory)));
        let output = command.output().unwrap();
        (output.status.code().unwrap(), text(&output))
    };
    let credentials = stage.make_dir("credentials");
    for directory in [None, Some(&*credentials)] {
        let (code, said) = check(directory);
        assert!(code == 78 && said.contains("pkcs11.pinFile: is not an absolute path"), "{said}");
        assert!(!said.contains(SoftHsm::PIN), "{said}");
    }
    // Where there is one of that name, it is meant.
    kleidi_harness::write_private(&credentials.join(SoftHsm::PIN), SoftHsm::PIN);
    let (code, said) = check(Some(&credentials));
    assert_eq!(code, 0, "{said}");
}

/// A flag wins over the environment, the environment over the file.
#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let stage = Stage::new("precedence");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let config = Plugin::new(&stage, "plugin", &token);
    let (flag, variable) = (stage.path("flag.sock"), stage.path("variable.sock"));
    for (args, environment, socket) in [
        (vec![], None, config.socket()),
        (vec![], Some(&variable), variable.clone()),
        (vec!["--listen", flag.to_str().unwrap()], Some(&variable), flag.clone()),
    ] {
        let mut command = config.command(&args);
        command.env("KLEIDI_CONFIG", config.file());
        if let Some(variable) = environment {
            command.env("KLEIDI_LISTEN", variable);
        }
        let mut process = kleidi_harness::Process::spawn(&stage, "precedence", &mut command);
        let mut client = kleidi_harness::Client::new(&socket);
        process.wait_ready(|| client.status().map_err(|error| error.to_string()));
    }
}

/// What is taken from the environment is said, and what is unsafe in it is refused.
#[test]
fn check_says_what_the_environment_adds() {
    let stage = Stage::new("environment");
    let file = stage.path("kleidi.yaml");
    let content = "apiVersion: kleidi.beezy.dev/v1\nkind: PluginConfiguration\n\
                   transit:\n  key: kms\n  auth: {method: appRole, roleIdFile: /r, \
                   wrappedSecretIdFile: /w}\n";
    std::fs::write(&file, content).unwrap();
    let check = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = std::process::Command::new(kleidi_harness::built::plugin());
        command.env_clear().arg("check").arg("-c").arg(&file).args(arguments);
        let output = command.envs(variables.iter().copied()).output().unwrap();
        (output.status.code().unwrap(), text(&output))
    };
    let (code, said) = check(&[], &[]);
    assert!(code == 78 && said.contains("transit.addresses"), "{said}");
    let address = ("VAULT_ADDR", "http://127.0.0.1:1");
    let (code, said) = check(&[], &[address, ("VAULT_TOKEN", "s.canary")]);
    assert!(code == 0 && said.contains("transit.addresses from VAULT_ADDR"), "{said}");
    assert!(said.contains("warning: VAULT_TOKEN") && !said.contains("canary"), "{said}");
    let (code, said) = check(&[], &[address, ("BAO_SKIP_VERIFY", "1")]);
    assert!(code == 78 && said.contains("BAO_SKIP_VERIFY: is refused"), "{said}");
    // It would leave nothing for the plugin.
    let (code, said) = check(&["--live"], &[address]);
    assert!(code == 64 && said.contains("would use up the wrapped secret_id"), "{said}");
}
