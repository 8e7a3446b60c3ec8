//! Tokens over time, which is advanced by hand: how they are kept, and when a login is not tried.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::*;
use crate::backend::transit::auth::Auth;
use crate::backend::transit::login::Login;
use crate::backend::transit::wrapped::{Settings, Wrapped};

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        write_private(&path, content);
        path
    }
}

fn granted(seconds: u64) -> Reply {
    let auth =
        format!(r#"{{"client_token":"s.token","lease_duration":{seconds},"renewable":true}}"#);
    json("200 OK", &format!(r#"{{"auth":{auth}}}"#))
}

fn login(server: &Server, auth: Auth) -> Arc<Login> {
    login_at(&[server], auth)
}

fn login_at(servers: &[&Server], auth: Auth) -> Arc<Login> {
    Arc::new(Login::new(Arc::new(cluster(servers)), auth, None, Arc::new(OsRandom)))
}

fn app_role(files: &Files) -> Auth {
    Auth::AppRole {
        mount: "approle".to_owned(),
        role_id_file: files.put("role-id", "role"),
        secret_id_file: files.put("secret-id", "secret"),
    }
}

/// A wrapped secret_id.
fn wrapped(server: &Server, files: &Files) -> Wrapped {
    let settings = Settings {
        file: files.put("wrapped", "s.wrapping"),
        mount: "approle".to_owned(),
        role: None,
        namespace: None,
    };
    Wrapped::new(settings, Arc::new(cluster(&[server])))
}

fn soon() -> Instant {
    Instant::now() + ENOUGH
}

/// As if that time had gone by.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_renewal_that_hangs_holds_nobody_up() {
    let (server, files) = (Server::start(&[granted(60)]).await, Files::new());
    let login = login(&server, app_role(&files));
    login.ticket(soon()).await.unwrap();
    server.answer(Reply::Silence).await;
    pass(Duration::from_secs(31)).await;
    let begin = Instant::now();
    let calls = async {
        // When the renewal is under way.
        while server.requests().await < 2 {
            tokio::task::yield_now().await;
        }
        login.ticket(Instant::now() + Duration::from_millis(50)).await
    };
    let ((), ticket) = tokio::join!(login.keep(Instant::now() + Duration::from_secs(5)), calls);
    assert!(ticket.is_ok(), "{:?}", ticket.err());
    assert!(begin.elapsed() < ENOUGH, "an observation has time for the key: {:?}", begin.elapsed());
}

/// Not by each look: the token is still good.
#[tokio::test]
async fn a_renewal_that_fails_is_tried_again_after_a_part_of_the_rest() {
    let (server, files) = (Server::start(&[granted(600)]).await, Files::new());
    let login = login(&server, app_role(&files));
    login.ticket(soon()).await.unwrap();
    server.answer(errors("500 Internal Server Error", "internal error")).await;
    for (time, tried) in [(301, true), (10, false), (10, false), (20, true), (10, false)] {
        let before = server.requests().await;
        pass(Duration::from_secs(time)).await;
        login.keep(soon()).await;
        assert_eq!(server.requests().await > before, tried, "after {time} s");
    }
    server.answer(granted(600)).await;
    for (time, renewed) in [(30, true), (100, false)] {
        let before = server.requests().await;
        pass(Duration::from_secs(time)).await;
        login.keep(soon()).await;
        assert_eq!(server.requests().await - before, usize::from(renewed), "after {time} s");
    }
}

/// At a start without a leader, or while something else is wrong, the token of a file cannot be renewed, and must not
/// die of that later.
#[tokio::test]
async fn a_found_token_that_could_not_be_renewed_is_renewed_later() {
    let leaderless = b"HTTP/1.1 307 Temporary Redirect\r\ncontent-length: 0\r\n\r\n".to_vec();
    for reply in [
        Reply::Bytes(leaderless),
        json("404 Not Found", "<html>no such site</html>"),
        errors("404 Not Found", "namespace not found"),
        errors("403 Forbidden", "permission denied"),
    ] {
        let (server, files) = (Server::start(&[reply]).await, Files::new());
        let login = login(&server, Auth::Token { file: files.put("token", "s.token") });
        let begin = Instant::now();
        login.ticket(soon()).await.unwrap();
        let took = begin.elapsed();
        assert!(took < Duration::from_millis(1500), "the token is there: nobody waits long");
        server.answer(granted(3600)).await;
        for (time, renewed) in [(1, false), (31, true), (600, false), (1300, true), (1900, true)] {
            let before = server.requests().await;
            pass(Duration::from_secs(time)).await;
            login.keep(soon()).await;
            assert_eq!(server.requests().await - before, usize::from(renewed), "after {time} s");
        }
        let requests = server.requests.lock().await;
        assert!(requests.iter().all(|request| request.contains("/v1/auth/token/renew-self ")));
    }
}

/// A refusal that passes, of a call and of the renewal that tells whether the token is there.
#[tokio::test]
async fn a_found_token_outlives_a_refusal_that_passes() {
    let (server, files) = (Server::start(&[granted(3600)]).await, Files::new());
    let login = login(&server, Auth::Token { file: files.put("token", "s.token") });
    let ticket = login.ticket(soon()).await.unwrap();
    let refusal = BackendError::new(ErrorKind::Credentials, "wrap a seed", "permission denied");
    server.answer(errors("403 Forbidden", "permission denied")).await;
    login.replace(&ticket, "transit/encrypt/kms", refusal, soon()).await.unwrap();
    // It lasts for some looks.
    for _ in 0..3 {
        pass(Duration::from_secs(31)).await;
        login.keep(soon()).await;
    }
    server.answer(granted(3600)).await;
    for (time, renewed) in [(31, true), (600, false), (1300, true)] {
        let before = server.requests().await;
        pass(Duration::from_secs(time)).await;
        login.keep(soon()).await;
        assert_eq!(server.requests().await - before, usize::from(renewed), "after {time} s");
    }
}

/// It is another's care: whoever may not renew it, or it cannot be renewed by anybody.
#[tokio::test]
async fn a_found_token_that_is_never_renewed_is_not_tried_again() {
    for reply in [
        errors("403 Forbidden", r"1 error occurred:\n\t* permission denied\n\n"),
        errors("400 Bad Request", "lease is not renewable"),
        errors("400 Bad Request", "batch tokens cannot be renewed"),
    ] {
        let (server, files) = (Server::start(&[reply]).await, Files::new());
        let login = login(&server, Auth::Token { file: files.put("token", "s.token") });
        login.ticket(soon()).await.unwrap();
        pass(Duration::from_secs(3600)).await;
        login.keep(soon()).await;
        assert_eq!(server.requests().await, 1);
        // Nor does that keep another one of its kind from taking its place.
        files.put("token", "s.other");
        login.keep(soon()).await;
        assert_eq!(login.ticket(soon()).await.unwrap().token.expose(), b"s.other");
    }
}

/// Five wrong ones within 15 minutes, and the server refuses right ones, too.
#[tokio::test]
async fn refused_credentials_are_not_tried_again_until_they_change() {
    let refused = errors("400 Bad Request", "invalid role or secret ID");
    let (server, files) = (Server::start(&[refused]).await, Files::new());
    let login = login(&server, app_role(&files));
    for _ in 0..20 {
        let error = login.ticket(soon()).await.err().unwrap();
        assert!(error.to_string().contains("invalid role or secret ID"), "{error}");
        pass(Duration::from_secs(1)).await;
    }
    assert_eq!(server.requests().await, 2, "a standby may not have known them");
    files.put("secret-id", "another");
    assert!(login.ticket(soon()).await.is_err());
    assert_eq!(server.requests().await, 3);
    pass(Duration::from_secs(6)).await;
    assert!(login.ticket(soon()).await.is_err());
    pass(Duration::from_secs(14 * 60)).await;
    assert!(login.ticket(soon()).await.is_err());
    assert_eq!(server.requests().await, 4);
    // What was wrong may be right by now.
    pass(Duration::from_secs(61)).await;
    server.answer(granted(60)).await;
    login.ticket(soon()).await.unwrap();
    assert_eq!(server.requests().await, 5);
}

/// All nodes may ask one leader, who counts, and whose fifth refusal locks out those with right ones, too.
#[tokio::test]
async fn refused_credentials_are_tried_three_times_however_many_nodes_there_are() {
    let refused = errors("400 Bad Request", "invalid role or secret ID");
    let one = || Server::start(std::slice::from_ref(&refused));
    let (servers, files) = ([one().await, one().await, one().await], Files::new());
    let login = login_at(&servers.each_ref(), app_role(&files));
    let asked = async || {
        let mut sum = 0;
        for server in &servers {
            sum += server.requests().await;
        }
        sum
    };
    let (mut after, mut before) = (Vec::new(), 0);
    // The first time, the second time, a quarter of an hour, and that time again.
    for waits in [1, 5, 14 * 60, 61, 6, 14 * 60] {
        assert!(login.ticket(soon()).await.is_err());
        let now = asked().await;
        after.push(now - before);
        before = now;
        pass(Duration::from_secs(waits)).await;
    }
    assert_eq!(after, [2, 0, 1, 0, 2, 0]);
    files.put("secret-id", "another");
    assert!(login.ticket(soon()).await.is_err());
    assert_eq!(asked().await - before, 2);
}

#[tokio::test]
async fn refusals_cause_logins_at_growing_gaps() {
    let (server, files) = (Server::start(&[granted(3600)]).await, Files::new());
    let login = login(&server, app_role(&files));
    let refusal = || BackendError::new(ErrorKind::Credentials, "wrap a seed", "permission denied");
    let mut ticket = login.ticket(soon()).await.unwrap();
    let (mut gaps, mut waited) = (Vec::new(), 0);
    while gaps.len() < 7 {
        match login.replace(&ticket, "transit/encrypt/kms", refusal(), soon()).await {
            Ok(other) => {
                ticket = other;
                gaps.push(waited);
                waited = 0;
            }
            Err(error) => assert_eq!(error, refusal()),
        }
        pass(Duration::from_secs(1)).await;
        waited += 1;
    }
    assert_eq!(gaps, [0, 5, 10, 20, 40, 60, 60]);
    // A token that goes after all was well for long is replaced at once.
    pass(Duration::from_secs(600)).await;
    login.replace(&ticket, "transit/encrypt/kms", refusal(), soon()).await.unwrap();
}

/// A key of another plugin that the policy does not allow is asked for at every start of an apiserver.
#[tokio::test]
async fn an_operation_that_is_forbidden_does_not_delay_the_others() {
    let (server, files) = (Server::start(&[granted(3600)]).await, Files::new());
    let login = login(&server, app_role(&files));
    let refusal =
        || BackendError::new(ErrorKind::Credentials, "unwrap a seed", "permission denied");
    let ticket = login.ticket(soon()).await.unwrap();
    let other = login.replace(&ticket, "transit/decrypt/old", refusal(), soon()).await.unwrap();
    let error = login.replace(&other, "transit/decrypt/old", refusal(), soon()).await;
    assert_eq!(error.err(), Some(refusal()));
    login.replace(&other, "transit/encrypt/kms", refusal(), soon()).await.unwrap();
    assert_eq!(server.requests().await, 3);
}

/// A secret_id may be good for one login only.
#[tokio::test]
async fn a_slow_login_is_not_made_twice() {
    let Reply::Bytes(token) = granted(3600) else { unreachable!() };
    let late = Reply::Late(Duration::from_millis(1500), token);
    let used_up = errors("400 Bad Request", "invalid role or secret ID");
    let (server, files) = (Server::start(&[late, used_up]).await, Files::new());
    let login = login(&server, app_role(&files));
    let error = login.ticket(Instant::now() + Duration::from_millis(300)).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert!(error.reason.contains("still waited for"), "{error}");
    // Nor by who comes meanwhile.
    login.ticket(Instant::now() + Duration::from_millis(300)).await.err().unwrap();
    login.ticket(soon()).await.unwrap();
    assert_eq!(server.requests().await, 1);
}

#[tokio::test]
async fn a_credential_that_everybody_may_read_is_refused_until_that_is_mended() {
    let (server, files) = (Server::start(&[granted(3600)]).await, Files::new());
    let auth = app_role(&files);
    let secret_id = files.put("secret-id", "canary");
    let mode = |mode| std::fs::set_permissions(&secret_id, Permissions::from_mode(mode)).unwrap();
    let login = login(&server, auth);
    mode(0o644);
    let error = login.ticket(soon()).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Credentials);
    let said = error.to_string();
    assert!(said.contains("secret-id: others can read it (mode 0644)"), "{said}");
    assert!(!said.contains("canary"), "{said}");
    assert_eq!(server.requests().await, 0);
    mode(0o640);
    pass(Duration::from_secs(2)).await;
    login.ticket(soon()).await.unwrap();
}

/// The server gives it once: what has come after its caller went away is kept.
#[tokio::test]
async fn a_secret_id_is_not_lost_with_the_call_that_opened_it() {
    let looked = json("200 OK", r#"{"data":{"creation_path":"auth/approle/role/kms/secret-id"}}"#);
    let Reply::Bytes(opened) = json("200 OK", r#"{"data":{"secret_id":"the secret"}}"#) else {
        unreachable!()
    };
    let late = Reply::Late(Duration::from_millis(300), opened);
    let gone = errors("400 Bad Request", "wrapping token is not valid or does not exist");
    let (server, files) = (Server::start(&[looked, late, gone]).await, Files::new());
    let wrapped = wrapped(&server, &files);
    let error = wrapped.secret_id(Instant::now() + Duration::from_millis(100)).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Timeout);
    // Nor is it opened again, which would look like a theft.
    for _ in 0..3 {
        let secret_id = wrapped.secret_id(soon()).await.unwrap();
        assert_eq!(secret_id.expose(), b"the secret");
        assert_eq!(server.requests().await, 2);
    }
}

#[tokio::test]
async fn a_lease_beyond_reason_is_a_long_one() {
    let (server, files) = (Server::start(&[granted(u64::MAX)]).await, Files::new());
    let login = login(&server, app_role(&files));
    login.ticket(soon()).await.ok().unwrap();
    login.keep(soon()).await;
    assert_eq!(server.requests().await, 1);
}

#[tokio::test]
async fn a_renewal_that_the_certificate_forbids_leads_to_a_login() {
    let (server, files) = (Server::start(&[granted(60)]).await, Files::new());
    let login = login(&server, app_role(&files));
    login.ticket(soon()).await.ok().unwrap();
    let refusal =
        "failed to renew entry: client identity during renewal not matching client identity";
    server.answer(errors("500 Internal Server Error", refusal)).await;
    pass(Duration::from_secs(31)).await;
    login.keep(soon()).await;
    let requests = server.requests.lock().await;
    let paths: Vec<_> = requests.iter().filter_map(|request| request.lines().next()).collect();
    assert!(paths[1].contains("renew-self") && paths[2].contains("approle/login"), "{paths:?}");
}

#[tokio::test]
async fn a_refusal_is_forgotten_after_a_login() {
    let refused = errors("400 Bad Request", "invalid role or secret ID");
    let (server, files) = (Server::start(&[refused.clone(), granted(60)]).await, Files::new());
    let login = login(&server, app_role(&files));
    assert!(login.ticket(soon()).await.is_err());
    pass(Duration::from_secs(6)).await;
    login.ticket(soon()).await.ok().unwrap();
    pass(Duration::from_secs(24 * 60 * 60)).await;
    server.answer(refused).await;
    assert!(login.ticket(soon()).await.is_err());
    server.answer(granted(60)).await;
    pass(Duration::from_secs(6)).await;
    assert!(login.ticket(soon()).await.is_ok(), "as after the first one");
}

/// As at a start while the first node hangs.
#[tokio::test]
async fn a_node_that_hangs_does_not_keep_others_from_logging_in() {
    let files = Files::new();
    let hung = Server::start(&[Reply::Silence]).await;
    let good = Server::start(&[granted(3600)]).await;
    let login = login_at(&[&hung, &good], app_role(&files));
    let begin = Instant::now();
    while login.ticket(Instant::now() + Duration::from_secs(1)).await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
    assert_eq!(good.requests().await, 1);
}

/// A standby that has not heard of a new secret_id, or that has locked the role out, speaks for itself alone.
#[tokio::test]
async fn what_one_node_refuses_another_may_take() {
    for reply in [
        errors("400 Bad Request", "invalid role or secret ID"),
        errors("403 Forbidden", "permission denied"),
    ] {
        let files = Files::new();
        let behind = Server::start(&[reply]).await;
        let good = Server::start(&[granted(3600)]).await;
        let login = login_at(&[&behind, &good], app_role(&files));
        login.ticket(soon()).await.unwrap();
        assert_eq!((behind.requests().await, good.requests().await), (1, 1));
    }
}

#[tokio::test]
async fn a_refused_secret_id_is_tried_again_when_its_file_was_written_again() {
    let refused = errors("400 Bad Request", "invalid role or secret ID");
    let (server, files) = (Server::start(&[refused]).await, Files::new());
    let login = login(&server, app_role(&files));
    for _ in 0..2 {
        assert!(login.ticket(soon()).await.is_err());
        pass(Duration::from_secs(6)).await;
    }
    assert!(login.ticket(soon()).await.is_err());
    assert_eq!(server.requests().await, 2);
    server.answer(granted(3600)).await;
    files.put("secret-id", "secret");
    pass(Duration::from_secs(2)).await;
    login.ticket(soon()).await.unwrap();
}

/// Whoever replaces it by a wrong one does not take the good one away.
#[tokio::test]
async fn a_token_that_nobody_knows_does_not_take_the_place_of_a_good_one() {
    let (server, files) = (Server::start(&[granted(3600)]).await, Files::new());
    let login = login(&server, Auth::Token { file: files.put("token", "s.token") });
    let good = login.ticket(soon()).await.unwrap();
    files.put("token", "garbage");
    server.answer(errors("403 Forbidden", "permission denied")).await;
    login.keep(soon()).await;
    let still = login.ticket(soon()).await.unwrap();
    assert_eq!(still.token.expose(), good.token.expose());
    // One that its policies forbid to renew is known.
    pass(Duration::from_secs(2)).await;
    let forbidden = r"1 error occurred:\n\t* permission denied\n\n";
    server.answer(errors("403 Forbidden", forbidden)).await;
    files.put("token", "s.other");
    login.keep(soon()).await;
    assert_eq!(login.ticket(soon()).await.unwrap().token.expose(), b"s.other");
}

/// A standby may not have heard of it yet, and nothing is stolen then.
#[tokio::test]
async fn a_wrapping_token_that_is_too_new_for_a_node_is_looked_at_again() {
    let unknown = errors("400 Bad Request", "wrapping token is not valid or does not exist");
    let looked = json("200 OK", r#"{"data":{"creation_path":"auth/approle/role/kms/secret-id"}}"#);
    let opened = json("200 OK", r#"{"data":{"secret_id":"the secret"}}"#);
    let (server, files) = (Server::start(&[unknown, looked, opened]).await, Files::new());
    let wrapped = wrapped(&server, &files);
    assert_eq!(wrapped.secret_id(soon()).await.unwrap().expose(), b"the secret");
    assert_eq!(server.requests().await, 3);
}
