//! Prices that depend on where a model is called, under which name and on which tier; and of what
//! has a price beside the text.

use super::*;

#[test]
fn a_profile_of_bedrock_costs_what_its_scope_does() {
    let list = rows(
        "global.anthropic.claude-opus-5-5                              | 4 20 0.2 5 8
         global.anthropic.claude-opus-5-5-20261014-v1:0                | 4 20 0.2 5 8
         global.anthropic.claude-opus-4-8-v1:0                         | 5 25 0.5 6.25 10
         us.anthropic.claude-opus-5-5                                  | 4.4 22 0.22 5.5 8.8
         eu.anthropic.claude-opus-5-5-20261014-v1:0                    | 4.4 22 0.22 5.5 8.8
         us-gov.anthropic.claude-opus-5-5                              | 4.4 22 0.22 5.5 8.8
         anthropic.claude-opus-5-5-v1:0                                | 4.4 22 0.22 5.5 8.8
         claude-opus-5-5                                               | 4.4 22 0.22 5.5 8.8
         arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-opus-5-5-v1:0 | 4.4 22 0.22 5.5 8.8
         arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fglobal.anthropic.claude-haiku-4-5-20251001-v1%3A0 | 1 5 0.1 1.25 2
         arn:aws:bedrock:eu-west-1::foundation-model/anthropic.claude-haiku-4-5-20251001-v1:0 | 1.1 5.5 0.11 1.375 2.2
         eu.anthropic.claude-sonnet-4-5-20250929-v1:0                  | 3.3 16.5 0.33 4.125 6.6
         amazon.nova-lite-v1:0                                         | 0.06 0.24 0.015 0.06 0.06
         us.amazon.nova-lite-v1:0                                      | 0.06 0.24 0.015 0.06 0.06
         us.amazon.nova-2-lite-v1:0                                    | 0.33 2.75 0.0825 0.33 0.33
         global.moonshotai.kimi-k3                                     | 3 15 0.3 3.75 3.75
         moonshotai.kimi-k3                                            | 3.3 16.5 0.33 4.125 4.125
         global.openai.gpt-6.1-sol                                     | 2 10 0.1 2.5 2.5
         openai.gpt-6.1-sol                                            | 2.2 11 0.11 2.75 2.75
         arn:aws:bedrock:us-east-1:1:application-inference-profile/abc | none
         us.anthropic.claude-opus-5-6                                  | none",
    );
    for [model, expected] in list {
        let rates = PriceTable::builtin().rates(&call("aws", model), 1000);
        let found = rates.as_ref().map_or_else(|| "none".to_owned(), dollars);
        assert_eq!(found, expected, "{model}");
    }
}

#[test]
fn a_region_costs_a_tenth_more_where_the_provider_says_so() {
    let list = rows(
        "vertex | us-east5-aiplatform.googleapis.com   | claude-opus-5-5@20261014 | 4.4 22 0.22 5.5 8.8
         vertex | aiplatform.eu.rep.googleapis.com     | claude-opus-5-5          | 4.4 22 0.22 5.5 8.8
         vertex | aiplatform.googleapis.com            | claude-opus-5-5          | 4 20 0.2 5 8
         vertex | claude.googleapis.com                | claude-opus-5-5          | 4 20 0.2 5 8
         vertex | us-east5-aiplatform.googleapis.com   | gemini-3.1-pro-preview   | 2 12 0.2 2 2
         openai | us.api.openai.com                    | gpt-6.1-sol              | 2.2 11 0.11 2.75 5.5
         openai | mtls-eu.api.openai.com               | gpt-6.1-sol              | 2.2 11 0.11 2.75 5.5
         openai | mtls.api.openai.com                  | gpt-6.1-sol              | 2 10 0.1 2.5 5
         openai | api.openai.com                       | gpt-6.1-sol              | 2 10 0.1 2.5 5
         openai | eu.api.openai.com                    | gpt-4o                   | 2.5 10 1.25 2.5 2.5
         anthropic | us.api.example.com                | claude-opus-5-5          | 4 20 0.2 5 8",
    );
    for [provider, host, model, expected] in list {
        let regional = is_regional(provider, host);
        let context = Context {
            regional,
            ..call(provider, model)
        };
        check(&context, 1000, expected);
    }
}

#[test]
fn names_of_gateways_find_the_price_of_the_maker() {
    let list = rows(
        "openrouter     | anthropic/claude-opus-5.5        | 4 20 0.2 5 8
         openrouter     | anthropic/claude-opus-5.5:nitro  | 4 20 0.2 5 8
         openrouter     | openai/gpt-6.1-sol:floor         | 2 10 0.1 2.5 5
         openrouter     | anthropic/claude-opus-5.5:free   | none
         openrouter     | ~anthropic/claude-sonnet-latest  | none
         github-copilot | claude-sonnet-4.5                | 3 15 0.3 3.75 6
         github-copilot | gpt-6.1-sol                      | 2 10 0.1 2.5 5
         configured     | vertex_ai/claude-opus-5-5@20261014 | 4 20 0.2 5 8
         configured     | bedrock/us.anthropic.claude-opus-5-5-v1:0 | 4 20 0.2 5 8
         azure          | gpt-6.1-sol-2026-11-03           | 2 10 0.1 2.5 2.5
         azure          | claude-opus-5-5                  | 4 20 0.2 5 8
         azure          | my-deployment                    | none",
    );
    for [provider, model, expected] in list {
        let rates = PriceTable::builtin().rates(&call(provider, model), 1000);
        let found = rates.as_ref().map_or_else(|| "none".to_owned(), dollars);
        assert_eq!(found, expected, "{provider} {model}");
    }
}

#[test]
fn a_share_with_a_price_of_its_own_costs_that_and_the_rest_the_whole() {
    let usage = Usage {
        input: 1_000_000,
        input_audio: 250_000,
        input_image: 250_000,
        cache_read: 1_000_000,
        cache_audio: 500_000,
        output: 1_000_000,
        output_audio: 500_000,
        reasoning: 100_000,
        ..Usage::default()
    };
    // gpt-realtime: text 4, audio 32, images 5; read 0.4, audio read 0.4; out 16, audio out 64.
    let cost = PriceTable::builtin()
        .price(&call("openai", "gpt-realtime"), &usage)
        .unwrap();
    assert_eq!(cost.input.to_string(), "$11.25");
    assert_eq!(cost.cache_read.to_string(), "$0.40");
    assert_eq!(cost.output.to_string(), "$40.00");
    assert_eq!(cost.without_cache.to_string(), "$69.25");
    // Where they have none, shares cost what the whole does, and a share beyond it counts once.
    let beyond = Usage {
        input: 1_000_000,
        input_audio: u64::MAX,
        ..Usage::default()
    };
    let cost = PriceTable::builtin()
        .price(&call("anthropic", "claude-opus-5-5"), &beyond)
        .unwrap();
    assert_eq!(cost.total.to_string(), "$4.00");
    let image = Usage {
        output: 1_000_000,
        output_image: 900_000,
        ..Usage::default()
    };
    let cost = PriceTable::builtin()
        .price(&call("google", "gemini-3-pro-image-preview"), &image)
        .unwrap();
    assert_eq!(cost.output.to_string(), "$109.20");
}

#[test]
fn searches_requests_and_citations_are_billed_beside_the_tokens() {
    let usage = Usage {
        web_searches: 2,
        file_searches: 4,
        citation: 1_000_000,
        reasoning: 1_000_000,
        output: 1_000_000,
        ..Usage::default()
    };
    let extras = |provider, model| {
        let cost = PriceTable::builtin()
            .price(&call(provider, model), &usage)
            .unwrap();
        (cost.extras.to_string(), cost.output.to_string())
    };
    let of = |extras: &str, output: &str| (extras.to_owned(), output.to_owned());
    assert_eq!(extras("openai", "gpt-6.1-sol"), of("$2.03", "$10.00"));
    assert_eq!(extras("google", "gemini-2.5-flash"), of("$0.345", "$2.50"));
    assert_eq!(
        extras("perplexity", "sonar-deep-research"),
        of("$2.02", "$3.00")
    );
    assert_eq!(extras("perplexity", "sonar"), of("$1.042", "$1.00"));
}

#[test]
fn tiers_are_known_in_the_spelling_of_any_provider() {
    let tiers = rows(
        "google | gemini-3.1-pro-preview | FLEX               | 1 6 0.2 1 1
         vertex | gemini-3.1-pro-preview | ON_DEMAND_FLEX     | 1 6 0.2 1 1
         vertex | gemini-3.1-pro-preview | ON_DEMAND_PRIORITY | 3.6 21.6 0.36 3.6 3.6
         vertex | gemini-3.1-pro-preview | ON_DEMAND          | 2 12 0.2 2 2
         google | gemini-3.1-pro-preview | standard           | 2 12 0.2 2 2",
    );
    for [provider, model, tier, expected] in tiers {
        let context = Context {
            service_tier: Some(tier),
            ..call(provider, model)
        };
        check(&context, 1000, expected);
    }
}

#[test]
fn google_charges_a_grounded_prompt_or_each_query() {
    for (model, searches, nanos) in [
        ("gemini-2.5-pro", 0, 0),
        ("gemini-2.5-pro", 1, 35_000_000),
        ("gemini-2.5-pro", 5, 35_000_000),
        ("gemini-3.8-flash", 1, 14_000_000),
        ("gemini-3.8-flash", 5, 70_000_000),
    ] {
        let searched = Usage {
            web_searches: searches,
            ..Usage::default()
        };
        for provider in ["google", "vertex"] {
            let cost = PriceTable::builtin().price(&call(provider, model), &searched);
            let expected = Money::from_nanos(nanos);
            assert_eq!(cost.unwrap().web_searches, expected, "{model} {searches}");
        }
    }
}
