//! Any body is read or not, and every range of a call lies in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_core::api::Api;
use weir_core::call::parse;

fuzz_target!(|body: &[u8]| {
    for api in Api::ALL {
        let Ok(call) = parse(api, body) else { continue };
        for range in call.system.iter().chain(&call.tools).chain(&call.messages) {
            assert!(body.get(range.clone()).is_some(), "{range:?}");
        }
    }
});
