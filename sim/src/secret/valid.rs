//! What the API accepts of a Secret, as far as one is modelled (`ValidateSecret` in
//! `k8s.io/kubernetes/pkg/apis/core/validation`, and what it calls of `k8s.io/apimachinery/pkg/util/validation`).

use super::Secret;
use crate::limits::{LABEL_BYTES_MAX, NAME_BYTES_MAX, is_label};

/// Most bytes of all values together (`MaxSecretSize`).
const DATA_BYTES_MAX: usize = 1024 * 1024;

/// Accepts a namespace's name: a label of DNS (`IsDNS1123Label`).
pub fn namespace(name: &str) -> Result<(), String> {
    if is_label(name) && name.len() <= LABEL_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no name of a namespace: wanted at most {LABEL_BYTES_MAX} of a-z, 0-9 and -, which is neither \
         first nor last"
    ))
}

/// Accepts a Secret's name: labels of DNS with dots between them (`IsDNS1123Subdomain`).
pub fn name(name: &str) -> Result<(), String> {
    if name.split('.').all(is_label) && name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no name of a Secret: wanted at most {NAME_BYTES_MAX} of a-z, 0-9, - and ., with a letter or digit \
         at both ends and on both sides of each dot"
    ))
}

/// Accepts the key of an entry, which is the name of a file, too (`IsConfigMapKey`).
pub fn key(key: &str) -> Result<(), String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let well = !key.is_empty() && key.len() <= NAME_BYTES_MAX && key.bytes().all(legal);
    if well && key != "." && !key.starts_with("..") {
        return Ok(());
    }
    Err(format!(
        "{key:?} is no key of a Secret: wanted at most {NAME_BYTES_MAX} of a-z, A-Z, 0-9, -, _ and ., and neither . alone \
         nor .. at the beginning"
    ))
}

impl Secret {
    /// Accepts what the API would.
    pub fn validate(&self) -> Result<(), String> {
        namespace(&self.namespace)?;
        name(&self.name)?;
        self.data.keys().try_for_each(|name| key(name))?;
        let bytes: usize = self.data.values().map(Vec::len).sum();
        if bytes > DATA_BYTES_MAX {
            return Err(format!(
                "its values have {bytes} bytes, which exceeds the max size of {DATA_BYTES_MAX}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::OPAQUE;

    #[test]
    fn names_are_those_that_the_api_takes() {
        let long = |bytes: usize| "a".repeat(bytes);
        for good in ["default", "a", "0-a", &long(63)] {
            assert_eq!(namespace(good), Ok(()));
        }
        for bad in ["", "Default", "a.b", "-a", "a-", "a/b", "ä", &long(64)] {
            assert!(namespace(bad).is_err(), "{bad}");
        }
        for good in ["one", "a.b-c.d", &long(253)] {
            assert_eq!(name(good), Ok(()));
        }
        for bad in ["", "a/b", "a_b", ".a", "a.", "a..b", "a.-b", &long(254)] {
            assert!(name(bad).is_err(), "{bad}");
        }
        for good in ["a", ".a", "tls.crt", "A_B-c.", &long(253)] {
            assert_eq!(key(good), Ok(()));
        }
        for bad in ["", ".", "..", "..a", "x y", "a/b", "ä", "a:b", &long(254)] {
            assert!(key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_has_a_mebibyte() {
        let half = vec![0; DATA_BYTES_MAX / 2];
        let mut secret = Secret {
            namespace: "default".into(),
            name: "one".into(),
            uid: String::new(),
            created: 0,
            data: [("a".to_owned(), half.clone()), ("b".to_owned(), half)].into(),
            kind: OPAQUE.into(),
            manager: None,
        };
        assert_eq!(secret.validate(), Ok(()));
        secret.data.insert("c".to_owned(), vec![0]);
        assert!(secret.validate().unwrap_err().contains("1048577 bytes"));
        secret.data = [("x y".to_owned(), vec![])].into();
        assert!(secret.validate().unwrap_err().contains("no key"));
    }
}
