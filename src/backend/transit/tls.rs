//! The certificates of a connection. They are read again when their files change.
//!
//! Authorities are replaced and certificates renewed while kleidi runs. So the files are looked at with
//! every observation, by their content: links that are exchanged and clocks that are wrong do not matter.
//! Files that cannot be used, for instance a key that does not fit because it is about to be replaced,
//! too, change nothing: what was read before is used on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::edges::{Connector, Edges};
use super::files::{self, Digest, Files, Readers};
use super::http_client::Http;
use crate::backend::{BackendError, ErrorKind};

/// Longest file in bytes: the authorities of a whole distribution are 250 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How long a look at files that may have changed takes at most: what there is does meanwhile.
const LOOK_TIMEOUT: Duration = Duration::from_millis(250);

/// How the server is recognised, and how we are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of the authorities that may have signed the server's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Our certificate with its chain, in PEM; the key may be in the same file.
    pub certificate_file: Option<PathBuf>,
    /// The key of our certificate, if it is not in the same file.
    pub key_file: Option<PathBuf>,
    /// The name in the server's certificate, if it is not the one in the address.
    pub server_name: Option<String>,
}

/// What is in the files.
struct Material {
    authorities: Option<Zeroizing<Vec<u8>>>,
    certificate: Option<Zeroizing<Vec<u8>>>,
    /// Where it is not in the file of the certificate.
    key: Option<Zeroizing<Vec<u8>>>,
}

/// The client for connections as the files are.
pub(super) struct Connections {
    tls: Arc<Tls>,
    files: Files,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    /// The client, and the files that it was made from.
    made: Option<(Arc<Http>, Digest)>,
    /// Why files that have changed are not used; it is said once.
    fault: Option<BackendError>,
}

impl Connections {
    pub(super) fn new(tls: Tls, files: Files) -> Self {
        Self { tls: Arc::new(tls), files, current: Mutex::default() }
    }

    /// Those that somebody else makes, without TLS.
    pub(super) fn over(edges: Arc<dyn Edges>, files: Files) -> Self {
        let connections = Self::new(Tls::default(), files);
        let http = Arc::new(Http::over(Connector(edges)));
        connections.current.lock().made = Some((http, Digest::default()));
        connections
    }

    /// The client.
    pub(super) async fn http(&self, deadline: Instant) -> Result<Arc<Http>, BackendError> {
        if let Some((http, _)) = &self.current.lock().made {
            return Ok(Arc::clone(http));
        }
        let material = self.read(deadline).await?;
        let made = Arc::new(material.client(&self.tls)?);
        // Unless another call was faster: its connections may be in use.
        let mut current = self.current.lock();
        let (http, _) = current.made.get_or_insert_with(|| (made, material.digest()));
        Ok(Arc::clone(http))
    }

    /// Looks whether the files have changed, and uses them from now on if they have and can be used.
    pub(super) async fn follow_files(&self) {
        // The first call reads them.
        let made = self.current.lock().made.as_ref().map(|(_, digest)| *digest);
        let Some(before) = made else { return };
        if *self.tls == Tls::default() {
            return;
        }
        let read = self.read(Instant::now() + LOOK_TIMEOUT).await;
        let changed = read.and_then(|material| match material.digest() {
            same if same == before => Ok(None),
            other => Ok(Some((Arc::new(material.client(&self.tls)?), other))),
        });
        let mut current = self.current.lock();
        match changed {
            Ok(None) => current.fault = None,
            Ok(made) => {
                tracing::info!("files for TLS have changed: connections are made anew with them");
                *current = Current { made, fault: None };
            }
            Err(fault) if current.fault.as_ref() == Some(&fault) => {}
            Err(fault) => {
                tracing::warn!(%fault, "files for TLS cannot be used any more: what they were is used on");
                current.fault = Some(fault);
            }
        }
    }

    async fn read(&self, deadline: Instant) -> Result<Material, BackendError> {
        let tls = Arc::clone(&self.tls);
        self.files.with(deadline, move || Material::read(&tls)).await.unwrap_or_else(|| {
            let (attempted, reason) = ("read the files for TLS", "no answer in time");
            Err(BackendError::new(ErrorKind::Timeout, attempted, reason)
                .advise("does the file system that they are on hang?"))
        })
    }
}

impl Material {
    fn read(tls: &Tls) -> Result<Self, BackendError> {
        let read = |file: &Option<PathBuf>, readers| match file {
            None => Ok(None),
            Some(file) => {
                files::read(file, FILE_BYTES_MAX, readers).map(Some).map_err(|why| fault(file, why))
            }
        };
        // Kubelet keeps its key in the file of the certificate.
        let with_key = if tls.key_file.is_none() { Readers::Group } else { Readers::Everybody };
        Ok(Self {
            authorities: read(&tls.ca_file, Readers::Everybody)?,
            certificate: read(&tls.certificate_file, with_key)?,
            key: read(&tls.key_file, Readers::Group)?,
        })
    }

    fn digest(&self) -> Digest {
        let parts = [&self.authorities, &self.certificate, &self.key];
        files::digest(parts.map(|part| part.as_ref().map_or(&[][..], |part| part)))
    }

    fn client(&self, tls: &Tls) -> Result<Http, BackendError> {
        let server_name = match &tls.server_name {
            None => None,
            Some(name) => Some(ServerName::try_from(name.clone()).map_err(|error| {
                let attempted = format!("look for {name} in the server's certificate");
                BackendError::new(ErrorKind::Misconfigured, attempted, error.to_string())
            })?),
        };
        Ok(Http::new(self.config(tls)?, server_name))
    }

    fn config(&self, tls: &Tls) -> Result<rustls::ClientConfig, BackendError> {
        let mut roots = rustls::RootCertStore::empty();
        if let (Some(file), Some(pem)) = (&tls.ca_file, &self.authorities) {
            for certificate in certificates(file, pem)? {
                roots.add(certificate).map_err(|error| fault(file, error.to_string()))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| {
                BackendError::new(ErrorKind::Misconfigured, "set up TLS", error.to_string())
            })?
            .with_root_certificates(roots);
        let (Some(file), Some(pem)) = (&tls.certificate_file, &self.certificate) else {
            return Ok(builder.with_no_client_auth());
        };
        let key_file = tls.key_file.as_ref().unwrap_or(file);
        let key =
            PrivateKeyDer::from_pem_slice(self.key.as_ref().unwrap_or(pem)).map_err(|why| {
                fault(key_file, format!("there is no private key in it that can be read: {why}"))
            })?;
        builder
            .with_client_auth_cert(certificates(file, pem)?, key)
            .map_err(|error| fault(file, error.to_string()))
    }
}

fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BackendError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| fault(file, error.to_string()))?;
    if certificates.is_empty() {
        return Err(fault(file, "there is no certificate in it".to_owned()));
    }
    Ok(certificates)
}

fn fault(file: &Path, reason: String) -> BackendError {
    let attempted = format!("use {} for TLS", file.display());
    BackendError::new(ErrorKind::Misconfigured, attempted, reason)
}

#[cfg(test)]
mod tests;
