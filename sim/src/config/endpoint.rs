//! Endpoints of plugins, by the rules of Go's URL parser (`net/url`, as far as a `unix` URL meets them) and of
//! upstream's `kms/pkg/util/util.go`.

use crate::go::quoted;

/// What an endpoint's URL says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url {
    /// In lower case; empty if there is none.
    pub(super) scheme: String,
    /// Without escapes. Empty where the URL has no `/` behind the scheme.
    pub(super) path: Vec<u8>,
}

/// Parses a URL; the error is Go's text.
pub(super) fn parse(raw: &str) -> Result<Url, String> {
    let (text, fragment) = raw.split_once('#').unwrap_or((raw, ""));
    whole(text).map_err(|fault| format!("parse {}: {fault}", quoted(text))).and_then(|url| {
        unescape(fragment).map_err(|fault| format!("parse {}: {fault}", quoted(raw)))?;
        Ok(url)
    })
}

fn whole(text: &str) -> Result<Url, String> {
    if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    if text == "*" {
        return Ok(Url { scheme: String::new(), path: b"*".to_vec() });
    }
    let (scheme, rest) = scheme(text)?;
    let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
    if !rest.starts_with('/') {
        if scheme.is_empty() && rest.split('/').next().is_some_and(|first| first.contains(':')) {
            return Err("first path segment in URL cannot contain colon".to_owned());
        }
        // With a scheme it is opaque, and has no path.
        let path = if scheme.is_empty() { unescape(rest)? } else { Vec::new() };
        return Ok(Url { scheme, path });
    }
    let path = match rest.strip_prefix("//") {
        Some(rest) if !scheme.is_empty() || !rest.starts_with('/') => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            check_authority(&scheme, authority)?;
            path
        }
        _ => rest,
    };
    Ok(Url { scheme, path: unescape(path)? })
}

fn scheme(text: &str) -> Result<(String, &str), String> {
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            b':' => return Ok((text[..at].to_ascii_lowercase(), &text[at + 1..])),
            _ => break,
        }
    }
    Ok((String::new(), text))
}

/// A host is of no use to a socket, but has to be legal.
fn check_authority(scheme: &str, authority: &str) -> Result<(), String> {
    let (user, host) =
        authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    check_host(scheme, host)?;
    let Some(user) = user else { return Ok(()) };
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b);
    if !user.bytes().all(legal) {
        return Err("net/url: invalid userinfo".to_owned());
    }
    user.splitn(2, ':').try_for_each(|part| unescape(part).map(drop))
}

fn check_host(scheme: &str, host: &str) -> Result<(), String> {
    match host.rfind('[') {
        Some(0) => {
            let end = host.rfind(']').ok_or("missing ']' in host")?;
            check_port(&host[end + 1..])?;
            check_address(&host[1..end])
        }
        Some(_) => Err("invalid IP-literal".to_owned()),
        None => {
            // More than one colon is let pass but in HTTP's URLs (golang.org/issue/75223).
            let http = ["http", "https"].contains(&scheme);
            let port = if http { host.find(':') } else { host.rfind(':') };
            check_port(&host[port.unwrap_or(host.len())..])?;
            check_characters(host)
        }
    }
}

fn check_port(port: &str) -> Result<(), String> {
    let digits = port.strip_prefix(':').unwrap_or(port);
    if !digits.bytes().all(|b| b.is_ascii_digit()) || !port.is_empty() && !port.starts_with(':') {
        return Err(format!("invalid port {} after host", quoted(port)));
    }
    Ok(())
}

/// An address of IPv6, and perhaps a zone. Go has checked it since 1.26 only; the words are ours.
fn check_address(host: &str) -> Result<(), String> {
    let (address, zone) = host.split_once("%25").unwrap_or((host, "1"));
    check_characters(address)?;
    match address.parse::<std::net::Ipv6Addr>() {
        Ok(_) if !zone.is_empty() => Ok(()),
        _ => Err(format!("invalid host: {} is no IPv6 address", quoted(host))),
    }
}

fn check_characters(host: &str) -> Result<(), String> {
    let bytes = host.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let code = escape(bytes, at)?;
                if code < 0x80 && code != b'%' {
                    return Err(bad_escape(bytes, at));
                }
                at += 3;
            }
            _ if byte.is_ascii_alphanumeric()
                || byte >= 0x80
                || b"-_.~!$&'()*+,;=:[]<>\"".contains(&byte) =>
            {
                at += 1;
            }
            _ => return Err(format!("invalid character {} in host name", quoted([byte]))),
        }
    }
    Ok(())
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            out.push(escape(bytes, at)?);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    Ok(out)
}

/// The byte that `%xx` stands for.
fn escape(bytes: &[u8], at: usize) -> Result<u8, String> {
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    match (digit(at + 1), digit(at + 2)) {
        (Some(high), Some(low)) => Ok(u8::try_from(high * 16 + low).unwrap_or_default()),
        _ => Err(bad_escape(bytes, at)),
    }
}

fn bad_escape(bytes: &[u8], at: usize) -> String {
    let shown = &bytes[at..bytes.len().min(at + 3)];
    format!("invalid URL escape {}", quoted(shown))
}

/// The socket that an endpoint names: a path, or `@` and the name of an abstract one (spec 2.1).
///
/// Empty for some, which upstream accepts: every dial then fails.
pub fn address(endpoint: &str) -> Result<Vec<u8>, String> {
    if endpoint.is_empty() {
        return Err("remote KMS provider can't use empty string as endpoint".to_owned());
    }
    let url = parse(endpoint).map_err(|fault| {
        format!("invalid endpoint {} for remote KMS provider, error: {fault}", quoted(endpoint))
    })?;
    if url.scheme != "unix" {
        return Err(format!("unsupported scheme {} for remote KMS provider", quoted(&url.scheme)));
    }
    let path = url.path;
    let path = if path.starts_with(b"/@") { path[1..].to_vec() } else { path };
    // gRPC takes the address for a target, and parses that as a URL once more.
    let target = format!("passthrough:///{}", String::from_utf8_lossy(&path));
    parse(&target)
        .map_err(|fault| format!("failed to create connection to {endpoint}, error: {fault}"))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of spec 2.1.
    #[test]
    fn addresses_are_upstreams() {
        for (endpoint, wanted) in [
            ("unix:///run/kms.sock", "/run/kms.sock"),
            ("UNIX:/run/kms.sock", "/run/kms.sock"),
            ("unix:///@kms", "@kms"),
            ("unix:///@a/b", "@a/b"),
            ("unix:////run//k", "//run//k"),
            ("unix:///run/a%20b.sock", "/run/a b.sock"),
            ("unix:///run/a b.sock", "/run/a b.sock"),
            ("unix:///run/a?b#c", "/run/a"),
            ("unix://run/kms.sock", "/kms.sock"),
            ("unix:@kms", ""),
            ("unix://@kms", ""),
            ("unix:rel.sock", ""),
            ("unix:", ""),
        ] {
            assert_eq!(address(endpoint), Ok(wanted.as_bytes().to_vec()), "{endpoint}");
        }
        for (endpoint, says) in [
            ("", "can't use empty string"),
            ("tcp://localhost:1", "unsupported scheme \"tcp\""),
            ("/run/kms.sock", "unsupported scheme \"\""),
            (
                "unix:///b%25c.sock",
                "parse \"passthrough:////b%c.sock\": invalid URL escape \"%c.\"",
            ),
            ("unix:///a%2", "invalid URL escape \"%2\""),
            ("unix:///a\n", "control character"),
            (":///a", "missing protocol scheme"),
            ("a:b/c", "unsupported scheme \"a\""),
            ("1:b/c", "first path segment in URL cannot contain colon"),
            ("unix://a b/c", "invalid character \" \" in host name"),
            ("unix://a:b/c", "invalid port \":b\" after host"),
            ("unix://[::1/c", "missing ']' in host"),
            ("unix://a%2fb/c", "invalid URL escape \"%2f\""),
            ("unix://a b@c/d", "invalid userinfo"),
            ("unix:///a#%zz", "invalid URL escape \"%zz\""),
        ] {
            let error = address(endpoint).unwrap_err();
            assert!(error.contains(says), "{endpoint}: {error}");
        }
    }
}
