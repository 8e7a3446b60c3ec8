//! The whole way of one Secret, on real parts, told step by step. `demo softhsm|openbao|vault real|model
//! [--keep]`;
//! run by `ci/demo`.

#![allow(clippy::print_stdout, reason = "telling is what it does")]
#![allow(clippy::expect_used, clippy::panic, reason = "without its parts there is nothing to tell")]

use std::process::Command;

use api::Api;
use keys::Keys;
use kleidi_harness::{Etcd, Plugin, Stage, Stored, components, eventually};

mod anatomy;
mod api;
mod keys;

/// Name of the KMS provider in the EncryptionConfiguration.
const PROVIDER: &str = "kleidi";

const SECRET: &str = "demo";
const VALUE: &str = "correct horse battery staple";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let backend = args.first().map_or("softhsm", String::as_str);
    let which = args.get(1).map_or("real", String::as_str);
    let keep = args.get(2).is_some_and(|arg| arg == "--keep");
    let stage = Stage::new("the demo");

    let (keys, config) = Keys::prepare(backend, &stage);

    step("The plugin: kleidi serve");
    let plugin = config.start();
    let key_id = plugin.key_id();
    println!("  listens on unix://{}", plugin.socket().display());
    println!("  Status: ok, v2, key_id {key_id}");

    step(&format!("etcd {}", components::ETCD));
    let etcd = Etcd::start(&stage).expect("etcd");
    println!("  {}", etcd.url());
    let api = Api::start(which, &stage, &etcd, &plugin);

    step(&format!("A Secret: default/{SECRET}, value {VALUE:?}"));
    api.create(SECRET, VALUE);

    let key = format!("/registry/secrets/default/{SECRET}");
    let raw = etcd.get(&key).expect("the Secret is in etcd");
    step(&format!("What etcd holds: {key}, {} bytes", raw.len()));
    println!("  {}…\n", printable(&raw[..raw.len().min(48)]));
    print!("{}", anatomy::explain(&raw, &key_id));
    let readable = raw.windows(VALUE.len()).any(|window| window == VALUE.as_bytes());
    assert!(!readable, "the Secret is in etcd in clear");
    println!("\n  The Secret's value is not in it.");

    step("Read back");
    let read = api.read(SECRET);
    assert_eq!(read, VALUE, "what was read is not what was written");
    println!("  default/{SECRET} = {read:?}");

    rotate(&keys, &plugin, &Stored::parse(&raw).expect("it was explained"));
    api.move_to_the_new_key();

    if keep {
        keep_running(stage, keys, plugin, etcd, api);
    } else {
        println!("\nThat was all. ci/demo --keep leaves it running.");
    }
}

fn rotate(keys: &Keys, plugin: &Plugin, stored: &Stored) {
    step("Rotation");
    keys.rotate(plugin.config());
    let old = &stored.object.key_id;
    let new = eventually("Status to name another key", || match plugin.key_id() {
        id if id == *old => Err(id),
        id => Ok(id),
    });
    println!("  Status: ok, v2, key_id {new}");
    let object = &stored.object;
    let mut client = plugin.client();
    let seed = client.decrypt_parts(&object.encrypted_dek_source, old, &object.annotations);
    let seed = seed.expect("what an older key wrapped can be unwrapped");
    println!("  the seed above, wrapped under {old}, is unwrapped as before: {} bytes", seed.len());
}

/// Runs a command that has to succeed: what it says.
fn run(command: &mut Command) -> String {
    let output = command.output().expect("it can be run");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}{complaint}");
    said
}

fn step(title: &str) {
    println!("\n\u{1b}[1m{title}\u{1b}[0m");
}

fn printable(bytes: &[u8]) -> String {
    let shown = |byte: &u8| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '.',
    };
    bytes.iter().map(shown).collect()
}

fn keep_running(stage: Stage, keys: Keys, plugin: Plugin, etcd: Etcd, api: Api) {
    let directory = stage.path("");
    let kleidi = kleidi_harness::built::plugin();
    step("It goes on running. To talk to it:");
    println!(
        "{api}
  {etcdctl} --endpoints {etcd_url} get /registry/secrets/default/{SECRET} | head -c 60
  {kleidi} status --socket {socket}
{commands}",
        api = api.commands(SECRET),
        etcdctl = etcd.etcdctl().display(),
        etcd_url = etcd.url(),
        kleidi = kleidi.display(),
        socket = plugin.socket().display(),
        commands = keys.commands(plugin.config()),
    );
    let processes = [plugin.process, etcd.process].into_iter().chain(api.into_process());
    let processes = processes.chain(keys.into_process());
    let pids: Vec<_> = processes
        .map(|process| {
            let pid = process.pid().to_string();
            process.leave_running();
            pid
        })
        .collect();
    let directory = directory.display();
    println!("\nLogs: {directory}*.log");
    println!("To end it: kill -KILL {} && rm -r {directory}", pids.join(" "));
    stage.keep();
}
