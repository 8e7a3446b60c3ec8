//! Who we are to the server.

use std::path::PathBuf;

/// How to log in. Files are read again at each login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// A token in a file, which somebody else puts there.
    Token {
        /// The file, with nothing but the token.
        file: PathBuf,
    },
    /// AppRole.
    AppRole {
        /// Where the method is mounted, `approle` usually.
        mount: String,
        /// A file with the role_id.
        role_id_file: PathBuf,
        /// A file with the secret_id.
        secret_id_file: PathBuf,
    },
    /// AppRole with a secret_id that comes wrapped.
    WrappedAppRole {
        /// Where the method is mounted, `approle` usually.
        mount: String,
        /// A file with the role_id.
        role_id_file: PathBuf,
        /// A file with the wrapping token.
        wrapping_token_file: PathBuf,
        /// The role that the secret_id has to be of; of any if it is not said.
        role: Option<String>,
    },
    /// The client certificate of the connection.
    Certificate {
        /// Where the method is mounted, `cert` usually.
        mount: String,
        /// The role; that which `kleidi init --print-policy` makes if there is none.
        role: Option<String>,
    },
    /// A JWT in a file, which somebody else keeps fresh.
    Jwt {
        /// Where the method is mounted, `jwt` usually.
        mount: String,
        /// The role.
        role: String,
        /// The file, with nothing but the JWT.
        file: PathBuf,
    },
    /// A service account's JWT in a file, which a kubelet keeps fresh.
    Kubernetes {
        /// Where the method is mounted, `kubernetes` usually.
        mount: String,
        /// The role.
        role: String,
        /// The file, with nothing but the JWT.
        file: PathBuf,
    },
}

impl Auth {
    /// Whether it logs in with a secret_id, which may be good for some logins only.
    pub(super) fn has_secret_id(&self) -> bool {
        matches!(self, Self::AppRole { .. } | Self::WrappedAppRole { .. })
    }

    /// Where to log in, if that is done by a call.
    pub(super) fn mount(&self) -> Option<&str> {
        match self {
            Self::Token { .. } => None,
            Self::AppRole { mount, .. }
            | Self::WrappedAppRole { mount, .. }
            | Self::Certificate { mount, .. }
            | Self::Jwt { mount, .. }
            | Self::Kubernetes { mount, .. } => Some(mount),
        }
    }
}
