//! The catalogue, from the outside.

use super::*;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn hosts_are_found_in_any_case_and_with_the_dot_of_the_root() {
    let catalog = Catalog::builtin();
    for (host, expected) in [
        ("api.anthropic.com", Listing::Provider(Provider::Anthropic)),
        ("API.Anthropic.COM.", Listing::Provider(Provider::Anthropic)),
        (
            "aws-external-anthropic.us-east-1.api.aws",
            Listing::Provider(Provider::Anthropic),
        ),
        ("us.api.openai.com", Listing::Provider(Provider::OpenAi)),
        ("a.b.api.openai.com", Listing::Provider(Provider::OpenAi)),
        (
            "bedrock-runtime.eu-west-1.amazonaws.com",
            Listing::Provider(Provider::Bedrock),
        ),
        (
            "vpce-0a.bedrock-runtime.us-east-1.vpce.amazonaws.com",
            Listing::Provider(Provider::Bedrock),
        ),
        (
            "us-central1-aiplatform.googleapis.com",
            Listing::Provider(Provider::Vertex),
        ),
        (
            "contoso.openai.azure.com",
            Listing::Provider(Provider::Azure),
        ),
        ("s3.eu-west-1.amazonaws.com", Listing::Unknown),
        ("anthropic.com", Listing::Unknown),
        ("evil-api.anthropic.com", Listing::Unknown),
        ("api.anthropic.com.evil.example", Listing::Unknown),
        ("openai.azure.com", Listing::Unknown),
        ("", Listing::Unknown),
        (".", Listing::Unknown),
    ] {
        assert_eq!(catalog.lookup(host), expected, "{host}");
    }
}

#[test]
fn every_provider_of_the_price_list_is_known_by_its_id() {
    let prices: serde_json::Value =
        serde_json::from_str(include_str!("../../prices.json")).unwrap();
    for model in prices["models"].as_array().unwrap() {
        let id = model["provider"].as_str().unwrap();
        assert!(Provider::from_id(id).is_some(), "{id}");
    }
}

#[test]
fn every_provider_but_configured_ones_has_a_host() {
    let listed: Vec<Provider> = Catalog::builtin()
        .exact
        .into_values()
        .chain(Catalog::builtin().below.into_values())
        .filter_map(|listing| match listing {
            Listing::Provider(provider) => Some(provider),
            Listing::Ignored | Listing::Unknown => None,
        })
        .collect();
    for provider in Provider::ALL {
        assert_eq!(
            listed.contains(&provider),
            provider != Provider::Configured,
            "{provider:?}"
        );
    }
}

#[test]
fn configured_hosts_are_added_and_ignored_ones_win() {
    let catalog = Catalog::builtin()
        .with_hosts(&names(&[
            "Extra.LLM.example",
            "*.gateway.example.",
            "api.openai.com",
        ]))
        .unwrap()
        .with_ignored(&names(&[
            "api.groq.com",
            "*.openai.azure.com",
            "*.secret.gateway.example",
        ]))
        .unwrap();
    for (host, expected) in [
        ("extra.llm.example", Listing::Provider(Provider::Configured)),
        (
            "eu.gateway.example",
            Listing::Provider(Provider::Configured),
        ),
        ("gateway.example", Listing::Unknown),
        ("x.secret.gateway.example", Listing::Ignored),
        ("api.openai.com", Listing::Provider(Provider::OpenAi)),
        ("api.groq.com", Listing::Ignored),
        ("contoso.openai.azure.com", Listing::Ignored),
    ] {
        assert_eq!(catalog.lookup(host), expected, "{host}");
    }
}

#[test]
fn an_ignored_suffix_covers_hosts_listed_below_it() {
    let catalog = Catalog::builtin()
        .with_ignored(&names(&["*.anthropic.com"]))
        .unwrap();
    assert_eq!(catalog.lookup("api.anthropic.com"), Listing::Ignored);
    assert!(
        !catalog
            .permitted_subtrees()
            .contains(&"api.anthropic.com".to_owned())
    );
}

#[test]
fn what_is_not_a_dns_name_is_refused_with_what_was_found() {
    for bad in [
        "",
        "*",
        "*.",
        "a..b",
        "https://a.example",
        "a.example:443",
        "a.example/v1",
        "10.0.0.1",
        "[::1]",
        "a.*.example",
        "*.*.example",
        "a b",
        "ü.example",
    ] {
        let error = Catalog::builtin().with_hosts(&names(&[bad])).unwrap_err();
        assert_eq!(error.found, bad);
        assert!(
            Catalog::builtin().with_ignored(&names(&[bad])).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn permitted_subtrees_cover_every_listed_host_and_nothing_like_a_whole_cloud() {
    let catalog = Catalog::builtin()
        .with_hosts(&names(&["*.gateway.example"]))
        .unwrap();
    let subtrees = catalog.permitted_subtrees();
    let inside = |host: &str| {
        subtrees
            .iter()
            .any(|tree| host == tree || host.ends_with(&format!(".{tree}")))
    };
    for host in catalog.exact.keys().chain(catalog.below.keys()) {
        assert!(inside(host), "{host}");
    }
    assert!(inside("x.gateway.example") && inside("contoso.openai.azure.com"));
    for cloud in [
        "s3.amazonaws.com",
        "storage.googleapis.com",
        "x.azure.com",
        "sts.api.aws",
    ] {
        assert!(!inside(cloud), "{cloud}");
    }
    // `us.api.openai.com` and the like are inside `api.openai.com` already.
    assert_eq!(
        subtrees
            .iter()
            .filter(|tree| tree.ends_with("api.openai.com"))
            .count(),
        1
    );
    assert!(subtrees.is_sorted());
}

#[test]
fn a_configured_host_may_name_its_provider() {
    let catalog = Catalog::builtin()
        .with_hosts(&names(&[
            "llm.azure-api.net=azure",
            "*.vpce.internal.example = aws",
            "api.groq.com=gateway",
        ]))
        .unwrap();
    for (host, expected) in [
        ("llm.azure-api.net", Provider::Azure),
        ("vpce-1.vpce.internal.example", Provider::Bedrock),
        ("api.groq.com", Provider::Gateway),
    ] {
        assert_eq!(catalog.lookup(host), Listing::Provider(expected), "{host}");
    }
    for bad in ["a.example=", "a.example=nobody", "=azure", "a b=azure"] {
        let error = Catalog::builtin().with_hosts(&names(&[bad])).unwrap_err();
        assert_eq!(error.found, bad);
    }
}

#[test]
fn regions_private_endpoints_and_gateways_are_listed() {
    let catalog = Catalog::builtin();
    for (host, expected) in [
        (
            "bedrock-runtime-fips.us-gov-west-1.amazonaws.com",
            Provider::Bedrock,
        ),
        ("bedrock-mantle.eu-west-1.api.aws", Provider::Bedrock),
        ("contoso.cognitiveservices.azure.us", Provider::Azure),
        ("contoso.services.ai.azure.com", Provider::Azure),
        ("m.eastus2.models.ai.azure.com", Provider::Azure),
        ("aiplatform.eu.rep.googleapis.com", Provider::Vertex),
        ("global-aiplatform.googleapis.com", Provider::Vertex),
        ("gateway.ai.cloudflare.com", Provider::Gateway),
        ("dashscope-intl.aliyuncs.com", Provider::Compatible),
        ("chatgpt.com", Provider::OpenAi),
    ] {
        assert_eq!(catalog.lookup(host), Listing::Provider(expected), "{host}");
    }
}
