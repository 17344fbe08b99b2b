//! `match` and `[teams]`: which calls are meant, by values that calls can have. A pattern that no call
//! can fit is an error where it is known to be one: a cap that counts nothing looks like one that holds.

use std::collections::BTreeMap;

use toml::Spanned;
use weir_core::caps::is_one_of;
use weir_core::catalog::{Catalog, Listing, Provider};

use super::file::Source;
use super::{Config, ConfigError, Dimension, Intercept, Patterns};

/// Patterns as they are written.
pub(super) type RawPatterns = BTreeMap<Dimension, Spanned<Vec<Spanned<String>>>>;

/// What values of closed sets are held against: the teams and the hosts of a configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    pub(super) teams: &'a BTreeMap<String, Patterns>,
    pub(super) intercept: &'a Intercept,
}

impl<'a> Known<'a> {
    /// What a configuration knows.
    pub(crate) const fn of(config: &'a Config) -> Self {
        Self {
            teams: &config.teams,
            intercept: &config.intercept,
        }
    }

    /// Whether a call can have this value.
    ///
    /// # Errors
    /// It can not: in words, what was expected and found.
    pub(crate) fn check(&self, dimension: Dimension, value: &str) -> Result<(), String> {
        match dimension {
            Dimension::Key if is_hash(value) => Ok(()),
            Dimension::Key => Err(
                "expected the whole hash of a key, as weir caps list shows it, found something \
                 else, which is not repeated here: it may be a key"
                    .to_owned(),
            ),
            _ => self.pattern(dimension, value).map(drop),
        }
    }

    /// A pattern as calls are held against it.
    fn pattern(&self, dimension: Dimension, written: &str) -> Result<String, String> {
        // Those without a value, and all.
        if matches!(written, "" | "*") {
            return Ok(written.to_owned());
        }
        if dimension == Dimension::Key {
            return key_pattern(written);
        }
        if written.strip_suffix('*').unwrap_or(written).contains('*') {
            return Err(format!(
                "expected a value, or the start of one with a * at its end, found a * elsewhere in \
                 {written:?}"
            ));
        }
        match dimension {
            Dimension::Provider => {
                let ids = Provider::ALL.map(Provider::as_str);
                one_of("the id of a provider", written, &ids)
            }
            Dimension::Team => {
                let names: Vec<&str> = self.teams.keys().map(String::as_str).collect();
                one_of("a team of [teams]", written, &names)
            }
            Dimension::Host => self.host(written),
            Dimension::Key
            | Dimension::User
            | Dimension::Process
            | Dimension::Cgroup
            | Dimension::Container
            | Dimension::Pod
            | Dimension::Namespace
            | Dimension::ServiceAccount
            | Dimension::Model
            | Dimension::Session => Ok(written.to_owned()),
        }
    }

    /// A host that is inspected, in lower case as all are.
    fn host(&self, written: &str) -> Result<String, String> {
        let host = written.to_ascii_lowercase();
        if host.ends_with('*') {
            return Ok(host);
        }
        let catalog = Catalog::builtin()
            .with_hosts(&self.intercept.hosts)
            .and_then(|catalog| catalog.with_ignored(&self.intercept.ignore))
            .map_err(|error| error.to_string())?;
        let found = match catalog.lookup(&host) {
            Listing::Provider(_) => return Ok(host),
            Listing::Ignored => "intercept.ignore passes its calls unread",
            Listing::Unknown => "its calls are not looked at; add it to intercept.hosts",
        };
        Err(format!(
            "expected a host whose calls are inspected, found {written:?}: {found}"
        ))
    }
}

/// Checks what `match` says.
pub(super) fn check(
    raw: RawPatterns,
    known: Known<'_>,
    source: &Source<'_>,
) -> Result<Patterns, ConfigError> {
    let mut checked = Patterns::new();
    for (dimension, patterns) in raw {
        if patterns.get_ref().is_empty() {
            let message = format!(
                "expected at least one {}, found none, which nothing can match: take the list out, \
                 or write what it is for",
                dimension.as_str()
            );
            return Err(source.invalid(patterns.span(), message));
        }
        let each = patterns.into_inner().into_iter().map(|written| {
            let pattern = known.pattern(dimension, written.get_ref());
            pattern.map_err(|message| source.invalid(written.span(), message))
        });
        checked.insert(dimension, each.collect::<Result<_, _>>()?);
    }
    Ok(checked)
}

/// Checks who is of a team.
pub(super) fn check_teams(
    raw: BTreeMap<String, RawPatterns>,
    intercept: &Intercept,
    source: &Source<'_>,
) -> Result<BTreeMap<String, Patterns>, ConfigError> {
    let no_teams = BTreeMap::new();
    let known = Known {
        teams: &no_teams,
        intercept,
    };
    let mut teams = BTreeMap::new();
    for (name, members) in raw {
        let stranger = members.iter().find(|(of, _)| !IN_TEAMS.contains(of));
        if let Some((dimension, patterns)) = stranger {
            let message = format!(
                "expected who is of the team, by {}, found {}: a team is of callers, whatever they \
                 call",
                IN_TEAMS.map(Dimension::as_str).join(", "),
                dimension.as_str()
            );
            return Err(source.invalid(patterns.span(), message));
        }
        teams.insert(name, check(members, known, source)?);
    }
    Ok(teams)
}

fn one_of(what: &str, written: &str, known: &[&str]) -> Result<String, String> {
    let pattern = [written.to_owned()];
    if known.iter().any(|value| is_one_of(value, &pattern)) {
        let [pattern] = pattern;
        return Ok(pattern);
    }
    let known = match known {
        [] => "there is none".to_owned(),
        known => format!("there are {}", known.join(", ")),
    };
    Err(format!("expected {what}, found {written:?}: {known}"))
}

/// Of what reports show, `734463d5…1111`, the start of the hash is held against calls: its 32 bits tell
/// apart the keys of any organisation.
fn key_pattern(written: &str) -> Result<String, String> {
    let shown = written.split_once('…').map_or(written, |(start, _)| start);
    let is_as_shown = shown.len() == SHOWN_HASH_CHARS && is_hex(shown);
    if is_as_shown {
        return Ok(format!("{shown}*"));
    }
    let start = written.strip_suffix('*').unwrap_or("!");
    if is_hash(written) || is_hex(start) && start.len() < HASH_CHARS {
        return Ok(written.to_owned());
    }
    Err(
        "expected a key as reports show it, such as \"734463d5…1111\", or its whole hash, as weir \
         caps list shows it, found something else, which is not repeated here: a key itself has \
         no place in a configuration"
            .to_owned(),
    )
}

fn is_hash(text: &str) -> bool {
    text.len() == HASH_CHARS && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.bytes().all(is_digit)
}

/// What a caller has by itself, before it is known what it calls.
const IN_TEAMS: [Dimension; 8] = [
    Dimension::Key,
    Dimension::User,
    Dimension::Process,
    Dimension::Cgroup,
    Dimension::Container,
    Dimension::Pod,
    Dimension::Namespace,
    Dimension::ServiceAccount,
];
/// The hash of a key: 16 bytes in hexadecimal.
const HASH_CHARS: usize = 32;
/// What reports show of it.
const SHOWN_HASH_CHARS: usize = 8;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    fn cap(of: &str) -> Result<Config, String> {
        let text = format!(
            "[intercept]\nhosts = [\"LLM.corp.example\"]\nignore = [\"api.groq.com\"]\n\
             [teams.core]\nuser = [\"ann\"]\n\
             [[cap]]\nname = \"a\"\nwindow = \"day\"\nlimit_usd = 0\nmatch = {{ {of} }}\n"
        );
        Config::parse(&text, Path::new("f")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_match_that_no_call_can_fit_is_refused_where_it_stands() {
        for (of, column, expected) in [
            ("provider = [\"antropic\"]", 23, "anthropic, openai"),
            ("provider = [\"Anthropic\"]", 23, "found \"Anthropic\""),
            ("provider = [\"x*\", \"b*\"]", 29, "found \"b*\""),
            ("model = []", 19, "at least one model, found none"),
            ("team = [\"cor\"]", 19, "there are core"),
            ("team = [\"Core*\"]", 19, "there are core"),
            ("user = [\"a*b\"]", 19, "a * elsewhere in \"a*b\""),
            ("model = [\"*opus\"]", 20, "with a * at its end"),
            ("model = [\"opus**\"]", 20, "a * elsewhere"),
            ("host = [\"api.anthropic.co\"]", 19, "intercept.hosts"),
            ("host = [\"api.groq.com\"]", 19, "intercept.ignore"),
            ("key = [\"sk-ant-api03-x\"]", 18, "as reports show it"),
            ("key = [\"1111\"]", 18, "as reports show it"),
        ] {
            let error = cap(of).unwrap_err();
            assert!(error.starts_with(&format!("f:10:{column}: ")), "{error}");
            assert!(error.contains(expected), "{of}: {error}");
            assert!(!error.contains("sk-ant"), "{error}");
        }
        let breaker = "[[breaker]]\nname = \"b\"\nlimit_usd = 1\nmatch = { team = [\"x\"] }\n";
        let error = Config::parse(breaker, Path::new("f")).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("f:4:19: "), "{error}");
        assert!(error.contains("there is none"), "{error}");
    }

    #[test]
    fn what_a_call_may_have_is_taken() {
        for (of, expected) in [
            ("provider = [\"x-ai\", \"open*\"]", "[\"x-ai\", \"open*\"]"),
            ("team = [\"co*\"]", "[\"co*\"]"),
            ("model = [\"no-such-model\"]", "[\"no-such-model\"]"),
            ("user = [\"\", \"*\"]", "[\"\", \"*\"]"),
            ("host = [\"llm.CORP.example\"]", "[\"llm.corp.example\"]"),
            ("host = [\"API.open*\"]", "[\"api.open*\"]"),
            ("key = [\"734463d5…1111\"]", "[\"734463d5*\"]"),
            ("key = [\"734463d5\"]", "[\"734463d5*\"]"),
            ("key = [\"73*\", \"*\"]", "[\"73*\", \"*\"]"),
            (
                "key = [\"734463d5734463d5734463d5734463d5\"]",
                "[\"734463d5734463d5734463d5734463d5\"]",
            ),
        ] {
            let only = &cap(of).unwrap().caps[0].only;
            let patterns: Vec<String> = only.values().map(|list| format!("{list:?}")).collect();
            assert_eq!(patterns, [expected], "{of}");
        }
    }

    #[test]
    fn a_team_is_of_callers() {
        for (of, expected) in [
            (
                "model = [\"x\"]",
                "f:2:9: expected who is of the team, by key",
            ),
            ("team = [\"x\"]", "f:2:8: expected who"),
            ("user = []", "f:2:8: expected at least one user"),
            ("process = [\"*-ci\"]", "f:2:12: expected a value"),
            ("key = [\"sk-x\"]", "f:2:8: expected a key"),
        ] {
            let error = Config::parse(&format!("[teams.a]\n{of}\n"), Path::new("f"));
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with(expected), "{of}: {error}");
        }
    }
}
