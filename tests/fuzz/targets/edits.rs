//! The edit that asks for usage keeps a body JSON, changes no other byte, and is made once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_core::api::Api;
use weir_core::call::parse;
use weir_core::catalog::Provider;
use weir_core::edit::{apply, ask_for_usage};

fuzz_target!(|body: &[u8]| {
    let Ok(call) = parse(Api::ChatCompletions, body) else { return };
    let Some(edit) = ask_for_usage(Provider::OpenAi, &call, body) else { return };
    let range = edit.range.clone();
    let edited = apply(body, &mut [edit]).expect("an edit of ours fits");
    assert_eq!(body[..range.start], edited[..range.start]);
    assert!(edited.ends_with(&body[range.end..]));
    let again = parse(Api::ChatCompletions, &edited).expect("an edited body is still a call");
    assert!(again.include_usage);
    assert!(ask_for_usage(Provider::OpenAi, &again, &edited).is_none());
});
