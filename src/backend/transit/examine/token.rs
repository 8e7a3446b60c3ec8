//! How long the token lives, and whether it can be kept: one that ends unseen takes every call with it.

use std::time::{Duration, UNIX_EPOCH};

use http::Method;
use humantime::format_rfc3339_seconds;
use serde::Deserialize;

use super::super::answer::forbids;
use super::Way;
use super::policy::capabilities;
use crate::backend::transit::json::Object;
use crate::backend::transit::json::parse;
use crate::backend::transit::{Auth, Data};
use crate::backend::{BackendError, ErrorKind, Finding};

const ATTEMPTED: &str = "look at the token";
const RENEW: &str = "auth/token/renew-self";

/// A renewal comes when half of a token's life is over: with less than this an election of the servers
/// may take longer than the rest.
const SHORT: u64 = 60;

/// What the server says of a token; times in seconds.
#[derive(Debug, Deserialize)]
struct Token {
    /// What is left, 0 if it lives for ever.
    ttl: u64,
    creation_ttl: u64,
    /// Since 1970.
    creation_time: u64,
    /// 0 if the server's or the role's holds.
    #[serde(default)]
    explicit_max_ttl: u64,
    /// Only a periodic one has it.
    #[serde(default)]
    period: u64,
    #[serde(default)]
    renewable: bool,
    /// Calls that are left, 0 if any number.
    #[serde(default)]
    num_uses: i64,
    #[serde(default)]
    orphan: bool,
    #[serde(rename = "type", default)]
    kind: String,
}

pub(super) async fn token(way: &Way<'_>, findings: &mut Vec<Finding>) -> Result<(), BackendError> {
    let settings = &way.inner.settings;
    let namespace = settings.auth_namespace.as_deref();
    let at = (namespace, "auth/token/lookup-self");
    let token = match way.ask(ATTEMPTED, Method::GET, at, Object::with_capacity(0)).await {
        Ok(answer) => parse::<Data<Token>>(ATTEMPTED, &answer)?.data,
        Err(error) if forbids(&error) => {
            findings.push(Finding::Warning(
                "how long the token lives is not known: its policies lack read on \
                 auth/token/lookup-self, which the policy named default has"
                    .to_owned(),
            ));
            return Ok(());
        }
        Err(error) if error.kind == ErrorKind::Credentials => {
            return Err(match &settings.auth {
                Auth::Token { file } => error.advise(format!(
                    "the token in {} is expired, revoked or of another server: put a new one there; no \
                     restart is needed",
                    file.display()
                )),
                _ => error,
            });
        }
        Err(error) => return Err(error),
    };
    // Where it may not ask, that is said with the next step.
    let may_renew = capabilities(way, namespace, &[RENEW.to_owned()]).await;
    let may_renew = may_renew.is_ok_and(|found| found.may(RENEW, "update"));
    findings.extend(judged(&token, &settings.auth, may_renew));
    Ok(())
}

/// What an operator should know of it.
fn judged(token: &Token, auth: &Auth, may_renew: bool) -> Vec<Finding> {
    let mut findings = vec![Finding::Good(token.described())];
    let mut warn = |what: String| findings.push(Finding::Warning(what));
    if token.num_uses > 0 {
        let uses = token.num_uses;
        warn(match auth {
            Auth::Token { .. } => format!(
                "the token ends after some uses, {uses} of which are left: make one without -use-limit"
            ),
            _ => format!(
                "a token of this login ends after some uses, {uses} of which are left, and then another \
                 login is needed: set token_num_uses=0 in the role"
            ),
        });
    }
    if token.ttl == 0 {
        return findings;
    }
    match auth {
        Auth::Token { file } => {
            let end = token.end(may_renew);
            if let Some(why) = &end {
                warn(format!(
                    "{why}. Nobody but you can put another into {}: without one every call fails then. \
                     One that lives as long as kleidi runs: bao token create -orphan -period=768h \
                     -policy=…",
                    file.display()
                ));
            }
            if !token.orphan && token.kind != "batch" {
                warn(
                    "the token is not an orphan: it ends at once when the token that made it ends or is \
                     revoked; make it with -orphan"
                        .to_owned(),
                );
            }
        }
        _ if token.renewable && !may_renew => warn(format!(
            "the token may not renew itself, its policies lack update on {RENEW}: kleidi logs in anew \
             instead, whenever half of {} is over, which needs a leader",
            seconds(token.creation_ttl)
        )),
        _ => {}
    }
    if token.creation_ttl < SHORT && token.period < SHORT {
        warn(format!(
            "the token lives for {} only: an election of a leader can take longer than that; 20m is \
             enough (token_ttl, or the period)",
            seconds(token.creation_ttl.max(token.period))
        ));
    }
    findings
}

impl Token {
    fn described(&self) -> String {
        if self.ttl == 0 {
            return "the token lives for ever".to_owned();
        }
        let kind = match (self.kind.as_str(), self.period) {
            ("batch", _) => "a batch token, which cannot be renewed".to_owned(),
            (_, 0) if self.renewable => "renewable".to_owned(),
            (_, 0) => "not renewable".to_owned(),
            (_, period) => format!("periodic, {} with each renewal", seconds(period)),
        };
        format!("the token: {kind}; {} left", seconds(self.ttl))
    }

    /// Why and when it ends for good although kleidi renews it; `None` if it does not.
    fn end(&self, may_renew: bool) -> Option<String> {
        let made = UNIX_EPOCH + Duration::from_secs(self.creation_time);
        if !self.renewable {
            return Some(format!("the token cannot be renewed: it ends in {}", seconds(self.ttl)));
        }
        if !may_renew {
            return Some(format!(
                "the token may not renew itself, its policies lack update on {RENEW}: it ends in {}",
                seconds(self.ttl)
            ));
        }
        if self.explicit_max_ttl > 0 {
            let end = made + Duration::from_secs(self.explicit_max_ttl);
            return Some(format!(
                "the token has a maximum life (explicit_max_ttl) of {}: however often it is renewed, it \
                 ends at {}",
                seconds(self.explicit_max_ttl),
                format_rfc3339_seconds(end)
            ));
        }
        (self.period == 0).then(|| {
            format!(
                "the token is not periodic: however often it is renewed, it ends when the server's \
                 max_lease_ttl is over since {}, which is 32 days later unless the server is configured \
                 otherwise",
                format_rfc3339_seconds(made)
            )
        })
    }
}

/// A duration as operators write it, without months: theirs are not all alike.
fn seconds(seconds: u64) -> String {
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<_> = parts.map(|(count, unit)| format!("{count} {unit}")).collect();
    if parts.is_empty() { "0 s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// As both products answered, with what is of no use left out.
    const PERIODIC: &str = r#"{"creation_time":1795661480,"creation_ttl":3600,
        "explicit_max_ttl":0,"num_uses":0,"orphan":true,
        "period":3600,"renewable":true,"ttl":3599,"type":"service"}"#;
    const FOR_EVER: &str = r#"{"creation_time":1795661428,"creation_ttl":0,
        "explicit_max_ttl":0,"num_uses":0,"orphan":true,"renewable":false,"ttl":0,"type":"service"}"#;

    fn change(changes: &[(&str, &str)]) -> Token {
        let mut token = PERIODIC.to_owned();
        for (from, to) in changes {
            assert!(token.contains(from), "{from}");
            token = token.replace(from, to);
        }
        serde_json::from_str(&token).unwrap()
    }

    /// Every kind of token that an operator may have made, and what is said of it.
    #[test]
    fn what_is_said_of_a_token() {
        let file = Auth::Token { file: "/etc/kleidi/token".into() };
        let role = Auth::Certificate { mount: "cert".to_owned(), role: None };
        let none = ("\"period\":3600,", "");
        let mut said = String::new();
        for (what, auth, may_renew, token) in [
            ("periodic", &file, true, change(&[])),
            ("for ever", &file, true, serde_json::from_str(FOR_EVER).unwrap()),
            ("not periodic", &file, true, change(&[none])),
            ("may not renew", &file, false, change(&[])),
            ("not renewable", &file, true, change(&[none, ("able\":true", "able\":false")])),
            (
                "batch",
                &file,
                true,
                change(&[
                    none,
                    ("able\":true", "able\":false"),
                    ("an\":true", "an\":false"),
                    ("service", "batch"),
                ]),
            ),
            ("a maximum", &file, true, change(&[("ttl\":0", "ttl\":7200")])),
            (
                "a child, of a few uses",
                &file,
                true,
                change(&[("an\":true", "an\":false"), ("uses\":0", "uses\":4")]),
            ),
            ("of a login", &role, true, change(&[none])),
            ("of a login, few uses", &role, true, change(&[none, ("uses\":0", "uses\":1")])),
            ("of a login, may not renew", &role, false, change(&[none])),
            (
                "of a login, not renewable",
                &role,
                true,
                change(&[none, ("able\":true", "able\":false")]),
            ),
            ("of a login, short", &role, true, change(&[none, ("3600", "30"), ("3599", "29")])),
        ] {
            let _ = writeln!(said, "--- {what}");
            for finding in judged(&token, auth, may_renew) {
                let _ = match finding {
                    Finding::Good(what) => writeln!(said, "{what}"),
                    Finding::Warning(what) => writeln!(said, "warning: {what}"),
                    Finding::Fault(fault) => writeln!(said, "{fault}"),
                };
            }
        }
        insta::assert_snapshot!(said);
    }
}
