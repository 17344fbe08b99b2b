//! Who speaks what, by an example of a request and of a model; and what the page says around it.

use weir_core::api::Api;
use weir_core::catalog::Provider;

/// One row of the page.
pub(crate) struct Spoken {
    pub(crate) provider: Provider,
    pub(crate) api: Api,
    /// Method and path.
    pub(crate) request: &'static str,
    /// A model that is sold there; empty where a plan or nothing is paid.
    pub(crate) model: &'static str,
}

const fn row(provider: Provider, api: Api, request: &'static str, model: &'static str) -> Spoken {
    Spoken {
        provider,
        api,
        request,
        model,
    }
}

const CHAT: &str = "POST /v1/chat/completions";
const MESSAGES: &str = "POST /v1/messages";
const RESPONSES: &str = "POST /v1/responses";
const EMBEDDINGS: &str = "POST /v1/embeddings";

/// Every row, in the order of the page.
pub(crate) const SPOKEN: &[Spoken] = &[
    row(
        Provider::Anthropic,
        Api::Messages,
        MESSAGES,
        "claude-opus-5-5",
    ),
    row(Provider::OpenAi, Api::ChatCompletions, CHAT, "gpt-6-sol"),
    row(Provider::OpenAi, Api::Responses, RESPONSES, "gpt-6-sol"),
    row(
        Provider::OpenAi,
        Api::Responses,
        "POST /v1/responses/compact",
        "gpt-6-sol",
    ),
    row(
        Provider::OpenAi,
        Api::Responses,
        "GET /v1/responses",
        "gpt-6-sol",
    ),
    row(
        Provider::OpenAi,
        Api::Responses,
        "POST /backend-api/codex/responses",
        "gpt-6-sol",
    ),
    row(
        Provider::OpenAi,
        Api::Completions,
        "POST /v1/completions",
        "gpt-3.5-turbo-instruct",
    ),
    row(
        Provider::OpenAi,
        Api::Embeddings,
        EMBEDDINGS,
        "text-embedding-3-small",
    ),
    row(
        Provider::OpenAi,
        Api::Images,
        "POST /v1/images/generations",
        "gpt-image-2",
    ),
    row(
        Provider::OpenAi,
        Api::Audio,
        "POST /v1/audio/transcriptions",
        "gpt-4o-transcribe",
    ),
    row(
        Provider::OpenAi,
        Api::Realtime,
        "GET /v1/realtime",
        "gpt-realtime",
    ),
    row(
        Provider::Google,
        Api::GenerateContent,
        "POST /v1beta/models/MODEL:streamGenerateContent",
        "gemini-4-argon",
    ),
    row(
        Provider::Google,
        Api::EmbedContent,
        "POST /v1beta/models/MODEL:embedContent",
        "gemini-embedding-001",
    ),
    row(
        Provider::Google,
        Api::CachedContents,
        "POST /v1beta/cachedContents",
        "gemini-4-argon",
    ),
    row(
        Provider::Google,
        Api::Interactions,
        "POST /v1beta/interactions",
        "gemini-4-argon",
    ),
    row(
        Provider::Google,
        Api::ChatCompletions,
        "POST /v1beta/openai/chat/completions",
        "gemini-4-argon",
    ),
    row(
        Provider::Vertex,
        Api::GenerateContent,
        "POST /v1/projects/P/locations/L/publishers/google/models/MODEL:generateContent",
        "gemini-4-argon",
    ),
    row(
        Provider::Vertex,
        Api::Messages,
        "POST /v1/projects/P/locations/L/publishers/anthropic/models/MODEL:streamRawPredict",
        "claude-opus-5-5",
    ),
    row(
        Provider::Vertex,
        Api::Messages,
        "POST /v1/projects/P/locations/L/workspaces/W/invoke/v1/messages",
        "claude-opus-5-5",
    ),
    row(
        Provider::Vertex,
        Api::ChatCompletions,
        "POST /v1/projects/P/locations/L/endpoints/openapi/chat/completions",
        "gemini-4-argon",
    ),
    row(
        Provider::Bedrock,
        Api::InvokeModel,
        "POST /model/MODEL/invoke-with-response-stream",
        "us.anthropic.claude-opus-5-5-v1:0",
    ),
    row(
        Provider::Bedrock,
        Api::Converse,
        "POST /model/MODEL/converse-stream",
        "us.anthropic.claude-opus-5-5-v1:0",
    ),
    row(
        Provider::Bedrock,
        Api::Messages,
        "POST /anthropic/v1/messages",
        "anthropic.claude-opus-5-5",
    ),
    row(
        Provider::Bedrock,
        Api::ChatCompletions,
        "POST /openai/v1/chat/completions",
        "openai.gpt-oss-120b-1:0",
    ),
    row(
        Provider::Bedrock,
        Api::Responses,
        "POST /openai/v1/responses",
        "openai.gpt-oss-120b-1:0",
    ),
    row(
        Provider::Azure,
        Api::ChatCompletions,
        "POST /openai/deployments/NAME/chat/completions",
        "gpt-5.5",
    ),
    row(
        Provider::Azure,
        Api::Responses,
        "POST /openai/v1/responses",
        "gpt-5.5",
    ),
    row(
        Provider::Azure,
        Api::Realtime,
        "GET /openai/realtime",
        "gpt-realtime",
    ),
    row(
        Provider::Azure,
        Api::Embeddings,
        "POST /openai/deployments/NAME/embeddings",
        "text-embedding-3-small",
    ),
    row(
        Provider::Azure,
        Api::Messages,
        "POST /anthropic/v1/messages",
        "claude-opus-5-5",
    ),
    row(
        Provider::OpenRouter,
        Api::ChatCompletions,
        "POST /api/v1/chat/completions",
        "anthropic/claude-opus-5.5",
    ),
    row(
        Provider::OpenRouter,
        Api::Responses,
        "POST /api/v1/responses",
        "openai/gpt-6-sol",
    ),
    row(
        Provider::OpenRouter,
        Api::Messages,
        "POST /api/v1/messages",
        "anthropic/claude-opus-5.5",
    ),
    row(
        Provider::DeepSeek,
        Api::ChatCompletions,
        "POST /chat/completions",
        "deepseek-v4-pro",
    ),
    row(
        Provider::DeepSeek,
        Api::Completions,
        "POST /beta/completions",
        "deepseek-v4-pro",
    ),
    row(
        Provider::DeepSeek,
        Api::Messages,
        "POST /anthropic/v1/messages",
        "deepseek-v4-pro",
    ),
    row(Provider::Moonshot, Api::ChatCompletions, CHAT, "kimi-k3"),
    row(Provider::Moonshot, Api::Responses, RESPONSES, "kimi-k3"),
    row(
        Provider::Moonshot,
        Api::Messages,
        "POST /anthropic/v1/messages",
        "kimi-k3",
    ),
    row(
        Provider::MiniMax,
        Api::ChatCompletions,
        "POST /v1/text/chatcompletion_v2",
        "MiniMax-M3",
    ),
    row(
        Provider::MiniMax,
        Api::Messages,
        "POST /anthropic/v1/messages",
        "MiniMax-M3",
    ),
    row(
        Provider::Zhipu,
        Api::ChatCompletions,
        "POST /api/paas/v4/chat/completions",
        "glm-5.3",
    ),
    row(
        Provider::Zhipu,
        Api::Messages,
        "POST /api/anthropic/v1/messages",
        "glm-5.3",
    ),
    row(
        Provider::Mistral,
        Api::ChatCompletions,
        CHAT,
        "mistral-large-4",
    ),
    row(
        Provider::Mistral,
        Api::Completions,
        "POST /v1/fim/completions",
        "codestral-2508",
    ),
    row(
        Provider::Mistral,
        Api::Embeddings,
        EMBEDDINGS,
        "mistral-embed",
    ),
    row(Provider::Xai, Api::ChatCompletions, CHAT, "grok-4.7"),
    row(Provider::Xai, Api::Responses, RESPONSES, "grok-4.7"),
    row(Provider::Xai, Api::Messages, MESSAGES, "grok-4.7"),
    row(
        Provider::Groq,
        Api::ChatCompletions,
        "POST /openai/v1/chat/completions",
        "openai/gpt-oss-120b",
    ),
    row(
        Provider::Groq,
        Api::Responses,
        "POST /openai/v1/responses",
        "openai/gpt-oss-120b",
    ),
    row(
        Provider::Together,
        Api::ChatCompletions,
        CHAT,
        "openai/gpt-oss-120b",
    ),
    row(
        Provider::Fireworks,
        Api::ChatCompletions,
        "POST /inference/v1/chat/completions",
        "accounts/fireworks/models/gpt-oss-120b",
    ),
    row(
        Provider::Fireworks,
        Api::Messages,
        "POST /inference/v1/messages",
        "accounts/fireworks/models/gpt-oss-120b",
    ),
    row(
        Provider::Cohere,
        Api::CohereChat,
        "POST /v2/chat",
        "command-a-03-2025",
    ),
    row(Provider::Cohere, Api::Embeddings, "POST /v2/embed", ""),
    row(
        Provider::Cohere,
        Api::ChatCompletions,
        "POST /compatibility/v1/chat/completions",
        "command-a-03-2025",
    ),
    row(
        Provider::Perplexity,
        Api::ChatCompletions,
        "POST /chat/completions",
        "sonar-pro",
    ),
    row(Provider::Perplexity, Api::Responses, RESPONSES, ""),
    row(
        Provider::Cerebras,
        Api::ChatCompletions,
        CHAT,
        "gpt-oss-120b",
    ),
    row(
        Provider::Copilot,
        Api::ChatCompletions,
        "POST /chat/completions",
        "",
    ),
    row(Provider::Copilot, Api::Responses, "POST /responses", ""),
    row(Provider::Copilot, Api::Messages, MESSAGES, ""),
    row(Provider::Compatible, Api::ChatCompletions, CHAT, ""),
    row(Provider::Compatible, Api::Embeddings, EMBEDDINGS, ""),
    row(
        Provider::Gateway,
        Api::ChatCompletions,
        "POST /v1/ACCOUNT/GATEWAY/openai/chat/completions",
        "gpt-6-sol",
    ),
    row(
        Provider::Gateway,
        Api::Messages,
        "POST /v1/ACCOUNT/GATEWAY/anthropic/v1/messages",
        "claude-opus-5-5",
    ),
    row(
        Provider::Gateway,
        Api::GenerateContent,
        "POST /v1/ACCOUNT/GATEWAY/google-ai-studio/v1/models/MODEL:generateContent",
        "gemini-4-argon",
    ),
    row(
        Provider::Configured,
        Api::ChatCompletions,
        CHAT,
        "gpt-6-sol",
    ),
    row(Provider::Configured, Api::Responses, RESPONSES, "gpt-6-sol"),
    row(
        Provider::Configured,
        Api::Messages,
        MESSAGES,
        "claude-opus-5-5",
    ),
];

/// Whose streams of Chat Completions tell usage without being asked.
pub(crate) const TELL_UNASKED: &[Provider] = &[
    Provider::OpenRouter,
    Provider::Moonshot,
    Provider::Zhipu,
    Provider::Mistral,
    Provider::Xai,
    Provider::Groq,
    Provider::Together,
    Provider::Fireworks,
    Provider::Perplexity,
];

/// The folders of golden results, by API.
pub(crate) const FOLDERS: &[(&str, Api)] = &[
    ("anthropic", Api::Messages),
    ("vertex-anthropic", Api::Messages),
    ("openai-chat", Api::ChatCompletions),
    ("compatible", Api::ChatCompletions),
    ("openai-responses", Api::Responses),
    ("completions", Api::Completions),
    ("embeddings", Api::Embeddings),
    ("images", Api::Images),
    ("audio", Api::Audio),
    ("realtime", Api::Realtime),
    ("gemini", Api::GenerateContent),
    ("gemini-embeddings", Api::EmbedContent),
    ("gemini-caches", Api::CachedContents),
    ("gemini-interactions", Api::Interactions),
    ("bedrock-invoke", Api::InvokeModel),
    ("bedrock-converse", Api::Converse),
    ("cohere", Api::CohereChat),
];

/// What stands before the rows.
pub(crate) const HEAD: &str = "\
# What is covered

Made from the catalogue, the price table and the golden fixtures by `tests/coverage.rs`, which fails when this page is stale
(`WEIR_UPDATE=1 cargo test -p weir-core --test coverage` writes it). Of one provider, an example of each API:

- **parsed**: the request is recognised and its body read; a *frames* row is a WebSocket, whose calls are read frame by frame.
- **usage**, **streamed**: golden results show the usage of a whole answer, and of a stream however it is cut.
- **priced**: the built-in table has such models. A plan with a flat price, or a host with too many makers, has none (–).
- **cache facts**: the shortest prompt that is cached, in tokens, and whether reads and writes have prices of their own.
- **editable**: Weir may change the request, for the prompt cache or to ask for usage. Signed requests never are.

| provider | dialect | request | parsed | usage | streamed | priced | cache facts | editable |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

/// What stands behind them.
pub(crate) const FOOT: &str = "
Hosts are in `src/catalog/hosts.txt`: regions one by one, private endpoints where their names are the provider's own. What is
missing there goes into `[intercept] hosts`, for a private endpoint with its provider: `\"llm.corp.example=azure\"`. Gateways of
your own (LiteLLM, Portkey, Helicone, TrueFoundry, Cloudflare, …) are configured the same way; the dialect is told by the path.

## What is not covered

Everything else on these hosts passes as it came, and is recorded by the class of its path. In particular:

- **Not read at all**: Gemini Live and Bedrock's bidirectional streams, `:predict` of Vertex AI, rerankers, OCR, Mistral's
  conversations, searches, videos, live sessions priced by the second, threads and assistants, managed agents, fine-tuning;
  xAI's gRPC; Cursor, Kiro and Amazon Q, whose hosts are not in the catalogue.
- **Batches**: what they used is told by their results, up to a day later, and counts when those are fetched: a line each, at the
  batch rate, once however often (`GET …/messages/batches/{id}/results`, `GET …/files/{id}/content` of OpenAI, Groq, Mistral and
  others). Prices are those of the day when they are fetched: results tell no time. Azure's count at the standard rate, since the
  built-in list has no other of it (a `[[price]]` of yours with the tier `batch` may). Nothing is reserved when one is made. Those of Gemini and
  Bedrock pass and are recorded, unpriced.
- **Answers in the background** (`background: true`): the record of the call is open, with what was reserved for it, until
  `GET /v1/responses/{id}` tells its usage, also as a stream; after a day, or when Weir ends, it counts as reserved. One that
  is cancelled tells no usage: it counts what its stream had shown by then, without one what was reserved for it.
- **Streams of OpenRouter that were cut** count as estimated. `GET /api/v1/generation` adds what they cost beyond that; an estimate
  that was too high stays.
- **Billed by something else than tokens**: recordings by the second, pictures by the piece, storage of Gemini's explicit
  caches by the hour, Realtime's transcription of what was said to it, which is a model of its own. Calls that are paid by
  capacity (provisioned throughput) are priced by the token all the same.
- **Streams of Chat Completions that tell usage only if asked**, at hosts where asking could break the call (*if the program
  asks*): their input is estimated, their output counted by the pieces that came.
- **Models behind a name of your own**: application inference profiles of Bedrock hide the model, deployments of Azure until
  the answer tells it.
- **Beyond the bounds**: request bodies and single answers, events or messages of more than some megabytes pass unread; each is
  counted.
- **Not confirmed by the provider's own reference**: the names of Bedrock's cache counts in the head of an answer, the
  count of Perplexity's searches. Being wrong there costs a count, not a call.
";
