//! `kleidi check`: is the configuration right, and with `--live`, is the key?

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{CheckArgs, Exit, complain, say};
use crate::backend::transit::{Auth, Settings};
use crate::backend::{
    Backend, BackendError, ErrorKind, Finding, KeySet, UnwrapRequest, WrapRequest,
};
use crate::config::{Config, Kms, Overrides};
use crate::limits;
use crate::secret::Secret;

const AAD: &[u8] = b"kleidi check --live";
/// For all steps of an examination: several nodes, some of which may not answer.
const EXAMINE_TIMEOUT: Duration = Duration::from_secs(15);
const PLAINTEXT: &[u8] = b"0123456789abcdef0123456789abcdef";

pub(super) fn run(args: &CheckArgs) -> Exit {
    let config = match Config::load(args.config.config.as_deref(), &Overrides::default()) {
        Ok(config) => config,
        Err(error) => return complain(&error, Exit::Config),
    };
    say(&format!("{}: the configuration is right", config.file.display()));
    for taken in &config.remarks.taken {
        say(&format!("  {taken}"));
    }
    for warning in &config.remarks.warnings {
        say(&format!("warning: {warning}"));
    }
    if !args.live {
        return Exit::Ok;
    }
    if let Kms::Transit(Settings { auth: Auth::WrappedAppRole { .. }, .. }) = &config.kms {
        let why = "check --live would use up the wrapped secret_id, which opens once: start kleidi, and \
                   ask it with kleidi status";
        return complain(&why, Exit::Usage);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, Exit::Failure),
    };
    let outcome =
        super::open(config.kms).and_then(|opened| runtime.block_on(check(&*opened.backend)));
    match outcome {
        Ok(()) => say("all is well"),
        Err(error) => complain(&error, Exit::from(&error)),
    }
}

async fn check(backend: &dyn Backend) -> Result<(), BackendError> {
    for finding in backend.examine(Instant::now() + EXAMINE_TIMEOUT).await {
        match finding {
            Finding::Good(what) => say(&what),
            Finding::Warning(what) => say(&format!("warning: {what}")),
            Finding::Fault(fault) => return Err(fault),
        };
    }
    let keys = backend.observe(Instant::now() + limits::OBSERVE_TIMEOUT).await?;
    show(&keys);
    try_out(backend, &keys).await
}

fn show(keys: &KeySet) {
    for (name, value) in keys.facts.iter() {
        say(&format!("  {name:<24}{value}"));
    }
    say(&format!("current key: {}", keys.current.name));
    say(&format!("  {:<24}{}", "key_id", keys.current.id));
    for (name, value) in keys.current.facts.iter() {
        say(&format!("  {name:<24}{value}"));
    }
    for key in &keys.older {
        say(&format!("only unwraps: {} (key_id {})", key.name, key.id));
    }
    for name in &keys.without_id {
        say(&format!("only unwraps, and may not encrypt: {name}"));
    }
    for reason in &keys.refused {
        say(&format!("warning: {reason}"));
    }
}

/// Wraps, unwraps, and makes sure that what was tampered with is refused.
async fn try_out(backend: &dyn Backend, keys: &KeySet) -> Result<(), BackendError> {
    let deadline = || Instant::now() + limits::CALL_TIMEOUT;
    let key = keys.current.id.clone();
    let plaintext = Secret::from(PLAINTEXT.to_vec());
    let begin = Instant::now();
    let request = WrapRequest { key: key.clone(), plaintext, aad: AAD.to_vec() };
    let wrapped = backend.wrap(request, deadline()).await?;
    say(&format!("wrapped {} bytes in {}", PLAINTEXT.len(), milliseconds(begin.elapsed())));

    let begin = Instant::now();
    let good = UnwrapRequest { key, payload: wrapped.payload, aad: AAD.to_vec() };
    let unwrapped = backend.unwrap(Arc::new(good.clone()), deadline()).await?;
    if unwrapped.expose() != PLAINTEXT {
        return Err(damaged("it unwraps to something else than was wrapped"));
    }
    say(&format!("unwrapped them in {}", milliseconds(begin.elapsed())));

    // In the middle, and still text where it was text: the key has to notice, not the form.
    let mut byte = good.clone();
    let middle = byte.payload.len() / 2;
    byte.payload[middle] = if byte.payload[middle] == b'A' { b'B' } else { b'A' };
    let mut aad = good.clone();
    aad.aad[0] ^= 1;
    let mut short = good;
    // Base64 without its last three bytes is base64.
    short.payload.truncate(short.payload.len().saturating_sub(4));
    for (what, tampered) in [("one byte changed", byte), ("another AAD", aad), ("cut short", short)]
    {
        match backend.unwrap(Arc::new(tampered), deadline()).await {
            Err(error) if error.kind == ErrorKind::BadCiphertext => {
                say(&format!("refused: {what}"));
            }
            Err(error) => return Err(error),
            Ok(_) => return Err(damaged(what)),
        }
    }
    Ok(())
}

fn damaged(why: &str) -> BackendError {
    BackendError::new(ErrorKind::KeyDamaged, "trust the key", why)
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}
