//! The members of a body, by API.

use crate::api::Api;
use crate::json::{Kind, Scanner};

use super::prompt::{self, Section};
use super::{Call, Unreadable, member_string, number, object, session, string};

/// What is gathered from the members of a body, and put together when all are known: the order of
/// members is free, and of two with the same key the last counts.
#[derive(Default)]
pub(super) struct Fields {
    system: Section,
    tools: Section,
    functions: Section,
    messages: Section,
    /// A bare text, which comes after the messages where there are both.
    prompt: Section,
    automatic_breakpoint: bool,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    user: Option<String>,
    conversation: Option<String>,
    continues: Option<String>,
    held_by_provider: bool,
}

impl Fields {
    /// Reads one member of the body.
    pub(super) fn read(
        &mut self,
        call: &mut Call,
        scanner: &mut Scanner<'_>,
        body: &[u8],
        key: &[u8],
    ) -> Result<(), Unreadable> {
        match key {
            b"model" => call.model = model(string(scanner, body)?),
            b"stream" => call.stream = scanner.value()?.kind == Kind::True,
            b"service_tier" => call.service_tier = string(scanner, body)?,
            b"tools" => self.tools = prompt::tools(scanner, body)?,
            _ => match call.api {
                Api::Messages => self.read_messages(call, scanner, body, key)?,
                Api::ChatCompletions => self.read_chat(call, scanner, body, key)?,
                Api::Responses => self.read_responses(call, scanner, body, key)?,
                Api::Realtime => self.read_realtime(call, scanner, body, key)?,
                Api::Completions | Api::Embeddings | Api::Images | Api::Audio => {
                    self.read_bare(call, scanner, body, key)?;
                }
                Api::GenerateContent | Api::EmbedContent | Api::CachedContents => {
                    self.read_gemini(call, scanner, body, key)?;
                }
                Api::Interactions => self.read_interactions(call, scanner, body, key)?,
                Api::InvokeModel => self.read_invoke(call, scanner, body, key)?,
                Api::Converse => self.read_converse(call, scanner, body, key)?,
                Api::CohereChat => self.read_cohere(scanner, body, key)?,
            },
        }
        Ok(())
    }

    fn read_messages(
        &mut self,
        call: &mut Call,
        scanner: &mut Scanner<'_>,
        body: &[u8],
        key: &[u8],
    ) -> Result<(), Unreadable> {
        match key {
            b"messages" => self.messages = prompt::messages(scanner, body, call.api)?,
            b"system" => self.system = prompt::system(scanner, body)?,
            b"max_tokens" => self.max_tokens = number(scanner, body)?,
            b"speed" => call.speed = string(scanner, body)?,
            b"inference_geo" => call.inference_geo = string(scanner, body)?,
            b"cache_control" => self.automatic_breakpoint = scanner.value()?.kind == Kind::Object,
            b"metadata" => self.user = member_string(scanner, body, b"user_id")?,
            b"thread" => self.read_thread(scanner, body)?,
            _ => {}
        }
        Ok(())
    }

    fn read_thread(&mut self, scanner: &mut Scanner<'_>, body: &[u8]) -> Result<(), Unreadable> {
        let (mut kind, mut previous) = (None, None);
        object(scanner, |scanner, key| {
            match key {
                b"type" => kind = string(scanner, body)?,
                b"previous_message_id" => previous = string(scanner, body)?,
                _ => {}
            }
            Ok(())
        })?;
        self.held_by_provider = kind.as_deref() == Some("continue");
        self.continues = previous.filter(|_| self.held_by_provider);
        Ok(())
    }

    fn read_chat(
        &mut self,
        call: &mut Call,
        scanner: &mut Scanner<'_>,
        body: &[u8],
        key: &[u8],
    ) -> Result<(), Unreadable> {
        match key {
            b"messages" => self.messages = prompt::messages(scanner, body, call.api)?,
            b"functions" => self.functions = prompt::tools(scanner, body)?,
            b"max_tokens" => self.max_tokens = number(scanner, body)?,
            b"max_completion_tokens" => self.max_completion_tokens = number(scanner, body)?,
            b"n" => call.choices = number(scanner, body)?.unwrap_or(1).max(1),
            b"stream_options" => read_stream_options(call, scanner)?,
            b"prompt_cache_key" => call.prompt_cache_key = string(scanner, body)?,
            // OpenRouter.
            b"session_id" => self.conversation = string(scanner, body)?,
            _ => {}
        }
        Ok(())
    }

    fn read_responses(
        &mut self,
        call: &mut Call,
        scanner: &mut Scanner<'_>,
        body: &[u8],
        key: &[u8],
    ) -> Result<(), Unreadable> {
        match key {
            b"input" => self.messages = prompt::messages(scanner, body, call.api)?,
            b"instructions" => self.system = prompt::system(scanner, body)?,
            b"max_output_tokens" => self.max_tokens = number(scanner, body)?,
            b"stream_options" => read_stream_options(call, scanner)?,
            b"prompt_cache_key" => call.prompt_cache_key = string(scanner, body)?,
            b"previous_response_id" => self.continues = string(scanner, body)?,
            b"conversation" => {
                self.conversation = match scanner.kind()? {
                    Kind::Object => member_string(scanner, body, b"id")?,
                    _ => string(scanner, body)?,
                };
            }
            _ => {}
        }
        self.held_by_provider = self.continues.is_some() || self.conversation.is_some();
        Ok(())
    }

    /// An event of a client: what matters is inside `response` or `session`.
    fn read_realtime(
        &mut self,
        call: &mut Call,
        scanner: &mut Scanner<'_>,
        body: &[u8],
        key: &[u8],
    ) -> Result<(), Unreadable> {
        match key {
            b"response" | b"session" if scanner.kind()? == Kind::Object => {
                scanner.members(|scanner, _, key| self.read(call, scanner, body, key))?;
            }
            b"input" => self.messages = prompt::messages(scanner, body, call.api)?,
            b"instructions" => self.system = prompt::system(scanner, body)?,
            b"max_output_tokens" | b"max_response_output_tokens" => {
                self.max_tokens = number(scanner, body)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Completions, embeddings, images and audio: a text or a list of them.
    fn read_bare(
        &mut self,
        call: &mut Call,
        scanner: &mut Scanner<'_>,
        body: &[u8],
        key: &[u8],
    ) -> Result<(), Unreadable> {
        match (key, call.api) {
            (b"prompt", Api::Completions | Api::Images)
            | (b"input", Api::Embeddings | Api::Audio)
            // Cohere's embeddings.
            | (b"texts" | b"inputs", Api::Embeddings) => {
                self.messages = prompt::whole(scanner, body)?;
            }
            (b"suffix", Api::Completions) => self.prompt = prompt::whole(scanner, body)?,
            (b"instructions", Api::Audio) => self.system = prompt::whole(scanner, body)?,
            (b"max_tokens", Api::Completions) => self.max_tokens = number(scanner, body)?,
            (b"n", Api::Completions | Api::Images) => {
                call.choices = number(scanner, body)?.unwrap_or(1).max(1);
            }
            (b"stream_options", Api::Completions) => read_stream_options(call, scanner)?,
            (b"prompt_cache_key", Api::Completions) => {
                call.prompt_cache_key = string(scanner, body)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Google reads names in camel case and in snake case.
    fn read_gemini(
        &mut self,
        call: &mut Call,
        scanner: &mut Scanner<'_>,
        body: &[u8],
        key: &[u8],
    ) -> Result<(), Unreadable> {
        match key {
            b"contents" => self.messages = prompt::messages(scanner, body, call.api)?,
            b"content" | b"requests" if call.api == Api::EmbedContent => {
                self.messages = prompt::elements_or_whole(scanner, body)?;
            }
            b"systemInstruction" | b"system_instruction" => {
                self.system = prompt::gemini_system(scanner, body)?;
            }
            b"generationConfig" | b"generation_config" => {
                object(scanner, |scanner, key| {
                    match key {
                        b"maxOutputTokens" | b"max_output_tokens" => {
                            self.max_tokens = number(scanner, body)?;
                        }
                        b"candidateCount" | b"candidate_count" => {
                            call.choices = number(scanner, body)?.unwrap_or(1).max(1);
                        }
                        _ => {}
                    }
                    Ok(())
                })?;
            }
            b"serviceTier" => call.service_tier = string(scanner, body)?,
            b"cachedContent" | b"cached_content" => {
                self.held_by_provider = string(scanner, body)?.is_some();
            }
            // Gemini CLI wraps the request.
            b"request" if scanner.kind()? == Kind::Object => {
                scanner.members(|scanner, _, key| self.read(call, scanner, body, key))?;
            }
            b"session_id" => self.conversation = string(scanner, body)?,
            _ => {}
        }
        Ok(())
    }

    fn read_interactions(
        &mut self,
        call: &mut Call,
        scanner: &mut Scanner<'_>,
        body: &[u8],
        key: &[u8],
    ) -> Result<(), Unreadable> {
        match key {
            b"input" => self.messages = prompt::messages(scanner, body, call.api)?,
            b"system_instruction" => self.system = prompt::gemini_system(scanner, body)?,
            b"agent" if call.model.is_none() => call.model = string(scanner, body)?,
            b"generation_config" => {
                object(scanner, |scanner, key| {
                    if key == b"max_output_tokens" {
                        self.max_tokens = number(scanner, body)?;
                    }
                    Ok(())
                })?;
            }
            b"previous_interaction_id" => {
                self.continues = string(scanner, body)?;
                self.held_by_provider = self.continues.is_some();
            }
            _ => {}
        }
        Ok(())
    }

    fn read_converse(
        &mut self,
        call: &mut Call,
        scanner: &mut Scanner<'_>,
        body: &[u8],
        key: &[u8],
    ) -> Result<(), Unreadable> {
        match key {
            b"messages" => self.messages = prompt::messages(scanner, body, call.api)?,
            b"system" => self.system = prompt::system(scanner, body)?,
            b"toolConfig" => {
                object(scanner, |scanner, key| {
                    if key == b"tools" {
                        self.tools = prompt::tools(scanner, body)?;
                    }
                    Ok(())
                })?;
            }
            b"inferenceConfig" => self.read_limit(scanner, body)?,
            b"serviceTier" => call.service_tier = member_string(scanner, body, b"type")?,
            _ => {}
        }
        Ok(())
    }

    /// Bodies of `InvokeModel` have the shape of the model's maker. The makers' names for things
    /// do not collide, so all are read, and the model need not be known: an inference profile
    /// hides it.
    fn read_invoke(
        &mut self,
        call: &mut Call,
        scanner: &mut Scanner<'_>,
        body: &[u8],
        key: &[u8],
    ) -> Result<(), Unreadable> {
        match key {
            // Anthropic, OpenAI-compatible models, Nova, and older ones.
            b"max_tokens" | b"max_tokens_to_sample" | b"max_gen_len" | b"maxTokens" => {
                self.max_tokens = number(scanner, body)?;
            }
            b"max_completion_tokens" => self.max_completion_tokens = number(scanner, body)?,
            b"textGenerationConfig" => self.read_limit(scanner, body)?,
            b"cache_control" => self.automatic_breakpoint = scanner.value()?.kind == Kind::Object,
            b"metadata" => self.user = member_string(scanner, body, b"user_id")?,
            b"prompt" | b"inputText" | b"message" | b"texts" => {
                self.prompt = prompt::whole(scanner, body)?;
            }
            _ => self.read_converse(call, scanner, body, key)?,
        }
        Ok(())
    }

    /// The limit on output tokens inside an object.
    fn read_limit(&mut self, scanner: &mut Scanner<'_>, body: &[u8]) -> Result<(), Unreadable> {
        object(scanner, |scanner, key| {
            if matches!(key, b"maxTokens" | b"max_new_tokens" | b"maxTokenCount") {
                self.max_tokens = number(scanner, body)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn read_cohere(
        &mut self,
        scanner: &mut Scanner<'_>,
        body: &[u8],
        key: &[u8],
    ) -> Result<(), Unreadable> {
        match key {
            b"messages" | b"chat_history" => {
                self.messages = prompt::messages(scanner, body, Api::CohereChat)?;
            }
            b"preamble" => self.system = prompt::system(scanner, body)?,
            b"message" => self.prompt = prompt::whole(scanner, body)?,
            b"max_tokens" => self.max_tokens = number(scanner, body)?,
            b"conversation_id" => {
                self.conversation = string(scanner, body)?;
                self.held_by_provider = self.conversation.is_some();
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts the call together.
    pub(super) fn settle(self, call: &mut Call) {
        let sections = [
            &self.system,
            &self.tools,
            &self.functions,
            &self.messages,
            &self.prompt,
        ];
        let sum = |count: fn(&Section) -> u64| {
            sections
                .iter()
                .fold(0_u64, |sum, section| sum.saturating_add(count(section)))
        };
        call.text_bytes = sum(|section| section.text_bytes);
        call.media = sum(|section| section.media);
        call.cache_breakpoints = sum(|section| section.cache_breakpoints)
            .saturating_add(u64::from(self.automatic_breakpoint));
        call.max_output_tokens = self.max_completion_tokens.or(self.max_tokens);
        call.previous_response = self.held_by_provider;
        let is_filled = |name: &String| !name.is_empty();
        let user_id = self.user.map(session::of_user_id);
        let mut named = [self.conversation, user_id].into_iter().flatten();
        call.session = named.find(is_filled);
        call.continues = self.continues.filter(is_filled);
        let mut messages = self.messages.parts;
        call.system = self.system.parts;
        call.system
            .extend(messages.drain(..self.messages.leading_system));
        call.tools = self.tools.parts;
        call.tools.extend(self.functions.parts);
        call.messages = messages;
        call.messages.extend(self.prompt.parts);
    }
}

fn read_stream_options(call: &mut Call, scanner: &mut Scanner<'_>) -> Result<(), Unreadable> {
    let mut asked = false;
    call.stream_options = Some(object(scanner, |scanner, key| {
        if key == b"include_usage" {
            asked = scanner.value()?.kind == Kind::True;
        }
        Ok(())
    })?);
    call.include_usage = asked;
    Ok(())
}

/// A model without the resource that Google puts before it: `models/gemini-4-argon`,
/// `projects/…/publishers/google/models/gemini-4-argon`.
fn model(name: Option<String>) -> Option<String> {
    let name = name?;
    let is_resource = name.starts_with("models/") || name.starts_with("projects/");
    Some(match name.rsplit_once("models/") {
        Some((_, model)) if is_resource => model.to_owned(),
        _ => name,
    })
}
