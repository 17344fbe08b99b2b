//! What the path of a call says of it, where the body does not: the model, and whether the answer
//! is a stream (Gemini, Vertex AI, Bedrock, Azure).

use super::{Api, decoded};

/// What a path says of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SaidByPath {
    /// The model. At Azure the name of a deployment, which its owner chose: what answers is told
    /// by the answer. At Bedrock also an inference profile or an ARN.
    pub model: Option<String>,
    /// Whether the path asks for a stream. Where it does not, the body may still.
    pub stream: bool,
}

/// Reads what the path of a call of `api` says.
///
/// Escapes are undone once: an ARN of Bedrock comes with its `/` and `:` escaped.
#[must_use]
pub fn said_by_path(api: Api, path_and_query: &str) -> SaidByPath {
    let path = path_and_query.split(['?', '#']).next().unwrap_or_default();
    let path = decoded(path);
    let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let last = segments.last().copied().unwrap_or_default();
    let between = |start: &str, end: usize| {
        let start = segments.iter().position(|segment| *segment == start)?;
        let model = segments.get(start.checked_add(1)?..end)?.join("/");
        Some(model).filter(|model| !model.is_empty())
    };
    match api {
        Api::InvokeModel | Api::Converse => SaidByPath {
            model: between("model", segments.len().saturating_sub(1)),
            stream: last.ends_with("-stream"),
        },
        Api::GenerateContent | Api::EmbedContent | Api::Messages | Api::ChatCompletions
            if last.contains(':') =>
        {
            let (model, verb) = last.rsplit_once(':').unwrap_or_default();
            SaidByPath {
                // Gemini CLI posts to `v1internal:generateContent` and names the model inside.
                model: (segments.len() > 1).then(|| model.to_owned()),
                stream: verb.starts_with("stream"),
            }
        }
        Api::ChatCompletions
        | Api::Responses
        | Api::Completions
        | Api::Embeddings
        | Api::Images
        | Api::Audio => SaidByPath {
            model: between_deployments(&segments),
            stream: false,
        },
        Api::Messages
        | Api::Realtime
        | Api::GenerateContent
        | Api::EmbedContent
        | Api::CachedContents
        | Api::Interactions
        | Api::CohereChat => SaidByPath::default(),
    }
}

/// The deployment in a path of Azure: `/openai/deployments/{deployment}/…`.
fn between_deployments(segments: &[&str]) -> Option<String> {
    let start = segments.iter().position(|part| *part == "deployments")?;
    segments
        .get(start.checked_add(1)?)
        .map(|name| (*name).to_owned())
}

/// The API of a path that ends in `{model}:{verb}`; or, as an error, the class of one that is free.
pub(super) fn gemini_verb(
    path: &[&str],
    model: &str,
    verb: &str,
) -> Result<Option<Api>, &'static str> {
    let published_by = |maker: &str| path.windows(2).any(|pair| *pair == ["publishers", maker]);
    Ok(Some(match verb {
        "generateContent" | "streamGenerateContent" => Api::GenerateContent,
        "embedContent" | "batchEmbedContents" => Api::EmbedContent,
        "countTokens" | "computeTokens" => return Err("count_tokens"),
        "rawPredict" | "streamRawPredict" if model == "count-tokens" => {
            return Err("count_tokens");
        }
        "rawPredict" | "streamRawPredict" if published_by("anthropic") => Api::Messages,
        "rawPredict" | "streamRawPredict" if published_by("mistralai") => Api::ChatCompletions,
        _ => return Ok(None),
    }))
}
