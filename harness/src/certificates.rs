//! A certificate authority for one test.

use std::fs;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::{Stage, write_private};

/// An authority whose certificates are good for servers on this machine and for their clients.
#[derive(Debug)]
pub struct Authority {
    directory: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The files of a certificate, in PEM.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one; its files are in the directory `name` of the stage.
    ///
    /// # Panics
    ///
    /// If they cannot be written.
    #[must_use]
    pub fn new(stage: &Stage, name: &str) -> Self {
        let directory = stage.make_dir(name);
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        fs::write(directory.join("ca.crt"), issuer.pem()).expect("its files can be written");
        Self { directory, issuer }
    }

    /// What has to be trusted, as a file in PEM.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// What has to be trusted, in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        self.issuer.der()
    }

    /// A certificate for 127.0.0.1 and localhost with `name` as its common name.
    ///
    /// # Panics
    ///
    /// If its files cannot be written.
    #[must_use]
    pub fn issue(&self, name: &str) -> CertificateFiles {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let write = |ending: &str, pem: String| -> PathBuf {
            let path = self.directory.join(format!("{name}.{ending}"));
            write_private(&path, pem);
            path
        };
        CertificateFiles {
            certificate: write("crt", certificate.pem()),
            key: write("key", key.serialize_pem()),
        }
    }
}
