//! A secret_id that comes wrapped: the file holds a token that opens once.
//!
//! Whoever opens it first has the secret_id, and whoever comes second is told so: a theft on the way
//! does not stay unseen. What was opened is kept in memory and nowhere else. So after a restart the file
//! has to hold another wrapping token; it is looked at with every observation, because such a token does
//! not live long.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Mutex as Flight;
use tokio::time::{Instant, sleep, timeout_at};

use super::Data;
use super::answer::printable;
use super::client::Cluster;
use super::files::{self, Digest, Readers};
use super::http_client::{Answer, Request};
use super::json::{Object, parse};
use crate::backend::{BackendError, ErrorKind};
use crate::secret::Secret;

/// How long opening may take, whoever waits for it: an answer that is not waited for is lost.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// When a wrapping token is looked at again that a node does not know: all of it within the time of one look at the
/// KMS, so that its words are told and not that there was no time.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];

/// How long a call waits for it that has the one from before.
const PATIENCE: Duration = Duration::from_secs(1);

const ATTEMPTED: &str = "open the wrapped secret_id";

/// Where it is, and what it has to be.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// A file with the wrapping token.
    pub(super) file: PathBuf,
    /// Where AppRole is mounted.
    pub(super) mount: String,
    /// The role that it has to be of.
    pub(super) role: Option<String>,
    /// The namespace of the login.
    pub(super) namespace: Option<String>,
}

/// A wrapped secret_id, and what has been opened of it.
pub(super) struct Wrapped {
    settings: Settings,
    cluster: Arc<Cluster>,
    opened: Arc<Mutex<Opened>>,
    /// Held while one is being opened.
    flight: Arc<Flight<()>>,
}

#[derive(Default)]
struct Opened {
    /// The wrapping token that was dealt with last, for good or for bad.
    seen: Option<Digest>,
    secret_id: Option<Arc<Secret>>,
    /// Why that token was refused.
    fault: Option<BackendError>,
}

impl Wrapped {
    pub(super) fn new(settings: Settings, cluster: Arc<Cluster>) -> Self {
        let (opened, flight) = (Arc::default(), Arc::default());
        Self { settings, cluster, opened, flight }
    }

    /// The secret_id that was opened last, after opening what is new in the file.
    pub(super) async fn secret_id(&self, deadline: Instant) -> Result<Arc<Secret>, BackendError> {
        let before = self.opened.lock().secret_id.clone();
        let deadline = match before {
            // Nobody waits long for a new one while there is one.
            Some(_) => deadline.min(Instant::now() + PATIENCE),
            None => deadline,
        };
        match timeout_at(deadline, self.follow_file(deadline)).await {
            Ok(outcome) => outcome.or_else(|error| before.ok_or(error)),
            Err(_) => before.ok_or_else(|| {
                BackendError::new(ErrorKind::Timeout, ATTEMPTED, "no answer in time")
            }),
        }
    }

    async fn follow_file(&self, deadline: Instant) -> Result<Arc<Secret>, BackendError> {
        let flight = Arc::clone(&self.flight).lock_owned().await;
        let (file, what) = (&self.settings.file, "the wrapping token");
        let token = self.cluster.files().credential(file, what, Readers::Group, deadline).await?;
        let digest = files::digest([token.as_bytes()]);
        if self.opened.lock().seen != Some(digest) {
            let (settings, cluster) = (self.settings.clone(), Arc::clone(&self.cluster));
            let opened = Arc::clone(&self.opened);
            // Goes on when the caller does not: an answer that nobody takes is a secret_id that is lost.
            let opening = async move {
                let _flight = flight;
                open(&settings, &cluster, &token, digest, &opened).await
            };
            if let Ok(outcome) = tokio::spawn(opening).await {
                outcome?;
            }
        }
        self.opened.lock().secret_id()
    }
}

impl Opened {
    fn secret_id(&self) -> Result<Arc<Secret>, BackendError> {
        self.secret_id.clone().ok_or_else(|| {
            let unknown = || BackendError::new(ErrorKind::Credentials, ATTEMPTED, "it was refused");
            self.fault.clone().unwrap_or_else(unknown)
        })
    }
}

/// Opens it and says how that went. One that cannot be opened leaves what was opened before; an error is
/// one that may be over at the next try.
async fn open(
    settings: &Settings,
    cluster: &Cluster,
    token: &str,
    digest: Digest,
    opened: &Mutex<Opened>,
) -> Result<(), BackendError> {
    if is_plain(token) {
        let error = plain(settings);
        tracing::error!(%error, "what is no wrapping token is not sent anywhere");
        let mut opened = opened.lock();
        (opened.seen, opened.fault) = (Some(digest), Some(error));
        return Ok(());
    }
    let token = Secret::from(token.as_bytes().to_vec());
    match unwrap(settings, cluster, &token).await {
        Ok(secret_id) => {
            let file = settings.file.display();
            tracing::info!(%file, "the wrapped secret_id has been opened; a restart needs another one");
            let secret_id = Some(Arc::new(secret_id));
            *opened.lock() = Opened { seen: Some(digest), secret_id, fault: None };
        }
        Err(error) if error.kind == ErrorKind::Credentials => {
            let file = settings.file.display();
            let error = error.advise(format!(
                "a wrapped secret_id opens once: this one was opened before, by kleidi before a restart \
                 or by somebody else, or is too old. If it was not kleidi, revoke the secret_id. Put a \
                 new one into {file}"
            ));
            // Somebody may have stolen it: said even where the one from before will do.
            tracing::error!(%error, "a wrapped secret_id is refused");
            let mut opened = opened.lock();
            (opened.seen, opened.fault) = (Some(digest), Some(error));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Whether it looks like a secret_id as servers make them, a UUID, which no wrapping token is.
fn is_plain(token: &str) -> bool {
    let lengths = token.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && token.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}

fn plain(settings: &Settings) -> BackendError {
    let file = settings.file.display();
    let reason = format!("{file} holds a secret_id as it is, not a wrapping token");
    let advice = "name the file in secretIdFile, if it may lie there; otherwise revoke that secret_id, and \
                  put what `bao write -wrap-ttl=10m -f auth/…/secret-id` calls wrapping_token there";
    BackendError::new(ErrorKind::Credentials, ATTEMPTED, reason).advise(advice)
}

async fn unwrap(
    settings: &Settings,
    cluster: &Cluster,
    token: &Secret,
) -> Result<Secret, BackendError> {
    #[derive(Deserialize)]
    struct Found<'a> {
        creation_path: &'a str,
    }
    #[derive(Deserialize)]
    struct Unwrapped<'a> {
        secret_id: &'a str,
    }
    let answer = look_up(settings, cluster, token).await?;
    let looked: Data<Found<'_>> = parse(ATTEMPTED, &answer)?;
    let path = looked.data.creation_path;
    if !is_secret_id(path, &settings.mount, settings.role.as_deref()) {
        let role = settings.role.as_deref().unwrap_or("NAME");
        let reason = format!(
            "it was wrapped by {:?} and not by auth/{}/role/{role}/secret-id: somebody may have \
             opened it and wrapped it anew",
            printable(path),
            settings.mount
        );
        return Err(BackendError::new(ErrorKind::Credentials, ATTEMPTED, reason));
    }
    // There, because others may not have heard of it.
    let only = Some(&*answer.address);
    let unwrapped = call(settings, cluster, token, ("sys/wrapping/unwrap", true, only)).await?;
    let unwrapped: Data<Unwrapped<'_>> = parse(ATTEMPTED, &unwrapped)?;
    Ok(Secret::from(unwrapped.data.secret_id.as_bytes().to_vec()))
}

/// Asks what it is, of every node and more than once before a refusal counts: looking uses nothing up, and a
/// standby that has not heard of it yet speaks as of one that was opened.
async fn look_up(
    settings: &Settings,
    cluster: &Cluster,
    token: &Secret,
) -> Result<Answer, BackendError> {
    const PATH: &str = "sys/wrapping/lookup";
    let mut refused = match call(settings, cluster, token, (PATH, false, None)).await {
        Err(error) if error.kind == ErrorKind::Credentials => error,
        outcome => return outcome,
    };
    for pause in LOOK_AGAIN {
        sleep(pause).await;
        for address in cluster.addresses() {
            match call(settings, cluster, token, (PATH, false, Some(&*address))).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.kind == ErrorKind::Credentials => refused = error,
                // It cannot be told what this one would say.
                Err(_) => {}
            }
        }
    }
    Err(refused)
}

/// Calls a path: whether its answer comes once, and the one address that may be asked.
async fn call(
    settings: &Settings,
    cluster: &Cluster,
    token: &Secret,
    (path, once, only): (&str, bool, Option<&str>),
) -> Result<Answer, BackendError> {
    let request = Request {
        namespace: settings.namespace.as_deref(),
        token: Some(token),
        once,
        only,
        ..Request::new(Method::POST, path, Object::with_capacity(0).finish())
    };
    let deadline = Instant::now() + OPENING_TIMEOUT;
    Ok(cluster.call(ATTEMPTED, &request, deadline).await?)
}

/// Whether the path is that of AppRole's secret_ids of this role.
fn is_secret_id(path: &str, mount: &str, role: Option<&str>) -> bool {
    let of_role = path
        .strip_prefix("auth/")
        .and_then(|path| path.strip_prefix(mount))
        .and_then(|path| path.strip_prefix("/role/"))
        .and_then(|path| {
            path.strip_suffix("/secret-id").or_else(|| path.strip_suffix("/custom-secret-id"))
        });
    of_role.is_some_and(|found| !found.contains('/') && role.is_none_or(|role| role == found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_id_is_told_from_a_wrapping_token() {
        assert!(is_plain("0b5f4f0a-1b1c-4d2e-8f00-00000000cafe"));
        for token in
            ["s.8KJ2kmhnJ9tDAzqGwFKBsMzu", "hvs.CAESIJX-4sy-9P8t4jmxh_5hAnN1l7sO4I", "", "a-b"]
        {
            assert!(!is_plain(token), "{token}");
        }
    }

    #[test]
    fn only_a_secret_id_of_the_role_will_do() {
        let path = "auth/approle/role/kms/secret-id";
        assert!(is_secret_id(path, "approle", None));
        assert!(is_secret_id(path, "approle", Some("kms")));
        assert!(is_secret_id("auth/a/b/role/kms/custom-secret-id", "a/b", Some("kms")));
        assert!(!is_secret_id(path, "approle", Some("other")));
        assert!(!is_secret_id(path, "other", None));
        for path in [
            "sys/wrapping/wrap",
            "auth/approle/role/kms/role-id",
            "auth/approle/role/a/b/secret-id",
        ] {
            assert!(!is_secret_id(path, "approle", None), "{path}");
        }
    }
}
