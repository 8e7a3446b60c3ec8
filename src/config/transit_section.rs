//! The section `transit`.

use std::path::PathBuf;

use super::raw::{self, Text};
use super::resolve::{Resolver, absolute};
use crate::backend::transit::{Auth, ForeignFormat, Plugin, Settings, Tls};

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
        self.look_at_environment(transit);
        let addresses = self.addresses(transit);
        let mut name = |key: &str, text: Option<&Text>| self.parsed(key, text, path_segments);
        let mount = name("transit.mount", transit.mount.as_ref());
        let key = self.parsed("transit.key", Some(&transit.key), path_segment);
        let namespace = transit.namespace.as_ref();
        let namespace =
            self.or_variable("transit.namespace", namespace, "NAMESPACE", namespace_path).flatten();
        let auth_namespace = transit.auth_namespace.as_ref();
        let auth_namespace = self.parsed("transit.authNamespace", auth_namespace, namespace_path);
        if let (Some(Some(login)), Some(inner)) = (&auth_namespace, &namespace)
            && login != inner
            && !inner.starts_with(&format!("{login}/"))
        {
            let why =
                format!("a token of {login} is worth nothing in {inner}, which is not below it");
            self.problem("transit.authNamespace", transit.auth_namespace.as_ref(), why);
        }
        let tls = self.tls(transit, &addresses);
        let auth = self.auth(&transit.auth, &tls);
        let mount = mount.unwrap_or_else(|| "transit".to_owned());
        let key = key?;
        let foreign = transit.decrypt_also.iter();
        let foreign =
            foreign.filter_map(|also| self.decrypt_also_in_transit(also, &mount, &key)).collect();
        Some(Settings {
            addresses,
            tls,
            auth_namespace: auth_namespace.unwrap_or_else(|| namespace.clone()),
            namespace,
            mount,
            key,
            auth: auth?,
            foreign,
        })
    }

    /// A format of another plugin, whose key is ours unless told otherwise.
    fn decrypt_also_in_transit(
        &mut self,
        also: &raw::DecryptAlsoInTransit,
        mount: &str,
        key: &str,
    ) -> Option<ForeignFormat> {
        const PLUGINS: [(&str, Plugin); 3] = [
            ("kleidi-go", Plugin::KleidiGo),
            ("vault-kubernetes-kms", Plugin::VaultKubernetesKms),
            ("vault-kms-provider", Plugin::VaultKmsProvider),
        ];
        let plugin = self.choice("transit.decryptAlso.plugin", Some(&also.plugin), &PLUGINS)?;
        let mut name = |field: &str, text: Option<&Text>, default: &str| match text {
            Some(_) => self.parsed(&format!("transit.decryptAlso.{field}"), text, path_segments),
            None => Some(default.to_owned()),
        };
        let mount = name("mount", also.mount.as_ref(), mount);
        let key = match &also.key {
            Some(_) => self.parsed("transit.decryptAlso.key", also.key.as_ref(), path_segment),
            None => Some(key.to_owned()),
        };
        Some(ForeignFormat { plugin, mount: mount?, key: key? })
    }

    fn addresses(&mut self, transit: &raw::Transit) -> Vec<String> {
        const KEY: &str = "transit.addresses";
        let addresses: Vec<String> = match &transit.addresses {
            Some(list) => {
                list.iter().filter_map(|text| self.parsed(KEY, Some(text), address)).collect()
            }
            None => self.or_variable(KEY, None, "ADDR", address).into_iter().collect(),
        };
        if transit.addresses.as_ref().is_none_or(Vec::is_empty) && addresses.is_empty() {
            self.problem(KEY, Some(&transit.key), "there has to be at least one");
        }
        for address in addresses.iter().filter(|address| goes_in_clear(address)) {
            let what = format!("{address}: the token and every seed go there in clear; use https");
            self.remarks.warnings.push(what);
        }
        addresses
    }

    fn tls(&mut self, transit: &raw::Transit, addresses: &[String]) -> Tls {
        let file = transit.ca_file.as_ref();
        let ca_file = self.or_variable("transit.caFile", file, "CACERT", absolute);
        let file = transit.certificate_file.as_ref();
        let key = transit.key_file.as_ref();
        // A certificate and its key come from the same place: the key may be in the certificate's file.
        let (certificate_file, key_file) = if file.is_some() || key.is_some() {
            (self.path("transit.certificateFile", file), self.path("transit.keyFile", key))
        } else {
            (
                self.or_variable("transit.certificateFile", None, "CLIENT_CERT", absolute),
                self.or_variable("transit.keyFile", None, "CLIENT_KEY", absolute),
            )
        };
        if certificate_file.is_none() && key_file.is_some() {
            let why = "transit.certificateFile is missing, without which a key is of no use";
            self.problem("transit.keyFile", key, why);
        }
        let name = transit.server_name.as_ref();
        let server_name =
            self.or_variable("transit.serverName", name, "TLS_SERVER_NAME", server_name);
        if ca_file.is_none()
            && transit.ca_file.is_none()
            && addresses.iter().any(|address| address.starts_with("https:"))
        {
            let at = transit.addresses.as_ref().and_then(|addresses| addresses.first());
            let why = "is missing: the certificates of the authorities that may sign the server's";
            self.problem("transit.caFile", at, why);
        }
        Tls { ca_file, certificate_file, key_file, server_name }
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
                let mount = mount_or("approle");
                if let Some(wrapped) = &auth.wrapped_secret_id_file {
                    if auth.secret_id_file.is_some() {
                        let why = "secretIdFile says the same; keep one";
                        self.problem("transit.auth.wrappedSecretIdFile", Some(wrapped), why);
                    }
                    let file = self.path("transit.auth.wrappedSecretIdFile", Some(wrapped));
                    return Some(Auth::WrappedAppRole {
                        mount,
                        role_id_file: role_id_file?,
                        wrapping_token_file: file?,
                        role: auth.role.as_ref().map(|role| role.value.clone()),
                    });
                }
                let file = self.needed("secretIdFile", auth.secret_id_file.as_ref(), auth);
                Some(Auth::AppRole { mount, role_id_file: role_id_file?, secret_id_file: file? })
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
                let (mount, role, file) = (mount_or(default), role.value.clone(), file?);
                Some(match method {
                    Method::Jwt => Auth::Jwt { mount, role, file },
                    _ => Auth::Kubernetes { mount, role, file },
                })
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
        // A fragment is not part of what is parsed.
        Ok(uri) if right(&uri) && !address.contains('#') => Ok(address.to_owned()),
        _ => Err(format!("{text:?} is not an address such as https://vault.example:8200")),
    }
}

/// Whether others can listen to what is sent there.
fn goes_in_clear(address: &str) -> bool {
    let uri: http::Uri = address.parse().unwrap_or_default();
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let local = match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost",
    };
    uri.scheme_str() == Some("http") && !local
}

fn server_name(text: &str) -> Result<String, String> {
    match rustls::pki_types::ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("{text:?} is neither the name of a host nor an IP address")),
    }
}

/// A namespace; `/` is the root.
fn namespace_path(text: &str) -> Result<Option<String>, String> {
    if text == "/" { Ok(None) } else { path_segments(text).map(Some) }
}

/// A name that needs no escaping in a path.
fn path_segment(text: &str) -> Result<String, String> {
    match path_segments(text) {
        Ok(name) if !name.contains('/') => Ok(name),
        _ => Err(format!("{text:?} is not a name (letters, digits, - _ .)")),
    }
}

/// A name, or several with slashes between, that need no escaping in a path or a shell.
fn path_segments(text: &str) -> Result<String, String> {
    let trimmed = text.trim_matches('/');
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let bad = |part: &str| matches!(part, "" | "." | "..") || part.starts_with('-');
    if !trimmed.chars().all(legal) || trimmed.split('/').any(bad) {
        return Err(format!("{text:?} is not a name (letters, digits, - _ . and / between)"));
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
        for bad in [
            "vault:8200",
            "ftp://vault",
            "https://",
            "https://vault/v1",
            "https://u:p@vault",
            "https://vault#x",
            "",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
        assert!(goes_in_clear("http://vault:8200") && goes_in_clear("http://[fd00::1]:8200"));
        for safe in
            ["https://vault:8200", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost"]
        {
            assert!(!goes_in_clear(safe), "{safe}");
        }
        assert_eq!(namespace_path("/"), Ok(None));
        assert_eq!(namespace_path("org/team1/"), Ok(Some("org/team1".to_owned())));
        for good in ["vault.example", "127.0.0.1", "::1"] {
            assert!(server_name(good).is_ok(), "{good}");
        }
        assert!(server_name("https://vault").is_err());
        assert_eq!(path_segments("/a/b-1/").as_deref(), Ok("a/b-1"));
        for bad in ["", "/", "a b", "a/../b", "a//b", "a?b", "a%2fb"] {
            assert!(path_segments(bad).is_err(), "{bad}");
        }
    }
}
