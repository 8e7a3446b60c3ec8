//! `kleidi-sim apiserver` beside a real kube-apiserver, on one etcd and one plugin.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use kleidi_harness::{ApiServer, Etcd, Stage, built, eventually};
use kleidi_sim::secret::Secret;
use nix::sys::signal::Signal;

use crate::script::{Does, STEADY, Script};
use crate::world::{Sockets, configuration};
use crate::{PROVIDER, VERSIONS};

/// A plugin that unwraps what the other wraps, under another key_id.
const ROTATED: Script = Script(&[(0, Does::Answers("2"))]);

struct Program {
    binary: PathBuf,
    etcd: String,
    config: PathBuf,
    version: String,
}

impl Program {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["apiserver", "--calls", "--etcd", &self.etcd, "--version", &self.version]);
        command.arg("--config").arg(&self.config);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().unwrap()
    }

    /// What a command that has to succeed prints.
    fn says(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it prints when it is told these lines.
    fn session(&self, lines: &str) -> (Option<i32>, String, String) {
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

#[test]
fn it_writes_and_reads_what_the_api_reads_and_writes() {
    for version in VERSIONS {
        let stage = Stage::new(&format!("program {version}"));
        let Some(etcd) = Etcd::start(&stage) else { return };
        let Some(apiserver) = ApiServer::new(&stage, "apiserver", version, &etcd) else { return };
        let sockets = Sockets::new(&stage);
        let _plugins = [sockets.start("old.sock", STEADY), sockets.start("new.sock", ROTATED)];
        let with = |socket| configuration("secrets", &[(PROVIDER, &sockets.path(socket))], "3s");
        let text = with("old.sock");
        let config = stage.path("encryption.yaml");
        std::fs::write(&config, &text).unwrap();
        let rotate = || std::fs::write(stage.path("encryption.yaml"), with("new.sock")).unwrap();
        let (minor, _) = version.rsplit_once('.').unwrap();
        let program =
            Program { binary: built::sim(), etcd: etcd.url(), config, version: minor.to_owned() };

        // Nobody else is there yet.
        assert_eq!(
            program.says(&["put", "default/by-model", "value=one"]),
            "default/by-model: created\n"
        );
        assert_eq!(program.says(&["get", "default/by-model"]), "value=one\n");
        let listed = program.says(&["list"]);
        assert!(listed.starts_with("/registry/secrets/default/by-model  "), "{listed}");
        assert!(listed.ends_with("  key_id 1  fresh\n"), "{listed}");
        assert_eq!(program.says(&["health"]), "ok\n");

        let apiserver = apiserver.encrypt_by(&text).start();
        assert_eq!(apiserver.read_secret("by-model"), Ok("one".to_owned()));
        apiserver.create_secret("by-api", "two");
        assert_eq!(program.says(&["get", "default/by-api"]), "value=two\n");

        rotate();
        let listed = program.says(&["list", "default"]);
        assert_eq!(listed.matches("  key_id 1  stale\n").count(), 2, "{listed}");
        assert_eq!(program.says(&["rewrite"]), "2 rewritten, 0 were not stale\n");
        assert_eq!(program.says(&["list"]).matches("  key_id 2  fresh\n").count(), 2);
        assert_eq!(apiserver.read_secret("by-model"), Ok("one".to_owned()));

        // One apiserver for several commands: the seed is unwrapped once.
        let (code, out, calls) = program.session(
            "get default/by-api\nget default/by-api\n# again\nput default/by-api value=three\n\
             put default/by-api value=three\nget default/none\n",
        );
        assert_eq!(code, Some(1), "there is no Secret none: {calls}");
        assert!(calls.contains("line 6: there is no such Secret"), "{calls}");
        let wanted = "value=two\nvalue=two\ndefault/by-api: updated\ndefault/by-api: unchanged\n";
        assert_eq!(out, wanted);
        assert_eq!(calls.matches("  Decrypt  ").count(), 1, "{calls}");
        assert_eq!(apiserver.read_secret("by-api"), Ok("three".to_owned()));

        // No value looks like another entry, and what is printed can be put again.
        let entries = "lines:base64=YQpiPWM=\nvalue=four\n";
        program.says(&["put", "default/lines", "lines=a\nb=c", "value=four"]);
        assert_eq!(program.says(&["get", "default/lines"]), entries);
        let again: Vec<&str> = entries.lines().collect();
        let again = program.says(&[&["put", "default/lines"], &again[..]].concat());
        assert_eq!(again, "default/lines: unchanged\n");
        assert_eq!(apiserver.read_secret("lines"), Ok("four".to_owned()));
    }
}

#[test]
fn a_session_goes_on_when_etcd_does() {
    let stage = Stage::new("program and etcd");
    let Some(mut etcd) = Etcd::start(&stage) else { return };
    let sockets = Sockets::new(&stage);
    let _plugin = sockets.start("kms.sock", STEADY);
    let config = stage.path("encryption.yaml");
    let text = configuration("secrets", &[(PROVIDER, &sockets.path("kms.sock"))], "3s");
    std::fs::write(&config, text).unwrap();
    let binary = built::sim();
    let program = Program { binary, etcd: etcd.url(), config, version: "1.37".to_owned() };
    let said = stage.path("session");
    let out = File::create(&said).unwrap();
    let mut command = program.command();
    command.stdin(Stdio::piped()).stdout(out.try_clone().unwrap()).stderr(out);
    let mut session = command.spawn().unwrap();
    let mut lines = session.stdin.take().unwrap();
    let mut says = |line: &str, says: &str, times: usize| {
        writeln!(lines, "{line}").unwrap();
        eventually(says, || match std::fs::read_to_string(&said).unwrap() {
            text if text.matches(says).count() >= times => Ok(()),
            text => Err(text),
        });
    };
    says("put default/one value=one", "default/one: created", 1);
    etcd.restart();
    says("get default/one", "value=one", 1);
    // What it has not heard of within its patience is an error, and no reason not to ask again.
    etcd.process.hang();
    says("get default/one", "no answer in 10s", 1);
    etcd.process.signal(Signal::SIGCONT);
    says("get default/one", "value=one", 2);
    etcd.process.kill();
    says("get default/one", "Connection refused", 1);
    drop(lines);
    assert_eq!(session.wait().unwrap().code(), Some(1), "two commands had no answer");
}

#[test]
fn what_the_api_would_refuse_is_not_written() {
    let stage = Stage::new("program and the API's rules");
    let Some(etcd) = Etcd::start(&stage) else { return };
    let config = stage.path("encryption.yaml");
    // For another resource: Secrets are stored as they are.
    std::fs::write(&config, configuration("configmaps", &[("kms", "/nowhere".as_ref())], "1s"))
        .unwrap();
    let binary = built::sim();
    let program = Program { binary, etcd: etcd.url(), config, version: "1.37".to_owned() };
    let large = format!("value={}", "x".repeat(64 * 1024));
    let pieces: Vec<String> = (0..17).map(|piece| format!("{piece}{large}")).collect();
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    for (args, code, says) in [
        (&["put", "Default/one", "value=one"][..], 2, "\"Default\" is no name of a namespace"),
        (&["put", "default/a/b", "value=one"], 2, "\"a/b\" is no name of a Secret"),
        (&["put", "default/one", "x y=1"], 2, "\"x y\" is no key of a Secret"),
        (&["list", "default/"], 2, "\"default/\" is no name of a namespace"),
        (&[&["put", "default/one"], &pieces[..]].concat(), 1, "exceeds the max size of 1048576"),
    ] {
        let output = program.run(args);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{complaint}");
        assert!(complaint.contains(says), "{complaint}");
    }
    assert_eq!(etcd.list("/registry"), []);

    let certificate = Secret {
        namespace: "default".to_owned(),
        name: "certificate".to_owned(),
        uid: String::new(),
        created: 1_800_000_000,
        data: [("tls.crt", "c"), ("tls.key", "k")].map(|(k, v)| (k.to_owned(), v.into())).into(),
        kind: "kubernetes.io/tls".to_owned(),
        manager: None,
    };
    let (key, stored) = ("/registry/secrets/default/certificate", certificate.encode());
    etcd.put(key, &stored);
    let output = program.run(&["put", "default/certificate", "value=one"]);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("its type is kubernetes.io/tls"), "{complaint}");
    assert_eq!(etcd.get(key), Some(stored));
}

#[test]
fn it_says_what_is_wrong() {
    let stage = Stage::new("program");
    let Some(etcd) = Etcd::start(&stage) else { return };
    let config = stage.path("encryption.yaml");
    let program = Program {
        binary: built::sim(),
        etcd: etcd.url(),
        config: config.clone(),
        version: "1.37".to_owned(),
    };
    let fails = |args: &[&str], code: i32, says: &str| {
        let output = program.run(args);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{complaint}");
        assert!(complaint.contains(says), "{complaint}");
    };
    fails(&["health"], 2, "cannot read the EncryptionConfiguration");
    std::fs::write(&config, configuration("secrets", &[("a:b", "/nowhere".as_ref())], "1s"))
        .unwrap();
    fails(&["health"], 2, "resources[0].providers[0].kms.name: Invalid value");
    std::fs::write(&config, configuration("secrets", &[("kms", "/nowhere".as_ref())], "100ms"))
        .unwrap();
    fails(&["health"], 1, "No such file or directory");
    fails(&["put", "default/one", "value=one"], 1, "got unexpected nil transformer");
    fails(&["put", "one", "value=one"], 2, "a Secret is named NAMESPACE/NAME");
    assert_eq!(etcd.list("/registry"), []);
}
