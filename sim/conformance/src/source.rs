//! What the requirements cite: upstream's files, at a commit, with lines; the manual, whose commit is not known,
//! at the branch of a release that changes no more.

use std::fmt;

/// A document of upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// The plugin interface.
    Proto,
    /// Kubernetes enhancement proposal 3299.
    Kep,
    /// kube-apiserver's limits, and how it reads and writes.
    Envelope,
    /// kube-apiserver's health checks and rotation.
    Config,
    /// kube-apiserver's gRPC client.
    Grpc,
    /// kube-apiserver's tests of that client.
    GrpcTest,
    /// The plugin that upstream's tests use.
    Mock,
    /// Upstream's test of its own plugin library.
    ServiceTest,
    /// Kubernetes' manual on KMS providers, the notes for KMS v2; that of 1.29, the first to call it stable.
    Manual,
    /// What an EncryptionConfiguration may say.
    Validation,
    /// What it says when it does not say.
    Defaults,
    /// Reload of the EncryptionConfiguration.
    Controller,
    /// What a fully qualified domain name is.
    DomainName,
    /// gRPC's status codes.
    StatusCodes,
}

impl Document {
    /// Its address, and what it is called in short.
    fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Proto => (
                "KMS v2 api.proto",
                "https://github.com/kubernetes/kms/blob/7dc88c042aa2/apis/v2/api.proto",
            ),
            Self::Kep => (
                "KEP-3299",
                "https://github.com/kubernetes/enhancements/blob/64765b4b0/keps/sig-auth/3299-kms-v2-improvements/README.md",
            ),
            Self::Envelope => (
                "apiserver kmsv2/envelope.go",
                "https://github.com/kubernetes/apiserver/blob/24a394e516bf/pkg/storage/value/encrypt/envelope/kmsv2/envelope.go",
            ),
            Self::Config => (
                "apiserver encryptionconfig/config.go",
                "https://github.com/kubernetes/apiserver/blob/24a394e516bf/pkg/server/options/encryptionconfig/config.go",
            ),
            Self::Grpc => (
                "apiserver kmsv2/grpc_service.go",
                "https://github.com/kubernetes/apiserver/blob/24a394e516bf/pkg/storage/value/encrypt/envelope/kmsv2/grpc_service.go",
            ),
            Self::GrpcTest => (
                "apiserver kmsv2/grpc_service_unix_test.go",
                "https://github.com/kubernetes/apiserver/blob/24a394e516bf/pkg/storage/value/encrypt/envelope/kmsv2/grpc_service_unix_test.go",
            ),
            Self::Mock => (
                "apiserver testing/v2/kms_plugin_mock.go",
                "https://github.com/kubernetes/apiserver/blob/24a394e516bf/pkg/storage/value/encrypt/envelope/testing/v2/kms_plugin_mock.go",
            ),
            Self::ServiceTest => (
                "kms grpc_service_test.go",
                "https://github.com/kubernetes/kms/blob/7dc88c042aa2/pkg/service/grpc_service_test.go",
            ),
            Self::Manual => (
                "Kubernetes manual 1.29, KMS provider",
                "https://github.com/kubernetes/website/blob/release-1.29/content/en/docs/tasks/administer-cluster/kms-provider.md",
            ),
            Self::Validation => (
                "apiserver validation_encryption.go",
                "https://github.com/kubernetes/apiserver/blob/24a394e516bf/pkg/apis/apiserver/validation/validation_encryption.go",
            ),
            Self::Defaults => (
                "apiserver v1/defaults.go",
                "https://github.com/kubernetes/apiserver/blob/24a394e516bf/pkg/apis/apiserver/v1/defaults.go",
            ),
            Self::Controller => (
                "apiserver encryptionconfig/controller",
                "https://github.com/kubernetes/apiserver/blob/24a394e516bf/pkg/server/options/encryptionconfig/controller/controller.go",
            ),
            Self::DomainName => (
                "apimachinery validation.go",
                "https://github.com/kubernetes/apimachinery/blob/eed236ce/pkg/util/validation/validation.go",
            ),
            Self::StatusCodes => (
                "gRPC status codes",
                "https://github.com/grpc/grpc/blob/001ff21/doc/statuscodes.md",
            ),
        }
    }
}

/// A place in a document, and what it says there, in our words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    document: Document,
    /// First and last line; none for the whole.
    lines: Option<(u32, u32)>,
    says: &'static str,
}

/// Cites lines of a document.
pub(crate) const fn lines(document: Document, from: u32, to: u32, says: &'static str) -> Source {
    Source { document, lines: Some((from, to)), says }
}

/// Cites a document.
pub(crate) const fn whole(document: Document, says: &'static str) -> Source {
    Source { document, lines: None, says }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, url) = self.document.place();
        match self.lines {
            Some((from, to)) if from == to => write!(f, "[{name} L{from}]({url}#L{from})")?,
            Some((from, to)) => write!(f, "[{name} L{from}–{to}]({url}#L{from}-L{to})")?,
            None => write!(f, "[{name}]({url})")?,
        }
        write!(f, ": {}", self.says)
    }
}
