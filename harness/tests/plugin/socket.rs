//! The socket: whose it is, who may connect, and that nobody's is taken away.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use command_fds::{CommandFdExt as _, FdMapping};
use kleidi_harness::{Client, Plugin, PluginConfig, Process, SoftHsm, Stage};

use crate::{SEED, running, wait_healthy};

/// The configuration of a plugin that is not running.
fn stopped(test: &str) -> Option<(Stage, SoftHsm, PluginConfig)> {
    let stage = Stage::new(test);
    let token = SoftHsm::with_key(&stage, "token", "kek", 1)?;
    let config = Plugin::new(&stage, "plugin", &token);
    Some((stage, token, config))
}

/// Runs a plugin that has to refuse to serve; gives what it says.
fn refuses(config: &PluginConfig) -> String {
    let mut process = config.spawn("refusing");
    assert_eq!(process.wait(), 73, "{}", process.log());
    process.log()
}

fn mode(config: &PluginConfig) -> u32 {
    fs::metadata(config.socket()).unwrap().permissions().mode() & 0o777
}

#[test]
fn it_is_private_unless_the_configuration_says_otherwise() {
    let Some((_stage, _token, config)) = stopped("mode") else { return };
    let plugin = config.clone().start();
    assert_eq!(mode(&config), 0o600);
    drop(plugin);
    let more = "socket:\n  mode: \"0660\"\n  group: nogroup\n";
    let plugin = config.clone().replace("socket:\n", more).start();
    assert_eq!(mode(&config), 0o660);
    let gid = fs::metadata(config.socket()).unwrap().gid();
    assert_ne!(gid, 0, "the group is nogroup");
    drop(plugin);
}

#[test]
fn a_dead_socket_is_replaced_and_the_own_one_is_removed_at_the_end() {
    let Some((_stage, _token, mut plugin)) = running("dead") else { return };
    let socket = plugin.socket();
    plugin.process.kill();
    assert!(socket.exists(), "kill -9 leaves it behind");
    plugin.start_again();
    wait_healthy(&plugin);
    assert_eq!(plugin.process.terminate(), 0);
    assert!(!socket.exists(), "it cleans up after itself");
}

#[test]
fn another_ones_socket_is_left_alone() {
    let Some((stage, _token, config)) = stopped("not ours") else { return };
    let socket = config.socket();
    // A program that listens without our lock.
    let listener = UnixListener::bind(&socket).unwrap();
    assert!(refuses(&config).contains("is in use by a running process"));
    assert!(UnixStream::connect(&socket).is_ok(), "it still serves");
    drop(listener);
    fs::remove_file(&socket).unwrap();
    // A file, a directory and a link are no dead sockets.
    fs::write(&socket, "precious").unwrap();
    assert!(refuses(&config).contains("is not a socket; it is left alone"));
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
    fs::remove_file(&socket).unwrap();
    symlink(stage.path("elsewhere"), &socket).unwrap();
    assert!(refuses(&config).contains("is not a socket"));
    fs::remove_file(&socket).unwrap();

    // A configuration with a fault touches nothing at all, not even a dead socket.
    drop(UnixListener::bind(&socket).unwrap());
    let inode = fs::metadata(&socket).unwrap().ino();
    let faulty = config.clone().append("  workers: many\n");
    let mut process = faulty.spawn("faulty");
    assert_eq!(process.wait(), 78, "{}", process.log());
    assert_eq!(fs::metadata(&socket).unwrap().ino(), inode);
}

#[test]
fn a_socket_that_another_has_put_in_its_place_is_not_removed() {
    let Some((_stage, _token, mut plugin)) = running("replaced socket") else { return };
    let socket = plugin.socket();
    fs::remove_file(&socket).unwrap();
    let _other = UnixListener::bind(&socket).unwrap();
    assert_eq!(plugin.process.terminate(), 0);
    assert!(UnixStream::connect(&socket).is_ok(), "the other's socket is still there");
}

#[test]
fn a_second_plugin_refuses_and_the_first_serves_on() {
    let Some((_stage, _token, plugin)) = running("second") else { return };
    let mut client = plugin.client();
    let wrapped = client.encrypt(SEED).unwrap();
    for _ in 0..3 {
        assert!(refuses(plugin.config()).contains("is in use by a running process"));
    }
    assert_eq!(client.decrypt(&wrapped).unwrap(), SEED);
    assert_eq!(plugin.client().decrypt(&wrapped).unwrap(), SEED);
}

/// Many at once on one dead socket: exactly one gets it.
#[test]
fn of_many_that_start_at_once_one_gets_the_socket() {
    let Some((_stage, _token, config)) = stopped("race") else { return };
    drop(UnixListener::bind(config.socket()).unwrap());
    let mut all: Vec<Process> = (0..6).map(|n| config.spawn(&format!("racer-{n}"))).collect();
    let mut client = Client::new(&config.socket());
    kleidi_harness::eventually("one to serve and the others to end", || {
        let ended = all.iter_mut().filter_map(Process::ended).count();
        match client.status() {
            Ok(_) if ended == 5 => Ok(()),
            other => Err(format!("{ended} ended, {other:?}")),
        }
    });
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    let Some((stage, _token, config)) = stopped("directory") else { return };
    let socket = config.socket();
    let directory = socket.parent().unwrap();
    for mode in [0o777, 0o1777, 0o757] {
        fs::set_permissions(directory, fs::Permissions::from_mode(mode)).unwrap();
        let said = refuses(&config);
        assert!(said.contains("others can write to it"), "{mode:o}: {said}");
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(directory, Some(12345), None).unwrap();
    assert!(refuses(&config).contains("it belongs to uid 12345"));
    let missing = config.clone().replace(
        &socket.display().to_string(),
        &stage.path("missing/kms.sock").display().to_string(),
    );
    assert!(refuses(&missing).contains("cannot find the directory"));
}

/// Our own group may have members beside us; that of root is root's.
#[test]
fn a_directory_that_a_group_can_write_to_is_refused() {
    let Some((stage, _token, config)) = stopped("group") else { return };
    if !nix::unistd::geteuid().is_root() {
        return kleidi_harness::components::skip("only root can give a directory to a group");
    }
    let socket = config.socket();
    let directory = socket.parent().unwrap();
    let serve = |name: &str, group: u32| {
        std::os::unix::fs::chown(directory, None, Some(group)).unwrap();
        fs::set_permissions(directory, fs::Permissions::from_mode(0o770)).unwrap();
        let mut command = config.command(&["serve", "--config"]);
        command.arg(config.file()).gid(group);
        Process::spawn(&stage, name, &mut command)
    };
    let mut process = serve("own group", 12345);
    assert_eq!(process.wait(), 73, "{}", process.log());
    assert!(process.log().contains("others can write to it (mode 0770)"), "{}", process.log());
    let mut process = serve("root's group", 0);
    process.wait_ready(|| if socket.exists() { Ok(()) } else { Err(String::new()) });
}

/// Another user's process: the kernel tells who it is, whatever the file's mode.
#[test]
fn only_the_users_on_the_list_may_talk() {
    let Some((stage, _token, config)) = stopped("users") else { return };
    let name = format!("kleidi-test-{}", std::process::id());
    let address = format!("unix:///@{name}");
    let abstract_one =
        config.replace(&stage.path("plugin.d/kms.sock").display().to_string(), &address);
    let mut process = abstract_one.spawn("abstract");
    let ask = |uid: u32| {
        let mut command = abstract_one.command(&["status", "--socket", &address]);
        // An executable that everybody can reach.
        command.uid(uid);
        command.output()
    };
    // The binary has to be where the other user can run it.
    let binary = std::env::temp_dir().join(format!("{name}-binary"));
    fs::copy(kleidi_harness::built::plugin(), &binary).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let as_user = |uid: u32| {
        let mut command = Command::new(&binary);
        command.args(["status", "--socket", &address]).uid(uid);
        command.output().unwrap()
    };
    process.wait_ready(|| match ask(0).map(|output| output.status.code()) {
        Ok(Some(0)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let output = as_user(65534);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let log = process.log();
    assert!(log.contains("refused a connection: this user is not in socket.allowedUsers"), "{log}");
    assert!(log.contains("uid=65534"), "{log}");
    assert!(log.contains("only the list of users protects it"), "{log}");
    drop(process);

    let listed =
        abstract_one.clone().replace("socket:\n", "socket:\n  allowedUsers: [root, nobody]\n");
    let mut process = listed.spawn("listed");
    process.wait_ready(|| match as_user(65534).status.code() {
        Some(0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    fs::remove_file(binary).unwrap();
}

#[test]
fn a_socket_from_systemd_is_used_and_left_to_systemd() {
    let Some((stage, _token, config)) = stopped("activation") else { return };
    let socket = stage.path("handed-over.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let file = config.file();
    let start = |fds: Vec<OwnedFd>| {
        // systemd sets LISTEN_PID to the process's own id, which only the process itself knows.
        let script = "LISTEN_PID=$$ exec \"$0\" \"$@\"";
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script])
            .arg(kleidi_harness::built::plugin())
            .arg("--config")
            .arg(&file);
        command.env("LISTEN_FDS", fds.len().to_string());
        command.env("SOFTHSM2_CONF", stage.path("token/softhsm2.conf"));
        let mappings = fds
            .into_iter()
            .zip(3..)
            .map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd })
            .collect();
        command.fd_mappings(mappings).unwrap();
        Process::spawn(&stage, "activated", &mut command)
    };
    let mut process = start(vec![listener.try_clone().unwrap().into()]);
    let mut client = Client::new(&socket);
    process.wait_ready(|| client.status().map_err(|error| error.to_string()));
    client.encrypt(SEED).unwrap();
    assert!(!config.socket().exists(), "it does not make one of its own");
    assert_eq!(process.terminate(), 0);
    assert!(socket.exists(), "systemd goes on listening on it");
    let log = process.log();
    let used = format!("the socket that systemd handed over address=unix://{}", socket.display());
    assert!(log.contains(&used), "{log}");
    let no_effect = "socket.listen has no effect on it";
    assert!(log.contains(no_effect), "{log}");
    let configured = format!("listening address=unix://{}", config.socket().display());
    assert!(!log.contains(&configured), "nobody listens there: {log}");

    let same = config.socket().display().to_string();
    let _same = config.replace(&same, &socket.display().to_string());
    let mut process = start(vec![listener.try_clone().unwrap().into()]);
    process.wait_ready(|| client.status().map_err(|error| error.to_string()));
    assert_eq!(process.terminate(), 0);
    // What both have said.
    assert_eq!(process.log().matches(no_effect).count(), 1, "{}", process.log());

    let second = UnixListener::bind(stage.path("second.sock")).unwrap();
    let mut process = start(vec![listener.into(), second.into()]);
    assert_eq!(process.wait(), 73);
    assert!(process.log().contains("2 of them; the socket unit has to have one"));
}

/// A socket whose owner does not accept: it is in use, and nobody waits for it.
#[test]
fn a_socket_with_a_full_queue_is_in_use_and_status_does_not_hang() {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect};
    use std::os::fd::AsRawFd as _;
    let stage = Stage::new("full queue");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let config = Plugin::new(&stage, "plugin", &token);
    let address = UnixAddr::new(&config.socket()).unwrap();
    let new = || {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap()
    };
    let listener = new();
    bind(listener.as_raw_fd(), &address).unwrap();
    nix::sys::socket::listen(&listener, Backlog::new(1).unwrap()).unwrap();
    let mut waiting = Vec::new();
    loop {
        let client = new();
        if connect(client.as_raw_fd(), &address).is_err() {
            break;
        }
        waiting.push(client);
        assert!(waiting.len() < 100, "the queue has an end");
    }
    let mut process = config.spawn("second");
    assert_eq!(process.wait(), 73, "{}", process.log());
    assert!(process.log().contains("is in use"), "{}", process.log());
    let socket = config.socket().display().to_string();
    let output = config.run(&["status", "--timeout", "1s", "--socket", &socket]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
}

/// A symbolic link on the way to the socket that somebody else could let lead elsewhere.
#[test]
fn a_symbolic_link_of_another_user_is_not_followed() {
    let stage = Stage::new("symbolic link");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let config = Plugin::new(&stage, "plugin", &token);
    let (real, link) = (stage.make_dir("real"), stage.path("link"));
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let socket = link.join("kms.sock");
    let config = config
        .clone()
        .replace(&config.socket().display().to_string(), &socket.display().to_string());
    // Ours may be followed.
    let mut process = config.spawn("own");
    process.wait_ready(|| if socket.exists() { Ok(()) } else { Err(String::new()) });
    process.terminate();
    if !nix::unistd::geteuid().is_root() {
        return kleidi_harness::components::skip("only root can give a link away");
    }
    std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
    let mut process = config.spawn("foreign");
    assert_eq!(process.wait(), 73);
    assert!(process.log().contains("it is a symbolic link of uid 65534"), "{}", process.log());
}
