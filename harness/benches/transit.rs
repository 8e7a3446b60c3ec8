//! What the plugin costs with its key in OpenBao or Vault: beside the same calls of the server without
//! it, and an empty gRPC call, in the same run, as ratios. As in the benchmark `socket`: each round
//! measures everything once, one after the other; what is printed is the median over the rounds.
//!
//! The bare calls are made with the daemon's own kind of HTTP client, which keeps its connections, and a
//! token of the same role.
//!
//! Run with `cargo bench --bench transit -- ratios`; on one of the two servers: `… -- ratios openbao`.

#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "this is a benchmark"
)]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kleidi_harness::{
    AppRole, CountingProxy, Plugin, PluginConfig, Process, Product, Stage, VaultServer,
};
use kleidi_proto::kms::DecryptRequest;
use measure::{CALLERS, Call, Caller, Method, alone, median, together};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

mod measure;

const ROUNDS: usize = 11;

/// Calls of one caller in a round.
const CALLS: usize = 300;

/// Seeds that a kube-apiserver finds in etcd when it starts.
const SEEDS: usize = 1000;

/// As long as what the plugin sends.
const AAD: [u8; 58] = [7; 58];

/// A call of the server without the plugin.
#[derive(Clone)]
struct Bare {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    token: String,
    body: Bytes,
}

impl Bare {
    fn new(server: &VaultServer, token: String) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client, url: format!("{}/v1/", server.address()), token, body: Bytes::new() }
    }

    /// The same for a path, with a body.
    fn of(&self, path: &str, body: &Value) -> Self {
        let (url, body) = (format!("{}{path}", self.url), body.to_string().into());
        Self { url, body, ..self.clone() }
    }

    async fn answer(&self) -> Bytes {
        let request = http::Request::post(&self.url)
            .header("x-vault-request", "true")
            .header("x-vault-token", &self.token)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(self.body.clone()))
            .unwrap();
        let answer = self.client.request(request).await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        answer.into_body().collect().await.unwrap().to_bytes()
    }

    /// A call that unwraps what this one wraps.
    async fn wrapped(&self, decrypt: &Self) -> Self {
        let answer: Value = serde_json::from_slice(&self.answer().await).unwrap();
        let ciphertext = &answer["data"]["ciphertext"];
        let body = json!({"ciphertext": ciphertext, "associated_data": STANDARD.encode(AAD)});
        Self { body: body.to_string().into(), ..decrypt.clone() }
    }
}

impl Call for Bare {
    async fn call(&mut self) {
        drop(self.answer().await);
    }
}

/// A server, a plugin on it, and the floor.
struct World {
    runtime: Runtime,
    echo: Caller,
    plugin: Caller,
    encrypt: Bare,
    decrypt: Bare,
    login: Bare,
    running: Plugin,
    role: AppRole,
    server: VaultServer,
    _echo: Process,
    stage: Stage,
}

impl World {
    fn new(product: Product) -> Option<Self> {
        let stage = Stage::new("bench");
        let server = VaultServer::start(&stage, "server", product)?;
        let role = server.provision();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let running = config(&stage, "plugin", &server, &role).start();
        kleidi_harness::wait_healthy(&running, Duration::from_secs(10)).clear();
        let (process, echo) = measure::echo(&stage, &runtime);
        let plugin = runtime.block_on(Caller::new(&running.socket()));
        let bare = Bare::new(&server, server.log_in(&role));
        let login = json!({"role_id": role.role_id, "secret_id": role.secret_id});
        let login = bare.of("auth/approle/login", &login);
        // What the plugin sends.
        let (seed, aad) = (STANDARD.encode([7; 32]), STANDARD.encode(AAD));
        let encrypt = json!({"plaintext": seed, "associated_data": aad, "key_version": 1});
        let encrypt = bare.of("transit/encrypt/kms", &encrypt);
        let decrypt = bare.of("transit/decrypt/kms", &Value::Null);
        let decrypt = runtime.block_on(encrypt.wrapped(&decrypt));
        Some(Self {
            runtime,
            echo,
            plugin,
            encrypt,
            decrypt,
            login,
            running,
            role,
            server,
            _echo: process,
            stage,
        })
    }
}

fn config(stage: &Stage, name: &str, server: &VaultServer, role: &AppRole) -> PluginConfig {
    Plugin::on_transit(stage, name, server, role)
        .binary(PathBuf::from(env!("CARGO_BIN_EXE_kleidi")))
        .replace("period: 1s", "period: 1m")
        .log_level(Some("warn"))
}

/// Figures of one kind of call, round by round.
#[derive(Default)]
struct Figures {
    bare_alone: Vec<f64>,
    alone: Vec<f64>,
    above_floor: Vec<f64>,
    to_floor: Vec<f64>,
    bare_together: Vec<f64>,
    together: Vec<f64>,
    to_bare: Vec<f64>,
}

impl Figures {
    fn measure(&mut self, runtime: &Runtime, echo: f64, bare: &Bare, call: &(Caller, Method)) {
        let bare_alone = runtime.block_on(alone(CALLS, bare.clone()));
        let alone = runtime.block_on(alone(CALLS, call.clone()));
        let bare_together = runtime.block_on(together(bare.clone()));
        let together = runtime.block_on(together(call.clone()));
        self.bare_alone.push(bare_alone);
        self.alone.push(alone);
        self.above_floor.push(alone - echo - bare_alone);
        self.to_floor.push(alone / (echo + bare_alone));
        self.bare_together.push(bare_together);
        self.together.push(together);
        self.to_bare.push(together / bare_together);
    }

    fn print(&mut self, name: &str) {
        let [bare, alone, above] =
            [&mut self.bare_alone, &mut self.alone, &mut self.above_floor].map(|v| median(v) / 1e3);
        let [bare_rate, rate] = [&mut self.bare_together, &mut self.together].map(|v| median(v));
        println!(
            "{name:<8}{bare:>9.0} µs{alone:>9.0} µs{above:>+12.0} µs{:>9.2} x{bare_rate:>12.0}/s{rate:>9.0}/s{:>9.2} x",
            median(&mut self.to_floor),
            median(&mut self.to_bare),
        );
    }
}

fn ratios(world: &World) {
    let runtime = &world.runtime;
    let floor = (world.echo.clone(), Method::Encrypt);
    let calls = [Method::Encrypt, Method::Decrypt].map(|method| (world.plugin.clone(), method));
    let bare = [&world.encrypt, &world.decrypt];
    let (mut echo_alone, mut echo_together) = (Vec::new(), Vec::new());
    let mut figures = <[Figures; 2]>::default();
    for round in 0..=ROUNDS {
        let echo = runtime.block_on(alone(CALLS, floor.clone()));
        echo_alone.push(echo);
        echo_together.push(runtime.block_on(together(floor.clone())));
        for ((figures, bare), call) in figures.iter_mut().zip(bare).zip(&calls) {
            figures.measure(runtime, echo, bare, call);
        }
        // The first round warms up.
        if round == 0 {
            echo_alone.clear();
            echo_together.clear();
            figures = Default::default();
        }
    }
    let (echo, rate) = (median(&mut echo_alone) / 1e3, median(&mut echo_together));
    println!("empty gRPC call (echo): {echo:.0} µs, 64 callers {rate:.0}/s");
    println!(
        "{:<8}{:>12}{:>12}{:>15}{:>11}{:>14}{:>11}{:>11}",
        "p50", "bare", "plugin", "- echo - bare", "ratio", "64 bare", "plugin", "ratio"
    );
    for (name, figures) in ["Encrypt", "Decrypt"].iter().zip(&mut figures) {
        figures.print(name);
    }
}

/// Makes each call once, 64 at a time: how long all take, in milliseconds.
async fn drain(calls: Vec<impl Call>) -> f64 {
    let begin = Instant::now();
    let left = Arc::new(Mutex::new(calls));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let left = Arc::clone(&left);
        let next = move || left.lock().unwrap().pop();
        callers.spawn(async move {
            while let Some(mut call) = next() {
                call.call().await;
            }
        });
    }
    callers.join_all().await;
    measure::nanoseconds(begin.elapsed()) / 1e6
}

/// A kube-apiserver starts and asks for every seed that it finds.
fn cold_start(world: &World) {
    let runtime = &world.runtime;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    let mut caller = world.plugin.clone();
    for _ in 0..SEEDS {
        bare.push(runtime.block_on(world.encrypt.wrapped(&world.decrypt)));
        ours.push(runtime.block_on(caller.wrapped()));
    }
    let (mut times, mut bare_times, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let bare = runtime.block_on(drain(bare.clone()));
        let ours = runtime.block_on(async {
            // As after a restart, on a connection of its own.
            let caller = Caller::new(&world.running.socket()).await;
            let call = |seed: &DecryptRequest| {
                let mut caller = caller.clone();
                caller.decrypt = seed.clone();
                (caller, Method::Decrypt)
            };
            drain(ours.iter().map(call).collect()).await
        });
        times.push(ours);
        bare_times.push(bare);
        ratios.push(bare / ours);
    }
    println!(
        "{SEEDS} seeds, 64 at a time: bare {:.0} ms, plugin {:.0} ms: {:.1} times as fast",
        median(&mut bare_times),
        median(&mut times),
        median(&mut ratios),
    );
}

/// What one call of the plugin asks of the server.
fn requests(world: &World) {
    let proxy = CountingProxy::start(world.server.address());
    let plugin = config(&world.stage, "counted", &world.server, &world.role)
        .replace(world.server.address(), proxy.address())
        .start();
    kleidi_harness::wait_healthy(&plugin, Duration::from_secs(10)).clear();
    let caller = world.runtime.block_on(Caller::new(&plugin.socket()));
    let calls =
        [("Status", Method::Status), ("Encrypt", Method::Encrypt), ("Decrypt", Method::Decrypt)];
    for (name, method) in calls {
        let requests = |callers: &str| {
            let requests: usize = proxy.take().values().sum();
            println!("requests for {SEEDS} {name}, {callers}: {requests}");
        };
        let call = (caller.clone(), method);
        let _ = proxy.take();
        world.runtime.block_on(alone(SEEDS, call.clone()));
        requests("1 caller");
        world.runtime.block_on(drain(vec![call; SEEDS]));
        requests("64 callers");
    }
}

fn start(world: &World) {
    let login = world.runtime.block_on(alone(CALLS, world.login.clone())) / 1e6;
    println!("a bare login: {login:.1} ms");
    measure::starts(&world.runtime, |name| config(&world.stage, name, &world.server, &world.role));
}

fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let only: Vec<_> = std::env::args().skip(1).map(|arg| arg.to_lowercase()).collect();
    let named = |product: &Product| only.contains(&format!("{product:?}").to_lowercase());
    let some = Product::ALL.iter().any(named);
    for product in Product::ALL.into_iter().filter(|product| !some || named(product)) {
        let Some(world) = World::new(product) else { continue };
        println!("\n{product:?}");
        let (idle, _) = measure::resident(&world.running.process);
        ratios(&world);
        cold_start(&world);
        requests(&world);
        let (all, own) = measure::resident(&world.running.process);
        println!(
            "resident: before the load {idle:.1} MiB, after it {all:.1} MiB, {own:.1} of it its own"
        );
        start(&world);
    }
}
