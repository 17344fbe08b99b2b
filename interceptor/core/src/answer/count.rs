//! Counts of an answer: how many tokens or pieces, or something that can be no such number.

use crate::json::{self, Kind};

use super::Object;

/// Stands in the place of a count and can be none: a text, a fraction, a negative number, one beyond
/// [`COUNT_MAX`]. No usage is read from what has it: what else it says is not to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotACount;

/// The most tokens or pieces that an answer may tell of one kind. Ten times the longest context
/// window that was ever offered (10 million tokens), so that no pass of a model comes near it; and
/// few enough that a number made of something else (bytes, a time, a negative number wrapped
/// around) does not use up every cap.
pub(super) const COUNT_MAX: u64 = 100_000_000;

impl Object<'_> {
    /// The count of that name; none where it is absent or null.
    pub(super) fn count(&self, name: &str) -> Result<Option<u64>, NotACount> {
        let Some(member) = self.get(name) else {
            return Ok(None);
        };
        match member.value.kind {
            Kind::Null => Ok(None),
            Kind::Number => {
                let number = json::whole(self.bytes, member.value.range.clone());
                let count = number.filter(|count| *count <= COUNT_MAX);
                count.map(Some).ok_or(NotACount)
            }
            Kind::Object | Kind::Array | Kind::String | Kind::True | Kind::False => Err(NotACount),
        }
    }

    /// The first of these counts that is told.
    pub(super) fn first_count<const N: usize>(
        &self,
        names: [&str; N],
    ) -> Result<Option<u64>, NotACount> {
        let told = names.into_iter().map(|name| self.count(name).transpose());
        told.flatten().next().transpose()
    }

    /// The count of that name, or zero.
    pub(super) fn count_or_zero(&self, name: &str) -> Result<u64, NotACount> {
        Ok(self.count(name)?.unwrap_or(0))
    }
}

/// The sum of counts that some of `holders` tell.
pub(super) fn sum<'a>(
    holders: impl IntoIterator<Item = Object<'a>>,
    name: &str,
) -> Result<u64, NotACount> {
    holders.into_iter().try_fold(0_u64, |sum, holder| {
        Ok(sum.saturating_add(holder.count_or_zero(name)?))
    })
}

#[cfg(test)]
mod tests {
    use super::COUNT_MAX;
    use crate::answer::{Answer, AnswerReader, Form};
    use crate::api::{Api, Later};

    /// For each dialect, and each place of a count in it, an answer with `N` in that place.
    const ANSWERS: &[(Api, &str)] = &[
        (
            Api::Messages,
            r#"{"usage":{"input_tokens":N,"output_tokens":2}}"#,
        ),
        (
            Api::Messages,
            r#"{"usage":{"input_tokens":1,"output_tokens":N}}"#,
        ),
        (
            Api::Messages,
            r#"{"usage":{"input_tokens":1,"output_tokens":2,"cache_creation":{"ephemeral_1h_input_tokens":N}}}"#,
        ),
        (
            Api::Messages,
            r#"{"usage":{"input_tokens":1,"output_tokens":2,"server_tool_use":{"web_search_requests":N}}}"#,
        ),
        (
            Api::Messages,
            r#"{"usage":{"input_tokens":1,"output_tokens":2,"iterations":[{"input_tokens":N}]}}"#,
        ),
        (Api::ChatCompletions, r#"{"usage":{"prompt_tokens":N}}"#),
        (
            Api::ChatCompletions,
            r#"{"usage":{"prompt_tokens":9,"completion_tokens":N}}"#,
        ),
        (
            Api::ChatCompletions,
            r#"{"usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":N}}}"#,
        ),
        (
            Api::Responses,
            r#"{"status":"completed","usage":{"input_tokens":N,"output_tokens":1}}"#,
        ),
        (Api::Embeddings, r#"{"usage":{"total_tokens":N}}"#),
        (
            Api::Images,
            r#"{"data":[],"usage":{"input_tokens":1,"output_tokens":N}}"#,
        ),
        (
            Api::GenerateContent,
            r#"{"usageMetadata":{"promptTokenCount":N,"candidatesTokenCount":1}}"#,
        ),
        (
            Api::GenerateContent,
            r#"{"usageMetadata":{"promptTokenCount":1,"promptTokensDetails":[{"modality":"AUDIO","tokenCount":N}]}}"#,
        ),
        (
            Api::CachedContents,
            r#"{"usageMetadata":{"totalTokenCount":N}}"#,
        ),
        (
            Api::Interactions,
            r#"{"usage":{"total_input_tokens":1,"grounding_tool_count":[{"type":"google_search","count":N}]}}"#,
        ),
        (
            Api::Converse,
            r#"{"usage":{"inputTokens":N,"outputTokens":1}}"#,
        ),
        (Api::InvokeModel, r#"{"prompt_token_count":N}"#),
        (
            Api::CohereChat,
            r#"{"usage":{"billed_units":{"input_tokens":N}}}"#,
        ),
    ];

    fn read(api: Api, text: &str) -> Answer {
        let mut reader = AnswerReader::new(api, Form::Plain);
        reader.push(text.as_bytes());
        reader.finish()
    }

    #[test]
    fn what_can_be_no_count_is_no_usage_in_any_dialect() {
        for (api, text) in ANSWERS {
            for good in ["0", "7", &COUNT_MAX.to_string()] {
                let answer = read(*api, &text.replace('N', good));
                let found = (answer.usage.is_some(), answer.usage_unreadable);
                assert_eq!(found, (true, false), "{api:?} {text} {good}");
            }
            let too_many = (COUNT_MAX + 1).to_string();
            for bad in [
                r#""100""#,
                "1.5",
                "-5",
                "1e2",
                "true",
                "{}",
                "[1]",
                "10000000000000000000",
                "18446744073709551617",
                &too_many,
            ] {
                let answer = read(*api, &text.replace('N', bad));
                let found = (answer.usage, answer.usage_unreadable, answer.complete);
                assert_eq!(found, (None, true, true), "{api:?} {text} {bad}");
            }
        }
    }

    #[test]
    fn usage_that_says_nothing_is_none() {
        for (api, text) in [
            (Api::Messages, r#"{"usage":{}}"#),
            (Api::Messages, r#"{"usage":{"service_tier":"standard"}}"#),
            (
                Api::Messages,
                r#"{"usage":{"input_tokens":null,"output_tokens":null}}"#,
            ),
            (Api::ChatCompletions, r#"{"usage":{}}"#),
            (
                Api::GenerateContent,
                r#"{"usageMetadata":{"trafficType":"ON_DEMAND"}}"#,
            ),
            (Api::Interactions, r#"{"usage":{}}"#),
            (Api::Converse, r#"{"usage":{}}"#),
            (Api::CohereChat, r#"{"usage":{}}"#),
        ] {
            let answer = read(api, text);
            let found = (answer.usage, answer.usage_unreadable);
            assert_eq!(found, (None, false), "{api:?} {text}");
        }
    }

    #[test]
    fn one_bad_count_of_a_stream_is_enough() {
        let stream = concat!(
            "event: message_start\n",
            r#"data: {"type":"message_start","message":{"usage":{"input_tokens":N,"output_tokens":1}}}"#,
            "\n\nevent: message_delta\n",
            r#"data: {"type":"message_delta","usage":{"output_tokens":M}}"#,
            "\n\nevent: message_stop\n",
            r#"data: {"type":"message_stop"}"#,
            "\n\n",
        );
        for (start, end, is_read) in [("9", "2", true), ("-9", "2", false), ("9", "-2", false)] {
            let text = stream.replace('N', start).replace('M', end);
            let mut reader = AnswerReader::new(Api::Messages, Form::EventStream);
            reader.push(text.as_bytes());
            let answer = reader.finish();
            let found = (answer.usage.is_some(), answer.usage_unreadable);
            assert_eq!(found, (is_read, !is_read), "{start} {end}");
        }
    }

    #[test]
    fn a_result_of_a_batch_that_cannot_be_read_is_counted() {
        let line = |tokens: &str| {
            format!(
                r#"{{"custom_id":"a","result":{{"message":{{"usage":{{"input_tokens":{tokens},"output_tokens":2}}}}}}}}"#
            )
        };
        let text = [line("1"), line("-1")].join("\n");
        let mut reader = AnswerReader::later(Later::MessageBatch, None);
        reader.push(text.as_bytes());
        let answer = reader.finish();
        assert_eq!((answer.parts.len(), answer.unread), (1, 1));
    }
}
