//! Seeds: wrapped, and nothing given out that was not read back; unwrapped, and told whose fault it is if
//! not.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::batch::{self, ATTEMPTED as UNWRAP};
use super::json::{Object, parse};
use super::{Data, Inner, Operation, checked, prefixed};
use crate::backend::{
    BackendError, ErrorKind, ForeignRequest, UnwrapRequest, WrapRequest, Wrapped,
};
use crate::key_id::{KeyId, Version};
use crate::secret::Secret;

pub(super) const WRAP: &str = "wrap a seed";

/// How often a seed is wrapped anew because the server was lost before it was read back.
const TIMES: u32 = 3;

/// How long reading back may take, besides twice what wrapping took: then another server is asked for all of it, if
/// there is time. Each attempt of it is waited for alone for a third of that, so that a line that is slow is not asked
/// everything twice.
const VERIFY_TIMEOUT: Duration = Duration::from_millis(700);

impl Inner {
    /// Wraps, and reads back: the one answer that is kept for years.
    ///
    /// The key in the answer is the one that wrapped, by what the server computes with it now and not by
    /// what is remembered of its number.
    pub(super) async fn wrap_verified(
        &self,
        request: &WrapRequest,
        deadline: Instant,
    ) -> Result<Wrapped, BackendError> {
        let version = self.versions.lock().find(&request.key).ok_or_else(|| {
            let attempted = format!("find the key {}", request.key);
            let reason = format!("no version of {} has this id", self.settings.path("keys"));
            BackendError::new(ErrorKind::KeyNotFound, attempted, reason)
                .advise("was the key made anew, or restored from a backup?")
        })?;
        let mut times = 1;
        loop {
            let begin = Instant::now();
            let outcome = self.wrap_once(request, version, deadline).await;
            match &outcome {
                // What was late once is so again where there is no time for all of it.
                Err(error)
                    if error.kind == ErrorKind::Timeout
                        && Instant::now() + begin.elapsed() > deadline =>
                {
                    return outcome;
                }
                // Lost in between, most likely.
                Err(error) if error.kind.retryable() && times < TIMES => times += 1,
                _ => return outcome,
            }
        }
    }

    async fn wrap_once(
        &self,
        request: &WrapRequest,
        version: u64,
        deadline: Instant,
    ) -> Result<Wrapped, BackendError> {
        #[derive(Deserialize)]
        struct Encrypted<'a> {
            ciphertext: &'a str,
        }
        let (plaintext, begin) = (request.plaintext.expose(), Instant::now());
        let body = Object::with_capacity(2 * (plaintext.len() + request.aad.len()))
            .bytes("plaintext", plaintext)
            .bytes("associated_data", &request.aad)
            .number("key_version", version);
        let answer =
            self.call(Operation::new(WRAP, self.settings.path("encrypt"), body), deadline).await?;
        let encrypted: Data<Encrypted<'_>> = parse(WRAP, &answer)?;
        let ciphertext = encrypted.data.ciphertext;
        let Some((used, _)) = prefixed(ciphertext) else {
            let reason = format!(
                "{}: the answer to encrypt is not vault:v<version>:<base64>",
                answer.address
            );
            return Err(BackendError::new(ErrorKind::Unavailable, WRAP, reason));
        };

        let until = deadline.min(Instant::now() + VERIFY_TIMEOUT + 2 * begin.elapsed());
        let path = self.settings.path("decrypt");
        let (seen, read) = tokio::join!(
            self.fingerprint(Some(used), None, until),
            self.decrypt_at(&path, ciphertext.as_bytes(), Some(&request.aad), until),
        );
        let (seen, (read, address)) = (seen?, read?);
        if seen.address != address {
            let reason = format!("{} was lost while it was read back", seen.address);
            return Err(BackendError::new(ErrorKind::Unavailable, WRAP, reason));
        }
        if read.expose() != plaintext {
            let reason = format!(
                "{address}: {} unwraps to something else than was wrapped",
                self.settings.path("keys")
            );
            return Err(BackendError::new(ErrorKind::KeyDamaged, WRAP, reason));
        }
        let key = KeyId::new(seen.fingerprint, &Version::of_number(used));
        Ok(Wrapped { key, payload: ciphertext.as_bytes().to_vec() })
    }

    /// Unwraps alone.
    pub(super) async fn unwrap_one(
        &self,
        request: &UnwrapRequest,
        deadline: Instant,
    ) -> Result<Secret, BackendError> {
        let path = self.settings.path("decrypt");
        self.decrypt(&path, &request.payload, Some(&request.aad), deadline).await
    }

    /// Unwraps what another plugin wrote; `None` if no configured format claims it. Several keys of one
    /// plugin are tried in turn: what it wrote does not name its key.
    pub(super) async fn unwrap_foreign(
        &self,
        request: &ForeignRequest,
        deadline: Instant,
    ) -> Result<Option<Secret>, BackendError> {
        let mut refused = None;
        for format in self.settings.foreign.iter().filter(|format| format.claims(request)) {
            let path = format!("{}/decrypt/{}", format.mount, format.key);
            match self.decrypt(&path, &request.ciphertext, None, deadline).await {
                Ok(seed) => return Ok(Some(seed)),
                Err(error) if error.kind.retryable() => return Err(error),
                Err(error) if error.kind == ErrorKind::BadCiphertext => {
                    refused = Some(error.advise(format!(
                        "is {}/keys/{} the key of the plugin that wrote it (decryptAlso)? If it is, the \
                         object in etcd is damaged",
                        format.mount, format.key
                    )));
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        refused.map_or(Ok(None), Err)
    }

    pub(super) async fn decrypt(
        &self,
        path: &str,
        ciphertext: &[u8],
        aad: Option<&[u8]>,
        deadline: Instant,
    ) -> Result<Secret, BackendError> {
        let (seed, _) = self.decrypt_at(path, ciphertext, aad, deadline).await?;
        Ok(seed)
    }

    /// The plaintext, and which server unwrapped it.
    async fn decrypt_at(
        &self,
        path: &str,
        ciphertext: &[u8],
        aad: Option<&[u8]>,
        deadline: Instant,
    ) -> Result<(Secret, Arc<str>), BackendError> {
        let ciphertext = checked(ciphertext)?;
        let aad_bytes = aad.map_or(0, <[u8]>::len);
        let mut body =
            Object::with_capacity(ciphertext.len() + 2 * aad_bytes).text("ciphertext", ciphertext);
        if let Some(aad) = aad {
            body = body.bytes("associated_data", aad);
        }
        let answer = self.call(Operation::new(UNWRAP, path.to_owned(), body), deadline).await?;
        let decrypted: Data<batch::Decrypted<'_>> = parse(UNWRAP, &answer)?;
        let place = format!("{}/v1/{path}", answer.address);
        let seed = decrypted.data.outcome().map_err(|why| batch::error(why.at(&place)))?;
        Ok((seed, answer.address))
    }

    /// Whose fault it is that a ciphertext does not open: the same error, unless the version that it
    /// names is another key by now.
    pub(super) async fn explain(
        &self,
        error: BackendError,
        request: &UnwrapRequest,
        deadline: Instant,
    ) -> BackendError {
        let version = std::str::from_utf8(&request.payload).ok().and_then(prefixed);
        let (ErrorKind::BadCiphertext, Some((version, _))) = (error.kind, version) else {
            return error;
        };
        match self.fingerprint(Some(version), None, deadline).await {
            Ok(seen) if seen.fingerprint != request.key.fingerprint() => {
                let reason = format!(
                    "version {version} of {} is another key now",
                    self.settings.path("keys")
                );
                BackendError::new(ErrorKind::KeyNotFound, UNWRAP, reason)
                    .advise("restore the key; what is in etcd is not damaged, do not touch it")
            }
            _ => error,
        }
    }
}
