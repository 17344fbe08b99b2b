//! Host names as certificates know them: which are valid, and which subtree covers which.

use std::net::IpAddr;

/// Lower-cases a host name and drops the dot that ends an absolute one.
///
/// `None` where the text is no DNS name that a certificate may carry: an IP address, a wildcard,
/// characters other than letters, digits, `-`, `_` and `.`, a label of more than 63 bytes, or more
/// than 253 bytes (RFC 1035 section 2.3.4). The underscore is no host name character, yet names
/// with it are served and verified in practice.
pub fn normalize(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > NAME_BYTES_MAX || name.parse::<IpAddr>().is_ok() {
        return None;
    }
    name.split('.')
        .all(is_label)
        .then(|| name.to_ascii_lowercase())
}

/// Turns an entry of a host list into a name-constraint subtree: `*.example.com` and
/// `.example.com` become `example.com`, which permits the name itself and all names below it.
///
/// A wildcard elsewhere has no equivalent in RFC 5280 section 4.2.1.10 and gives `None`.
pub(crate) fn subtree(entry: &str) -> Option<String> {
    let base = entry
        .strip_prefix("*.")
        .or_else(|| entry.strip_prefix('.'))
        .unwrap_or(entry);
    normalize(base)
}

/// The name itself and every name above it: `a.b.c`, `b.c`, `c`. A subtree permits a normalized
/// name when it is one of these.
pub(crate) fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| {
        name.split_once('.').map(|(_, above)| above)
    })
}

fn is_label(label: &str) -> bool {
    let inner = label
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    let edge = label.starts_with('-') || label.ends_with('-');
    !label.is_empty() && label.len() <= LABEL_BYTES_MAX && inner && !edge
}

/// RFC 1035 section 2.3.4: 255 octets on the wire are 253 characters of text.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dns_names_are_hosts() {
        let long = format!("{}.example", "a".repeat(64));
        let cases = [
            ("API.Anthropic.com", Some("api.anthropic.com")),
            ("api.anthropic.com.", Some("api.anthropic.com")),
            ("localhost", Some("localhost")),
            ("my_endpoint.example", Some("my_endpoint.example")),
            ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
            ("127.0.0.1", None),
            ("::1", None),
            ("[::1]", None),
            ("*.example", None),
            ("bücher.example", None),
            ("a..b", None),
            ("-a.example", None),
            ("a b", None),
            ("a\0b", None),
            ("", None),
            (".", None),
            (long.as_str(), None),
        ];
        for (name, expected) in cases {
            assert_eq!(normalize(name).as_deref(), expected, "{name:?}");
        }
        assert_eq!(normalize(&["a"; 127].join(".")).map(|n| n.len()), Some(253));
        assert_eq!(normalize(&["a"; 128].join(".")), None);
    }

    #[test]
    fn a_wildcard_is_a_subtree_only_as_the_first_label() {
        let cases = [
            ("api.openai.com", Some("api.openai.com")),
            ("*.openai.azure.com", Some("openai.azure.com")),
            (".openai.azure.com", Some("openai.azure.com")),
            ("bedrock-runtime.*.amazonaws.com", None),
            ("*", None),
            ("10.0.0.1", None),
        ];
        for (entry, expected) in cases {
            assert_eq!(subtree(entry).as_deref(), expected, "{entry:?}");
        }
    }

    #[test]
    fn a_name_is_below_its_suffixes_label_by_label() {
        let suffixes: Vec<_> = suffixes("api.openai.com").collect();
        assert_eq!(suffixes, ["api.openai.com", "openai.com", "com"]);
    }
}
