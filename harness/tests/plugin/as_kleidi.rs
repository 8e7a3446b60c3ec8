//! `configuration/as-kleidi`: a command runs as the unit does, whatever shell it is run from.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use kleidi_harness::{Stage, components};

const SCRIPT: &str = include_str!("../../../configuration/as-kleidi");

/// The script on a node whose unit has that environment and those capabilities.
struct Node {
    stage: Stage,
    programs: PathBuf,
}

impl Node {
    /// `None` where the script cannot be run. Its user is `nobody` here, and a program stands in for
    /// `systemctl`, because the machine of a test need not have been booted with systemd.
    fn new(test: &str, environment: &str, capabilities: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            components::skip("only root can run a command as another user");
            return None;
        }
        let stage = Stage::new(test);
        // Its own user enters it, too.
        fs::set_permissions(stage.path(""), PermissionsExt::from_mode(0o755)).unwrap();
        let programs = stage.make_dir("programs");
        // As systemd prints a list of texts: what a shell would take otherwise is quoted.
        let systemctl = format!(
            "#!/bin/sh\ncase \"$*\" in\n  'cat kleidi.service') ;;\n  \
             'show --property=Environment --value kleidi.service') cat <<'END'\n{environment}\nEND\n;;\n  \
             'show --property=AmbientCapabilities --value kleidi.service') echo '{capabilities}' ;;\n  \
             *) exit 64 ;;\nesac\n"
        );
        for (name, content) in [("systemctl", systemctl.as_str()), ("as-kleidi", SCRIPT)] {
            let group = output("id", &["-gn", "nobody"]);
            let content = content
                .replace("--reuid=kleidi", "--reuid=nobody")
                .replace("--regid=kleidi", &format!("--regid={}", group.trim()));
            let file = programs.join(name);
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        }
        Some(Self { stage, programs })
    }

    /// Runs a command by the script, from a shell that is about other servers.
    fn run(&self, command: &[&str]) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        Command::new(self.programs.join("as-kleidi"))
            .args(command)
            .env("PATH", format!("{}:{path}", self.programs.display()))
            .env("VAULT_ADDR", "https://of-the-shell:8200")
            .env("BAO_SKIP_VERIFY", "1")
            .env("BAO_TOKEN", "s.of-the-shell")
            .env("KLEIDI_CONFIG", "/of/the/shell.yaml")
            .output()
            .unwrap()
    }

    fn says(&self, command: &[&str]) -> String {
        let output = self.run(command);
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn output(program: &str, args: &[&str]) -> String {
    String::from_utf8(Command::new(program).args(args).output().unwrap().stdout).unwrap()
}

#[test]
fn nothing_of_the_calling_shell_is_handed_on() {
    let unit = r#"SOFTHSM2_CONF=/etc/kleidi/softhsm2.conf "BAO_ADDR=https://a b/\$(false)" BAO_CACERT=/ca"#;
    let Some(node) = Node::new("environment", unit, "") else { return };
    let said = node.says(&["env"]);
    let ours = ["PATH=", "TERM="];
    let mut lines: Vec<_> =
        said.lines().filter(|line| !ours.iter().any(|name| line.starts_with(name))).collect();
    lines.sort_unstable();
    let wanted = [
        "BAO_ADDR=https://a b/$(false)",
        "BAO_CACERT=/ca",
        "SOFTHSM2_CONF=/etc/kleidi/softhsm2.conf",
    ];
    assert_eq!(lines, wanted);
    assert_eq!(node.says(&["printf", "%s.", "a b", "", "$c"]), "a b..$c.", "arguments as they are");
    assert_eq!(node.run(&["sh", "-c", "exit 69"]).status.code(), Some(69), "its exit code");
}

/// A file of root's, such as the kubelet's certificate: with the unit's drop-in, and not without.
#[test]
fn it_may_read_what_the_unit_may_read() {
    for (capabilities, may) in [("", false), ("cap_dac_read_search", true)] {
        let Some(node) = Node::new("capabilities", "A=b", capabilities) else { return };
        let file = node.stage.path("kubelet-client-current.pem");
        fs::write(&file, "certificate").unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        let name = file.to_str().unwrap();
        assert_eq!(node.run(&["cat", name]).status.success(), may, "{capabilities}");
        let status = node.says(&["cat", "/proc/self/status"]);
        let effective = if may { "CapEff:\t0000000000000004" } else { "CapEff:\t0000000000000000" };
        assert!(status.contains(effective), "{status}");
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        assert!(!node.run(&["sh", "-c", &format!("echo x > {name}")]).status.success());
        assert_eq!(fs::read_to_string(&file).unwrap(), "certificate");
    }
}
