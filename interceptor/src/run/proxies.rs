//! What the command's own proxy variables keep from being seen.

use super::invoker::Variables;
use crate::capture::Mode;

/// As curl, Python and Go read them.
const PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// In words, which connections to `hosts`, or to those below them, are not captured because of what
/// `environment` says, and what to do.
pub(super) fn unseen(mode: Mode, environment: &Variables, hosts: &[String]) -> Option<String> {
    let set = |names: &[&'static str]| {
        let values = names.iter().filter_map(|name| {
            let value = environment.get(std::ffi::OsStr::new(name))?.to_str()?;
            (!value.is_empty()).then(|| (*name, value.to_owned()))
        });
        values.collect::<Vec<_>>()
    };
    if mode != Mode::Proxy {
        let (name, _) = set(&PROXIES).into_iter().next()?;
        return Some(format!(
            "{name} is set: what the command sends through that proxy is not seen (without it: env -u {name} …)"
        ));
    }
    let (name, _) = set(&EXCEPTIONS)
        .into_iter()
        .find(|(_, exceptions)| exceptions.split(',').any(|name| covers(name, hosts)))?;
    Some(format!(
        "{name} covers LLM hosts: calls to them are not seen (without it: env -u {name} …)"
    ))
}

/// Whether an entry of `NO_PROXY` excepts one of `hosts`, or of those below them.
fn covers(entry: &str, hosts: &[String]) -> bool {
    let entry = entry.trim().trim_start_matches("*.");
    let entry = entry.split(':').next().unwrap_or_default();
    let entry = entry.trim_start_matches('.').to_ascii_lowercase();
    let is_below = |name: &str, other: &str| {
        name.strip_suffix(other)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    !entry.is_empty()
        && (entry == "*"
            || hosts
                .iter()
                .any(|host| is_below(host, &entry) || is_below(&entry, host)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(mode: Mode, variables: &[(&str, &str)]) -> Option<String> {
        let environment = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let hosts = ["api.anthropic.com", "openai.azure.com"].map(str::to_owned);
        unseen(mode, &environment, &hosts)
    }

    #[test]
    fn a_proxy_of_the_users_is_named_where_connections_are_captured() {
        let company = ("https_proxy", "http://proxy.example:3128");
        for mode in [Mode::Ebpf, Mode::Redirect] {
            let said = said(mode, &[company]).unwrap();
            assert!(said.starts_with("https_proxy is set"), "{said}");
        }
        // It is replaced there.
        assert_eq!(said(Mode::Proxy, &[company]), None);
        assert_eq!(said(Mode::Ebpf, &[("HTTPS_PROXY", "")]), None);
        assert_eq!(
            said(Mode::Ebpf, &[("HTTP_PROXY", "http://p.example")]),
            None
        );
    }

    #[test]
    fn exceptions_are_named_where_they_cover_an_llm_host() {
        for covering in [
            "*",
            "localhost,api.anthropic.com",
            "localhost, .anthropic.com",
            "com",
            "mine.openai.azure.com",
            "api.anthropic.com:443",
        ] {
            let said = said(Mode::Proxy, &[("NO_PROXY", covering)]);
            assert!(
                said.is_some_and(|said| said.starts_with("NO_PROXY covers")),
                "{covering}"
            );
        }
        let harmless = "localhost,127.0.0.1,.internal,thropic.com,azure.example,";
        assert_eq!(said(Mode::Proxy, &[("no_proxy", harmless)]), None);
        assert_eq!(said(Mode::Ebpf, &[("NO_PROXY", "*")]), None);
    }
}
