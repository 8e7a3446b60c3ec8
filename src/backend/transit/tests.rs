//! The client against HTTP servers that answer by a script: what a real server cannot be made to do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::client::{Cluster, Failure};
use super::http_client::{Request, Tls};
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
}

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
}

impl Server {
    async fn start(replies: &[Reply]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (replies, seen) = (replies.to_vec(), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (replies, seen) = (replies.clone(), Arc::clone(&seen));
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
                        match &replies[number.min(replies.len() - 1)] {
                            Reply::Bytes(bytes) => stream.write_all(bytes).await.unwrap(),
                            Reply::Silence => std::future::pending().await,
                            Reply::Close => return,
                        }
                    }
                });
            }
        });
        Self { address, requests }
    }

    async fn requests(&self) -> usize {
        self.requests.lock().await.len()
    }
}

fn cluster(servers: &[&Server]) -> Cluster {
    let addresses: Vec<_> = servers.iter().map(|server| server.address.clone()).collect();
    Cluster::new(&addresses, Tls::default(), Arc::new(OsRandom))
}

async fn ask(cluster: &Cluster, patience: Duration) -> Result<Vec<u8>, Failure> {
    let token = Secret::from(b"s.token".to_vec());
    let request = Request {
        method: http::Method::POST,
        path: "transit/encrypt/kms",
        namespace: Some("team1"),
        token: Some(&token),
        body: Bytes::from_static(b"{}"),
        batch: false,
    };
    let answer = cluster.call("wrap a seed", &request, Instant::now() + patience).await?;
    Ok(answer.body.to_vec())
}

fn last(outcome: Result<Vec<u8>, Failure>) -> BackendError {
    match outcome {
        Err(Failure::Final(error)) => error,
        other => panic!("{other:?}"),
    }
}

const ENOUGH: Duration = Duration::from_millis(2500);

#[tokio::test]
async fn a_request_is_what_the_server_expects() {
    let server = Server::start(&[json("200 OK", "{\"data\":{}}")]).await;
    assert_eq!(ask(&cluster(&[&server]), ENOUGH).await.unwrap(), b"{\"data\":{}}");
    let request = server.requests.lock().await[0].to_lowercase();
    assert!(request.starts_with("post /v1/transit/encrypt/kms http/1.1\r\n"), "{request}");
    for header in ["x-vault-token: s.token", "x-vault-namespace: team1", "x-vault-request: true"] {
        assert!(request.contains(header), "{request}");
    }
}

/// A redirect names another server: to follow it would carry the token and the seed there.
#[tokio::test]
async fn a_redirect_is_not_followed() {
    let thief = Server::start(&[json("200 OK", "{}")]).await;
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
    let good = Server::start(&[json("200 OK", "{}")]).await;
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
    let gone = Server { address: "http://127.0.0.1:1".to_owned(), requests: Arc::default() };
    ask(&cluster(&[&gone, &good]), ENOUGH).await.unwrap();
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
        let server = Server::start(&[moment.clone(), moment, json("200 OK", "{}")]).await;
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
        assert!(took < Duration::from_millis(1200), "{took:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_not_read() {
    let long = "x".repeat((1 << 20) + 1);
    let server = Server::start(&[json("200 OK", &long)]).await;
    let error = last(ask(&cluster(&[&server]), Duration::from_millis(300)).await);
    assert!(error.to_string().contains("longer than"), "{error}");
}
