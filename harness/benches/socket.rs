//! What the plugin costs: Status, Encrypt and Decrypt over its socket, beside the floor in the same
//! run, as ratios. Machines that benchmarks run on are noisy: the ratios hold, the times do not.
//!
//! The floor is an empty gRPC call on the same kind of socket and the same stack (`echo`), and the bare
//! C_Encrypt and C_Decrypt of the module, as many as the plugin makes. Each round measures everything once, one after the other;
//! what is printed is the median over the rounds of the ratio within a round.
//!
//! Run with `cargo bench`. Criterion then measures the distribution of each call by itself; to have the
//! ratios only: `cargo bench --bench socket -- ratios`.

#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "this is a benchmark"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use criterion::Criterion;
use kleidi_harness::{Plugin, Process, SoftHsm, Stage, built, eventually};
use kleidi_proto::client::{Connection, connect};
use kleidi_proto::kms::key_management_service_client::KeyManagementServiceClient;
use kleidi_proto::kms::{DecryptRequest, EncryptRequest, StatusRequest};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

const ROUNDS: usize = 21;

/// Calls of one caller in a round.
const CALLS: usize = 500;

const CALLERS: usize = 64;

/// How long 64 callers call in a round.
const LOAD: Duration = Duration::from_millis(250);

/// Starts that are timed.
const STARTS: usize = 15;

#[derive(Clone, Copy)]
enum Call {
    Status,
    Encrypt,
    Decrypt,
}

/// One connection, and requests that are right for it.
#[derive(Clone)]
struct Caller {
    client: KeyManagementServiceClient<Connection>,
    encrypt: EncryptRequest,
    decrypt: DecryptRequest,
}

impl Caller {
    async fn new(socket: &Path) -> Self {
        let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
        let mut client = connect(stream).await.unwrap();
        let uid = "7d7b6a2c-2f3a-4d54-9a2f-0a1b2c3d4e5f".to_owned();
        let encrypt = EncryptRequest { plaintext: vec![7; 32], uid: uid.clone() };
        let wrapped = client.encrypt(encrypt.clone()).await.unwrap().into_inner();
        let decrypt = DecryptRequest {
            ciphertext: wrapped.ciphertext,
            uid,
            key_id: wrapped.key_id,
            annotations: wrapped.annotations,
        };
        Self { client, encrypt, decrypt }
    }

    async fn call(&mut self, call: Call) {
        match call {
            Call::Status => drop(self.client.status(StatusRequest {}).await.unwrap()),
            Call::Encrypt => drop(self.client.encrypt(self.encrypt.clone()).await.unwrap()),
            Call::Decrypt => drop(self.client.decrypt(self.decrypt.clone()).await.unwrap()),
        }
    }

    /// Median time of a call, one after the other, in nanoseconds.
    async fn alone(&mut self, call: Call) -> f64 {
        let mut times = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let begin = Instant::now();
            self.call(call).await;
            times.push(nanoseconds(begin.elapsed()));
        }
        median(&mut times)
    }

    /// Calls per second of 64 callers on one connection.
    async fn together(&self, call: Call) -> f64 {
        let begin = Instant::now();
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let mut caller = self.clone();
            callers.spawn(async move {
                let mut calls = 0_u32;
                while begin.elapsed() < LOAD {
                    caller.call(call).await;
                    calls += 1;
                }
                calls
            });
        }
        let calls: u32 = callers.join_all().await.into_iter().sum();
        f64::from(calls) / begin.elapsed().as_secs_f64()
    }
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A floor, a plugin and a token.
struct World {
    runtime: Runtime,
    echo: Caller,
    plugin: Caller,
    token: SoftHsm,
    running: Plugin,
    _echo: Process,
    stage: Stage,
}

impl World {
    fn new() -> Option<Self> {
        let stage = Stage::new("bench");
        let token = SoftHsm::with_key(&stage, "token", "kek", 1)?;
        let config = Plugin::new(&stage, "plugin", &token)
            .binary(PathBuf::from(env!("CARGO_BIN_EXE_kleidi")))
            .replace("period: 1s", "period: 10s")
            .log_level(Some("warn"));
        let running = config.start();
        kleidi_harness::wait_healthy(&running, Duration::from_secs(10)).clear();
        let socket = stage.path("echo.sock");
        let echo = Process::spawn(&stage, "echo", Command::new(built::echo()).arg(&socket));
        eventually("the echo", || {
            std::os::unix::net::UnixStream::connect(&socket).map_err(|error| error.to_string())
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (echo_caller, plugin) = runtime
            .block_on(async { (Caller::new(&socket).await, Caller::new(&running.socket()).await) });
        Some(Self { runtime, echo: echo_caller, plugin, token, running, _echo: echo, stage })
    }
}

/// Ratios of one call, round by round.
#[derive(Default)]
struct Rounds {
    alone: Vec<f64>,
    alone_to_floor: Vec<f64>,
    together: Vec<f64>,
    together_to_floor: Vec<f64>,
}

fn ratios(world: &mut World) {
    let (mut echo_alone, mut echo_together) = (Vec::new(), Vec::new());
    let (mut raw_encrypt, mut raw_decrypt) = (Vec::new(), Vec::new());
    let calls = [Call::Status, Call::Encrypt, Call::Decrypt];
    let mut rounds: [Rounds; 3] = std::array::from_fn(|_| Rounds::default());
    for round in 0..=ROUNDS {
        let (encrypt, decrypt) = world.token.time("kek", "01");
        let echo = world.runtime.block_on(world.echo.alone(Call::Encrypt));
        let echo_rate = world.runtime.block_on(world.echo.together(Call::Encrypt));
        // Encrypt reads back what it has wrapped, and tries the canary, before it answers.
        let bare = [0.0, encrypt + 2.0 * decrypt, decrypt];
        for ((call, rounds), raw) in calls.iter().zip(&mut rounds).zip(bare) {
            let alone = world.runtime.block_on(world.plugin.alone(*call));
            let rate = world.runtime.block_on(world.plugin.together(*call));
            // The first round warms up.
            if round > 0 {
                rounds.alone.push(alone);
                rounds.alone_to_floor.push(alone / (echo + raw));
                rounds.together.push(rate);
                rounds.together_to_floor.push(rate / echo_rate);
            }
        }
        if round > 0 {
            echo_alone.push(echo);
            echo_together.push(echo_rate);
            raw_encrypt.push(encrypt);
            raw_decrypt.push(decrypt);
        }
    }
    println!("\n{:<28}{:>14}{:>16}", "floor", "1 caller, p50", "64 callers");
    println!(
        "{:<28}{:>11.1} µs{:>14.0}/s",
        "empty gRPC call (echo)",
        median(&mut echo_alone) / 1e3,
        median(&mut echo_together)
    );
    for (name, raw) in [("bare C_Encrypt", raw_encrypt), ("bare C_Decrypt", raw_decrypt)] {
        let mut raw = raw;
        println!("{name:<28}{:>11.1} µs", median(&mut raw) / 1e3);
    }
    println!(
        "\n{:<10}{:>14}{:>22}{:>16}{:>20}",
        "plugin", "1 caller, p50", "to echo + bare calls", "64 callers", "to echo's rate"
    );
    for (name, rounds) in ["Status", "Encrypt", "Decrypt"].iter().zip(&mut rounds) {
        println!(
            "{name:<10}{:>11.1} µs{:>20.2} x{:>14.0}/s{:>18.2} x",
            median(&mut rounds.alone) / 1e3,
            median(&mut rounds.alone_to_floor),
            median(&mut rounds.together),
            median(&mut rounds.together_to_floor)
        );
    }
    println!("bare calls: Encrypt one C_Encrypt and two C_Decrypt, Decrypt one C_Decrypt");
}

fn memory(world: &World) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.running.process.pid()));
    let status = status.unwrap();
    let kib = |name: &str| -> f64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    println!(
        "\nresident after the load: {:.1} MiB, of it {:.1} MiB of its own (the rest is shared files: \
         SoftHSM, OpenSSL, libc, the binary)",
        kib("VmRSS") / 1024.0,
        kib("RssAnon") / 1024.0
    );
}

/// From exec to the first Status that is ok.
fn starts(world: &World) {
    let mut times = Vec::new();
    for number in 0..STARTS {
        let config = Plugin::new(&world.stage, &format!("start-{number}"), &world.token)
            .binary(PathBuf::from(env!("CARGO_BIN_EXE_kleidi")))
            .log_level(Some("warn"));
        let begin = Instant::now();
        let process = config.spawn("start");
        world.runtime.block_on(async {
            loop {
                let Ok(stream) = tokio::net::UnixStream::connect(config.socket()).await else {
                    tokio::time::sleep(Duration::from_micros(200)).await;
                    continue;
                };
                let Ok(mut client) = connect(stream).await else { continue };
                if client.status(StatusRequest {}).await.is_ok() {
                    break;
                }
            }
        });
        times.push(nanoseconds(begin.elapsed()) / 1e6);
        drop(process);
    }
    let (min, max) = times
        .iter()
        .fold((f64::MAX, 0.0), |(min, max): (f64, f64), time| (min.min(*time), max.max(*time)));
    let median = median(&mut times);
    println!(
        "exec to first ok Status: {median:.1} ms (from {min:.1} to {max:.1}, {STARTS} starts)"
    );
}

fn distributions(world: &World) {
    let mut criterion = Criterion::default()
        .configure_from_args()
        .measurement_time(Duration::from_secs(3))
        .warm_up_time(Duration::from_millis(500));
    for (name, caller, call) in [
        ("echo", &world.echo, Call::Encrypt),
        ("Status", &world.plugin, Call::Status),
        ("Encrypt", &world.plugin, Call::Encrypt),
        ("Decrypt", &world.plugin, Call::Decrypt),
    ] {
        criterion.bench_function(&format!("{name}, 1 caller"), |bencher| {
            let mut caller = caller.clone();
            bencher.iter_custom(|calls| {
                world.runtime.block_on(async {
                    let begin = Instant::now();
                    for _ in 0..calls {
                        caller.call(call).await;
                    }
                    begin.elapsed()
                })
            });
        });
        criterion.bench_function(&format!("{name}, 64 callers"), |bencher| {
            bencher.iter_custom(|calls| {
                world.runtime.block_on(async {
                    let begin = Instant::now();
                    let mut callers = JoinSet::new();
                    let each = calls.div_ceil(CALLERS as u64);
                    for _ in 0..CALLERS {
                        let mut caller = caller.clone();
                        callers.spawn(async move {
                            for _ in 0..each {
                                caller.call(call).await;
                            }
                        });
                    }
                    callers.join_all().await;
                    begin.elapsed()
                })
            });
        });
    }
    criterion.final_summary();
}

fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let Some(mut world) = World::new() else { return };
    if !std::env::args().any(|arg| arg == "ratios") {
        distributions(&world);
    }
    ratios(&mut world);
    memory(&world);
    starts(&world);
}
