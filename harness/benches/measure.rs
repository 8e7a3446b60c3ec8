//! What the benchmarks share: callers of a plugin's socket, and how they are timed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kleidi_harness::{PluginConfig, Process, Stage, built, eventually};
use kleidi_proto::client::{Connection, connect};
use kleidi_proto::kms::key_management_service_client::KeyManagementServiceClient;
use kleidi_proto::kms::{DecryptRequest, EncryptRequest, StatusRequest};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How many call together.
pub const CALLERS: usize = 64;

/// How long they call in a round.
const LOAD: Duration = Duration::from_millis(250);

/// Starts that are timed.
const STARTS: usize = 15;

/// Something that can be called again and again.
pub trait Call: Clone + Send + 'static {
    fn call(&mut self) -> impl Future<Output = ()> + Send;
}

#[derive(Clone, Copy)]
pub enum Method {
    Status,
    Encrypt,
    Decrypt,
}

/// One connection, and requests that are right for it.
#[derive(Clone)]
pub struct Caller {
    client: KeyManagementServiceClient<Connection>,
    encrypt: EncryptRequest,
    pub decrypt: DecryptRequest,
}

impl Caller {
    pub async fn new(socket: &Path) -> Self {
        let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
        let client = connect(stream).await.unwrap();
        let uid = "7d7b6a2c-2f3a-4d54-9a2f-0a1b2c3d4e5f".to_owned();
        let encrypt = EncryptRequest { plaintext: vec![7; 32], uid };
        let mut caller = Self { client, encrypt, decrypt: DecryptRequest::default() };
        caller.decrypt = caller.wrapped().await;
        caller
    }

    /// What kube-apiserver asks for when it finds a seed in etcd; another one each time.
    pub async fn wrapped(&mut self) -> DecryptRequest {
        let wrapped = self.client.encrypt(self.encrypt.clone()).await.unwrap().into_inner();
        DecryptRequest {
            ciphertext: wrapped.ciphertext,
            uid: self.encrypt.uid.clone(),
            key_id: wrapped.key_id,
            annotations: wrapped.annotations,
        }
    }
}

impl Call for (Caller, Method) {
    async fn call(&mut self) {
        let (caller, method) = self;
        match method {
            Method::Status => drop(caller.client.status(StatusRequest {}).await.unwrap()),
            Method::Encrypt => drop(caller.client.encrypt(caller.encrypt.clone()).await.unwrap()),
            Method::Decrypt => drop(caller.client.decrypt(caller.decrypt.clone()).await.unwrap()),
        }
    }
}

/// Median time of so many calls, one after the other, in nanoseconds.
pub async fn alone(calls: usize, mut call: impl Call) -> f64 {
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let begin = Instant::now();
        call.call().await;
        times.push(nanoseconds(begin.elapsed()));
    }
    median(&mut times)
}

/// Calls per second of 64 callers.
pub async fn together(call: impl Call) -> f64 {
    let begin = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let mut call = call.clone();
        callers.spawn(async move {
            let mut calls = 0_u32;
            while begin.elapsed() < LOAD {
                call.call().await;
                calls += 1;
            }
            calls
        });
    }
    let calls: u32 = callers.join_all().await.into_iter().sum();
    f64::from(calls) / begin.elapsed().as_secs_f64()
}

pub fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The floor: a gRPC service that does nothing, and a caller of it.
pub fn echo(stage: &Stage, runtime: &Runtime) -> (Process, Caller) {
    let socket = stage.path("echo.sock");
    let process = Process::spawn(stage, "echo", Command::new(built::echo()).arg(&socket));
    eventually("the echo", || {
        std::os::unix::net::UnixStream::connect(&socket).map_err(|error| error.to_string())
    });
    let caller = runtime.block_on(Caller::new(&socket));
    (process, caller)
}

/// Resident memory of a process, and the part of it that is its own, in MiB.
pub fn resident(process: &Process) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let mib = |name: &str| -> f64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    };
    (mib("VmRSS"), mib("RssAnon"))
}

/// Prints how long it takes from exec to the first Status that is ok.
pub fn starts(runtime: &Runtime, config: impl Fn(&str) -> PluginConfig) {
    let mut times = Vec::new();
    for number in 0..STARTS {
        let config = config(&format!("start-{number}"));
        let begin = Instant::now();
        let process = config.spawn("start");
        runtime.block_on(async {
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
