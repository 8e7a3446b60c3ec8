//! The section `transit`.

use std::path::PathBuf;

use super::raw::{self, Text};
use super::resolve::Resolver;
use crate::backend::transit::{Auth, Settings, Tls};

#[derive(Clone, Copy)]
enum Method {
    Token,
    AppRole,
    Certificate,
    Jwt,
    Kubernetes,
}

const METHODS: [(&str, Method); 5] = [
    ("token", Method::Token),
    ("appRole", Method::AppRole),
    ("certificate", Method::Certificate),
    ("jwt", Method::Jwt),
    ("kubernetes", Method::Kubernetes),
];

impl Resolver<'_> {
    /// What the section means; `None` after saying what is wrong with it.
    pub(super) fn transit(&mut self, transit: &raw::Transit) -> Option<Settings> {
        let addresses: Vec<String> = transit
            .addresses
            .iter()
            .filter_map(|text| self.parsed("transit.addresses", Some(text), address))
            .collect();
        if transit.addresses.is_empty() {
            self.problem("transit.addresses", None, "there has to be at least one");
        }
        let mut name = |key: &str, text: Option<&Text>| self.parsed(key, text, path_segments);
        let mount = name("transit.mount", transit.mount.as_ref());
        let namespace = name("transit.namespace", transit.namespace.as_ref());
        let auth_namespace = name("transit.authNamespace", transit.auth_namespace.as_ref());
        let key = name("transit.key", Some(&transit.key));
        let tls = Tls {
            ca_file: self.path("transit.caFile", transit.ca_file.as_ref()),
            certificate_file: self
                .path("transit.certificateFile", transit.certificate_file.as_ref()),
            key_file: self.path("transit.keyFile", transit.key_file.as_ref()),
        };
        if tls.ca_file.is_none() && addresses.iter().any(|address| address.starts_with("https:")) {
            let why = "is missing: the certificates of the authorities that may sign the server's";
            self.problem("transit.caFile", transit.addresses.first(), why);
        }
        let auth = self.auth(&transit.auth, &tls);
        Some(Settings {
            addresses,
            tls,
            auth_namespace: auth_namespace.or_else(|| namespace.clone()),
            namespace,
            mount: mount.unwrap_or_else(|| "transit".to_owned()),
            key: key?,
            auth: auth?,
        })
    }

    fn auth(&mut self, auth: &raw::Auth, tls: &Tls) -> Option<Auth> {
        let method = self.choice("transit.auth.method", Some(&auth.method), &METHODS)?;
        let mount = self.parsed("transit.auth.mount", auth.mount.as_ref(), path_segments);
        let mount_or = |default: &str| mount.clone().unwrap_or_else(|| default.to_owned());
        match method {
            Method::Token => {
                let file = self.needed("tokenFile", auth.token_file.as_ref(), auth)?;
                Some(Auth::Token { file })
            }
            Method::AppRole => {
                let role_id_file = self.needed("roleIdFile", auth.role_id_file.as_ref(), auth);
                let secret_id_file =
                    self.needed("secretIdFile", auth.secret_id_file.as_ref(), auth);
                Some(Auth::AppRole {
                    mount: mount_or("approle"),
                    role_id_file: role_id_file?,
                    secret_id_file: secret_id_file?,
                })
            }
            Method::Certificate => {
                if tls.certificate_file.is_none() {
                    let why = "certificate needs transit.certificateFile";
                    self.problem("transit.auth.method", Some(&auth.method), why);
                }
                let role = auth.role.as_ref().map(|role| role.value.clone());
                Some(Auth::Certificate { mount: mount_or("cert"), role })
            }
            Method::Jwt | Method::Kubernetes => {
                let file = self.needed("jwtFile", auth.jwt_file.as_ref(), auth);
                let Some(role) = &auth.role else {
                    self.problem("transit.auth.role", Some(&auth.method), "is missing");
                    return None;
                };
                let default = if matches!(method, Method::Jwt) { "jwt" } else { "kubernetes" };
                Some(Auth::Jwt { mount: mount_or(default), role: role.value.clone(), file: file? })
            }
        }
    }

    fn needed(&mut self, key: &str, text: Option<&Text>, auth: &raw::Auth) -> Option<PathBuf> {
        let key = format!("transit.auth.{key}");
        if text.is_none() {
            self.problem(&key, Some(&auth.method), "is missing; the method needs it");
        }
        self.path(&key, text)
    }
}

/// `https://host:port`, without a slash at the end.
fn address(text: &str) -> Result<String, String> {
    let address = text.trim_end_matches('/');
    let right = |uri: &http::Uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    };
    match address.parse() {
        Ok(uri) if right(&uri) => Ok(address.to_owned()),
        _ => Err(format!("{text:?} is not an address such as https://vault.example:8200")),
    }
}

/// A name, or several with slashes between, that need no escaping in a path.
fn path_segments(text: &str) -> Result<String, String> {
    let trimmed = text.trim_matches('/');
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.~/".contains(c);
    if trimmed.is_empty()
        || !trimmed.chars().all(legal)
        || trimmed.split('/').any(|part| matches!(part, "" | "." | ".."))
    {
        return Err(format!("{text:?} is not a name (letters, digits, - _ . ~ and / between)"));
    }
    Ok(trimmed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names() {
        for good in ["https://vault:8200", "http://127.0.0.1:8200/", "https://[::1]:8200"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in
            ["vault:8200", "ftp://vault", "https://", "https://vault/v1", "https://u:p@vault", ""]
        {
            assert!(address(bad).is_err(), "{bad}");
        }
        assert_eq!(path_segments("/a/b-1/").as_deref(), Ok("a/b-1"));
        for bad in ["", "/", "a b", "a/../b", "a//b", "a?b", "a%2fb"] {
            assert!(path_segments(bad).is_err(), "{bad}");
        }
    }
}
