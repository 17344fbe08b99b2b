//! Small files in the shape of each format, and what becomes of them.

use super::super::Context;
use super::super::tests::{dollars, rows};
use super::*;

const LITELLM: &str = r#"{
  "sample_spec": {"litellm_provider": "one of many", "input_cost_per_token": 0, "mode": "one of"},
  "claude-opus-9": {
    "litellm_provider": "anthropic", "mode": "chat",
    "input_cost_per_token": 4e-06, "output_cost_per_token": 2e-05,
    "cache_read_input_token_cost": 2e-07,
    "cache_creation_input_token_cost": 5e-06, "cache_creation_input_token_cost_above_1hr": 8e-06,
    "cache_creation_input_token_cost_above_1hr_above_200k_tokens": 1.6e-05,
    "input_cost_per_token_above_200k_tokens": 8e-06,
    "input_cost_per_token_batches": 2e-06, "input_cost_per_token_above_200k_tokens_batches": 4e-06,
    "search_context_cost_per_query": {"search_context_size_low": 0.005, "search_context_size_medium": 0.01},
    "provider_specific_entry": {"us": 1.1, "fast": 2},
    "max_input_tokens": 1000000, "max_output_tokens": 128000, "prompt_cache_min_tokens": 512,
    "input_cost_per_query": 1, "supports_vision": true
  },
  "gpt-9": {
    "litellm_provider": "openai", "input_cost_per_token": 0.00001, "output_cost_per_token": 0.00005,
    "input_cost_per_token_priority": 0.00002, "input_cost_per_token_flex": 0.000005,
    "input_cost_per_audio_token": 0.00004
  },
  "xai/grok-9": {
    "litellm_provider": "xai", "input_cost_per_token": 2e-06, "output_cost_per_token": 6e-06,
    "input_cost_per_token_above_200k_tokens": 4e-06
  },
  "bedrock/eu-west-1/anthropic.claude-opus-9-v1:0": {
    "litellm_provider": "bedrock_converse", "input_cost_per_token": 4.4e-06, "output_cost_per_token": 2.2e-05
  },
  "vertex_ai/claude-opus-9@20270101": {
    "litellm_provider": "vertex_ai-anthropic_models", "input_cost_per_token": 4e-06, "output_cost_per_token": 2e-05
  },
  "azure/eu/gpt-9": {"litellm_provider": "azure", "input_cost_per_token": 1.1e-05, "output_cost_per_token": 5.5e-05},
  "azure/gpt-9": {"litellm_provider": "azure", "input_cost_per_token": 1e-05, "output_cost_per_token": 5e-05,
    "cache_creation_input_token_cost": 0.0},
  "azure/us/gpt-9": {"litellm_provider": "azure", "input_cost_per_token": 1.2e-05, "output_cost_per_token": 6e-05},
  "ollama/free": {"litellm_provider": "ollama", "input_cost_per_token": 0, "output_cost_per_token": 0},
  "dall-e-9": {"litellm_provider": "openai", "output_cost_per_image": 0.04}
}"#;

const GENAI_PRICES: &str = r#"[
  {"id": "anthropic", "api_pattern": "https://api\\.anthropic\\.com", "models": [
    {"id": "claude-opus-9", "match": {"or": [{"equals": "claude-opus-9"}, {"regex": "^claude-opus-9-\\d{8}$"}, {"starts_with": "claude-9-opus"}]},
     "context_window": 1000000,
     "prices": {"input_mtok": 4, "output_mtok": 20, "cache_read_mtok": 0.2, "cache_write_mtok": 5, "cache_write_1h_mtok": 8, "web_searches_kcount": 10, "sorcery_mtok": 1},
     "price_variants": [
       {"when": {"processing": "batch"}, "prices": {"input_mtok": 2, "output_mtok": 10}, "constraint": {"start_date": "2027-01-01"}},
       {"when": {"moon": "full"}, "prices": {"input_mtok": 99}}]},
    {"id": "by-the-picture", "match": {"equals": "by-the-picture"}, "prices": {"requests_kcount": 40}}
  ]},
  {"id": "deepseek", "models": [
    {"id": "deepseek-v9", "match": {"and": [{"starts_with": "deepseek-v9"}, {"regex": "^(?!.*x)"}]},
     "prices": [
       {"prices": {"input_mtok": 0.15, "output_mtok": 0.6}},
       {"constraint": {"start_date": "2027-01-01"}, "prices": {"input_mtok": {"base": 0.2, "tiers": [{"start": 128000, "price": 0.4}]}, "output_mtok": 0.6}},
       {"constraint": {"start_time": "01:00:00Z", "end_time": "04:00:00Z"}, "prices": {"input_mtok": 0.3, "output_mtok": 1.2}}]}
  ]}
]"#;

const MODELS_DEV: &str = r#"{
  "anthropic": {"id": "anthropic", "env": ["X"], "name": "Anthropic", "models": {
    "claude-opus-9": {"id": "claude-opus-9", "name": "Claude Opus 9",
      "cost": {"input": 4, "output": 20, "cache_read": 0.2, "cache_write": 5, "context_over_200k": {"input": 8, "output": 30}},
      "limit": {"context": 1000000, "output": 128000}},
    "local": {"id": "local", "limit": {"context": 0, "output": 0}}
  }},
  "moonshotai": {"id": "moonshotai", "models": {
    "kimi-9": {"cost": {"input": 1, "output": 2, "cache_read": 0, "context_over_200k": {"input": 9, "output": 9},
      "tiers": [{"tier": {"type": "context", "size": 272000}, "input": 3, "output": 4}]}}
  }},
  "moonshot": {"id": "moonshot", "models": {"kimi-9": {"cost": {"input": 7, "output": 7}}}},
  "xai": {"id": "xai", "models": {
    "grok-9": {"cost": {"input": 2, "output": 6, "input_audio": 4, "tiers": [{"tier": {"type": "context", "size": 256000}, "input": 4, "output": 12}]}}
  }}
}"#;

const OPENROUTER: &str = r#"{"data": [
  {"id": "anthropic/claude-opus-9", "name": "Claude Opus 9", "context_length": 1000000,
   "pricing": {"prompt": "0.000004", "completion": "0.00002", "request": "0", "image": "0.0048", "web_search": "0.01", "input_cache_read": "0.0000002", "input_cache_write": "0.000005", "internal_reasoning": "0"},
   "top_provider": {"context_length": 1000000, "max_completion_tokens": 128000}},
  {"id": "openrouter/auto", "pricing": {"prompt": "-1", "completion": "-1"}},
  {"id": "some/model:free", "pricing": {"prompt": "0", "completion": "0"}}
]}"#;

const AT: i64 = 1_798_761_600; // 2027-01-01, a Friday

fn table(text: &str, format: Format) -> PriceTable {
    let imported = import(text, None, "2027-01-01").unwrap();
    assert_eq!(imported.format, format, "by its shape");
    // As the state directory holds it.
    let text = imported.text().unwrap();
    PriceTable::builtin()
        .clone()
        .under(PriceList::parse(&text).unwrap())
}

/// Each row: provider, model, circumstance, prompt tokens, second of the day, prices.
fn check(table: &PriceTable, list: &str) {
    for [provider, model, what, prompt, second, expected] in rows(list) {
        let context = Context {
            provider,
            model,
            at_unix: AT.saturating_add(second.parse().unwrap()),
            batch: what == "batch",
            service_tier: Some(what).filter(|what| ["flex", "priority", "fast"].contains(what)),
            speed: (what == "speed").then_some("fast"),
            inference_geo: (what == "us").then_some("us"),
            ..Context::default()
        };
        let rates = table.rates(&context, prompt.parse().unwrap());
        let found = rates.as_ref().map_or_else(|| "none".to_owned(), dollars);
        assert_eq!(found, expected, "{provider} {model} {what} {prompt}");
    }
}

#[test]
fn litellm_is_read_with_its_lengths_lifetimes_and_tiers() {
    let table = table(LITELLM, Format::Litellm);
    check(
        &table,
        "anthropic | claude-opus-9          | -        | 200000 | 0 | 4 20 0.2 5 8
         anthropic | claude-opus-9-20270101 | -        | 200000 | 0 | 4 20 0.2 5 8
         anthropic | claude-opus-9          | -        | 200001 | 0 | 8 20 0.2 5 16
         anthropic | claude-opus-9          | batch    | 1      | 0 | 2 20 0.2 5 8
         anthropic | claude-opus-9          | batch    | 200001 | 0 | 4 20 0.2 5 16
         anthropic | claude-opus-9          | speed    | 1      | 0 | 8 40 0.4 10 16
         anthropic | claude-opus-9          | us       | 1      | 0 | 4.4 22 0.22 5.5 8.8
         openai    | gpt-9                  | priority | 1      | 0 | 20 50 20 20 20
         openai    | gpt-9                  | fast     | 1      | 0 | 20 50 20 20 20
         openai    | gpt-9                  | flex     | 1      | 0 | 5 50 5 5 5
         x-ai      | grok-9                 | -        | 199999 | 0 | 2 6 2 2 2
         x-ai      | grok-9                 | -        | 200000 | 0 | 4 6 4 4 4
         aws       | anthropic.claude-opus-9-v1:0 | -  | 1      | 0 | 4.4 22 4.4 4.4 4.4
         vertex    | claude-opus-9@20270101 | -        | 1      | 0 | 4 20 4 4 4
         azure     | gpt-9                  | -        | 1      | 0 | 10 50 10 10 10
         ollama    | free                   | -        | 1      | 0 | none
         openai    | dall-e-9               | -        | 1      | 0 | none
         openai    | gpt-6.1-sol            | -        | 1      | 0 | 2 10 0.1 2.5 5",
    );
    assert_eq!(
        table
            .listing("anthropic", "claude-opus-9")
            .min_cacheable_tokens,
        Some(512)
    );
    assert_eq!(import(LITELLM, None, "").unwrap().passed_over, 4);
}

#[test]
fn genai_prices_is_read_with_its_dates_hours_and_variants() {
    let table = table(GENAI_PRICES, Format::GenaiPrices);
    check(
        &table,
        "anthropic | claude-opus-9          | -     | 1      | 0     | 4 20 0.2 5 8
         anthropic | claude-opus-9-20270101 | -     | 1      | 0     | 4 20 0.2 5 8
         anthropic | claude-9-opus-thinking | -     | 1      | 0     | 4 20 0.2 5 8
         anthropic | claude-opus-9          | batch | 1      | 0     | 2 10 0.2 5 8
         anthropic | claude-opus-9          | batch | 1      | -1    | 4 20 0.2 5 8
         deepseek  | deepseek-v9            | -     | 1      | -1    | 0.15 0.6 0.15 0.15 0.15
         deepseek  | deepseek-v9            | -     | 1      | 0     | 0.2 0.6 0.2 0.2 0.2
         deepseek  | deepseek-v9            | -     | 128001 | 0     | 0.4 0.6 0.4 0.4 0.4
         deepseek  | deepseek-v9            | -     | 1      | 3600  | 0.3 1.2 0.3 0.3 0.3
         deepseek  | deepseek-v9            | -     | 1      | 14400 | 0.2 0.6 0.2 0.2 0.2
         deepseek  | deepseek-v9            | -     | 1      | 90000 | 0.3 1.2 0.3 0.3 0.3
         deepseek  | deepseek-v9y           | -     | 1      | 0     | none",
    );
    assert_eq!(import(GENAI_PRICES, None, "").unwrap().passed_over, 1);
}

#[test]
fn models_dev_is_read_with_its_lengths() {
    check(
        &table(MODELS_DEV, Format::ModelsDev),
        "anthropic | claude-opus-9 | - | 200000 | 0 | 4 20 0.2 5 5
         anthropic | claude-opus-9 | - | 200001 | 0 | 8 30 0.2 5 5
         x-ai      | grok-9        | - | 256000 | 0 | 2 6 2 2 2
         x-ai      | grok-9        | - | 256001 | 0 | 4 12 4 4 4
         moonshotai | kimi-9       | - | 272000 | 0 | 1 2 1 1 1
         moonshotai | kimi-9       | - | 272001 | 0 | 3 4 3 3 3
         anthropic | local         | - | 1      | 0 | none",
    );
}

#[test]
fn openrouter_is_read_from_its_strings() {
    check(
        &table(OPENROUTER, Format::OpenRouter),
        "openrouter | anthropic/claude-opus-9 | - | 1 | 0 | 4 20 0.2 5 5
         openrouter | openrouter/auto         | - | 1 | 0 | none
         openrouter | some/model:free         | - | 1 | 0 | none
         anthropic  | claude-opus-9           | - | 1 | 0 | none",
    );
}

#[test]
fn a_file_of_weirs_own_form_is_taken_as_it_is() {
    let text = r#"{"version":"x","models":[{"provider":"p","id":"m","match":[{"equals":"m"}],"prices":[{"per_mtok":{"input":1,"output":2}}]}]}"#;
    let table = table(text, Format::Weir);
    check(&table, "p | m | - | 1 | 0 | 1 2 1 1 1");
}

#[test]
fn what_is_no_price_file_is_refused_by_what_it_lacks() {
    for text in [
        "",
        "{}",
        "[]",
        "1",
        r#"{"a":{"b":1}}"#,
        r#"[{"id":"x"}]"#,
        "[1]",
        "{\"data\":1}",
    ] {
        let error = import(text, None, "").unwrap_err().to_string();
        assert!(
            error.contains("expected a price file of litellm"),
            "{text}: {error}"
        );
    }
    let broken = import(r#"{"data":[{"id":1}]}"#, None, "")
        .unwrap_err()
        .to_string();
    assert!(broken.contains("price file of openrouter"), "{broken}");
    let empty = import(r#"{"data":[{"id":"x","pricing":{}}]}"#, None, "").unwrap_err();
    assert!(matches!(empty, ImportError::Empty { .. }));
    let wrong = import(LITELLM, Some(Format::GenaiPrices), "").unwrap_err();
    assert!(matches!(wrong, ImportError::Form { .. }));
}

#[test]
fn only_what_differs_from_the_table_is_kept() {
    let text = r#"{
      "claude-opus-5-5": {"litellm_provider": "anthropic", "input_cost_per_token": 4e-06, "output_cost_per_token": 2e-05},
      "claude-opus-5": {"litellm_provider": "anthropic", "input_cost_per_token": 6e-06, "output_cost_per_token": 2.5e-05},
      "claude-opus-9": {"litellm_provider": "anthropic", "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-05}
    }"#;
    let mut imported = import(text, None, "2027-01-01").unwrap();
    let (new, changed) = imported.keep_news(PriceTable::builtin(), AT, false);
    assert_eq!(new, ["anthropic/claude-opus-9"]);
    assert_eq!(changed.len(), 1);
    let change = &changed[0];
    assert_eq!(
        (&*change.model, &*change.before, &*change.after),
        ("claude-opus-5", "5 25 0.5 6.25", "6 25")
    );
    assert!(
        change.lost.contains(&"batch".to_owned()),
        "{:?}",
        change.lost
    );
    assert!(
        change.lost.contains(&"cache_write_long".to_owned()),
        "{:?}",
        change.lost
    );
    assert_eq!(imported.len(), 2);
    let context = |model| Context {
        provider: "anthropic",
        model,
        at_unix: AT,
        ..Context::default()
    };
    let table = PriceTable::builtin().clone().under(imported.list());
    let version = |model| table.quote(&context(model)).unwrap().version().into_owned();
    assert_eq!(version("claude-opus-9"), "litellm 2027-01-01");
    assert_eq!(version("claude-opus-5"), "litellm 2027-01-01");
    assert_eq!(version("claude-opus-5-5"), "2026-11-22");

    let mut imported = import(text, None, "2027-01-01").unwrap();
    imported.keep_news(PriceTable::builtin(), AT, true);
    assert_eq!(imported.len(), 1, "only what is new");
}

/// What an import of a file over a table tells and keeps: the names of what differs, of one model.
fn news(table: &PriceTable, text: &str) -> (Vec<Change>, PriceTable) {
    let mut imported = import(text, None, "2026-12-01").unwrap();
    let (new, changed) = imported.keep_news(table, BEFORE, false);
    assert!(new.is_empty(), "{new:?}");
    assert_eq!(imported.len(), changed.len());
    let text = imported.text().unwrap();
    (
        changed,
        table.clone().under(PriceList::parse(&text).unwrap()),
    )
}

/// A list with one model.
fn known(rest: &str) -> String {
    format!(
        r#"{{"version":"1","models":[{{"provider":"anthropic","id":"m","match":[{{"equals":"m"}}],{rest}}}]}}"#
    )
}

const KNOWN: &str = r#""max_output_tokens":9,"prices":[
    {"per_mtok":{"input":4,"output":20},"per_1k":{"web_searches":10}},
    {"utc_time_window":["20:00","21:00"],"per_mtok":{"input":5,"output":20}}],
  "variants":[{"when":{"processing":"batch"},"per_mtok":{"input":2,"output":10}}]"#;

/// A month before `AT`.
const BEFORE: i64 = AT - 30 * 86_400;

#[test]
fn a_price_of_later_or_of_some_hours_is_no_less_news_than_one_of_today() {
    let table = PriceTable::parse(&known(KNOWN)).unwrap();
    let genai = |prices: &str| {
        format!(r#"[{{"id":"anthropic","models":[{{"id":"m","prices":{prices}}}]}}]"#)
    };
    let today = r#"{"prices":{"input_mtok":4,"output_mtok":20}}"#;
    let later =
        r#"{"constraint":{"start_date":"2027-01-01"},"prices":{"input_mtok":8,"output_mtok":20}}"#;
    let hours = |input: u64, output: u64| {
        format!(
            r#"{{"constraint":{{"start_time":"20:00:00Z","end_time":"21:00:00Z"}},"prices":{{"input_mtok":{input},"output_mtok":{output}}}}}"#
        )
    };
    // What a file does not tell is no difference, nor are hours of a model without days.
    for same in [format!("[{today}]"), format!("[{today},{}]", hours(5, 20))] {
        assert_eq!(news(&table, &genai(&same)).0, []);
    }
    let (changed, dated) = news(&table, &genai(&format!("[{today},{later}]")));
    assert_eq!(changed[0].differs, ["input from 2027-01-01"]);
    assert_eq!(changed[0].before, changed[0].after);
    check(
        &dated,
        "anthropic | m | - | 1 | -1 | 4 20 4 4 4\n anthropic | m | - | 1 | 0 | 8 20 8 8 8",
    );
    let (changed, _) = news(&table, &genai(&format!("[{today},{}]", hours(5, 21))));
    assert_eq!(changed[0].differs, ["output 20:00-21:00 UTC"]);
    // A later price for all day ends the hours before it, as the form has it.
    let all = format!("[{today},{},{later}]", hours(5, 20));
    let (changed, ended) = news(&table, &genai(&all));
    assert_eq!(
        changed[0].differs,
        [
            "input 20:00-21:00 UTC from 2027-01-01",
            "input from 2027-01-01"
        ]
    );
    check(
        &ended,
        "anthropic | m | - | 1 | -12600 | 5 20 5 5 5\n anthropic | m | - | 1 | 73800 | 8 20 8 8 8",
    );
    // All that it tells is of later: today's price stays.
    let only = r#""prices":[{"effective_from":"2027-01-01","per_mtok":{"input":8,"output":20}}]"#;
    let (changed, later) = news(&table, &known(only));
    assert_eq!(changed[0].differs, ["input from 2027-01-01"]);
    check(
        &later,
        "anthropic | m | - | 1 | -1 | 4 20 4 4 4\n anthropic | m | - | 1 | 0 | 8 20 8 8 8",
    );
}

#[test]
fn every_price_of_a_model_is_compared_and_what_is_not_told_stays() {
    let table = PriceTable::parse(&known(KNOWN)).unwrap();
    let of = |rest: &str| {
        known(&format!(
            r#""prices":[{{"per_mtok":{{"input":4,"output":20}}}}]{rest}"#
        ))
    };
    let priced = |rest: &str| {
        known(&format!(
            r#""prices":[{{"per_mtok":{{"input":4,"output":20{rest}"#
        ))
    };
    for (text, differs) in [
        (of(r#","max_output_tokens":8"#), "max_output_tokens"),
        (of(r#","min_cacheable_tokens":8"#), "min_cacheable_tokens"),
        (of(r#","regional":1.1"#), "regional"),
        (priced(r#","cache_write_long":8}}]"#), "cache_write_long"),
        (priced(r#","input_audio":8}}]"#), "input_audio"),
        (
            priced(r#"},"per_1k":{"web_searches":12}}]"#),
            "web_searches",
        ),
        (
            priced(r#"},"per_1k":{"file_searches":3}}]"#),
            "file_searches",
        ),
        (
            of(r#","variants":[{"when":{"service_tier":"flex"},"per_mtok":{"input":1}}]"#),
            "flex input",
        ),
        (
            of(r#","variants":[{"when":{"speed":"fast"},"per_mtok":{"output":99}}]"#),
            "fast output",
        ),
        (
            of(
                r#","variants":[{"when":{"processing":"batch"},"effective_from":"2027-01-01","per_mtok":{"output":9}}]"#,
            ),
            "batch output from 2027-01-01",
        ),
    ] {
        let (changed, merged) = news(&table, &text);
        assert_eq!(changed.len(), 1, "{text}");
        assert_eq!(changed[0].differs, [differs], "{text}");
        assert!(changed[0].lost.is_empty(), "{text}");
        let [in_batch, in_hours] = match differs {
            "cache_write_long" => ["8", "8"],
            _ => ["2", "5"],
        };
        let expected = [
            format!("anthropic | m | batch | 1 | -1 | 2 10 2 2 {in_batch}"),
            format!("anthropic | m | - | 1 | -12600 | 5 20 5 5 {in_hours}"),
        ];
        check(&merged, &expected.join("\n"));
        let listed = merged.listing("anthropic", "m").max_output_tokens;
        assert_eq!(listed, Some(if differs.starts_with("max") { 8 } else { 9 }));
    }
    for same in [
        of(
            r#","max_output_tokens":9,"variants":[{"when":{"processing":"batch"},"per_mtok":{"input":2}}]"#,
        ),
        of(r#","variants":[{"when":{"service_tier":"flex"},"per_mtok":{"input":4}}]"#),
        priced(r#"},"per_1k":{"web_searches":10,"requests":0}}]"#),
    ] {
        assert_eq!(news(&table, &same).0, [], "{same}");
    }
    let (_, batch) = news(
        &table,
        &of(r#","variants":[{"when":{"processing":"batch"},"per_mtok":{"input":3,"output":10}}]"#),
    );
    check(&batch, "anthropic | m | batch | 1 | 0 | 3 10 3 3 3");
}
