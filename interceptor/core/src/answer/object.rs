//! Objects of an answer: their members by name, without a tree.

use crate::json::{self, Kind, Member};

/// The members of an object, looked up by name. Of several with one key the last counts.
pub(crate) struct Object<'a> {
    pub(super) bytes: &'a [u8],
    members: Vec<Member>,
}

impl<'a> Object<'a> {
    /// The object that `bytes` begin with.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let members = json::members(bytes, 0..bytes.len()).ok()?;
        Some(Self { bytes, members })
    }

    /// The object that is all of `bytes`.
    pub(super) fn all_of(bytes: &'a [u8]) -> Option<Self> {
        let members = json::whole_object(bytes).ok()?;
        Some(Self { bytes, members })
    }

    pub(super) fn get(&self, name: &str) -> Option<&Member> {
        self.members
            .iter()
            .rev()
            .find(|member| member.is(self.bytes, name))
    }

    pub(crate) fn object(&self, name: &str) -> Option<Self> {
        Self::read(self.bytes.get(self.get(name)?.value.range.clone())?)
    }

    /// The objects in an array.
    pub(super) fn objects(&self, name: &str) -> impl Iterator<Item = Self> + use<'a> {
        let bytes = self.bytes;
        self.get(name)
            .and_then(|member| json::elements(bytes, member.value.range.clone()).ok())
            .unwrap_or_default()
            .into_iter()
            .filter_map(move |element| Self::read(bytes.get(element.range)?))
    }

    /// The texts in an array.
    pub(super) fn texts(&self, name: &str) -> impl Iterator<Item = String> + use<'a> {
        let bytes = self.bytes;
        self.get(name)
            .and_then(|member| json::elements(bytes, member.value.range.clone()).ok())
            .unwrap_or_default()
            .into_iter()
            .filter(|element| element.kind == Kind::String)
            .filter_map(move |element| json::text(bytes, element.range))
    }

    /// A short string, or a number as one: a name, an id, a code.
    pub(crate) fn name(&self, name: &str) -> Option<String> {
        let value = &self.get(name)?.value;
        match value.kind {
            Kind::String => json::name(self.bytes, value),
            Kind::Number => {
                json::whole(self.bytes, value.range.clone()).map(|code| code.to_string())
            }
            Kind::Object | Kind::Array | Kind::True | Kind::False | Kind::Null => None,
        }
    }

    /// The same where it says something: some send empty names at first.
    pub(super) fn filled(&self, name: &str) -> Option<String> {
        self.name(name).filter(|value| !value.is_empty())
    }

    /// A string of any length.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let value = &self.get(name)?.value;
        let text = json::text(self.bytes, value.range.clone());
        text.filter(|_| value.kind == Kind::String)
    }

    /// The text of a number.
    pub(super) fn number(&self, name: &str) -> Option<&'a [u8]> {
        let value = &self.get(name)?.value;
        let bytes = self.bytes.get(value.range.clone());
        bytes.filter(|_| value.kind == Kind::Number)
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|member| member.value.kind == Kind::True)
    }

    pub(super) fn whole(&self, name: &str) -> Option<u64> {
        json::whole(self.bytes, self.get(name)?.value.range.clone())
    }
}
