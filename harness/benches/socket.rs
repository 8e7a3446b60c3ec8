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

use std::path::PathBuf;
use std::time::Duration;

use criterion::Criterion;
use kleidi_harness::{Plugin, Process, SoftHsm, Stage};
use measure::{CALLERS, Call as _, Caller, Method, alone, median, together};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

mod measure;

const ROUNDS: usize = 21;

/// Calls of one caller in a round.
const CALLS: usize = 500;

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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (process, echo) = measure::echo(&stage, &runtime);
        let plugin = runtime.block_on(Caller::new(&running.socket()));
        Some(Self { runtime, echo, plugin, token, running, _echo: process, stage })
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

fn ratios(world: &World) {
    let (mut echo_alone, mut echo_together) = (Vec::new(), Vec::new());
    let (mut raw_encrypt, mut raw_decrypt) = (Vec::new(), Vec::new());
    let methods = [Method::Status, Method::Encrypt, Method::Decrypt];
    let mut rounds: [Rounds; 3] = std::array::from_fn(|_| Rounds::default());
    for round in 0..=ROUNDS {
        let (encrypt, decrypt) = world.token.time("kek", "01");
        let floor = (world.echo.clone(), Method::Encrypt);
        let echo = world.runtime.block_on(alone(CALLS, floor.clone()));
        let echo_rate = world.runtime.block_on(together(floor));
        // Encrypt reads back what it has wrapped, and tries the canary, before it answers.
        let bare = [0.0, encrypt + 2.0 * decrypt, decrypt];
        for ((method, rounds), raw) in methods.iter().zip(&mut rounds).zip(bare) {
            let call = (world.plugin.clone(), *method);
            let alone = world.runtime.block_on(alone(CALLS, call.clone()));
            let rate = world.runtime.block_on(together(call));
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
    let (all, own) = measure::resident(&world.running.process);
    println!(
        "\nresident after the load: {all:.1} MiB, of it {own:.1} MiB of its own (the rest is shared files: \
         SoftHSM, OpenSSL, libc, the binary)"
    );
}

fn distributions(world: &World) {
    let mut criterion = Criterion::default()
        .configure_from_args()
        .measurement_time(Duration::from_secs(3))
        .warm_up_time(Duration::from_millis(500));
    for (name, caller, method) in [
        ("echo", &world.echo, Method::Encrypt),
        ("Status", &world.plugin, Method::Status),
        ("Encrypt", &world.plugin, Method::Encrypt),
        ("Decrypt", &world.plugin, Method::Decrypt),
    ] {
        let call = (caller.clone(), method);
        criterion.bench_function(&format!("{name}, 1 caller"), |bencher| {
            let mut call = call.clone();
            bencher.iter_custom(|calls| {
                world.runtime.block_on(async {
                    let begin = Instant::now();
                    for _ in 0..calls {
                        call.call().await;
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
                        let mut call = call.clone();
                        callers.spawn(async move {
                            for _ in 0..each {
                                call.call().await;
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
    let Some(world) = World::new() else { return };
    if !std::env::args().any(|arg| arg == "ratios") {
        distributions(&world);
    }
    ratios(&world);
    memory(&world);
    measure::starts(&world.runtime, |name| {
        Plugin::new(&world.stage, name, &world.token)
            .binary(PathBuf::from(env!("CARGO_BIN_EXE_kleidi")))
            .log_level(Some("warn"))
    });
}
