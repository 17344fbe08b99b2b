//! What requests are recognised as.

use super::Endpoint::{Call, Free, Other};
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
    ("POST /v1/messages%", Other("other")),
    ("POST /v1/messages%+1%zz%c3", Other("other")),
    ("POST /v1/chat/completions", Call(Api::ChatCompletions)),
    ("GET /v1/messages", Other("other")),
    (
        "POST /v1/messages/count_tokens?beta=true",
        Free("count_tokens"),
    ),
    ("POST /v1/messages/batches", Other("batches")),
    (
        "GET /v1/messages/batches/msgbatch_1/results",
        Other("batches"),
    ),
    ("GET /v1/models", Free("models")),
    ("GET /v1/models/claude-opus-5", Free("models")),
    ("HEAD /api/hello", Free("hello")),
    ("GET /v1/organizations/me", Other("organizations")),
];

const OPENAI: &[(&str, Endpoint)] = &[
    ("POST /v1/chat/completions", Call(Api::ChatCompletions)),
    ("POST /v1/responses", Call(Api::Responses)),
    ("POST /backend-api/codex/responses", Call(Api::Responses)),
    ("GET /v1/responses", Other("responses_socket")),
    ("GET /v1/responses/resp_1", Other("responses")),
    ("POST /v1/responses/input_tokens", Free("input_tokens")),
    ("POST /v1/responses/compact", Other("compact")),
    ("POST /v1/threads/thread_1/messages", Other("other")),
    ("POST /v1/messages", Other("other")),
    ("POST /v1/embeddings", Other("embeddings")),
    ("POST /v1/completions", Other("completions")),
    ("GET /v1/chat/completions/chatcmpl-1", Other("completions")),
    ("POST /v1/batches", Other("batches")),
    ("POST /v1/moderations", Free("moderations")),
    ("GET /v1/models?x=/v1/responses", Free("models")),
    ("POST ", Other("other")),
    ("POST ?", Other("other")),
];

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
        Other("embeddings"),
    ),
];

const BEDROCK: &[(&str, Endpoint)] = &[
    (
        "POST /model/us.anthropic.claude-opus-5-v1%3A0/invoke",
        Other("invoke"),
    ),
    ("POST /model/x/converse-stream", Other("converse")),
];

const GOOGLE: &[(&str, Endpoint)] = &[
    (
        "POST /v1beta/models/gemini:generateContent",
        Other("generate_content"),
    ),
    (
        "POST /v1beta/models/gemini:countTokens",
        Other("count_tokens"),
    ),
    (
        "POST /v1beta/openai/chat/completions",
        Call(Api::ChatCompletions),
    ),
];
