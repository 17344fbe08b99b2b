//! Which credential a request carries, and what stays the same of it.

use std::fs;

use super::*;

fn recognize(keyring: &Keyring, name: &'static str, value: &str) -> Option<Credential> {
    let mut headers = HeaderMap::new();
    headers.insert(name, value.parse().unwrap());
    keyring.recognize(&sender(Provider::Configured, &headers), &Latest::default())
}

fn sender(provider: Provider, headers: &HeaderMap) -> Sender<'_> {
    Sender {
        provider,
        host: "llm.example",
        path: "/v1/x",
        headers,
    }
}

fn keyring(name: &str) -> Keyring {
    let dir = std::env::temp_dir().join(format!("weir-keyring-{name}-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let keyring = Keyring::open_or_create(&dir).unwrap();
    let again = Keyring::open_or_create(&dir).unwrap();
    assert_eq!(
        recognize(&keyring, "x-api-key", "a-key-of-some-length"),
        recognize(&again, "x-api-key", "a-key-of-some-length"),
        "the secret is kept"
    );
    fs::remove_dir_all(&dir).unwrap();
    keyring
}

#[test]
fn a_connection_whose_requests_change_their_key_has_the_hash_of_each() {
    let (keyring, latest) = (keyring("latest"), Latest::default());
    let mut headers = HeaderMap::new();
    for key in ["a-key", "a-key", "another-key", "a-key"] {
        headers.insert("x-api-key", key.parse().unwrap());
        let found = keyring.recognize(&sender(Provider::Configured, &headers), &latest);
        assert_eq!(found, recognize(&keyring, "x-api-key", key));
    }
}

#[test]
fn one_key_has_one_hash_however_it_is_sent() {
    let keyring = keyring("one");
    let header = recognize(&keyring, "x-api-key", "test-key-0123456789abcd").unwrap();
    let bearer = recognize(&keyring, "authorization", "Bearer test-key-0123456789abcd");
    assert_eq!(Some(&header), bearer.as_ref());
    assert_eq!(header.tail.as_deref(), Some("abcd"));
    assert_eq!(header.hash.len(), 2 * HASH_BYTES);
}

/// Rows of: provider, host, path, headers with `;` between them, kind, last letters.
const KINDS: &str = "
anthropic | api.anthropic.com | /v1/messages | x-api-key: sk-ant-api03-abcdefghijkl | api_key | ijkl
anthropic | api.anthropic.com | /v1/messages | authorization: Bearer sk-ant-api03-abcdefghijkl | api_key | ijkl
anthropic | api.anthropic.com | /v1/messages | authorization: Bearer sk-ant-oat01-abcdefghijkl | subscription | ijkl
anthropic | api.anthropic.com | /v1/messages | authorization: Bearer opaque-0123456789abcdef; anthropic-beta: x-1,oauth-2025-04-20 | subscription | cdef
anthropic | api.anthropic.com | /v1/messages | authorization: Bearer sk-ant-api03-abcdefghijkl; anthropic-beta: oauth-2025-04-20 | api_key | ijkl
anthropic | api.anthropic.com | /v1/messages | x-api-key: sk-ant-api03-abcdefghijkl; authorization: Bearer sk-ant-oat01-zzzzzzzzzzzz | api_key | ijkl
anthropic | api.anthropic.com | /v1/messages | authorization: Bearer JWT | oauth |
openai | api.openai.com | /v1/responses | authorization: Bearer sk-proj-0123456789abcd | api_key | abcd
openai | chatgpt.com | /backend-api/codex/responses | authorization: Bearer JWT; chatgpt-account-id: a | subscription |
openai | api.openai.com | /v1/realtime?model=m | sec-websocket-protocol: realtime, openai-insecure-api-key.sk-0123456789abcdwxyz | api_key | wxyz
github-copilot | api.githubcopilot.com | /chat/completions | authorization: Bearer tid=ab;exp=1;sku=x:signature | subscription |
moonshotai | api.kimi.com | /coding/v1/messages | x-api-key: sk-kimi-0123456789abcd | subscription | abcd
moonshotai | api.moonshot.ai | /v1/chat/completions | authorization: Bearer sk-0123456789abcdefgh | api_key | efgh
zai | api.z.ai | /api/coding/paas/v4/chat/completions | authorization: Bearer 0123456789abcdef.ghij | subscription | ghij
zai | api.z.ai | /api/paas/v4/chat/completions | authorization: Bearer 0123456789abcdef.ghij | api_key | ghij
azure | r.openai.azure.com | /openai/v1/responses | api-key: 0123456789abcdef0123 | api_key | 0123
azure | r.openai.azure.com | /openai/v1/responses | authorization: Bearer JWT | cloud_iam |
google | generativelanguage.googleapis.com | /v1beta/models/m:generateContent | x-goog-api-key: AIza0123456789abcdef | api_key | cdef
google | generativelanguage.googleapis.com | /v1beta/models/m:generateContent?alt=sse&key=AIza0123456789abcdef | | api_key | cdef
vertex | aiplatform.googleapis.com | /v1/projects/p1/locations/global/x | authorization: Bearer ya29.a0123456789abcdef | cloud_iam |
aws | bedrock-runtime.us-east-1.amazonaws.com | /model/m/invoke | authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE012345678/20261122/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature=0 | cloud_iam | 5678
aws | bedrock-runtime.us-east-1.amazonaws.com | /model/m/invoke?X-Amz-Credential=AKIDEXAMPLE012345678%2F20261122%2Fus-east-1 | | cloud_iam | 5678
aws | bedrock-runtime.us-east-1.amazonaws.com | /model/m/converse | authorization: Bearer ABSK0123456789abcdef | api_key | cdef
configured | llm.example | /v1/x?key=0123456789abcdefgh | | none |
configured | llm.example | /v1/x | authorization: Basic dXNlcjpwYXNzd29yZA== | none |
configured | llm.example | /v1/x | api-key: short | api_key |
";

/// A token of a subject, and another of the same: they differ in all but whom they are for.
fn tokens() -> [String; 2] {
    [1, 2].map(|exp| token::jwt(&format!(r#"{{"iss":"https://i","sub":"me","exp":{exp}}}"#)))
}

fn of_row(keyring: &Keyring, row: &str, jwt: &str) -> (Option<Credential>, String, String) {
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    let [provider, host, path, fields, kind, tail] = cells[..] else {
        panic!("wrong number of cells: {row}");
    };
    let mut headers = HeaderMap::new();
    let fields = fields.replace("JWT", jwt);
    for field in fields.split("; ").filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once(": ").unwrap();
        headers.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let found = keyring.recognize(
        &Sender {
            provider: Provider::from_id(provider).unwrap(),
            host,
            path,
            headers: &headers,
        },
        &Latest::default(),
    );
    (found, kind.to_owned(), tail.to_owned())
}

#[test]
fn every_way_of_sending_a_credential_is_known_with_its_kind() {
    let keyring = keyring("kinds");
    let [first, refreshed] = tokens();
    for row in KINDS.trim().lines() {
        let (found, kind, tail) = of_row(&keyring, row, &first);
        let kind_found = found.as_ref().map_or("none", |found| found.kind.as_str());
        assert_eq!(kind_found, kind, "{row}");
        let shown = found.as_ref().and_then(|found| found.tail.as_deref());
        assert_eq!(shown.unwrap_or_default(), tail, "{row}");
        let (again, ..) = of_row(&keyring, row, &refreshed);
        assert_eq!(again, found, "a token that is refreshed: {row}");
    }
}

#[test]
fn what_stays_of_a_token_tells_callers_apart() {
    let keyring = keyring("tokens");
    let hash = |row: &str| of_row(&keyring, row, "").0.unwrap().hash;
    let vertex = |project: &str, token: &str| {
        hash(&format!(
            "vertex | aiplatform.googleapis.com | /v1/projects/{project}/x | authorization: Bearer ya29.{token} | |"
        ))
    };
    assert_eq!(vertex("p1", "a"), vertex("p1", "b"));
    assert_ne!(vertex("p1", "a"), vertex("p2", "a"));
    let copilot = |tenant: &str, expiry: u32| {
        hash(&format!(
            "github-copilot | h | / | authorization: Bearer tid={tenant};exp={expiry}:sig | |"
        ))
    };
    assert_eq!(copilot("a", 1), copilot("a", 2));
    assert_ne!(copilot("a", 1), copilot("b", 1));
    let sent = |fields: &str| hash(&format!("openai | api.openai.com | / | {fields} | |"));
    assert_eq!(
        sent("authorization: Bearer sk-0123456789abcdef"),
        sent("sec-websocket-protocol: openai-insecure-api-key.sk-0123456789abcdef")
    );
    let me = token::jwt(r#"{"sub":"me"}"#);
    let you = token::jwt(r#"{"sub":"you"}"#);
    assert_ne!(
        sent(&format!("authorization: Bearer {me}")),
        sent(&format!("authorization: Bearer {you}"))
    );
}

#[test]
fn the_header_that_the_provider_goes_by_tells_the_key_whatever_is_beside_it() {
    let keyring = keyring("decoy");
    for (provider, own) in [
        (Provider::Anthropic, "x-api-key"),
        (Provider::Azure, "api-key"),
        (Provider::Google, "x-goog-api-key"),
        (Provider::Vertex, "x-goog-api-key"),
        (Provider::OpenAi, "authorization"),
        (Provider::Configured, "authorization"),
    ] {
        let key = match own {
            "authorization" => "Bearer the-real-key-0123456789",
            _ => "the-real-key-0123456789",
        };
        let mut headers = HeaderMap::new();
        headers.insert(own, key.parse().unwrap());
        let alone = keyring
            .recognize(&sender(provider, &headers), &Latest::default())
            .unwrap();
        for decoy in ["authorization", "x-api-key", "api-key", "x-goog-api-key"] {
            if decoy != own {
                headers.insert(decoy, "Bearer some-decoy-0123456789".parse().unwrap());
            }
        }
        let found = keyring
            .recognize(&sender(provider, &headers), &Latest::default())
            .unwrap();
        assert_eq!(found, alone, "{provider:?}");
    }
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", "".parse().unwrap());
    headers.insert("authorization", "Bearer sk-ant-oat01-x".parse().unwrap());
    let found = keyring
        .recognize(&sender(Provider::Anthropic, &headers), &Latest::default())
        .unwrap();
    assert_eq!(found.kind, Kind::Subscription, "an empty header is none");
}

#[test]
fn many_that_make_the_secret_at_once_agree_on_one_and_leave_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let hashes: std::collections::BTreeSet<String> = std::thread::scope(|scope| {
        let open = || {
            let keyring = Keyring::open_or_create(dir.path()).unwrap();
            recognize(&keyring, "x-api-key", "a-key").unwrap().hash
        };
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(open)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(hashes.len(), 1);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn another_installation_hashes_differently() {
    let (one, other) = (keyring("a"), keyring("b"));
    let hash = |keyring| {
        recognize(keyring, "x-api-key", "test-key-0123456789")
            .unwrap()
            .hash
    };
    assert_ne!(hash(&one), hash(&other));
}
