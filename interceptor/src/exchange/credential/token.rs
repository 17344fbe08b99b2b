//! Whom a token is for, of tokens that say so: read, and not verified.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// Issuer and subject of a JWT (RFC 7519), which stay the same when it is refreshed; for `ChatGPT`
/// the account that pays, for Entra the object that stands for the caller in the tenant.
///
/// None for what is no JWT, or names no subject.
pub(super) fn subject(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !token.starts_with("eyJ") || payload.len() > PAYLOAD_BYTES_MAX {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
    let account = claims
        .get("https://api.openai.com/auth")
        .and_then(|auth| auth.get("chatgpt_account_id"))
        .and_then(Value::as_str);
    let issuer = text("iss").unwrap_or_default();
    let subject = text("oid")
        .or_else(|| text("sub"))
        .or_else(|| text("appid"));
    match (subject, account) {
        (None, None) => None,
        (subject, account) => {
            let (subject, account) = (subject.unwrap_or_default(), account.unwrap_or_default());
            Some(format!("jwt {issuer} {subject} {account}"))
        }
    }
}

/// The tenant of a token of Copilot: `tid=…;exp=…:signature`.
pub(super) fn copilot_tenant(token: &str) -> Option<String> {
    let mut fields = token.split([';', ':']);
    let tenant = fields.find_map(|field| field.trim().strip_prefix("tid="))?;
    (!tenant.is_empty()).then(|| format!("copilot {tenant}"))
}

/// A token whose claims are longer is of no login that is known.
const PAYLOAD_BYTES_MAX: usize = 16 << 10;

/// A token with these claims, whose signature is none.
#[cfg(test)]
pub(super) fn jwt(claims: &str) -> String {
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.c2ln", encoded(r#"{"alg":"RS256"}"#), encoded(claims))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_read_of_a_token_of_three_parts_that_names_one() {
        let of = |claims: &str| subject(&jwt(claims));
        let plain = of(r#"{"iss":"https://i","sub":"me","exp":1}"#);
        assert_eq!(plain.as_deref(), Some("jwt https://i me "));
        assert_eq!(of(r#"{"iss":"https://i","sub":"me","exp":2}"#), plain);
        assert_eq!(
            of(r#"{"iss":"i","sub":"s","oid":"o"}"#).as_deref(),
            Some("jwt i o ")
        );
        let chatgpt = r#"{"sub":"u","https://api.openai.com/auth":{"chatgpt_account_id":"a"}}"#;
        assert_eq!(of(chatgpt).as_deref(), Some("jwt  u a"));
        assert_eq!(of(r#"{"exp":1}"#), None);
        assert_eq!(of("not json"), None);
        let whole = jwt(r#"{"sub":"me"}"#);
        for broken in [
            "",
            "a.b",
            "eyJ.!!.c",
            "sk-1",
            &format!("{whole}.more"),
            whole.trim_start_matches('e'),
        ] {
            assert_eq!(subject(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_tenant_is_read_of_a_token_of_copilot() {
        let tenant = |token| copilot_tenant(token);
        assert_eq!(
            tenant("tid=ab12;exp=1;sku=x:sig").as_deref(),
            Some("copilot ab12")
        );
        assert_eq!(
            tenant("tid=ab12;exp=2;sku=y:gis"),
            tenant("tid=ab12;exp=1;sku=x:sig")
        );
        assert_eq!(tenant("ghu_token"), None);
        assert_eq!(tenant("tid="), None);
    }
}
