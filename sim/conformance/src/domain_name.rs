//! kube-apiserver's rule for keys of annotations (apimachinery `IsFullyQualifiedDomainName`).

/// What is wrong with a key; none if it is legal.
#[must_use]
pub fn fault(key: &str) -> Option<&'static str> {
    let name = key.strip_suffix('.').unwrap_or(key);
    let labels: Vec<&str> = name.split('.').collect();
    if name.len() > 253 {
        Some("longer than 253 bytes")
    } else if !labels.iter().all(|label| is_label(label)) {
        Some("not lower-case letters, digits and '-' in labels joined by '.'")
    } else if labels.len() < 2 {
        Some("fewer than two labels")
    } else if labels.iter().any(|label| label.len() > 63) {
        Some("a label longer than 63 bytes")
    } else {
        None
    }
}

fn is_label(label: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    match label.as_bytes() {
        [] => false,
        bytes @ [first, ..] => {
            plain(*first)
                && bytes.last().is_some_and(|last| plain(*last))
                && bytes.iter().all(|byte| plain(*byte) || *byte == b'-')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn keys_are_domain_names() {
        for legal in ["a.b", "a.com.", "10.0.0.1", "a-b.c", &format!("{}.b", "a".repeat(63))] {
            assert_eq!(fault(legal), None, "{legal}");
        }
        let (long, longer) = (format!("{}.b", "a".repeat(64)), ["a"; 128].join("."));
        for illegal in [
            "",
            ".",
            "single",
            "kms.example.io/id",
            "A.b",
            "a_b.c",
            ".a.b",
            "a..b",
            "-a.b",
            "a-.b",
            "*.b",
            "a:b.c",
            &long,
            &longer,
        ] {
            assert!(fault(illegal).is_some(), "{illegal}");
        }
    }
}
