//! Decrypts that travel together, with servers that do what a real one cannot be made to do.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;

use kleidi_harness::write_private;

use super::super::{Auth, Settings, Tls, Transit};
use super::*;
use crate::backend::Backend as _;
use crate::key_id::{Fingerprint, KeyId, Version};
use crate::random::{OsRandom, RandomError};

const ENOUGH: Duration = Duration::from_millis(2500);

/// What a test's server is asked.
struct Asked {
    /// How many requests came before it.
    number: usize,
    list: bool,
    items: Vec<Value>,
}

impl Asked {
    /// As a real server answers: a seed is what is behind the prefix.
    fn answer(&self) -> (u16, Value) {
        let results: Vec<_> = self.items.iter().map(result).collect();
        if self.list {
            let failed = results.iter().any(|result| result.get("error").is_some());
            (if failed { 400 } else { 200 }, json!({"data": {"batch_results": results}}))
        } else {
            match results[0].get("error") {
                Some(error) => errors(400, error.as_str().unwrap()),
                None => (200, json!({"data": results[0]})),
            }
        }
    }
}

fn result(item: &Value) -> Value {
    let seed = item["ciphertext"].as_str().unwrap().strip_prefix("vault:v1:");
    let mut result = match seed {
        Some(seed) => json!({ "plaintext": seed }),
        None => json!({"plaintext": "", "error": "invalid ciphertext: version is too new"}),
    };
    if let Some(reference) = item.get("reference") {
        result["reference"] = reference.clone();
    }
    result
}

fn errors(status: u16, text: &str) -> (u16, Value) {
    (status, json!({ "errors": [text] }))
}

/// What neither Vault nor OpenBao answers.
fn page(status: u16) -> (u16, Value) {
    (status, json!("<html>"))
}

/// A server that answers decrypts by a function; without an answer it hangs.
struct Server {
    address: String,
    directory: tempfile::TempDir,
    /// How many items each request had; 0 if it was no list.
    sizes: Arc<Mutex<Vec<usize>>>,
    /// Requests that are under way.
    open: Arc<AtomicUsize>,
}

/// One request that is under way.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Server {
    /// It takes that long for each answer.
    async fn start(
        takes: Duration,
        answer: impl Fn(Asked) -> Option<(u16, Value)> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (sizes, open) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicUsize>::default());
        let (seen, under_way, answer) = (Arc::clone(&sizes), Arc::clone(&open), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, under_way) = (Arc::clone(&seen), Arc::clone(&under_way));
                let answer = Arc::clone(&answer);
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let (seen, under_way) = (Arc::clone(&seen), Arc::clone(&under_way));
                    let answer = Arc::clone(&answer);
                    async move {
                        under_way.fetch_add(1, Ordering::SeqCst);
                        let _open = Open(under_way);
                        let decrypt = request.uri().path() == "/v1/transit/decrypt/kms";
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let reply = if decrypt {
                            let asked = asked(&body, &seen);
                            sleep(takes).await;
                            answer(asked)
                        } else {
                            Some(errors(404, "no handler for route"))
                        };
                        let Some((status, body)) = reply else { std::future::pending().await };
                        let body = Full::new(Bytes::from(body.to_string()));
                        let answer = http::Response::builder().status(status).body(body);
                        Ok::<_, Infallible>(answer.unwrap())
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, directory: tempfile::tempdir().unwrap(), sizes, open }
    }

    fn requests(&self) -> usize {
        self.sizes.lock().len()
    }
}

fn asked(body: &[u8], seen: &Mutex<Vec<usize>>) -> Asked {
    let body: Value = serde_json::from_slice(body).unwrap();
    let list = body["batch_input"].as_array().cloned();
    let mut seen = seen.lock();
    seen.push(list.as_ref().map_or(0, Vec::len));
    Asked {
        number: seen.len() - 1,
        list: list.is_some(),
        items: list.unwrap_or_else(|| vec![body]),
    }
}

fn backend_with(servers: &[&Server], random: Arc<dyn Random>) -> Arc<Transit> {
    let file = servers[0].directory.path().join("token");
    write_private(&file, "s.token");
    let settings = Settings {
        addresses: servers.iter().map(|server| server.address.clone()).collect(),
        tls: Tls::default(),
        namespace: None,
        auth_namespace: None,
        mount: "transit".to_owned(),
        key: "kms".to_owned(),
        auth: Auth::Token { file },
        foreign: Vec::new(),
    };
    Arc::new(Transit::new(settings, random))
}

fn backend(servers: &[&Server]) -> Arc<Transit> {
    backend_with(servers, Arc::new(OsRandom))
}

fn key_id() -> KeyId {
    KeyId::new(Fingerprint::of("test", b"key"), &Version::of_number(1))
}

/// One Decrypt under way, and what came of it.
type Calls = JoinSet<(Vec<u8>, Duration, Outcome)>;

/// Decrypts of seeds of their own, at the same time.
fn call(calls: &mut Calls, backend: &Arc<Transit>, version: u64, count: u32, patience: Duration) {
    for _ in 0..count {
        let mut seed = vec![0; 12];
        OsRandom.fill(&mut seed).unwrap();
        let payload = format!("vault:v{version}:{}", STANDARD.encode(&seed)).into_bytes();
        let key = key_id();
        let request = Arc::new(UnwrapRequest { key, payload, aad: b"aad".to_vec() });
        let backend = Arc::clone(backend);
        calls.spawn(async move {
            let begin = Instant::now();
            let outcome = backend.unwrap(request, begin + patience).await;
            (seed, begin.elapsed(), outcome)
        });
    }
}

/// All have their own seed; how long the slowest took.
async fn all_right(calls: Calls) -> Duration {
    let mut slowest = Duration::ZERO;
    for (seed, took, outcome) in calls.join_all().await {
        let found = outcome.unwrap_or_else(|error| panic!("after {took:?}: {error}"));
        assert_eq!(found.expose(), seed);
        slowest = slowest.max(took);
    }
    slowest
}

/// Until it is so.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(10), "{what}");
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn an_item_that_is_too_new_holds_nobody_up() {
    let server = Server::start(Duration::from_millis(5), |asked| Some(asked.answer())).await;
    let backend = backend(&[&server]);
    let (mut good, mut new) = (JoinSet::new(), JoinSet::new());
    call(&mut good, &backend, 1, 20, ENOUGH);
    call(&mut new, &backend, 9, 3, Duration::from_millis(1000));
    call(&mut good, &backend, 1, 20, ENOUGH);
    let slowest = all_right(good).await;
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    assert!(server.sizes.lock().contains(&43), "they went together: {:?}", server.sizes.lock());
    for (_, took, outcome) in new.join_all().await {
        let error = outcome.err().unwrap();
        assert_eq!(error.kind, ErrorKind::KeyNotFound, "{error}");
        assert!(took > Duration::from_millis(700), "it was asked for again: {took:?}");
    }
    // Again together.
    assert!(server.requests() < 25, "{:?}", server.sizes.lock());
    assert!(server.sizes.lock().ends_with(&[3, 3]), "{:?}", server.sizes.lock());
}

#[tokio::test]
async fn what_a_node_does_not_know_is_asked_of_another() {
    let behind = Server::start(Duration::ZERO, |asked| Some(asked.answer())).await;
    let good = Server::start(Duration::ZERO, |mut asked| {
        for item in &mut asked.items {
            item["ciphertext"] =
                item["ciphertext"].as_str().unwrap().replace(":v2:", ":v1:").into();
        }
        Some(asked.answer())
    })
    .await;
    let backend = backend(&[&behind, &good]);
    let mut calls = JoinSet::new();
    call(&mut calls, &backend, 2, 30, ENOUGH);
    let slowest = all_right(calls).await;
    assert!(slowest < Duration::from_millis(1000), "{slowest:?}");
}

/// A seed that is taken for another's would stay in kube-apiserver's cache.
#[tokio::test]
async fn an_answer_to_other_questions_is_nobodys() {
    type Mix = fn(&mut Value, &Mutex<Option<Value>>);
    fn list(body: &mut Value) -> &mut Vec<Value> {
        body["data"]["batch_results"].as_array_mut().unwrap()
    }
    let kept = Mutex::new(None::<Value>);
    let mixed: [Mix; 6] = [
        |body, _| list(body).reverse(),
        |body, _| list(body).rotate_left(1),
        |body, _| drop(list(body).pop()),
        |body, _| drop(list(body)[0].as_object_mut().unwrap().remove("reference")),
        |body, _| list(body)[1]["reference"] = "c2hvcnQ=".into(),
        // A cache, of answers to as many questions.
        |body, kept| *body = kept.lock().get_or_insert_with(|| body.clone()).clone(),
    ];
    let how = Arc::new(AtomicUsize::new(usize::MAX));
    let now = Arc::clone(&how);
    let server = Server::start(Duration::from_millis(2), move |asked| {
        let (status, mut body) = asked.answer();
        if let Some(mix) = mixed.get(now.load(Ordering::SeqCst))
            && asked.items.len() > 1
        {
            mix(&mut body, &kept);
        }
        Some((status, body))
    })
    .await;
    let backend = backend(&[&server]);
    let burst = async |how_now: usize| {
        let mut calls = JoinSet::new();
        how.store(how_now, Ordering::SeqCst);
        call(&mut calls, &backend, 1, 8, ENOUGH);
        calls.join_all().await
    };
    assert!(burst(usize::MAX).await.iter().all(|(_, _, outcome)| outcome.is_ok()));
    // The cache has nothing yet when it is asked first.
    burst(5).await;
    for how in 0..mixed.len() {
        let mut refused = 0;
        for (seed, _, outcome) in burst(how).await {
            match outcome {
                Ok(found) => assert_eq!(found.expose(), seed, "{how}"),
                Err(error) => {
                    assert_eq!(error.kind, ErrorKind::Unavailable, "{how}: {error}");
                    refused += 1;
                }
            }
        }
        assert!(refused >= 2, "{how}: {refused} refused");
    }
}

/// It knows lists, but not what their items are called.
#[tokio::test]
async fn a_server_without_references_gets_no_lists() {
    let server = Server::start(Duration::from_millis(2), |asked| {
        let (status, mut body) = asked.answer();
        if let Some(results) = body["data"]["batch_results"].as_array_mut() {
            for result in results {
                result.as_object_mut().unwrap().remove("reference");
            }
        }
        Some((status, body))
    })
    .await;
    let backend = backend(&[&server]);
    for _ in 0..2 {
        let mut calls = JoinSet::new();
        call(&mut calls, &backend, 1, 20, ENOUGH);
        all_right(calls).await;
    }
    let lists = server.sizes.lock().iter().filter(|size| **size > 0).count();
    assert!(lists <= SENDERS_MAX, "{:?}", server.sizes.lock());
}

#[tokio::test]
async fn an_answer_to_another_lone_call_is_nobodys() {
    let kept = Mutex::new(None);
    let server = Server::start(Duration::ZERO, move |asked| {
        Some(kept.lock().get_or_insert_with(|| asked.answer()).clone())
    })
    .await;
    let backend = backend(&[&server]);
    let mut calls = JoinSet::new();
    call(&mut calls, &backend, 1, 1, ENOUGH);
    all_right(calls).await;
    let mut calls = JoinSet::new();
    call(&mut calls, &backend, 1, 1, ENOUGH);
    let (_, _, outcome) = calls.join_next().await.unwrap().unwrap();
    let error = outcome.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("proxy"), "{error}");
}

#[tokio::test]
async fn a_server_that_hangs_gets_few_requests_and_every_call_ends() {
    let server = Server::start(Duration::ZERO, |_| None).await;
    let backend = backend(&[&server]);
    let mut calls = JoinSet::new();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(500) {
        call(&mut calls, &backend, 1, 5, Duration::from_millis(800));
        sleep(Duration::from_millis(2)).await;
    }
    let open = server.open.load(Ordering::SeqCst);
    // Each is tried on a second connection when the first hangs.
    assert!((2..=2 * SENDERS_MAX).contains(&open), "{open} requests at a time");
    for (_, took, outcome) in calls.join_all().await {
        assert!(outcome.err().unwrap().kind.retryable());
        assert!(took < Duration::from_millis(1000), "{took:?}");
    }
}

#[tokio::test]
async fn while_all_hang_on_a_dead_node_calls_wait_until_one_is_free() {
    let dead = Server::start(Duration::ZERO, |_| None).await;
    let good = Server::start(Duration::ZERO, |asked| Some(asked.answer())).await;
    let backend = backend(&[&dead, &good]);
    let mut calls = JoinSet::new();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(400) {
        call(&mut calls, &backend, 1, 5, ENOUGH);
        sleep(Duration::from_millis(2)).await;
    }
    assert!(dead.open.load(Ordering::SeqCst) <= SENDERS_MAX);
    let slowest = all_right(calls).await;
    assert!(slowest < Duration::from_millis(1500), "{slowest:?}");
}

#[tokio::test]
async fn a_request_that_hangs_holds_nobody_else_up() {
    let server =
        Server::start(Duration::ZERO, |asked| (asked.number > 0).then(|| asked.answer())).await;
    let backend = backend(&[&server]);
    let mut hangs = JoinSet::new();
    call(&mut hangs, &backend, 1, 1, ENOUGH);
    until("the first is under way", || server.requests() == 1).await;
    let mut lone = JoinSet::new();
    call(&mut lone, &backend, 1, 1, ENOUGH);
    let took = all_right(lone).await;
    assert!(took < Duration::from_millis(300), "{took:?}");
}

/// Each request takes longer than the least patience.
#[tokio::test]
async fn calls_of_a_slow_server_still_travel_together() {
    let server = Server::start(Duration::from_millis(60), |asked| Some(asked.answer())).await;
    let backend = backend(&[&server]);
    let mut warm = JoinSet::new();
    for _ in 0..40 {
        call(&mut warm, &backend, 1, 2, ENOUGH);
        sleep(Duration::from_millis(25)).await;
    }
    all_right(warm).await;
    let before = server.requests();
    let mut calls = JoinSet::new();
    for _ in 0..200 {
        call(&mut calls, &backend, 1, 1, ENOUGH);
        sleep(Duration::from_millis(2)).await;
    }
    let slowest = all_right(calls).await;
    let requests = server.requests() - before;
    assert!(requests <= 30, "{requests} requests for 200 calls");
    assert!(slowest < Duration::from_millis(400), "{slowest:?}");
}

#[tokio::test]
async fn what_is_refused_together_is_sent_in_smaller_requests() {
    let complex = "refused JSON input due to high complexity: exceeded maximum number of strings";
    for (most, status, text) in [
        (7, 400, complex),
        (0, 400, complex),
        (3, 413, "http: request body too large"),
        (0, 403, "permission denied"),
    ] {
        let server = Server::start(Duration::from_millis(2), move |asked| {
            let refused = asked.list && asked.items.len() > most;
            Some(if refused { errors(status, text) } else { asked.answer() })
        })
        .await;
        let backend = backend(&[&server]);
        let mut calls = JoinSet::new();
        call(&mut calls, &backend, 1, 60, ENOUGH);
        all_right(calls).await;
        // And from now on.
        let before = server.requests();
        let mut calls = JoinSet::new();
        call(&mut calls, &backend, 1, 60, ENOUGH);
        all_right(calls).await;
        let sizes = server.sizes.lock()[before..].to_vec();
        assert!(sizes.iter().all(|size| *size <= most), "{most}, {status}: {sizes:?}");
    }
}

/// A balancer that reloads has answers of its own, and some look like the server's.
#[tokio::test]
async fn a_refusal_that_passes_changes_nothing() {
    for reply in [errors(400, "what is this"), errors(413, "too large"), page(400), page(404)] {
        let server = Server::start(Duration::from_millis(2), move |asked| {
            Some(if asked.number == 0 { reply.clone() } else { asked.answer() })
        })
        .await;
        let backend = backend(&[&server]);
        for _ in 0..2 {
            let mut calls = JoinSet::new();
            call(&mut calls, &backend, 1, 30, ENOUGH);
            all_right(calls).await;
        }
        assert!(server.sizes.lock().iter().any(|size| *size > 10), "{:?}", server.sizes.lock());
        assert_eq!(backend.0.queue.state.lock().size.most(), pace::ITEMS_MAX);
    }
}

/// As of an observation, which sends two.
#[tokio::test]
async fn a_refusal_that_passes_changes_nothing_for_two() {
    for reply in [errors(400, "what is this"), page(404)] {
        let server = Server::start(Duration::ZERO, move |asked| {
            Some(if asked.number == 0 { reply.clone() } else { asked.answer() })
        })
        .await;
        let backend = backend(&[&server]);
        let request = |seed: &str| {
            let payload = format!("vault:v1:{seed}").into_bytes();
            Arc::new(UnwrapRequest { key: key_id(), payload, aad: Vec::new() })
        };
        let both = [request("b25l"), request("dHdv")];
        let both = backend.0.unwrap_both(both, Instant::now() + ENOUGH).await.unwrap();
        assert_eq!(both.map(|seed| seed.unwrap().expose().to_vec()), [b"one", b"two"]);
        assert_eq!(backend.0.queue.state.lock().size.most(), pace::ITEMS_MAX);
    }
}

/// A firewall that lets no list through: what it says is not of the server, and every call comes through all the same.
#[tokio::test]
async fn nothing_is_learned_from_who_is_no_server() {
    let server = Server::start(Duration::from_millis(2), |asked| {
        Some(if asked.list { page(403) } else { asked.answer() })
    })
    .await;
    let backend = backend(&[&server]);
    let mut calls = JoinSet::new();
    call(&mut calls, &backend, 1, 60, ENOUGH);
    all_right(calls).await;
    assert_eq!(backend.0.queue.state.lock().size.most(), pace::ITEMS_MAX);
    let lists = server.sizes.lock().iter().filter(|size| **size > 0).count();
    assert!(lists <= 10, "{:?}", server.sizes.lock());
}

#[tokio::test]
async fn what_is_refused_alone_too_is_refused_for_all_and_changes_nothing() {
    let absent = Arc::new(AtomicBool::new(true));
    let now = Arc::clone(&absent);
    let server = Server::start(Duration::from_millis(2), move |asked| {
        let absent = now.load(Ordering::SeqCst);
        Some(if absent { errors(400, "encryption key not found") } else { asked.answer() })
    })
    .await;
    let backend = backend(&[&server]);
    let mut calls = JoinSet::new();
    call(&mut calls, &backend, 1, 60, ENOUGH);
    for (_, _, outcome) in calls.join_all().await {
        let error = outcome.err().unwrap();
        assert!(error.to_string().contains("encryption key not found"), "{error}");
    }
    assert!(server.requests() <= 6, "{:?}", server.sizes.lock());
    absent.store(false, Ordering::SeqCst);
    let mut calls = JoinSet::new();
    call(&mut calls, &backend, 1, 60, ENOUGH);
    all_right(calls).await;
    assert!(*server.sizes.lock().last().unwrap() > 30, "{:?}", server.sizes.lock());
}

/// Fails in a way that nobody expects, once it is told to.
struct Panics(AtomicBool);

impl Random for Panics {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        assert!(!self.0.swap(false, Ordering::SeqCst), "told to");
        OsRandom.fill(bytes)
    }
}

#[tokio::test]
async fn a_sender_that_panicked_is_none() {
    let server = Server::start(Duration::ZERO, |asked| Some(asked.answer())).await;
    let random = Arc::new(Panics(AtomicBool::new(false)));
    let backend = backend_with(&[&server], Arc::<Panics>::clone(&random));
    let mut calls = JoinSet::new();
    call(&mut calls, &backend, 1, 1, ENOUGH);
    all_right(calls).await;
    random.0.store(true, Ordering::SeqCst);
    let mut calls = JoinSet::new();
    call(&mut calls, &backend, 1, 1, ENOUGH);
    let (_, took, outcome) = calls.join_next().await.unwrap().unwrap();
    assert!(outcome.is_err() && took < ENOUGH, "{took:?}");
    assert_eq!(backend.0.queue.state.lock().senders, 0);
    let mut calls = JoinSet::new();
    call(&mut calls, &backend, 1, 1, ENOUGH);
    all_right(calls).await;
}

#[tokio::test]
async fn nothing_is_asked_for_callers_that_are_gone() {
    let server = Server::start(Duration::ZERO, |_| None).await;
    let backend = backend(&[&server]);
    let mut calls = JoinSet::new();
    call(&mut calls, &backend, 1, 20, Duration::from_secs(600));
    until("they are under way", || server.requests() > 0).await;
    calls.abort_all();
    while calls.join_next().await.is_some() {}
    until("it is given up", || server.open.load(Ordering::SeqCst) == 0).await;
    until("it counts no more", || backend.0.queue.state.lock().senders == 0).await;
}

/// Whether it meets others or not.
#[tokio::test]
async fn a_damaged_ciphertext_is_told_before_it_is_sent() {
    let server = Server::start(Duration::ZERO, |_| None).await;
    let backend = backend(&[&server]);
    let key = key_id();
    for payload in [&b"\xff"[..], b"vault:v:AAAA", b"vault:v1", b"vault:v99999999999999999999:AA"] {
        for busy in [0, 1] {
            let mut calls = JoinSet::new();
            call(&mut calls, &backend, 1, busy, ENOUGH);
            until("it is under way", || server.open.load(Ordering::SeqCst) == busy as usize).await;
            let (key, payload) = (key.clone(), payload.to_vec());
            let request = Arc::new(UnwrapRequest { key, payload, aad: Vec::new() });
            let begin = Instant::now();
            let error = backend.unwrap(request, begin + ENOUGH).await.err().unwrap();
            assert_eq!(error.kind, ErrorKind::BadCiphertext, "{error}");
            assert!(error.to_string().contains("none of transit's"), "{error}");
            assert!(begin.elapsed() < Duration::from_millis(500));
            calls.shutdown().await;
            until("it is given up", || server.open.load(Ordering::SeqCst) == 0).await;
        }
    }
}

/// More requests would be the wrong answer to too many, even where a lone one would pass again.
#[tokio::test]
async fn a_quota_does_not_make_requests_smaller() {
    for over_after in [2150, 2300, 2400] {
        let begin = Instant::now();
        let server = Server::start(Duration::from_millis(2), move |asked| {
            Some(if begin.elapsed() < Duration::from_millis(over_after) {
                errors(429, "request path \\\"transit/decrypt/kms\\\": rate limit quota exceeded")
            } else {
                asked.answer()
            })
        })
        .await;
        let backend = backend(&[&server]);
        let mut calls = JoinSet::new();
        call(&mut calls, &backend, 1, 1, ENOUGH);
        calls.join_all().await;
        assert_eq!(backend.0.queue.state.lock().size.most(), pace::ITEMS_MAX, "{over_after}");
    }
}
