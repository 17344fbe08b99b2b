//! What requests are recognised as.

use super::Endpoint::{Call, Free, Later, Other, Socket};
use super::Later::{File, Generation, MessageBatch, Response};
use super::*;

#[test]
fn a_request_is_recognised_by_method_and_the_end_of_its_path() {
    for (provider, cases) in [
        (Provider::Anthropic, ANTHROPIC),
        (Provider::OpenAi, OPENAI),
        (Provider::Configured, CONFIGURED),
        (Provider::Azure, AZURE),
        (Provider::Bedrock, BEDROCK),
        (Provider::Google, GOOGLE),
        (Provider::Vertex, VERTEX),
        (Provider::Cohere, COHERE),
        (Provider::Perplexity, PERPLEXITY),
        (Provider::Gateway, GATEWAY),
        (Provider::OpenRouter, OPENROUTER),
    ] {
        for (request, expected) in cases {
            let (method, path) = request.split_once(' ').unwrap();
            assert_eq!(
                recognize(provider, method, path),
                *expected,
                "{provider:?} {request}"
            );
        }
    }
}

const ANTHROPIC: &[(&str, Endpoint)] = &[
    ("POST /v1/messages", Call(Api::Messages)),
    ("POST /v1/messages?beta=true", Call(Api::Messages)),
    ("POST //v1/messages/", Call(Api::Messages)),
    ("POST /v1/%6dess%61ges", Call(Api::Messages)),
    ("POST %2Fv1%2fmessages", Call(Api::Messages)),
    ("POST /v1/x/../messages", Call(Api::Messages)),
    ("POST /v1/messages/.", Call(Api::Messages)),
    ("POST /v1/./messages", Call(Api::Messages)),
    ("POST /v1/messages/x/..", Call(Api::Messages)),
    ("POST /v1/x/%2e%2E/messages/%2e", Call(Api::Messages)),
    ("POST /v1/x%2f..%2fmessages", Call(Api::Messages)),
    ("POST /../v1/messages", Call(Api::Messages)),
    ("POST /v1//../messages", Call(Api::Messages)),
    ("POST /v1/x//../messages", Call(Api::Messages)),
    ("POST /v1/messages/..", Other("other")),
    ("POST /v1/messages/../files", Other("files")),
    ("POST /v1/messages/...", Other("other")),
    ("POST /v1/messages%", Other("other")),
    ("POST /v1/messages%+1%zz%c3", Other("other")),
    ("POST /v1/chat/completions", Call(Api::ChatCompletions)),
    ("GET /v1/messages", Free("other")),
    (
        "POST /v1/messages/count_tokens?beta=true",
        Free("count_tokens"),
    ),
    ("POST /v1/messages/batches", Other("batches")),
    (
        "GET /v1/messages/batches/msgbatch_1/results",
        Later(MessageBatch),
    ),
    ("GET /v1/messages/batches/msgbatch_1", Free("batches")),
    ("GET /v1/models", Free("models")),
    ("GET /v1/models/claude-opus-5", Free("models")),
    ("HEAD /api/hello", Free("hello")),
    ("POST /api/event_logging/batch", Free("telemetry")),
    ("POST /api/claude_code/metrics", Free("telemetry")),
    ("POST /api/anything_else", Other("other")),
    ("POST /api/claude_code/v1/messages", Call(Api::Messages)),
    ("GET /v1/organizations/me", Free("organizations")),
];

const OPENAI: &[(&str, Endpoint)] = &[
    ("POST /v1/chat/completions", Call(Api::ChatCompletions)),
    ("POST /v1/responses", Call(Api::Responses)),
    ("POST /backend-api/codex/responses", Call(Api::Responses)),
    ("GET /v1/responses", Socket(Api::Responses)),
    ("GET /v1/responses/resp_1", Later(Response)),
    (
        "GET /v1/responses/resp_1?stream=true&starting_after=7",
        Later(Response),
    ),
    ("POST /v1/responses/resp_1/cancel", Later(Response)),
    ("DELETE /v1/responses/resp_1", Free("responses")),
    ("GET /v1/responses/resp_1/input_items", Free("responses")),
    ("GET /v1/files/file-1/content", Later(File)),
    ("GET /v1/files/file-1", Free("files")),
    ("GET /api/v1/generation?id=gen-1", Free("generation")),
    ("POST /v1/responses/input_tokens", Free("input_tokens")),
    ("POST /v1/responses/compact", Call(Api::Responses)),
    ("POST /v1/threads/thread_1/messages", Other("threads")),
    ("POST /v1/messages", Other("other")),
    ("POST /v1/embeddings", Call(Api::Embeddings)),
    ("POST /v1/completions", Call(Api::Completions)),
    ("POST /v1/images/generations", Call(Api::Images)),
    ("POST /v1/images/edits", Call(Api::Images)),
    ("POST /v1/audio/transcriptions", Call(Api::Audio)),
    ("POST /v1/audio/speech", Call(Api::Audio)),
    ("GET /v1/realtime?model=gpt-realtime", Socket(Api::Realtime)),
    ("POST /v1/realtime/sessions", Other("sessions")),
    ("POST /v1/realtime/client_secrets", Other("realtime")),
    ("POST /v1/files", Other("files")),
    ("GET /v1/chat/completions/chatcmpl-1", Free("completions")),
    ("POST /v1/batches", Other("batches")),
    ("POST /v1/moderations", Free("moderations")),
    ("GET /v1/models?x=/v1/responses", Free("models")),
    ("POST ", Other("other")),
    ("POST ?", Other("other")),
];

const OPENROUTER: &[(&str, Endpoint)] = &[
    ("GET /api/v1/generation?id=gen-1", Later(Generation)),
    ("POST /api/v1/generation", Other("generation")),
    ("GET /api/v1/responses/resp_1", Later(Response)),
];

#[test]
fn results_belong_to_a_batch_or_a_file() {
    for (path, holder) in [
        (
            "/v1/messages/batches/msgbatch_1/results?x=/y/z",
            "msgbatch_1",
        ),
        ("/v1/files/file-1/content/", "file-1"),
        ("/content", ""),
        ("", ""),
    ] {
        assert_eq!(holder_of_results(path), holder, "{path}");
    }
}

const CONFIGURED: &[(&str, Endpoint)] = &[
    ("POST /api/v1/messages", Call(Api::Messages)),
    ("POST /anthropic/v1/messages", Call(Api::Messages)),
    ("POST /chat/completions", Call(Api::ChatCompletions)),
    ("POST /openai/v1/responses", Call(Api::Responses)),
    (
        "POST /anthropic/v1/messages/count_tokens",
        Free("count_tokens"),
    ),
];

const AZURE: &[(&str, Endpoint)] = &[
    (
        "POST /openai/deployments/d/chat/completions?api-version=1",
        Call(Api::ChatCompletions),
    ),
    ("POST /openai/responses?api-version=1", Call(Api::Responses)),
    (
        "POST /openai/deployments/d/embeddings?api-version=1",
        Call(Api::Embeddings),
    ),
    ("POST /anthropic/v1/messages", Call(Api::Messages)),
    (
        "POST /models/chat/completions?api-version=1",
        Call(Api::ChatCompletions),
    ),
];

const BEDROCK: &[(&str, Endpoint)] = &[
    (
        "POST /model/us.anthropic.claude-opus-5-v1%3A0/invoke",
        Call(Api::InvokeModel),
    ),
    (
        "POST /model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x/invoke-with-response-stream",
        Call(Api::InvokeModel),
    ),
    ("POST /model/x/converse", Call(Api::Converse)),
    ("POST /model/x/converse-stream", Call(Api::Converse)),
    ("POST /model/x/count-tokens", Free("count_tokens")),
    (
        "POST /model/x/invoke-with-bidirectional-stream",
        Other("invoke"),
    ),
    ("POST /async-invoke", Other("invoke")),
    ("POST /guardrail/g/version/1/apply", Other("guardrail")),
    (
        "POST /openai/v1/chat/completions",
        Call(Api::ChatCompletions),
    ),
    ("POST /anthropic/v1/messages", Call(Api::Messages)),
];

const GOOGLE: &[(&str, Endpoint)] = &[
    (
        "POST /v1beta/models/gemini:generateContent",
        Call(Api::GenerateContent),
    ),
    (
        "POST /v1beta/models/gemini:countTokens",
        Free("count_tokens"),
    ),
    (
        "POST /v1beta/openai/chat/completions",
        Call(Api::ChatCompletions),
    ),
    (
        "POST /v1beta/models/gemini:streamGenerateContent?alt=sse&key=k",
        Call(Api::GenerateContent),
    ),
    (
        "POST /v1beta/models/gemini-embedding:batchEmbedContents",
        Call(Api::EmbedContent),
    ),
    (
        "POST /v1beta/models/gemini:batchGenerateContent",
        Other("batches"),
    ),
    ("POST /v1beta/cachedContents", Call(Api::CachedContents)),
    ("GET /v1beta/cachedContents/c", Free("cached_contents")),
    ("POST /v1beta/interactions", Call(Api::Interactions)),
    ("GET /v1beta/interactions/i", Free("interactions")),
    ("GET /v1beta/models", Free("models")),
    (
        "POST /v1internal:streamGenerateContent?alt=sse",
        Call(Api::GenerateContent),
    ),
    ("POST /v1internal:loadCodeAssist", Other("other")),
];

const VERTEX: &[(&str, Endpoint)] = &[
    (
        "POST /v1/projects/p/locations/us/publishers/anthropic/models/claude-opus-5:rawPredict",
        Call(Api::Messages),
    ),
    (
        "POST /v1/projects/p/locations/us/publishers/anthropic/models/claude-opus-5:streamRawPredict",
        Call(Api::Messages),
    ),
    (
        "POST /v1/projects/p/locations/us/publishers/anthropic/models/count-tokens:rawPredict",
        Free("count_tokens"),
    ),
    (
        "POST /v1/projects/p/locations/us/publishers/mistralai/models/m:rawPredict",
        Call(Api::ChatCompletions),
    ),
    (
        "POST /v1/projects/p/locations/us/publishers/ai21/models/m:rawPredict",
        Other("raw_predict"),
    ),
    (
        "POST /v1/projects/p/locations/us/publishers/google/models/m:predict",
        Other("predict"),
    ),
    (
        "POST /v1/projects/p/locations/us/publishers/google/models/gemini:generateContent",
        Call(Api::GenerateContent),
    ),
    (
        "POST /v1/projects/p/locations/us/endpoints/openapi/chat/completions",
        Call(Api::ChatCompletions),
    ),
    (
        "POST /v1/projects/p/locations/global/workspaces/w/invoke/v1/messages",
        Call(Api::Messages),
    ),
];

const COHERE: &[(&str, Endpoint)] = &[
    ("POST /v2/chat", Call(Api::CohereChat)),
    ("POST /v1/chat", Call(Api::CohereChat)),
    ("POST /v2/embed", Call(Api::Embeddings)),
    ("POST /v2/rerank", Other("rerank")),
    ("POST /v1/tokenize", Free("tokenize")),
    (
        "POST /compatibility/v1/chat/completions",
        Call(Api::ChatCompletions),
    ),
];

const PERPLEXITY: &[(&str, Endpoint)] = &[
    ("POST /chat/completions", Call(Api::ChatCompletions)),
    ("POST /v1/sonar", Call(Api::ChatCompletions)),
    ("POST /v1/responses", Call(Api::Responses)),
    ("POST /search", Other("search")),
];

const GATEWAY: &[(&str, Endpoint)] = &[
    (
        "POST /v1/acct/gw/openai/chat/completions",
        Call(Api::ChatCompletions),
    ),
    (
        "POST /v1/acct/gw/anthropic/v1/messages",
        Call(Api::Messages),
    ),
    (
        "POST /v1/acct/gw/google-ai-studio/v1/models/gemini:generateContent",
        Call(Api::GenerateContent),
    ),
    (
        "POST /v1/acct/gw/aws-bedrock/bedrock-runtime/us-east-1/model/x/converse",
        Call(Api::Converse),
    ),
    ("POST /v1/acct/gw/cohere/v2/chat", Call(Api::CohereChat)),
];

#[test]
fn a_path_says_the_model_and_the_stream() {
    for (api, path, model, stream) in SAID {
        let said = said_by_path(*api, path);
        let expected = SaidByPath {
            model: model.map(str::to_owned),
            stream: *stream,
        };
        assert_eq!(said, expected, "{path}");
    }
}

/// A path of an API, and the model and the stream that it tells.
type Said = (Api, &'static str, Option<&'static str>, bool);

const SAID: &[Said] = &[
    (Api::Messages, "/v1/messages?beta=true", None, false),
    (
        Api::Messages,
        "/v1/projects/p/locations/us/publishers/anthropic/models/claude-opus-5@20261014:rawPredict",
        Some("claude-opus-5@20261014"),
        false,
    ),
    (
        Api::Messages,
        "/v1/projects/p/locations/us/publishers/anthropic/models/claude-opus-5:streamRawPredict",
        Some("claude-opus-5"),
        true,
    ),
    (
        Api::InvokeModel,
        "/model/us.anthropic.claude-opus-5-v1%3A0/invoke",
        Some("us.anthropic.claude-opus-5-v1:0"),
        false,
    ),
    (
        Api::InvokeModel,
        "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.anthropic.x/invoke-with-response-stream",
        Some("arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.x"),
        true,
    ),
    (
        Api::Converse,
        "/model/amazon.nova-pro-v1:0/converse",
        Some("amazon.nova-pro-v1:0"),
        false,
    ),
    (
        Api::Converse,
        "/bedrock/model/x/converse-stream",
        Some("x"),
        true,
    ),
    (
        Api::GenerateContent,
        "/v1beta/models/gemini-4-argon:streamGenerateContent?alt=sse&key=secret",
        Some("gemini-4-argon"),
        true,
    ),
    (
        Api::GenerateContent,
        "/v1internal:generateContent",
        None,
        false,
    ),
    (
        Api::ChatCompletions,
        "/openai/deployments/my%20gpt/chat/completions?api-version=1",
        Some("my gpt"),
        false,
    ),
    (Api::ChatCompletions, "/v1/chat/completions", None, false),
    (Api::CachedContents, "/v1beta/cachedContents", None, false),
];
