//! The section `transit`.

use super::raw::{self, Text};
use super::resolve::{Resolver, absolute};
use crate::backend::transit::{ForeignFormat, Plugin, Settings, Tls};

impl Resolver<'_> {
    /// What the section means; `None` after saying what is wrong with it.
    pub(super) fn transit(&mut self, transit: &raw::Transit) -> Option<Settings> {
        self.look_at_environment(transit);
        let addresses = self.addresses(transit);
        let mut name = |key: &str, text: Option<&Text>| self.parsed(key, text, path_segments);
        let mount = name("transit.mount", transit.mount.as_ref());
        let key = self.parsed("transit.key", Some(&transit.key), path_segment);
        let (namespace, auth_namespace) = self.namespaces(transit);
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
            auth_namespace,
            namespace,
            mount,
            key,
            auth: auth?,
            foreign,
        })
    }

    /// Those of transit and of the login, which is the same or one above it.
    fn namespaces(&mut self, transit: &raw::Transit) -> (Option<String>, Option<String>) {
        let before = self.problems.len();
        let text = transit.namespace.as_ref();
        let transits = self.or_variable("transit.namespace", text, "NAMESPACE", namespace_path);
        let text = transit.auth_namespace.as_ref();
        let logins = self.parsed("transit.authNamespace", text, namespace_path);
        let transits = transits.flatten();
        if self.problems.len() > before {
            return (None, None);
        }
        let Some(logins) = logins else { return (transits.clone(), transits) };
        if let Some(login) = &logins {
            let why = match &transits {
                Some(inner) if inner == login || inner.starts_with(&format!("{login}/")) => None,
                Some(inner) => Some(format!(
                    "a token of {login} is worth nothing in {inner}, which is not below it"
                )),
                None => Some(format!(
                    "a token of {login} is worth nothing in the root, where transit is looked for as \
                     long as transit.namespace does not say otherwise"
                )),
            };
            if let Some(why) = why {
                self.problem("transit.authNamespace", text, why);
            }
        }
        (transits, logins)
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
        for (at, text) in transit.addresses.iter().flatten().enumerate() {
            let earlier = transit.addresses.iter().flatten().take(at);
            if earlier.into_iter().any(|other| same_server(&other.value, &text.value)) {
                self.problem(KEY, Some(text), "is there twice; name each node once");
            }
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
            self.client_certificate()
        };
        if file.is_none() && key.is_some() {
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
}

/// `https://host:port`, without a slash at the end. What is none is not repeated: there may be a
/// password or a token in it.
fn address(text: &str) -> Result<String, String> {
    let wrong = |why: &str| Err(format!("{why}; an address is such as https://vault.example:8200"));
    let address = text.trim_end_matches('/');
    // A fragment is not part of what is parsed.
    let uri = match address.parse::<http::Uri>() {
        Ok(uri) if !address.contains('#') => uri,
        _ => return wrong("cannot be read"),
    };
    let Some(authority) = uri.authority() else { return wrong("names no server") };
    if authority.as_str().contains('@') {
        return wrong("has a user or a password in it, which belong to transit.auth");
    }
    if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.host().is_empty() {
        return wrong("does not begin with https:// or http://");
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return wrong("has a path behind the server's name");
    }
    match authority.as_str().strip_prefix(authority.host()) {
        Some(port) if port.is_empty() || is_port(port) => Ok(address.to_owned()),
        _ => wrong("has a port that is not a number from 1 to 65535"),
    }
}

/// `:1` to `:65535`. Whoever reads an address takes the scheme's own port for anything else.
fn is_port(text: &str) -> bool {
    let digits = text.strip_prefix(':').filter(|port| port.bytes().all(|c| c.is_ascii_digit()));
    digits.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Whether two addresses are spellings of one.
fn same_server(one: &str, other: &str) -> bool {
    let parts = |address: &str| {
        let uri: http::Uri = address.trim_end_matches('/').parse().ok()?;
        let tls = uri.scheme_str()? == "https";
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Some((tls, uri.host()?.to_ascii_lowercase(), port))
    };
    parts(one).is_some_and(|one| parts(other) == Some(one))
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
    match text {
        "/" => Ok(None),
        "" => Err("must not be empty; \"/\" is the root".to_owned()),
        text => path_segments(text).map(Some),
    }
}

/// A name that needs no escaping in a path.
pub(super) fn path_segment(text: &str) -> Result<String, String> {
    match path_segments(text) {
        Ok(name) if !name.contains('/') => Ok(name),
        _ => Err(format!("{text:?} is not a name (letters, digits, - _ .)")),
    }
}

/// A name, or several with slashes between, that need no escaping in a path or a shell.
pub(super) fn path_segments(text: &str) -> Result<String, String> {
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
        for good in [
            "https://vault:8200",
            "http://127.0.0.1:8200/",
            "https://[::1]:8200",
            "https://[::1]",
            "https://vault",
            "https://vault:1",
            "https://vault:65535",
        ] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in [
            "vault:8200",
            "ftp://vault",
            "https://",
            "https://vault/v1",
            "https://u:p@vault",
            "https://vault#x",
            "https://vault?x",
            "https://vault:",
            "https://vault:/",
            "https://[::1]:",
            "https://vault:0",
            "https://vault:82000",
            "https://vault:8200:8200",
            "https://vault:+8200",
            "https://vault:x",
            "https://:8200",
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
        for (one, other, same) in [
            ("https://vault", "https://VAULT:443/", true),
            ("http://vault:80", "http://vault", true),
            ("https://vault", "http://vault", false),
            ("https://vault:8200", "https://vault:8201", false),
            ("https://vault-0", "https://vault-1", false),
            ("vault", "vault", false),
        ] {
            assert_eq!(same_server(one, other), same, "{one} {other}");
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
