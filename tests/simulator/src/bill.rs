//! The provider's own bill: what each call used and what it costs, and every request as it arrived.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::models::{Model, Tier};

/// One line of the bill. It exists from the moment the answer starts, and grows while the answer is streamed: a client
/// that goes away has paid for its input and for what had been streamed by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Billed {
    /// Identifier of the answer, as the client sees it in the body (`msg_…`, `chatcmpl-…`, `resp_…`); the request id
    /// if the call was refused.
    pub id: String,
    /// API that was called.
    pub api: Api,
    /// Model that answered; empty if the call was refused before it was known.
    pub model: String,
    /// API key that pays; empty if there was none.
    pub key: String,
    /// What was used.
    pub usage: Usage,
    /// What it costs, in nano-dollars (10⁻⁹ USD), rounded up for the call as a whole.
    pub nanodollars: u64,
    /// HTTP status of the answer. Refused calls are on the bill with nothing to pay.
    pub status: u16,
}

/// An API that is billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Api {
    /// Anthropic `POST /v1/messages`.
    Messages,
    /// OpenAI `POST /v1/chat/completions`, and those who speak it too.
    ChatCompletions,
    /// OpenAI `POST /v1/responses`.
    Responses,
    /// OpenAI `POST /v1/embeddings`.
    Embeddings,
    /// OpenAI Realtime.
    Realtime,
    /// Gemini `generateContent` and `streamGenerateContent`.
    GenerateContent,
    /// Gemini `embedContent` and `batchEmbedContents`.
    EmbedContent,
    /// Cohere `POST /v2/chat`.
    CohereChat,
    /// Bedrock `InvokeModel`, plain and streamed.
    InvokeModel,
    /// Bedrock Converse, plain and streamed.
    Converse,
}

/// Tokens of a call in disjoint buckets, except for `reasoning`, which is part of `output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens that are neither read from the cache nor written to it.
    pub input_uncached: u64,
    /// Prompt tokens read from the cache.
    pub cache_read: u64,
    /// Prompt tokens written to the cache for the short lifetime (Anthropic 5 minutes, OpenAI 30 minutes).
    pub cache_write_short: u64,
    /// Prompt tokens written to the cache for the long lifetime (Anthropic 1 hour, OpenAI 12 hours).
    pub cache_write_long: u64,
    /// Tokens of the answer.
    pub output: u64,
    /// Tokens of the answer that are thinking or reasoning.
    pub reasoning: u64,
}

impl Usage {
    /// All prompt tokens.
    #[must_use]
    pub const fn prompt(&self) -> u64 {
        self.input_uncached + self.cache_read + self.cache_write_short + self.cache_write_long
    }
}

/// A request as it arrived, refused ones included.
#[derive(Clone, Debug)]
pub struct Received {
    /// Request method.
    pub method: String,
    /// Request target, with its query.
    pub path: String,
    /// Protocol version.
    pub version: http::Version,
    /// Server name of the TLS handshake.
    pub server_name: Option<String>,
    /// `:authority` of HTTP/2; `None` for HTTP/1.1, which has a `host` header.
    pub authority: Option<String>,
    /// Headers. HTTP/1.1: in the order, the spelling and with the value bytes of the wire. HTTP/2: names are lower case
    /// and a repeated name stands where it stood first.
    pub headers: Vec<(String, Bytes)>,
    /// Body without its transfer encoding, otherwise as it was on the wire (a content encoding is not undone).
    pub body: Bytes,
}

impl Received {
    /// Value of the first header called `name` (in lower case), if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .and_then(|(_, value)| std::str::from_utf8(value).ok())
    }
}

/// What a line of the bill is charged by.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) model: &'static Model,
    pub(crate) tier: Tier,
    pub(crate) us: bool,
}

/// The books of one simulator.
#[derive(Debug, Default)]
pub(crate) struct Books(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    lines: VecDeque<Billed>,
    /// Lines that were dropped from the front of `lines`.
    forgotten: usize,
    total_nanodollars: u64,
    received: VecDeque<Received>,
    received_bytes: usize,
}

/// Where a line stands in the books.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineNumber(usize);

impl Books {
    pub(crate) fn enter(&self, line: Billed) -> LineNumber {
        let mut pages = self.pages();
        if pages.lines.len() >= LINES_MAX && pages.lines.pop_front().is_some() {
            pages.forgotten += 1;
        }
        pages.total_nanodollars += line.nanodollars;
        pages.lines.push_back(line);
        LineNumber(pages.forgotten + pages.lines.len() - 1)
    }

    /// Sets what the line at `number` has used by now.
    pub(crate) fn update(&self, number: LineNumber, terms: &Terms, usage: Usage) {
        let mut pages = self.pages();
        let nanodollars = terms.model.nanodollars(&usage, terms.tier, terms.us);
        let Some(index) = number.0.checked_sub(pages.forgotten) else {
            return;
        };
        let Some(line) = pages.lines.get_mut(index) else {
            return;
        };
        let before = std::mem::replace(&mut line.nanodollars, nanodollars);
        line.usage = usage;
        pages.total_nanodollars = pages.total_nanodollars - before + nanodollars;
    }

    pub(crate) fn receive(&self, request: Received) {
        let mut pages = self.pages();
        pages.received_bytes += request.body.len();
        pages.received.push_back(request);
        while pages.received.len() > RECEIVED_MAX || pages.received_bytes > RECEIVED_BYTES_MAX {
            let Some(oldest) = pages.received.pop_front() else {
                return;
            };
            pages.received_bytes -= oldest.body.len();
        }
    }

    pub(crate) fn lines(&self) -> Vec<Billed> {
        self.pages().lines.iter().cloned().collect()
    }

    pub(crate) fn total_nanodollars(&self) -> u64 {
        self.pages().total_nanodollars
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.pages().received.iter().cloned().collect()
    }

    pub(crate) fn last_line(&self) -> Option<Billed> {
        self.pages().lines.back().cloned()
    }

    pub(crate) fn last_received(&self) -> Option<Received> {
        self.pages().received.back().cloned()
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lines that are kept; the total counts the forgotten ones too.
pub(crate) const LINES_MAX: usize = 200_000;

/// Requests that are kept for comparison.
pub(crate) const RECEIVED_MAX: usize = 20_000;

/// Bytes of request bodies that are kept for comparison.
pub(crate) const RECEIVED_BYTES_MAX: usize = 256 << 20;
