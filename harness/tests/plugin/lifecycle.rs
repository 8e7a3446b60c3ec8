//! Starting, stopping, and what systemd and an attacker on the socket see of it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use kleidi_harness::{Client, Plugin, Shim, SoftHsm, Stage, eventually, within};
use nix::sys::signal::Signal;

use crate::{SEED, SOON, running, wait_healthy, wait_outage};

/// A plugin whose calls take as long as the test wants.
fn slow(test: &str) -> Option<(Stage, Shim, Plugin)> {
    let stage = Stage::new(test);
    let token = SoftHsm::with_key(&stage, "token", "kek", 1)?;
    let shim = Shim::new(&stage);
    let config = Plugin::new(&stage, "plugin", &token).with_shim(&shim, &token);
    let plugin = config.replace("period: 1s", "period: 60s").start();
    wait_healthy(&plugin);
    Some((stage, shim, plugin))
}

#[test]
fn sigterm_lets_calls_in_flight_end() {
    let Some((_stage, shim, mut plugin)) = slow("drain") else { return };
    let wrapped = plugin.client().encrypt(SEED).unwrap();
    let socket = plugin.socket();
    shim.order("C_DecryptInit ms=1500");
    let before = shim.count("C_DecryptInit");
    let call = std::thread::spawn(move || Client::new(&socket).decrypt(&wrapped));
    eventually("the call to be in the module", || {
        if shim.count("C_DecryptInit") > before { Ok(()) } else { Err(String::new()) }
    });
    plugin.process.signal(Signal::SIGTERM);
    eventually("nobody new to be let in", || match UnixStream::connect(plugin.socket()) {
        Ok(_) => Err("one was".to_owned()),
        Err(_) => Ok(()),
    });
    assert_eq!(call.join().unwrap().unwrap(), SEED, "it was answered");
    assert_eq!(plugin.process.wait(), 0);
    assert!(plugin.process.log().contains("stopping: finishing the calls in flight"));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let Some((_stage, shim, mut plugin)) = slow("second signal") else { return };
    let socket = plugin.socket();
    shim.order("C_EncryptInit ms=30000");
    let before = shim.count("C_EncryptInit");
    let call = std::thread::spawn(move || Client::new(&socket).encrypt(SEED).map(|_| ()));
    eventually("the call to be in the module", || {
        if shim.count("C_EncryptInit") > before { Ok(()) } else { Err(String::new()) }
    });
    plugin.process.signal(Signal::SIGTERM);
    eventually("the plugin to be stopping", || {
        let log = plugin.process.log();
        if log.contains("stopping") { Ok(()) } else { Err(log) }
    });
    plugin.process.signal(Signal::SIGINT);
    let code = within(Duration::from_secs(2), "the end", || {
        plugin.process.ended().ok_or_else(|| "it runs".to_owned())
    });
    assert_eq!(code.code(), Some(1));
    assert!(call.join().unwrap().is_err());
}

/// Messages that systemd would get.
struct Systemd(UnixDatagram);

impl Systemd {
    fn new(stage: &Stage) -> Self {
        let socket = UnixDatagram::bind(stage.path("notify.sock")).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Self(socket)
    }

    /// Waits for a message with that text.
    fn wait(&self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let mut message = [0; 4096];
            let Ok(length) = self.0.recv(&mut message) else {
                panic!("no {text:?} among {seen:?}");
            };
            let message = String::from_utf8_lossy(&message[..length]).into_owned();
            if message.contains(text) {
                return message;
            }
            seen.push(message);
        }
    }
}

#[test]
fn systemd_is_told_how_it_goes() {
    let stage = Stage::new("systemd");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    let systemd = Systemd::new(&stage);
    let config = Plugin::new(&stage, "plugin", &token)
        .env("NOTIFY_SOCKET", stage.path("notify.sock"))
        .env("WATCHDOG_USEC", "400000");
    let mut process = config.spawn("plugin");
    systemd.wait("READY=1");
    systemd.wait("STATUS=in order, key ");
    for _ in 0..3 {
        systemd.wait("WATCHDOG=1");
    }
    token.take_away();
    systemd.wait("STATUS=KMS out of order: cannot");
    // A KMS that is down is no reason to be restarted.
    for _ in 0..3 {
        systemd.wait("WATCHDOG=1");
    }
    token.bring_back();
    systemd.wait("STATUS=in order, key ");
    process.signal(Signal::SIGTERM);
    systemd.wait("STOPPING=1");
    assert_eq!(process.wait(), 0);
}

#[test]
fn systemd_hears_ready_although_the_kms_is_down() {
    let stage = Stage::new("ready");
    let Some(token) = SoftHsm::empty(&stage, "token") else { return };
    let systemd = Systemd::new(&stage);
    let config =
        Plugin::new(&stage, "plugin", &token).env("NOTIFY_SOCKET", stage.path("notify.sock"));
    let _process = config.spawn("plugin");
    systemd.wait("READY=1");
}

#[test]
fn seeds_cannot_get_out_by_core_dumps_or_swap() {
    let Some((_stage, _token, plugin)) = running("hardening") else { return };
    let read = |file: &str| {
        std::fs::read_to_string(format!("/proc/{}/{file}", plugin.process.pid())).unwrap()
    };
    let limits = read("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    let owner = std::fs::metadata(format!("/proc/{}/mem", plugin.process.pid())).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0, "undumpable");
    let locked = read("status").lines().find(|line| line.starts_with("VmLck")).unwrap().to_owned();
    let kib: u64 = locked.split_whitespace().nth(1).unwrap().parse().unwrap();
    let warned = plugin.process.log().contains("memory is not locked");
    assert!(kib > 0 || warned, "locked, or said: {locked}");
}

/// Rubbish on the socket ends the connection that it came on, and nothing else.
#[test]
fn garbage_harms_nobody_else() {
    let Some((_stage, _token, plugin)) = running("garbage") else { return };
    let mut client = plugin.client();
    let wrapped = client.encrypt(SEED).unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    let noise: Vec<u8> =
        (0..65536_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
    // HEADERS with an index that does not exist.
    let bad_index = b"\0\0\x01\x01\x05\0\0\0\x01\xfe";
    // HEADERS whose literal runs over the end of its block.
    let cut = b"\0\0\x03\x01\x05\0\0\0\x01\x41\x09l";
    let garbage: [&[&[u8]]; 7] = [
        &[&noise],
        &[b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"],
        &[preface, &[0xff; 100]],
        &[preface, settings, bad_index],
        &[preface, settings, cut],
        &[preface, settings, &noise],
        &[preface],
    ];
    let mut open = Vec::new();
    for pieces in garbage {
        let mut stream = UnixStream::connect(plugin.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // The other side may have hung up already.
        let _ = stream.write_all(&pieces.concat());
        open.push(stream);
        assert_eq!(client.decrypt(&wrapped).unwrap(), SEED);
    }
    // All but the last, which is no fault yet, were closed.
    for stream in &mut open[..6] {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    let idle: Vec<_> = (0..500).map(|_| UnixStream::connect(plugin.socket()).unwrap()).collect();
    assert_eq!(plugin.client().decrypt(&wrapped).unwrap(), SEED);
    drop(idle);
    assert_eq!(client.decrypt(&wrapped).unwrap(), SEED);
}

/// What an operator reads in the log of an outage: once when it begins, once when it ends.
#[test]
fn the_log_of_an_outage() {
    let stage = Stage::new("log");
    let Some(token) = SoftHsm::with_key(&stage, "token", "kek", 1) else { return };
    for format in ["text", "json"] {
        let config = Plugin::new(&stage, &format!("plugin-{format}"), &token)
            .append(&format!("log:\n  level: info\n  format: {format}\n"))
            .log_level(None);
        let mut plugin = config.start();
        wait_healthy(&plugin);
        token.take_away();
        wait_outage(&plugin);
        for _ in 0..20 {
            plugin.client().status().unwrap_err();
            plugin.client().encrypt(SEED).unwrap_err();
        }
        token.bring_back();
        wait_healthy(&plugin);
        plugin.client().encrypt(SEED).unwrap();
        plugin.process.terminate();
        let log = plugin.process.log();
        if format == "json" {
            for line in log.lines() {
                let line: serde_json::Value = serde_json::from_str(line).expect("a JSON object");
                assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
            }
        }
        let mut settings = insta::Settings::clone_current();
        for (pattern, to) in [
            (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "<time>"),
            (r"/tmp/kleidi-\d+-\d+", "<stage>"),
            (r"[0-9a-f]{32}-01", "<key_id>"),
            (r#"after_seconds("?[:=])\d+"#, "after_seconds$1<n>"),
            (r#"(starting|"starting",) ?"?version.*"#, "starting <configuration>"),
        ] {
            settings.add_filter(pattern, to);
        }
        settings.set_prepend_module_to_snapshot(false);
        settings.bind(|| insta::assert_snapshot!(format!("log_of_an_outage_{format}"), log));
    }
}
