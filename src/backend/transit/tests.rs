//! The client against HTTP servers that answer by a script: what a real server cannot be made to do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::Instant;

use kleidi_harness::write_private;

use super::auth::Auth;
use super::client::{Cluster, Failure};
use super::http_client::{Answer, Request};
use super::login::Login;
use super::tls::Tls;
use crate::backend::{BackendError, ErrorKind};
use crate::random::OsRandom;
use crate::secret::Secret;

/// What a server does with a request.
#[derive(Clone)]
enum Reply {
    /// These bytes, whatever was asked.
    Bytes(Vec<u8>),
    /// Nothing, ever.
    Silence,
    /// Closes the connection.
    Close,
    /// These bytes, but not at once.
    Late(Duration, Vec<u8>),
}

mod endpoints;
mod login;

fn json(status: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Bytes(
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes(),
    )
}

fn errors(status: &str, text: &str) -> Reply {
    json(status, &format!("{{\"errors\":[\"{text}\"]}}"))
}

/// A server that gives these replies, the last one again and again; and the requests that it got.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
    /// What it answers instead from now on.
    instead: Arc<Mutex<Option<Reply>>>,
}

impl Server {
    async fn start(replies: &[Reply]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (replies, seen) = (replies.to_vec(), Arc::clone(&requests));
        let instead = Arc::new(Mutex::new(None));
        let other = Arc::clone(&instead);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (replies, seen) = (replies.clone(), Arc::clone(&seen));
                let other = Arc::clone(&other);
                tokio::spawn(async move {
                    loop {
                        let mut request = vec![0; 64 * 1024];
                        let Ok(bytes @ 1..) = stream.read(&mut request).await else { return };
                        let text = String::from_utf8_lossy(&request[..bytes]).into_owned();
                        let number = {
                            let mut seen = seen.lock().await;
                            seen.push(text);
                            seen.len() - 1
                        };
                        let other = other.lock().await.clone();
                        match other.as_ref().unwrap_or(&replies[number.min(replies.len() - 1)]) {
                            Reply::Late(pause, bytes) => {
                                tokio::time::sleep(*pause).await;
                                stream.write_all(bytes).await.unwrap();
                            }
                            Reply::Bytes(bytes) => stream.write_all(bytes).await.unwrap(),
                            Reply::Silence => std::future::pending().await,
                            Reply::Close => return,
                        }
                    }
                });
            }
        });
        Self { address, requests, instead }
    }

    /// Answers this from now on.
    async fn answer(&self, reply: Reply) {
        *self.instead.lock().await = Some(reply);
    }

    async fn requests(&self) -> usize {
        self.requests.lock().await.len()
    }
}

fn cluster(servers: &[&Server]) -> Cluster {
    let addresses: Vec<_> = servers.iter().map(|server| server.address.clone()).collect();
    Cluster::new(&addresses, Tls::default(), Arc::new(OsRandom))
}

fn request<'a>(token: &'a Secret, only: Option<&'a str>) -> Request<'a> {
    let body = Bytes::from_static(b"{}");
    Request {
        namespace: Some("team1"),
        token: Some(token),
        only,
        ..Request::new(http::Method::POST, "transit/encrypt/kms", body)
    }
}

async fn ask(cluster: &Cluster, patience: Duration) -> Result<Vec<u8>, Failure> {
    ask_at(cluster, None, patience).await.map(|answer| answer.body.to_vec())
}

async fn ask_at(
    cluster: &Cluster,
    only: Option<&str>,
    patience: Duration,
) -> Result<Answer, Failure> {
    let token = Secret::from(b"s.token".to_vec());
    cluster.call("wrap a seed", &request(&token, only), Instant::now() + patience).await
}

fn last(outcome: Result<Vec<u8>, Failure>) -> BackendError {
    match outcome {
        Err(Failure::Final(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// What every good answer has.
const RESULT: &str = r#"{"data":{}}"#;

const ENOUGH: Duration = Duration::from_millis(2500);

#[tokio::test]
async fn a_request_is_what_the_server_expects() {
    let server = Server::start(&[json("200 OK", RESULT)]).await;
    assert_eq!(ask(&cluster(&[&server]), ENOUGH).await.unwrap(), RESULT.as_bytes());
    let request = server.requests.lock().await[0].to_lowercase();
    assert!(request.starts_with("post /v1/transit/encrypt/kms http/1.1\r\n"), "{request}");
    for header in ["x-vault-token: s.token", "x-vault-namespace: team1", "x-vault-request: true"] {
        assert!(request.contains(header), "{request}");
    }
}

/// A redirect names another server: to follow it would carry the token and the seed there.
#[tokio::test]
async fn a_redirect_is_not_followed() {
    let thief = Server::start(&[json("200 OK", RESULT)]).await;
    let redirect = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
        thief.address
    );
    let standby = Server::start(&[Reply::Bytes(redirect.into_bytes())]).await;
    let error = last(ask(&cluster(&[&standby]), Duration::from_millis(300)).await);
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.to_string().contains("307"), "{error}");
    assert_eq!(thief.requests().await, 0);
}

#[tokio::test]
async fn another_endpoint_answers_for_one_that_does_not() {
    let good = Server::start(&[json("200 OK", RESULT)]).await;
    for broken in [
        errors("503 Service Unavailable", "Vault is sealed"),
        errors("500 Internal Server Error", "internal error"),
        Reply::Close,
        Reply::Silence,
        Reply::Bytes(b"this is no HTTP\r\n\r\n".to_vec()),
        json("502 Bad Gateway", "<html>"),
    ] {
        let bad = Server::start(&[broken]).await;
        let cluster = cluster(&[&bad, &good]);
        ask(&cluster, ENOUGH).await.unwrap();
        // And is asked first from now on.
        let (before, begin) = (bad.requests().await, Instant::now());
        ask(&cluster, ENOUGH).await.unwrap();
        assert_eq!(bad.requests().await, before);
        assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    }
    let (address, requests, instead) =
        ("http://127.0.0.1:1".to_owned(), Arc::default(), Arc::default());
    let gone = Server { address, requests, instead };
    ask(&cluster(&[&gone, &good]), ENOUGH).await.unwrap();
}

/// What is asked about an answer is asked of the node that gave it: another one may be another cluster.
#[tokio::test]
async fn a_call_for_one_address_goes_nowhere_else() {
    let sealed = Server::start(&[errors("503 Service Unavailable", "Vault is sealed")]).await;
    let good = Server::start(&[json("200 OK", RESULT)]).await;
    let cluster = cluster(&[&sealed, &good]);
    let answer = ask_at(&cluster, None, ENOUGH).await.ok().unwrap();
    assert_eq!(*answer.address, *good.address);
    let patience = Duration::from_millis(300);
    let failure = ask_at(&cluster, Some(&sealed.address), patience).await.err().unwrap();
    let Failure::Final(error) = failure else { panic!("{failure:?}") };
    assert!(error.to_string().contains("sealed"), "{error}");
    assert_eq!(good.requests().await, 1);
}

/// A node that has lost its leader does not hear of a rotation; another one has.
#[tokio::test]
async fn what_a_node_does_not_know_yet_is_asked_of_another() {
    let good = Server::start(&[json("200 OK", RESULT)]).await;
    for text in [
        "invalid ciphertext: version is too new",
        "requested version for encryption is higher than the latest key version",
        "key version does not exist; latest key version is 1",
    ] {
        let behind = Server::start(&[errors("400 Bad Request", text)]).await;
        ask(&cluster(&[&behind, &good]), ENOUGH).await.unwrap();
        assert_eq!(behind.requests().await, 1);
    }
}

#[tokio::test]
async fn what_heals_in_time_is_waited_for() {
    for moment in [
        errors("400 Bad Request", "invalid ciphertext: version is too new"),
        errors("429 Too Many Requests", "request path: rate limit quota exceeded"),
        errors(
            "500 Internal Server Error",
            "local node not active but active cluster node not found",
        ),
        errors("503 Service Unavailable", "Vault is sealed"),
    ] {
        let server = Server::start(&[moment.clone(), moment, json("200 OK", RESULT)]).await;
        ask(&cluster(&[&server]), ENOUGH).await.unwrap();
        assert_eq!(server.requests().await, 3);
    }
}

#[tokio::test]
async fn what_cannot_heal_is_said_at_once_and_asked_once() {
    for (reply, kind) in [
        (
            errors("400 Bad Request", "cipher: message authentication failed"),
            ErrorKind::BadCiphertext,
        ),
        (errors("400 Bad Request", "encryption key not found"), ErrorKind::Misconfigured),
        (json("404 Not Found", "<html>no</html>"), ErrorKind::Misconfigured),
    ] {
        let server = Server::start(&[reply]).await;
        let begin = Instant::now();
        assert_eq!(last(ask(&cluster(&[&server]), ENOUGH).await).kind, kind);
        assert_eq!(server.requests().await, 1);
        assert!(begin.elapsed() < Duration::from_millis(500));
    }
    let server = Server::start(&[errors("403 Forbidden", "permission denied")]).await;
    assert!(matches!(ask(&cluster(&[&server]), ENOUGH).await, Err(Failure::Login(_))));
}

#[tokio::test]
async fn the_deadline_holds_whatever_the_servers_do() {
    let silent = Server::start(&[Reply::Silence]).await;
    let sealed = Server::start(&[errors("503 Service Unavailable", "Vault is sealed")]).await;
    let endless = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{{", 1 << 30);
    let endless = Server::start(&[Reply::Bytes(endless.into_bytes())]).await;
    for servers in [&[&silent][..], &[&sealed], &[&endless], &[&silent, &sealed, &endless]] {
        let begin = Instant::now();
        let error = last(ask(&cluster(servers), Duration::from_millis(900)).await);
        assert!(error.kind.retryable(), "{error}");
        let took = begin.elapsed();
        // The servers would take for ever; this machine may be busy.
        assert!(took < ENOUGH, "{took:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_not_read() {
    let long = "x".repeat((1 << 20) + 1);
    let server = Server::start(&[json("200 OK", &long)]).await;
    let error = last(ask(&cluster(&[&server]), Duration::from_millis(300)).await);
    assert!(error.to_string().contains("longer than"), "{error}");
}

/// A renewal needs the leader; without one it takes all the time that it is given.
#[tokio::test]
async fn calls_do_not_wait_for_a_renewal() {
    let granted = r#"{"auth":{"client_token":"s.token","lease_duration":3,"renewable":true}}"#;
    let leaderless = b"HTTP/1.1 307 Temporary Redirect\r\ncontent-length: 0\r\n\r\n".to_vec();
    let replies = [json("200 OK", granted), Reply::Bytes(leaderless)];
    let server = Server::start(&replies).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("id");
    write_private(&file, "id");
    let auth = Auth::AppRole {
        mount: "approle".to_owned(),
        role_id_file: file.clone(),
        secret_id_file: file,
    };
    let login = Login::new(Arc::new(cluster(&[&server])), auth, None, Arc::new(OsRandom));
    let login = Arc::new(login);
    login.ticket(Instant::now() + ENOUGH).await.unwrap();
    // Half of its time is over.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let begin = Instant::now();
    let ((), ticket) = tokio::join!(login.keep(begin + 2 * ENOUGH), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        login.ticket(Instant::now() + Duration::from_millis(300)).await
    });
    assert!(ticket.is_ok());
    assert!(server.requests().await > 2, "it has tried");
    assert!(begin.elapsed() < ENOUGH, "there has to be time for a look at the key");
}
