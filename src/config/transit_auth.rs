//! The section `transit.auth`: who we are to the server.
//!
//! A key that belongs to another method is refused, and not passed over: whoever has written it counts
//! on it.

use std::path::PathBuf;

use super::raw::{self, Text};
use super::resolve::Resolver;
use super::transit_section::{path_segment, path_segments};
use crate::backend::transit::{Auth, Tls};

#[derive(Clone, Copy, PartialEq, Eq)]
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
    pub(super) fn auth(&mut self, auth: &raw::Auth, tls: &Tls) -> Option<Auth> {
        let method = self.choice("transit.auth.method", Some(&auth.method), &METHODS)?;
        self.refuse_keys_of_other_methods(auth, method);
        let mount = self.parsed("transit.auth.mount", auth.mount.as_ref(), path_segments);
        let mount_or = |default: &str| mount.clone().unwrap_or_else(|| default.to_owned());
        let role = self.parsed("transit.auth.role", auth.role.as_ref(), path_segment);
        match method {
            Method::Token => {
                let file = self.needed("tokenFile", auth.token_file.as_ref(), auth)?;
                Some(Auth::Token { file })
            }
            Method::AppRole => self.app_role(auth, mount_or("approle"), role),
            Method::Certificate => {
                if tls.certificate_file.is_none() {
                    let why = "certificate needs transit.certificateFile";
                    self.problem("transit.auth.method", Some(&auth.method), why);
                }
                Some(Auth::Certificate { mount: mount_or("cert"), role })
            }
            Method::Jwt | Method::Kubernetes => {
                let file = self.needed("jwtFile", auth.jwt_file.as_ref(), auth);
                if auth.role.is_none() {
                    let why = "is missing; the method needs it";
                    self.problem("transit.auth.role", Some(&auth.method), why);
                }
                let (role, file) = (role?, file?);
                Some(match method {
                    Method::Jwt => Auth::Jwt { mount: mount_or("jwt"), role, file },
                    _ => Auth::Kubernetes { mount: mount_or("kubernetes"), role, file },
                })
            }
        }
    }

    fn app_role(&mut self, auth: &raw::Auth, mount: String, role: Option<String>) -> Option<Auth> {
        let role_id_file = self.needed("roleIdFile", auth.role_id_file.as_ref(), auth);
        let Some(wrapped) = &auth.wrapped_secret_id_file else {
            if let Some(role) = &auth.role {
                let why = "with secretIdFile the role_id says which role it is; remove it";
                self.problem("transit.auth.role", Some(role), why);
            }
            let file = self.needed("secretIdFile", auth.secret_id_file.as_ref(), auth);
            return Some(Auth::AppRole {
                mount,
                role_id_file: role_id_file?,
                secret_id_file: file?,
            });
        };
        if auth.secret_id_file.is_some() {
            let why = "secretIdFile says the same; keep one";
            self.problem("transit.auth.wrappedSecretIdFile", Some(wrapped), why);
        }
        let file = self.path("transit.auth.wrappedSecretIdFile", Some(wrapped));
        Some(Auth::WrappedAppRole {
            mount,
            role_id_file: role_id_file?,
            wrapping_token_file: file?,
            role,
        })
    }

    fn refuse_keys_of_other_methods(&mut self, auth: &raw::Auth, method: Method) {
        use Method::{AppRole, Certificate, Jwt, Kubernetes, Token};
        let keys: [(&str, &Option<Text>, &[Method]); 7] = [
            ("mount", &auth.mount, &[AppRole, Certificate, Jwt, Kubernetes]),
            ("role", &auth.role, &[AppRole, Certificate, Jwt, Kubernetes]),
            ("tokenFile", &auth.token_file, &[Token]),
            ("roleIdFile", &auth.role_id_file, &[AppRole]),
            ("secretIdFile", &auth.secret_id_file, &[AppRole]),
            ("wrappedSecretIdFile", &auth.wrapped_secret_id_file, &[AppRole]),
            ("jwtFile", &auth.jwt_file, &[Jwt, Kubernetes]),
        ];
        for (key, text, methods) in keys {
            if text.is_some() && !methods.contains(&method) {
                let named = METHODS.iter().filter(|(_, method)| methods.contains(method));
                let named: Vec<_> = named.map(|(name, _)| *name).collect();
                let why = format!(
                    "belongs to {} and not to the method {}; remove it",
                    named.join(", "),
                    auth.method.value
                );
                self.problem(&format!("transit.auth.{key}"), text.as_ref(), why);
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
