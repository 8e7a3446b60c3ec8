//! What the environment says of Vault or OpenBao, in the names that their own tools have for it.
//!
//! It fills what the section `transit` leaves out, so that what an operator has set for `vault` or `bao`
//! does for kleidi, too. Secrets are not taken from it: it is open to whoever may look at the process,
//! goes to its children and cannot change while it runs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::raw::{self, Text};
use super::resolve::{Resolver, absolute};

/// OpenBao's tools take the one, and the other where it is not set; Vault's only the other.
const PREFIXES: [&str; 2] = ["BAO_", "VAULT_"];

/// What the tools go through, which we never do: a token and seeds would go there, too.
const PROXIES: [&str; 7] = [
    "BAO_PROXY_ADDR",
    "VAULT_PROXY_ADDR",
    "VAULT_HTTP_PROXY",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
];

/// Other variables of the tools that change whom they speak to or how they recognise him; not for us.
const NOT_TAKEN: [(&str, &str); 4] = [
    ("AGENT_ADDR", "name the agent in transit.addresses, if it is meant"),
    ("CAPATH", "name one file with all certificates in transit.caFile"),
    ("CACERT_BYTES", "put the certificates into a file and name it in transit.caFile"),
    ("SRV_LOOKUP", "name all nodes in transit.addresses"),
];

/// The variables that are about Vault or OpenBao, or about proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let variables = std::env::vars_os();
        variables
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .fold(Self::default(), |environment, (name, value)| {
                environment.with(&name, &value.to_string_lossy())
            })
    }

    /// The same with another variable, if it is one of those.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let ours = PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        // An empty one is none, for the tools, too.
        if (ours || PROXIES.contains(&name)) && !value.is_empty() {
            self.0.insert(name.to_owned(), value.to_owned());
        }
        self
    }

    /// The variable of that name behind the prefix, and its value.
    fn get(&self, name: &str) -> Option<(String, &str)> {
        PREFIXES.iter().find_map(|prefix| {
            let variable = format!("{prefix}{name}");
            let value = self.0.get(&variable)?;
            Some((variable, value.as_str()))
        })
    }
}

/// What of the environment is used, and what an operator should look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// What was taken from where, as in `transit.caFile from VAULT_CACERT`.
    pub taken: Vec<String>,
    /// What is not heeded although somebody may count on it, or is better done otherwise.
    pub warnings: Vec<String>,
}

impl Resolver<'_> {
    /// The value in the file, or that of the variable `name` where the file has none.
    pub(super) fn or_variable<T>(
        &mut self,
        key: &str,
        text: Option<&Text>,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        if text.is_some() {
            return self.parsed(key, text, parse);
        }
        let (variable, _) = self.environment.get(name)?;
        self.variable(key, &variable, parse)
    }

    /// The value of that very variable.
    fn variable<T>(
        &mut self,
        key: &str,
        variable: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(self.environment.0.get(variable)?) {
            Ok(parsed) => {
                self.remarks.taken.push(format!("{key} from {variable}"));
                Some(parsed)
            }
            Err(message) => {
                self.problem_of_environment(variable, message);
                None
            }
        }
    }

    /// The files of our certificate and of its key, of one family of variables: the key of one
    /// certificate is none for another.
    pub(super) fn client_certificate(&mut self) -> (Option<PathBuf>, Option<PathBuf>) {
        const NAMES: [&str; 2] = ["CLIENT_CERT", "CLIENT_KEY"];
        let environment = self.environment;
        let families = PREFIXES.map(|prefix| NAMES.map(|name| format!("{prefix}{name}")));
        let mut there = families.iter().filter(|variables| {
            variables.iter().any(|variable| environment.0.contains_key(variable))
        });
        let Some([certificate, key]) = there.next() else { return (None, None) };
        for other in there.flatten().filter(|variable| environment.0.contains_key(*variable)) {
            let why = format!("{other} is not heeded: {certificate} or {key} is set");
            self.remarks.warnings.push(why);
        }
        let certificate_file = self.variable("transit.certificateFile", certificate, absolute);
        let key_file = self.variable("transit.keyFile", key, absolute);
        if !environment.0.contains_key(certificate) {
            let why = format!("{certificate} is not set, without which a key is of no use");
            self.problem_of_environment(key, why);
        }
        (certificate_file, key_file)
    }

    /// Says what of the environment is refused or not heeded.
    pub(super) fn look_at_environment(&mut self, transit: &raw::Transit) {
        let environment = self.environment;
        // Go's way of reading a truth.
        let truth = |value: &str| !matches!(value, "0" | "f" | "F" | "false" | "FALSE" | "False");
        for variable in PREFIXES.map(|prefix| format!("{prefix}SKIP_VERIFY")) {
            if environment.0.get(&variable).is_some_and(|value| truth(value)) {
                let why = "is refused: anybody could take the server's place and read every seed. Name \
                           the authority of its certificate in transit.caFile, and unset the variable";
                self.problem_of_environment(&variable, why);
            }
        }
        for proxy in PROXIES.iter().filter(|name| environment.0.contains_key(**name)) {
            let ignored = format!("{proxy} is not heeded: kleidi speaks to the addresses directly");
            self.remarks.warnings.push(ignored);
        }
        for (name, advice) in NOT_TAKEN {
            if let Some((variable, _)) = environment.get(name) {
                self.remarks.warnings.push(format!("{variable} is not heeded: {advice}"));
            }
        }
        if let Some((variable, _)) = environment.get("TOKEN") {
            let why = "an environment can be looked at, and a token in it cannot be replaced: put it \
                       into a file (transit.auth.tokenFile), and unset the variable";
            let wanted = transit.auth.token_file.is_none() && transit.auth.method.value == "token";
            if wanted {
                self.problem_of_environment(&variable, format!("is refused: {why}"));
            } else {
                self.remarks.warnings.push(format!("{variable} is not heeded: {why}"));
            }
        }
    }
}
