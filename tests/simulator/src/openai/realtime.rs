//! Realtime, as text: a session with its conversation, each of whose responses is one of the Responses API in other words.

use http::Uri;

use crate::json::{Json, object};

/// One session.
pub(super) struct Session {
    model: String,
    instructions: Json,
    /// The conversation so far.
    items: Vec<Json>,
    events: u64,
}

impl Session {
    /// The session that a request to `uri` opens, if it opens one.
    pub(super) fn asked_for(uri: &Uri) -> Option<Self> {
        if uri.path() != "/v1/realtime" {
            return None;
        }
        let mut pairs = uri.query().unwrap_or_default().split('&');
        let model = pairs.find_map(|pair| pair.strip_prefix("model="));
        Some(Self {
            model: model.unwrap_or_default().to_owned(),
            instructions: Json::Null,
            items: Vec::new(),
            events: 0,
        })
    }

    /// The first event.
    pub(super) fn created(&self) -> String {
        let event = object! {
            "type": "session.created",
            "event_id": "event_0",
            "session": self.shown(),
        };
        event.to_string()
    }

    /// What is answered to a message at once, and the call that it makes, in the words of the Responses API.
    pub(super) fn hear(&mut self, message: &[u8]) -> (Vec<Json>, Option<Json>) {
        let message = Json::parse(message).unwrap_or(Json::Null);
        match message.text("type") {
            Some("session.update") => {
                let instructions = message.at(&["session", "instructions"]).cloned();
                self.instructions = instructions.unwrap_or(Json::Null);
                let session = self.shown();
                let updated = self.event("session.updated", vec![("session".to_owned(), session)]);
                (vec![updated], None)
            }
            Some("conversation.item.create") => {
                let item = message.get("item").cloned().unwrap_or(Json::Null);
                self.items.push(item.clone());
                let added = ["conversation.item.added", "conversation.item.done"]
                    .map(|name| self.event(name, vec![("item".to_owned(), item.clone())]));
                (added.to_vec(), None)
            }
            Some("response.create") => {
                let call = object! {
                    "type": "response.create",
                    "model": self.model.as_str(),
                    "instructions": self.instructions.clone(),
                    "input": self.items.clone(),
                    "store": false,
                };
                (Vec::new(), Some(call))
            }
            _ => (Vec::new(), None),
        }
    }

    /// An event of the Responses API in the words of this one, if it has it.
    pub(super) fn say(&mut self, event: &str) -> Option<String> {
        let event = Json::parse(event.as_bytes()).ok()?;
        let said = match event.text("type")? {
            "response.created" => {
                let response = response(event.get("response")?);
                self.event("response.created", vec![("response".to_owned(), response)])
            }
            "response.output_text.delta" => {
                let fields = ["item_id", "output_index", "content_index", "delta"];
                let fields = fields
                    .into_iter()
                    .filter_map(|name| Some((name.to_owned(), event.get(name)?.clone())));
                self.event("response.output_text.delta", fields.collect())
            }
            "response.completed" | "response.incomplete" => {
                let done = event.get("response")?;
                let output = done.get("output").map_or(&[][..], Json::items);
                self.items.extend(output.iter().cloned());
                let response = response(done);
                self.event("response.done", vec![("response".to_owned(), response)])
            }
            "error" => event,
            _ => return None,
        };
        Some(said.to_string())
    }

    fn shown(&self) -> Json {
        object! {
            "type": "realtime",
            "object": "realtime.session",
            "id": "sess_1",
            "model": self.model.as_str(),
            "instructions": self.instructions.clone(),
            "output_modalities": vec![Json::from("text")],
        }
    }

    fn event(&mut self, name: &str, fields: Vec<(String, Json)>) -> Json {
        self.events += 1;
        let mut members = vec![
            ("type".to_owned(), name.into()),
            (
                "event_id".to_owned(),
                format!("event_{}", self.events).into(),
            ),
        ];
        members.extend(fields);
        Json::Object(members)
    }
}

/// A response in this API's words: details of the usage have other names, and parts by modality.
fn response(response: &Json) -> Json {
    let field = |name: &str| response.get(name).cloned().unwrap_or(Json::Null);
    let usage = response
        .get("usage")
        .filter(|usage| **usage != Json::Null)
        .map(|usage| {
            let count = |keys: &[&str]| usage.at(keys).and_then(Json::as_u64).unwrap_or(0);
            let (input, output) = (count(&["input_tokens"]), count(&["output_tokens"]));
            let cached = count(&["input_tokens_details", "cached_tokens"]);
            let of_cache =
                object! { "text_tokens": cached, "audio_tokens": 0_u64, "image_tokens": 0_u64 };
            object! {
                "total_tokens": input + output,
                "input_tokens": input,
                "output_tokens": output,
                "input_token_details": object! {
                    "text_tokens": input,
                    "audio_tokens": 0_u64,
                    "image_tokens": 0_u64,
                    "cached_tokens": cached,
                    "cached_tokens_details": of_cache,
                },
                "output_token_details": object! { "text_tokens": output, "audio_tokens": 0_u64 },
            }
        });
    object! {
        "object": "realtime.response",
        "id": field("id"),
        "status": field("status"),
        "status_details": Json::Null,
        "output": field("output"),
        "output_modalities": vec![Json::from("text")],
        "usage": usage,
        "metadata": Json::Null,
    }
}
