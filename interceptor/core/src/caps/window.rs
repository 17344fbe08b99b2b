//! Calendar windows in a time zone: when the window that holds a moment starts and ends.

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan, Zoned};
use serde::{Deserialize, Serialize};

/// For how long spend counts against a cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// Five minutes.
    #[serde(rename = "5m")]
    FiveMinutes,
    /// An hour.
    Hour,
    /// A day, from midnight; 23 or 25 hours long where clocks are changed.
    Day,
    /// A week, from Monday.
    Week,
    /// A month, from the first.
    Month,
    /// For ever.
    Total,
}

/// A stretch of time in milliseconds since 1970, the end excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) start_ms: i64,
    /// The first moment that is no longer part of it: [`i64::MAX`] is never.
    pub(super) end_ms: i64,
}

impl Period {
    /// Before any window.
    pub(super) const NEVER: Self = Self {
        start_ms: i64::MIN,
        end_ms: i64::MIN,
    };

    pub(super) const ALWAYS: Self = Self {
        start_ms: i64::MIN,
        end_ms: i64::MAX,
    };

    /// The end in seconds since 1970, if there is one.
    pub(super) fn end_unix(self) -> Option<i64> {
        (self.end_ms != i64::MAX).then(|| self.end_ms.div_euclid(1000))
    }
}

impl Window {
    /// The window that holds a moment, which is clamped to the years that the calendar knows.
    ///
    /// Hours and five minutes are of fixed length and start where the local clock shows a
    /// multiple of them, at the offset of the moment: an hour that the clock repeats is two.
    pub(super) fn period(self, now_ms: i64, timezone: &TimeZone) -> Period {
        let now = Timestamp::from_millisecond(now_ms).unwrap_or(if now_ms < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        });
        let now = now.to_zoned(timezone.clone());
        match self {
            Self::FiveMinutes => fixed(&now, 5 * 60),
            Self::Hour => fixed(&now, 60 * 60),
            Self::Day => calendar(&now, 0, 1.day()),
            Self::Week => calendar(
                &now,
                i64::from(now.weekday().to_monday_zero_offset()),
                1.week(),
            ),
            Self::Month => calendar(&now, i64::from(now.day()).saturating_sub(1), 1.month()),
            Self::Total => Period::ALWAYS,
        }
    }
}

fn fixed(now: &Zoned, length_seconds: i64) -> Period {
    let offset = i64::from(now.offset().seconds());
    let local = now.timestamp().as_second().saturating_add(offset);
    let into = local.rem_euclid(length_seconds);
    let start = local.saturating_sub(into).saturating_sub(offset);
    Period {
        start_ms: start.saturating_mul(1000),
        end_ms: start.saturating_add(length_seconds).saturating_mul(1000),
    }
}

fn calendar(now: &Zoned, days_since_start: i64, length: Span) -> Period {
    let first = now.date().saturating_sub(days_since_start.days());
    let midnight = |date: jiff::civil::Date| date.to_zoned(now.time_zone().clone()).ok();
    let next = first.checked_add(length).ok().and_then(midnight);
    Period {
        start_ms: midnight(first).map_or(i64::MIN, |at| at.timestamp().as_millisecond()),
        end_ms: next.map_or(i64::MAX, |at| at.timestamp().as_millisecond()),
    }
}
