//! Simulated Anthropic, OpenAI, Bedrock, Gemini, Mistral, Groq and Cohere: the providers' wire formats, prompt-cache rules and prices, without a network.
//!
//! It shares no code with Weir, so that it can contradict it: its bill is what a provider would send at the end of the
//! month. In reading order: [`Simulator`] listens and keeps the books; `connection` is one TLS connection, `exchange`
//! one request and its answer; `anthropic` and `openai` are two providers, each with its prompt, cache and wire
//! format, `bedrock` is a third, which checks the signature of what arrives, `others` speak further dialects, `elsewhere` are the first two at other hosts; `directive`, `play` and `body` are the stage directions that a test can put into a message; `models` are the
//! prices, `tokens` the tokenizer. [`agent`] is not a provider, but the scripted program that calls them in the demo.

mod simulator;

mod desk;

mod connection;
mod exchange;

mod anthropic;
mod bedrock;
mod openai;
mod elsewhere;
mod others;

mod directive;
mod play;
mod script;

mod body;

mod models;

mod bill;

mod clock;
mod hash;
pub mod json;
mod tls;
pub mod tokens;

pub mod agent;

pub use bedrock::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};
pub use bill::{Api, Billed, Received, Usage};
pub use clock::Clock;
pub use desk::{Desk, Refused, Served};
pub use simulator::{Options, Protocols, Simulator};

#[cfg(test)]
mod tests;
