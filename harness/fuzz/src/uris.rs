//! PKCS#11 URIs of the configuration.

use std::fmt::Write as _;
use std::path::Path;

use kleidi::backend::pkcs11::Uri;

/// What is accepted means the same when it is written anew; what is refused shows no PIN.
pub fn pkcs11_uri(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<Uri>() {
        Ok(uri) => {
            assert!(!text.contains("pin-value="), "a PIN in a configuration");
            assert!(uri.pin_source.as_deref().is_none_or(Path::is_absolute), "{uri:?}");
            assert_eq!(written(&uri).parse(), Ok(uri));
        }
        Err(error) => {
            let said = error.to_string();
            for pin in pins(text) {
                assert!(!said.contains(pin), "{said}");
            }
        }
    }
}

/// What can only be a PIN: with a digit in it, and nowhere else in the text.
fn pins(text: &str) -> impl Iterator<Item = &str> {
    let attributes = text.split(['?', '&', ';']);
    attributes.filter_map(|attribute| attribute.strip_prefix("pin-value=")).filter(|pin| {
        let digit = pin.bytes().any(|byte| byte.is_ascii_digit());
        pin.len() >= 6 && digit && text.matches(pin).count() == 1 && !pin.contains("11")
    })
}

/// With everything percent-encoded.
fn written(uri: &Uri) -> String {
    let path = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map(|path| path.as_os_str().as_encoded_bytes().to_vec())
    };
    let text = |text: &Option<String>| text.as_ref().map(|text| text.clone().into_bytes());
    let source = path(&uri.pin_source).map(|path| [b"file:", &*path].concat());
    let mut out = "pkcs11:".to_owned();
    for (before, name, value) in [
        (';', "token", text(&uri.token)),
        (';', "serial", text(&uri.serial)),
        (';', "object", text(&uri.object)),
        (';', "id", uri.id.clone()),
        ('?', "module-path", path(&uri.module_path)),
        ('?', "pin-source", source),
    ] {
        let Some(value) = value else { continue };
        let before = if before == '?' && out.contains('?') { '&' } else { before };
        write!(out, "{before}{name}=").unwrap();
        for byte in value {
            write!(out, "%{byte:02x}").unwrap();
        }
    }
    out
}
