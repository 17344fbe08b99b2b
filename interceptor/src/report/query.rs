//! What a report is asked: from when on, and by what its calls are grouped.

use std::collections::BTreeMap;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// What a report is asked.
#[derive(Clone, Debug)]
pub struct Query {
    /// Calls that began before are left out; milliseconds since the Unix epoch.
    pub since_unix_ms: i64,
    /// What calls are grouped by; nothing makes one group of all.
    pub by: Vec<GroupKey>,
    /// Where days begin at midnight.
    pub time_zone: TimeZone,
    /// What a host charges on top of its prices, in basis points (550 are 5.5 %).
    pub fees: BTreeMap<String, u32>,
}

impl Query {
    /// From when on, for a program: RFC 3339.
    pub(super) fn since(&self) -> String {
        self.shown("%Y-%m-%dT%H:%M:%S%:z")
    }

    /// From when on, for a person.
    pub(super) fn since_shown(&self) -> String {
        self.shown("%Y-%m-%d %H:%M")
    }

    fn shown(&self, format: &str) -> String {
        Timestamp::from_millisecond(self.since_unix_ms).map_or_else(
            |_| String::new(),
            |at| {
                at.to_zoned(self.time_zone.clone())
                    .strftime(format)
                    .to_string()
            },
        )
    }
}

/// What calls can be grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum GroupKey {
    /// Day on which the call began.
    Day,
    /// Provider.
    Provider,
    /// Model that was asked for.
    Model,
    /// Host that was called.
    Host,
    /// API, such as messages.
    Api,
    /// API key: the start of its hash, and its last characters.
    Key,
    /// User that the program ran as.
    User,
    /// Program.
    Process,
    /// Control group.
    Cgroup,
    /// Container.
    Container,
    /// Kubernetes pod.
    Pod,
    /// Kubernetes namespace.
    Namespace,
    /// Kubernetes service account.
    ServiceAccount,
    /// Team, as configured.
    Team,
    /// Session that the program named.
    Session,
    /// What the prompt cache did: hit, partial, write, miss and so on.
    Outcome,
    /// Why the prompt cache did not do more.
    Reason,
    /// The rule or learned span that covers what changed in the prompt.
    Rule,
    /// Program, of what was not inspected.
    #[value(skip)]
    Program,
}

impl GroupKey {
    /// The heading of its column, and its name in data.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Provider => "provider",
            Self::Model => "model",
            Self::Host => "host",
            Self::Api => "api",
            Self::Key => "key",
            Self::User => "user",
            Self::Process => "process",
            Self::Cgroup => "cgroup",
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Namespace => "namespace",
            Self::ServiceAccount => "service_account",
            Self::Team => "team",
            Self::Session => "session",
            Self::Outcome => "outcome",
            Self::Reason => "reason",
            Self::Rule => "rule",
            Self::Program => "program",
        }
    }
}

/// From when on, as it is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// So long ago.
    Ago(SignedDuration),
    /// From the start of a day on.
    Day(Date),
}

impl Since {
    /// In milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// Where that is before the calendar begins.
    pub fn unix_ms(self, now: Timestamp, time_zone: &TimeZone) -> Result<i64, jiff::Error> {
        let start = match self {
            Self::Ago(duration) => now.checked_sub(duration)?,
            Self::Day(date) => date.to_zoned(time_zone.clone())?.timestamp(),
        };
        Ok(start.as_millisecond())
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ago = || {
            let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
            let number: u32 = number.parse().ok()?;
            let hours = match unit {
                "m" => return Some(SignedDuration::from_mins(i64::from(number))),
                "h" => 1,
                "d" => 24,
                "w" => 24 * 7,
                _ => return None,
            };
            Some(SignedDuration::from_hours(hours * i64::from(number)))
        };
        ago()
            .map(Self::Ago)
            .or_else(|| text.parse().ok().map(Self::Day))
            .ok_or_else(|| {
                "expected a number and one of m, h, d, w, such as 24h, or a day such as 2026-11-01"
                    .to_owned()
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_duration_or_a_day() {
        let hours = |hours| Ok(Since::Ago(SignedDuration::from_hours(hours)));
        let cases = [
            ("24h", hours(24)),
            ("7d", hours(7 * 24)),
            ("2w", hours(14 * 24)),
            ("90m", Ok(Since::Ago(SignedDuration::from_mins(90)))),
            ("2026-11-01", Ok(Since::Day(jiff::civil::date(2026, 11, 1)))),
            ("", Err(())),
            ("h", Err(())),
            ("-1h", Err(())),
            ("99999999999h", Err(())),
            ("24", Err(())),
            ("24€", Err(())),
            ("yesterday", Err(())),
            ("2026-13-01", Err(())),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Since>().map_err(drop), expected, "{text:?}");
        }
    }

    #[test]
    fn a_day_begins_at_midnight_of_the_time_zone() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let day = Since::Day(jiff::civil::date(2026, 11, 1));
        let start = day.unix_ms(Timestamp::UNIX_EPOCH, &berlin).unwrap();
        assert_eq!(
            Timestamp::from_millisecond(start).unwrap().to_string(),
            "2026-10-31T23:00:00Z"
        );
    }

    #[test]
    fn a_time_before_the_calendar_is_an_error() {
        let since = Since::Ago(SignedDuration::from_hours(24 * 7 * i64::from(u32::MAX)));
        assert!(
            since
                .unix_ms(Timestamp::UNIX_EPOCH, &TimeZone::UTC)
                .is_err()
        );
    }
}
