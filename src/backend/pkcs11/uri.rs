//! PKCS#11 URIs (RFC 7512), as far as they can name a key of ours.
//!
//! ```text
//! pkcs11:token=kleidi;serial=0123456789abcdef;object=kek;id=%02?module-path=/usr/lib/…&pin-source=file:/etc/…
//! ```

use std::path::PathBuf;

/// What a URI says. Everything is optional; the configuration completes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uri {
    /// Label of the token.
    pub token: Option<String>,
    /// Serial number of the token.
    pub serial: Option<String>,
    /// Label of the key.
    pub object: Option<String>,
    /// `CKA_ID` of the key.
    pub id: Option<Vec<u8>>,
    /// The module's file.
    pub module_path: Option<PathBuf>,
    /// The file that holds the user PIN.
    pub pin_source: Option<PathBuf>,
}

/// Why a text is not such a URI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseUriError(String);

fn error<T>(text: impl Into<String>) -> Result<T, ParseUriError> {
    Err(ParseUriError(text.into()))
}

impl std::str::FromStr for Uri {
    type Err = ParseUriError;

    fn from_str(text: &str) -> Result<Self, ParseUriError> {
        let Some(rest) = text.strip_prefix("pkcs11:") else {
            return error("a PKCS#11 URI begins with \"pkcs11:\"");
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Self::default();
        for attribute in path.split(';').filter(|attribute| !attribute.is_empty()) {
            uri.path_attribute(attribute)?;
        }
        for attribute in query.split('&').filter(|attribute| !attribute.is_empty()) {
            uri.query_attribute(attribute)?;
        }
        Ok(uri)
    }
}

impl Uri {
    fn path_attribute(&mut self, attribute: &str) -> Result<(), ParseUriError> {
        let (name, value) = split(attribute)?;
        match name {
            "token" => set(name, &mut self.token, text(name, value)?),
            "serial" => set(name, &mut self.serial, text(name, value)?),
            "object" => set(name, &mut self.object, text(name, value)?),
            "id" => set(name, &mut self.id, bytes(name, value)?),
            "type" if value == "secret-key" => Ok(()),
            "type" => error("type has to be secret-key"),
            _ => error(format!("{name:?} is not one of: token, serial, object, id, type")),
        }
    }

    fn query_attribute(&mut self, attribute: &str) -> Result<(), ParseUriError> {
        let (name, value) = split(attribute)?;
        match name {
            "module-path" => set(name, &mut self.module_path, text(name, value)?.into()),
            "pin-source" => {
                let source = text(name, value)?;
                let path = match source.strip_prefix("file:") {
                    Some(path) => path.strip_prefix("//").unwrap_or(path),
                    None if source.starts_with('/') => &source,
                    None => return error("pin-source has to be file:/absolute/path"),
                };
                if !path.starts_with('/') {
                    return error("pin-source has to be file:/absolute/path");
                }
                set(name, &mut self.pin_source, PathBuf::from(path))
            }
            // It would be in the configuration, in process lists and in logs.
            "pin-value" => error("pin-value is not accepted; put the PIN into a file (pin-source)"),
            _ => error(format!("{name:?} is not one of: module-path, pin-source")),
        }
    }
}

fn split(attribute: &str) -> Result<(&str, &str), ParseUriError> {
    match attribute.split_once('=') {
        Some((name, value)) if !value.is_empty() => Ok((name, value)),
        // Not even a part of the text is repeated: it could be a PIN.
        _ => error("an attribute has to be name=value"),
    }
}

fn set<T>(name: &str, slot: &mut Option<T>, value: T) -> Result<(), ParseUriError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => error(format!("{name} is there twice")),
    }
}

fn text(name: &str, value: &str) -> Result<String, ParseUriError> {
    String::from_utf8(bytes(name, value)?)
        .map_err(|_| ParseUriError(format!("{name} is not valid UTF-8")))
}

/// Undoes percent-encoding.
fn bytes(name: &str, value: &str) -> Result<Vec<u8>, ParseUriError> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return error(format!("{name}: '%' has to be followed by two hex digits"));
        };
        out.push(u8::try_from(high << 4 | low).unwrap_or_default());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_whole_uri() {
        let uri: Uri = "pkcs11:token=my%20token;serial=0123;object=kek;id=%02%ff;type=secret-key\
                        ?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/kleidi/pin"
            .parse()
            .unwrap();
        let wanted = Uri {
            token: Some("my token".into()),
            serial: Some("0123".into()),
            object: Some("kek".into()),
            id: Some(vec![2, 255]),
            module_path: Some("/usr/lib/softhsm/libsofthsm2.so".into()),
            pin_source: Some("/etc/kleidi/pin".into()),
        };
        assert_eq!(uri, wanted);
        for source in ["file:///etc/kleidi/pin", "/etc/kleidi/pin"] {
            let uri: Uri = format!("pkcs11:?pin-source={source}").parse().unwrap();
            assert_eq!(uri.pin_source, wanted.pin_source);
        }
    }

    #[test]
    fn what_is_refused_says_why() {
        for (text, wanted) in [
            ("softhsm:token=a", "begins with"),
            ("pkcs11:token=a;token=b", "token is there twice"),
            ("pkcs11:slot-id=1", "not one of: token"),
            ("pkcs11:token", "name=value"),
            ("pkcs11:token=", "name=value"),
            ("pkcs11:id=%0", "two hex digits"),
            ("pkcs11:id=%+1", "two hex digits"),
            ("pkcs11:token=%ff", "UTF-8"),
            ("pkcs11:type=private", "secret-key"),
            ("pkcs11:?pin-source=prompt", "file:/absolute/path"),
            ("pkcs11:?max-sessions=1", "not one of: module-path"),
        ] {
            let error = text.parse::<Uri>().unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        let error = "pkcs11:?pin-value=s3cret".parse::<Uri>().unwrap_err().to_string();
        assert!(error.contains("not accepted") && !error.contains("s3cret"));
    }

    proptest! {
        #[test]
        fn parsing_is_total(text in "(pkcs11:)?\\PC{0,80}") {
            let _ = text.parse::<Uri>();
        }

        #[test]
        fn any_id_survives_encoding(id in proptest::collection::vec(any::<u8>(), 1..40)) {
            let encoded: Vec<_> = id.iter().map(|byte| format!("%{byte:02X}")).collect();
            let uri: Uri = format!("pkcs11:id={}", encoded.concat()).parse().unwrap();
            prop_assert_eq!(uri.id.unwrap(), id);
        }
    }
}
