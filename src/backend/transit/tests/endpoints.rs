//! Which endpoint is asked, when, and for how long.

use super::*;

fn late(milliseconds: u64) -> Reply {
    let Reply::Bytes(bytes) = json("200 OK", RESULT) else { unreachable!() };
    Reply::Late(Duration::from_millis(milliseconds), bytes)
}

fn too_new() -> Reply {
    errors("400 Bad Request", "invalid ciphertext: version is too new")
}

/// It is well: what it knows it is asked for as before.
#[tokio::test]
async fn a_node_that_is_behind_stays_the_first() {
    let behind = Server::start(&[json("200 OK", RESULT), too_new(), json("200 OK", RESULT)]).await;
    let good = Server::start(&[json("200 OK", RESULT)]).await;
    let third = Server::start(&[json("200 OK", RESULT)]).await;
    let cluster = cluster(&[&behind, &good, &third]);
    ask(&cluster, ENOUGH).await.unwrap();
    let begin = Instant::now();
    assert_eq!(*ask_at(&cluster, None, ENOUGH).await.ok().unwrap().address, *good.address);
    assert!(begin.elapsed() < Duration::from_millis(40), "without a pause: {:?}", begin.elapsed());
    // The other one has answered last; when it fails, the first is not passed over.
    good.answer(errors("503 Service Unavailable", "Vault is sealed")).await;
    assert_eq!(*ask_at(&cluster, None, ENOUGH).await.ok().unwrap().address, *behind.address);
    assert_eq!(third.requests().await, 0);
}

#[tokio::test]
async fn a_version_that_nobody_knows_is_given_up_after_a_second() {
    let servers = [Server::start(&[too_new()]).await, Server::start(&[too_new()]).await];
    let begin = Instant::now();
    let error = last(ask(&cluster(&[&servers[0], &servers[1]]), 2 * ENOUGH).await);
    assert_eq!(error.kind, ErrorKind::KeyNotFound);
    let took = begin.elapsed();
    assert!(took > Duration::from_millis(300), "a node may hear of it: {took:?}");
    assert!(took < Duration::from_millis(1100), "{took:?}");
    for server in &servers {
        assert!((3..=6).contains(&server.requests().await), "{}", server.requests().await);
    }
}

/// A quota that is used up fills the sooner the less is asked.
#[tokio::test]
async fn what_is_refused_for_long_is_asked_less_until_it_is_over() {
    let throttled = errors("429 Too Many Requests", "request path: rate limit quota exceeded");
    let server = Server::start(std::slice::from_ref(&throttled)).await;
    let cluster = cluster(&[&server]);
    assert_eq!(last(ask(&cluster, Duration::from_secs(6)).await).kind, ErrorKind::Overloaded);
    let before = server.requests().await;
    assert!(before > 6, "an election is waited for: {before}");
    for calls in 1..=2 {
        assert_eq!(last(ask(&cluster, ENOUGH).await).kind, ErrorKind::Overloaded);
        assert!(server.requests().await <= before + 2 * calls);
    }
    server.answer(json("200 OK", RESULT)).await;
    ask(&cluster, ENOUGH).await.unwrap();
    // It was over: another trouble is another one.
    server.answer(throttled).await;
    let before = server.requests().await;
    assert_eq!(last(ask(&cluster, ENOUGH).await).kind, ErrorKind::Overloaded);
    assert!(server.requests().await > before + 2);
}

#[tokio::test]
async fn slow_nodes_answer_however_many_there_are() {
    let slow = Server::start(&[late(1000)]).await;
    let other = Server::start(&[late(1000)]).await;
    let silent = Server::start(&[Reply::Silence]).await;
    for servers in [&[&slow][..], &[&slow, &other], &[&silent, &slow], &[&slow, &silent]] {
        let begin = Instant::now();
        ask(&cluster(servers), ENOUGH).await.unwrap();
        assert!(begin.elapsed() < Duration::from_millis(2000), "{:?}", begin.elapsed());
    }
}

/// A load balancer has forgotten the connection, and says nothing.
#[tokio::test]
async fn a_dead_connection_is_not_waited_for() {
    let replies = [json("200 OK", RESULT), Reply::Silence, json("200 OK", RESULT)];
    let server = Server::start(&replies).await;
    let cluster = cluster(&[&server]);
    ask(&cluster, ENOUGH).await.unwrap();
    let begin = Instant::now();
    ask(&cluster, ENOUGH).await.unwrap();
    assert!(begin.elapsed() < Duration::from_millis(1200), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn what_is_no_vault_is_passed_over() {
    let good = Server::start(&[json("200 OK", RESULT)]).await;
    for reply in [
        json("200 OK", "<html>maintenance</html>"),
        json("200 OK", ""),
        json("404 Not Found", "<html>nginx</html>"),
        json("403 Forbidden", "<html>firewall</html>"),
    ] {
        let foreign = Server::start(&[reply]).await;
        let both = cluster(&[&foreign, &good]);
        for _ in 0..3 {
            ask(&both, ENOUGH).await.unwrap();
        }
        assert_eq!(foreign.requests().await, 1);
        let begin = Instant::now();
        let error = last(ask(&cluster(&[&foreign]), ENOUGH).await);
        assert_eq!(error.kind, ErrorKind::Misconfigured);
        assert!(error.to_string().contains("is this the address"), "{error}");
        assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    }
}

/// Reading back has less time than an attempt is waited for otherwise.
#[tokio::test]
async fn a_call_with_little_time_passes_over_a_node_that_hangs_too() {
    let good = Server::start(&[json("200 OK", RESULT)]).await;
    let hung = Server::start(&[Reply::Silence]).await;
    let both = cluster(&[&hung, &good]);
    let little = Duration::from_millis(300);
    for _ in 0..3 {
        ask(&both, little).await.unwrap();
    }
    assert_eq!(hung.requests().await, 1);
}

/// An answer that comes once is lost if the request is made again.
#[tokio::test]
async fn what_may_have_arrived_is_not_asked_again() {
    let good = Server::start(&[json("200 OK", RESULT)]).await;
    let token = Secret::from(b"s.token".to_vec());
    let request = Request { once: true, ..request(&token, None) };
    let slow = Server::start(&[late(1000)]).await;
    let both = cluster(&[&slow, &good]);
    let answer = both.call("open", &request, Instant::now() + ENOUGH).await.ok().unwrap();
    assert_eq!(*answer.address, *slow.address);
    let closes = Server::start(&[Reply::Close]).await;
    let both = cluster(&[&closes, &good]);
    assert!(both.call("open", &request, Instant::now() + ENOUGH).await.is_err());
    assert_eq!((closes.requests().await, good.requests().await), (1, 0));
}

/// As when the servers are compared.
#[tokio::test]
async fn who_is_asked_on_purpose_is_not_asked_by_others() {
    let first = Server::start(&[json("200 OK", RESULT)]).await;
    let other = Server::start(&[json("200 OK", RESULT)]).await;
    let cluster = cluster(&[&first, &other]);
    for server in [&first, &other] {
        ask_at(&cluster, Some(&server.address), ENOUGH).await.ok().unwrap();
    }
    for _ in 0..3 {
        ask(&cluster, ENOUGH).await.unwrap();
    }
    assert_eq!((first.requests().await, other.requests().await), (4, 1));
}
