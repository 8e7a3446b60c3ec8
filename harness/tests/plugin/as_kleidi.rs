//! `configuration/as-kleidi`: a command runs as the unit does, whatever shell it is run from.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use kleidi_harness::{Stage, components};

const SCRIPT: &str = include_str!("../../../configuration/as-kleidi");

/// The script on a node whose unit has certain properties.
struct Node {
    stage: Stage,
    programs: PathBuf,
}

impl Node {
    /// `None` where the script cannot be run. Its user is `nobody` here, and a program stands in for
    /// `systemctl`, because the machine of a test need not have been booted with systemd.
    fn new(test: &str, properties: &[(&str, &str)]) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            components::skip("only root can run a command as another user");
            return None;
        }
        let stage = Stage::new(test);
        // Its own user enters it, too.
        fs::set_permissions(stage.path(""), PermissionsExt::from_mode(0o755)).unwrap();
        let programs = stage.make_dir("programs");
        // As systemd prints a list of texts: what a shell would take otherwise is quoted.
        let mut systemctl = "#!/bin/sh\ncase \"$*\" in\n'cat kleidi.service') ;;\n".to_owned();
        for name in
            ["Environment", "EnvironmentFiles", "SupplementaryGroups", "AmbientCapabilities"]
        {
            let value =
                properties.iter().find(|(of, _)| *of == name).map_or("", |(_, value)| value);
            let _ = write!(
                systemctl,
                "'show --property={name} --value kleidi.service') cat <<'END'\n{value}\nEND\n;;\n"
            );
        }
        systemctl.push_str("*) exit 64 ;;\nesac\n");
        for (name, content) in [("systemctl", systemctl.as_str()), ("as-kleidi", SCRIPT)] {
            let group = output("id", &["-gn", "nobody"]);
            let content = content
                .replace("--reuid=kleidi", "--reuid=nobody")
                .replace("id -G kleidi", "id -G nobody")
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
    let Some(node) = Node::new("environment", &[("Environment", unit)]) else { return };
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
        let properties = [("Environment", "A=b"), ("AmbientCapabilities", capabilities)];
        let Some(node) = Node::new("capabilities", &properties) else { return };
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

#[test]
fn it_is_in_the_groups_of_its_user_and_of_the_unit() {
    let own = output("id", &["-G", "nobody"]);
    for (unit, more) in [("", ""), ("adm daemon", " 4 1")] {
        let Some(node) = Node::new("groups", &[("SupplementaryGroups", unit)]) else { return };
        let mut groups: Vec<_> =
            format!("{}{more}", own.trim()).split(' ').map(str::to_owned).collect();
        let mut said: Vec<_> =
            node.says(&["id", "-G"]).split_whitespace().map(str::to_owned).collect();
        groups.sort_unstable();
        said.sort_unstable();
        assert_eq!(said, groups);
    }
}

#[test]
fn what_it_cannot_do_as_the_unit_does_is_refused() {
    let file = [("EnvironmentFiles", "/etc/kleidi/env (ignore_errors=no)")];
    let Some(node) = Node::new("file", &file) else { return };
    let output = node.run(&["true"]);
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("EnvironmentFile=") && said.contains("use Environment="), "{said}");
}
