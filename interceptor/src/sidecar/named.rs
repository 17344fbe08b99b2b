//! What a configuration names outside of itself: files, a variable, models. What is missing is told alike
//! by `weir policy check` and by whatever starts with the configuration.

use anyhow::Error;
use weir_core::caps::{Cap, Dimension, OnExceed, is_one_of};
use weir_core::catalog::Provider;
use weir_core::pricing::{self, PriceTable};

use super::unix_ms;
use crate::alerts;
use crate::exchange::Secret;
use crate::forward::connect;
use crate::ledger::LedgerOptions;
use crate::process::config::Config;

/// Whether what a start reads is there, by the code that reads it then. Nothing is made, opened for
/// writing or connected to.
///
/// # Errors
/// As [`super::Sidecar::start`] would fail: a root, secret or password that is not there or is none, or
/// a ledger that can't be understood.
pub(crate) fn check(config: &Config) -> anyhow::Result<()> {
    connect::roots(&config.upstream.extra_roots).map_err(Error::msg)?;
    if let Some(path) = &config.cache.secret_file {
        Secret::read(path)?;
    }
    let ledger = LedgerOptions {
        url: config.ledger.url.clone(),
        password_file: config.ledger.password_file.clone(),
        ..LedgerOptions::new("")
    };
    Ok(ledger.check()?)
}

/// What would not do what it is meant to, and yet is no reason not to start: in words, with what
/// follows from it.
pub(crate) fn doubts(config: &Config, prices: &PriceTable) -> Vec<String> {
    let webhook = config.alerts.webhook.as_ref().map(alerts::address);
    let webhook = webhook.and_then(Result::err);
    let webhook =
        webhook.map(|why| format!("alerts.webhook: {why}; until then no warning is posted"));
    let falls = config.caps.iter();
    let falls = falls.filter(|cap| cap.on_exceed == OnExceed::Downgrade && !is_priced(cap, prices));
    let falls = falls.map(|cap| {
        format!(
            "cap \"{}\": downgrade_to: expected a model with a price at a provider that the cap counts, \
             found \"{}\": calls beyond the limit would be refused; see weir prices show, or give it a \
             [[price]]",
            cap.name, cap.downgrade_to
        )
    });
    webhook.into_iter().chain(falls).collect()
}

/// Whether any provider that the cap counts has the model that it falls to at a known price.
fn is_priced(cap: &Cap, prices: &PriceTable) -> bool {
    let only = cap.only.get(&Dimension::Provider);
    let is_counted = |provider: &str| only.is_none_or(|only| is_one_of(provider, only));
    let counted = Provider::ALL.map(Provider::as_str).into_iter();
    counted
        .filter(|provider| is_counted(provider))
        .any(|provider| {
            let context = pricing::Context {
                provider,
                model: &cap.downgrade_to,
                at_unix: unix_ms() / 1000,
                ..pricing::Context::default()
            };
            prices.rates(&context, 0).is_some()
        })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse(text, Path::new("weir.toml")).unwrap()
    }

    #[test]
    fn a_model_to_fall_to_has_a_price_at_a_provider_that_is_counted() {
        let doubts = |of: &str, to: &str, more: &str| {
            let config = parse(&format!(
                "[[cap]]\nname = \"a\"\nwindow = \"day\"\nlimit_usd = 1\non_exceed = \"downgrade\"\n\
                 downgrade_to = \"{to}\"\n{of}\n{more}"
            ));
            let prices = PriceTable::builtin().clone();
            let prices = prices.with_negotiated(config.pricing.negotiated.clone());
            doubts(&config, &prices)
        };
        let anthropic = "match = { provider = [\"anthropic\"] }";
        assert_eq!(doubts("", "claude-haiku-4-5", ""), [""; 0]);
        assert_eq!(doubts(anthropic, "claude-haiku-4-5", ""), [""; 0]);
        let own = "[[price]]\nmodel = \"own\"\nusd_per_mtok = { input = 1, output = 2 }";
        assert_eq!(doubts(anthropic, "own", own), [""; 0]);
        for (of, to) in [("", "nosuchmodel"), (anthropic, "deepseek-chat")] {
            let doubts = doubts(of, to, "");
            assert_eq!(doubts.len(), 1, "{to}");
            assert!(doubts[0].contains(to), "{doubts:?}");
        }
    }

    #[test]
    fn a_webhook_that_is_not_there_is_doubtful_and_other_files_are_needed() {
        let prices = PriceTable::builtin();
        let said = |webhook: &str| {
            let config = parse(&format!("[alerts]\nwebhook = {webhook}\n"));
            check(&config).unwrap();
            doubts(&config, prices).join("\n")
        };
        assert_eq!(said("\"https://hooks.example/x\""), "");
        assert!(said("{ file = \"/none/hook\" }").contains("/none/hook"));
        assert!(said("{ env = \"WEIR_NO_SUCH_HOOK\" }").contains("WEIR_NO_SUCH_HOOK"));

        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().join("empty.pem");
        std::fs::write(&empty, "127.0.0.1 localhost\n").unwrap();
        for (text, expected) in [
            (
                "[upstream]\nextra_roots = [\"/none.pem\"]",
                "extra_roots: /none.pem: ",
            ),
            (
                &format!("[upstream]\nextra_roots = [{empty:?}]"),
                "found none in the file",
            ),
            ("[cache]\nsecret_file = \"/none\"", "secret_file"),
            (
                "[ledger]\nurl = \"postgres://w@h/d?sslmode=disable\"\npassword_file = \"/none\"",
                "password_file /none",
            ),
            (
                "[ledger]\nurl = \"postgres://w@h/d?sslrootcert=/none.pem\"",
                "sslrootcert /none.pem",
            ),
        ] {
            let error = format!("{:#}", check(&parse(text)).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
