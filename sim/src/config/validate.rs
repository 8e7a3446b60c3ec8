//! Upstream's validation (`apis/apiserver/validation/validation_encryption.go`; until 1.30
//! `apis/config/validation`): all faults, in its order, with its words.

use std::collections::BTreeSet;

use super::field::FieldError;
use super::types::{Configuration, GroupResource, Key, Kms, Provider};
use super::{endpoint, keys, shown};
use crate::go::quoted;
use crate::version::Version;

/// Lengths of AES keys in bytes.
const AES: &[usize] = &[16, 24, 32];

/// Length of a secretbox key in bytes.
const SECRETBOX: &[usize] = &[32];

/// What is wrong; `reload` as the flag `--encryption-provider-config-automatic-reload`.
#[must_use]
pub fn validate(configuration: &Configuration, by: Version, reload: bool) -> Vec<FieldError> {
    if configuration.resources.is_empty() {
        return vec![FieldError::required("resources", "at least one resources is required")];
    }
    let mut faults = Vec::new();
    let mut names = BTreeSet::new();
    for (index, rule) in configuration.resources.iter().enumerate() {
        let at = format!("resources[{index}].resources");
        if rule.resources.is_empty() {
            faults.push(FieldError::required(&at, &format!("at least one {at} is required")));
        }
        faults.extend(overlap(&rule.resources, &at, by));
        faults.extend(rule.resources.iter().enumerate().filter_map(|(index, resource)| {
            let fault = resource_fault(resource)?;
            Some(FieldError::invalid(&format!("{at}[{index}]"), quoted(resource), fault))
        }));
        let at = format!("resources[{index}].providers");
        if rule.providers.is_empty() {
            faults.push(FieldError::required(&at, &format!("at least one {at} is required")));
        }
        for (index, provider) in rule.providers.iter().enumerate() {
            let at = format!("{at}[{index}]");
            faults.extend(one_kind(provider, &at, by));
            if let Some(kms) = &provider.kms {
                faults.extend(kms_faults(kms, &format!("{at}.kms"), &names, (by, reload)));
                names.insert(kms.name.as_str());
            } else if let Some(keys) = &provider.aesgcm {
                faults.extend(key_faults(keys, &format!("{at}.aesgcm.keys"), AES));
            } else if let Some(keys) = &provider.aescbc {
                faults.extend(key_faults(keys, &format!("{at}.aescbc.keys"), AES));
            } else if let Some(keys) = &provider.secretbox {
                faults.extend(key_faults(keys, &format!("{at}.secretbox.keys"), SECRETBOX));
            }
        }
    }
    faults
}

fn overlap(resources: &[String], at: &str, by: Version) -> Vec<FieldError> {
    let parsed: Vec<_> = resources.iter().map(|text| GroupResource::parse(text)).collect();
    let (mut repeated, mut covered) = (false, false);
    let any = GroupResource::all_of("*");
    for (i, one) in parsed.iter().enumerate() {
        for (j, other) in parsed.iter().enumerate() {
            if i == j {
                continue;
            }
            // The first pair of equals counts as a repetition alone; a second one may count as an overlap.
            if one == other && !repeated {
                repeated = true;
                continue;
            }
            let wildcard =
                one.group == other.group && [one, other].iter().any(|r| r.resource == "*");
            covered |= *one == any || wildcard;
        }
    }
    let fault = |detail| FieldError::invalid(at, shown::resources(resources, by), detail);
    let repeated = repeated.then(|| fault("the same resource cannot be specified multiple times"));
    let covered = covered.then(|| {
        fault(
            "using overlapping resources such as 'secrets' and '*.' in the same resource list is not \
             allowed as they will be masked",
        )
    });
    repeated.into_iter().chain(covered).collect()
}

fn resource_fault(resource: &str) -> Option<&'static str> {
    let parsed = GroupResource::parse(resource);
    if resource.to_lowercase() != resource {
        Some("resource name should not contain capital letters")
    } else if resource == "*" {
        Some(
            "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
        )
    } else if ["apiserveripinfo", "serviceipallocations", "servicenodeportallocations"]
        .contains(&resource)
    {
        Some("resources which do not have REST API/s cannot be encrypted")
    } else if parsed.group == "events.k8s.io" {
        Some(
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' \
             instead in the config file",
        )
    } else if parsed.group == "extensions" {
        Some("'extensions' group has been removed and cannot be used for encryption")
    } else if parsed.group == "*" && parsed.resource != "*" {
        Some("encrypting the same resource across groups is not supported")
    } else {
        None
    }
}

fn one_kind(provider: &Provider, at: &str, by: Version) -> Option<FieldError> {
    let kinds = [
        provider.kms.is_some(),
        provider.aesgcm.is_some(),
        provider.aescbc.is_some(),
        provider.secretbox.is_some(),
        provider.identity,
    ];
    let detail = match kinds.into_iter().filter(|there| *there).count() {
        1 => return None,
        0 => {
            "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, \
             Identity"
        }
        _ => {
            "more than one provider specified in a single element, should split into different list elements"
        }
    };
    Some(FieldError::invalid(at, shown::provider(provider, by), detail))
}

fn key_faults(keys: &[Key], at: &str, lengths: &[usize]) -> Vec<FieldError> {
    if keys.is_empty() {
        return vec![FieldError::required(at, "at least one keys is required")];
    }
    let each = keys.iter().enumerate();
    each.flat_map(|(index, key)| key_fault(key, &format!("{at}[{index}]"), lengths)).collect()
}

fn key_fault(key: &Key, at: &str, lengths: &[usize]) -> Vec<FieldError> {
    let mut faults = Vec::new();
    if key.name.is_empty() {
        let detail = "name is a mandatory field for a key";
        faults.push(FieldError::required(&format!("{at}.name"), detail));
    }
    let at = format!("{at}.secret");
    if key.secret.is_empty() {
        faults.push(FieldError::required(&at, "secret is a mandatory field for a key"));
        return faults;
    }
    let detail = match keys::bytes(&key.secret) {
        None => "secrets must be base64 encoded".to_owned(),
        Some(bytes) if !lengths.contains(&bytes.len()) => {
            let lengths: Vec<_> = lengths.iter().map(ToString::to_string).collect();
            format!(
                "secret is not of the expected length, got {}, expected one of [{}]",
                bytes.len(),
                lengths.join(" ")
            )
        }
        Some(_) => return faults,
    };
    faults.push(FieldError::invalid(&at, quoted("REDACTED"), &detail));
    faults
}

fn kms_faults(
    kms: &Kms,
    at: &str,
    names: &BTreeSet<&str>,
    (by, reload): (Version, bool),
) -> Vec<FieldError> {
    let mut faults = name_faults(kms, &format!("{at}.name"), names, reload);
    let invalid = |field: &str, value: String, detail: &str| {
        FieldError::invalid(&format!("{at}.{field}"), value, detail)
    };
    if kms.timeout <= 0 {
        let value = shown::timeout(kms.timeout, by);
        faults.push(invalid("timeout", value, "timeout should be a positive value"));
    }
    if let Some(detail) = endpoint_fault(&kms.endpoint) {
        faults.push(invalid("endpoint", quoted(&kms.endpoint), &detail));
    }
    match kms.cache_size {
        Some(size) if kms.api_version != "v1" => {
            faults.push(invalid("cachesize", size.to_string(), "cachesize is not supported in v2"));
        }
        Some(0) => {
            let detail = "cachesize should be a positive value, or negative to disable";
            faults.push(invalid("cachesize", "0".to_owned(), detail));
        }
        _ => {}
    }
    if !["v1", "v2"].contains(&kms.api_version.as_str()) {
        // The name of the field, where the value was meant: upstream's fault.
        let detail =
            "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported";
        faults.push(invalid("apiVersion", quoted(&kms.api_version), detail));
    }
    faults
}

fn name_faults(kms: &Kms, at: &str, names: &BTreeSet<&str>, reload: bool) -> Vec<FieldError> {
    let name = &kms.name;
    let mut faults = Vec::new();
    if name.is_empty() {
        faults.push(FieldError::required(at, "name is a mandatory field for a provider"));
    }
    if kms.api_version != "v1" && name.contains(':') {
        let detail = format!("invalid KMS provider name {name}, must not contain ':'");
        faults.push(FieldError::invalid(at, quoted(name), &detail));
    }
    if (reload || kms.api_version != "v1") && names.contains(name.as_str()) {
        let detail = format!("duplicate KMS provider name {name}, names must be unique");
        faults.push(FieldError::invalid(at, quoted(name), &detail));
    }
    faults
}

fn endpoint_fault(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("endpoint is a mandatory field for a kms".to_owned());
    }
    match endpoint::parse(text) {
        Err(fault) => Some(format!("invalid endpoint for kms provider, error: {fault}")),
        Ok(url) if url.scheme == "unix" => None,
        Ok(url) => Some(format!(
            "unsupported scheme {} for KMS provider, only unix is supported",
            quoted(&url.scheme)
        )),
    }
}
