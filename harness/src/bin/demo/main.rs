//! The whole way of one Secret, on real parts, told step by step. `demo softhsm|openbao|vault [--keep]`;
//! run by `ci/demo`.

#![allow(clippy::print_stdout, reason = "telling is what it does")]
#![allow(clippy::expect_used, clippy::panic, reason = "without its parts there is nothing to tell")]

use keys::Keys;
use kleidi_harness::{ApiServer, Etcd, Plugin, Stage, Stored, components, eventually, within};

mod anatomy;
mod keys;

/// Name of the KMS provider in the EncryptionConfiguration.
const PROVIDER: &str = "kleidi";

const SECRET: &str = "demo";
const VALUE: &str = "correct horse battery staple";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let backend = args.first().map_or("softhsm", String::as_str);
    let keep = args.get(1).is_some_and(|arg| arg == "--keep");
    let stage = Stage::new("the demo");
    let version = components::KUBE_APISERVERS[components::KUBE_APISERVERS.len() - 1];

    let (keys, config) = Keys::prepare(backend, &stage);

    step("The plugin: kleidi serve");
    let plugin = config.start();
    let key_id = plugin.key_id();
    println!("  listens on unix://{}", plugin.socket().display());
    println!("  Status: ok, v2, key_id {key_id}");

    step(&format!("etcd {} and kube-apiserver {version}", components::ETCD));
    let etcd = Etcd::start(&stage).expect("etcd");
    let apiserver = ApiServer::new(&stage, "apiserver", version, &etcd).expect("kube-apiserver");
    let apiserver = apiserver.encrypt_with(PROVIDER, &plugin.socket()).start();
    let patience = std::time::Duration::from_secs(60);
    within(patience, "the KMS provider to be healthy", || apiserver.kms_health());
    println!(
        "  {} with --encryption-provider-config; /healthz/kms-providers: ok",
        apiserver.config().url()
    );

    step(&format!("A Secret: default/{SECRET}, value {VALUE:?}"));
    apiserver.create_secret(SECRET, VALUE);
    println!("  created through the API");

    let key = format!("/registry/secrets/default/{SECRET}");
    let raw = etcd.get(&key).expect("the Secret is in etcd");
    step(&format!("What etcd holds: {key}, {} bytes", raw.len()));
    println!("  {}…\n", printable(&raw[..raw.len().min(48)]));
    print!("{}", anatomy::explain(&raw, &key_id));
    let readable = raw.windows(VALUE.len()).any(|window| window == VALUE.as_bytes());
    assert!(!readable, "the Secret is in etcd in clear");
    println!("\n  The Secret's value is not in it.");

    step("Read back through the API");
    let read = apiserver.read_secret(SECRET).expect("the Secret can be read");
    assert_eq!(read, VALUE, "what was read is not what was written");
    println!("  default/{SECRET} = {read:?}");

    rotate(&keys, &plugin, &Stored::parse(&raw).expect("it was explained"));

    if keep {
        keep_running(stage, keys, plugin, etcd, apiserver);
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
    println!(
        "  kube-apiserver asks for it once a minute, and writes under the new key from then on"
    );
    let object = &stored.object;
    let mut client = plugin.client();
    let seed = client.decrypt_parts(&object.encrypted_dek_source, old, &object.annotations);
    let seed = seed.expect("what an older key wrapped can be unwrapped");
    println!("  the seed above, wrapped under {old}, is unwrapped as before: {} bytes", seed.len());
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

fn keep_running(stage: Stage, keys: Keys, plugin: Plugin, etcd: Etcd, apiserver: ApiServer) {
    let directory = stage.path("");
    let api = apiserver.config();
    let kleidi = kleidi_harness::built::plugin();
    step("It goes on running. To talk to it:");
    println!(
        "  curl --cacert {ca} -H 'Authorization: Bearer {bearer}' {url}/api/v1/namespaces/default/secrets/{SECRET}
  kubectl --server {url} --certificate-authority {ca} --token {bearer} get secret {SECRET} -o yaml
  {etcdctl} --endpoints {etcd_url} get /registry/secrets/default/{SECRET} | head -c 60
  {kleidi} status --socket {socket}
{commands}",
        ca = api.certificate().display(),
        bearer = api.bearer_token(),
        url = api.url(),
        etcdctl = etcd.etcdctl().display(),
        etcd_url = etcd.url(),
        kleidi = kleidi.display(),
        socket = plugin.socket().display(),
        commands = keys.commands(plugin.config()),
    );
    let processes = [plugin.process, etcd.process, apiserver.process];
    let processes = processes.into_iter().chain(keys.into_process());
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
