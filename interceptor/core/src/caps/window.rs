//! Windows: calendar ones in a time zone, which start and end at a moment, and rolling ones, which
//! end now.

use std::fmt;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan, Zoned};
use serde::{Deserialize, Serialize};

/// For how long spend counts against a cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Window {
    /// Five minutes.
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
    /// The time up to now.
    Rolling(Rolling),
}

/// The length of a rolling window. Time goes on in steps of a 24th of it: what is spent counts for
/// the length of the window at least, and for one step more at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rolling {
    seconds: u32,
}

/// A text that names no window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected \"5m\", \"hour\", \"day\", \"week\", \"month\", \"total\" or \"rolling\" and a length from 1m to \
     366d such as \"rolling 24h\", found {found:?}"
)]
pub struct NoWindow {
    /// The text.
    pub found: String,
}

impl Rolling {
    /// Steps of a window.
    pub const STEPS: u32 = 24;

    /// A window of so many seconds: from a minute to 366 days; none otherwise.
    #[must_use]
    pub fn of_seconds(seconds: u32) -> Option<Self> {
        (60..=366 * 86_400)
            .contains(&seconds)
            .then_some(Self { seconds })
    }

    /// The length in seconds.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        self.seconds
    }

    /// The length in milliseconds.
    pub(super) fn length_ms(self) -> i64 {
        i64::from(self.seconds).saturating_mul(1000)
    }

    /// The length of a step in seconds, one at least: how soon something may be spent long enough ago.
    #[must_use]
    pub fn step_s(self) -> u64 {
        u64::try_from(self.step_ms().div_euclid(1000)).map_or(1, |step_s| step_s.max(1))
    }

    fn step_ms(self) -> i64 {
        self.length_ms().div_euclid(i64::from(Self::STEPS))
    }

    /// Whether what was spent in the step that starts at `start_ms` still counts.
    pub(super) fn counts(self, start_ms: i64, now_ms: i64) -> bool {
        now_ms < self.ends_ms(start_ms)
    }

    /// When what was spent in a step counts no more.
    pub(super) fn ends_ms(self, start_ms: i64) -> i64 {
        start_ms
            .saturating_add(self.step_ms())
            .saturating_add(self.length_ms())
    }

    /// The earliest moment that may count at one in the step that starts at `start_ms`.
    pub(super) fn counts_since_ms(self, start_ms: i64) -> i64 {
        start_ms
            .saturating_sub(self.length_ms())
            .saturating_sub(self.step_ms())
    }

    /// `24h`, `90s`: in the largest unit that it is whole in.
    fn parse(text: &str) -> Option<Self> {
        let unit = text.chars().last()?;
        let seconds = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        let count: u32 = text.strip_suffix(unit)?.parse().ok()?;
        Self::of_seconds(count.checked_mul(seconds)?)
    }
}

/// From the largest.
const UNITS: [(char, u32); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// `24h`: the unit is the largest that it is whole in, days from two on.
impl fmt::Display for Rolling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS
            .iter()
            .find(|(unit, seconds)| {
                self.seconds.is_multiple_of(*seconds) && (*unit != 'd' || self.seconds > *seconds)
            })
            .unwrap_or(&('s', 1));
        write!(f, "{}{}", self.seconds.div_euclid(whole.1), whole.0)
    }
}

/// As it stands in the configuration.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FiveMinutes => f.write_str("5m"),
            Self::Hour => f.write_str("hour"),
            Self::Day => f.write_str("day"),
            Self::Week => f.write_str("week"),
            Self::Month => f.write_str("month"),
            Self::Total => f.write_str("total"),
            Self::Rolling(rolling) => write!(f, "rolling {rolling}"),
        }
    }
}

impl TryFrom<String> for Window {
    type Error = NoWindow;

    fn try_from(text: String) -> Result<Self, NoWindow> {
        let rolling = || Rolling::parse(text.strip_prefix("rolling")?.trim_start());
        match text.as_str() {
            "5m" => Ok(Self::FiveMinutes),
            "hour" => Ok(Self::Hour),
            "day" => Ok(Self::Day),
            "week" => Ok(Self::Week),
            "month" => Ok(Self::Month),
            "total" => Ok(Self::Total),
            _ => match rolling() {
                Some(rolling) => Ok(Self::Rolling(rolling)),
                None => Err(NoWindow { found: text }),
            },
        }
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
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
    /// The rolling window that is as long, where there is one: a month counts as 31 days.
    #[must_use]
    pub fn rolling(self) -> Option<Self> {
        let days = |days: u32| days.saturating_mul(86_400);
        let seconds = match self {
            Self::FiveMinutes => 300,
            Self::Hour => 3_600,
            Self::Day => days(1),
            Self::Week => days(7),
            Self::Month => days(31),
            Self::Total => return None,
            Self::Rolling(_) => return Some(self),
        };
        Rolling::of_seconds(seconds).map(Self::Rolling)
    }

    pub(super) const fn as_rolling(self) -> Option<Rolling> {
        match self {
            Self::Rolling(rolling) => Some(rolling),
            Self::FiveMinutes | Self::Hour | Self::Day | Self::Week | Self::Month | Self::Total => {
                None
            }
        }
    }

    /// The window that holds a moment, which is clamped to the years that the calendar knows. Of a
    /// rolling one, the step.
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
            Self::Rolling(rolling) => {
                let start_ms = now_ms.saturating_sub(now_ms.rem_euclid(rolling.step_ms()));
                Period {
                    start_ms,
                    end_ms: start_ms.saturating_add(rolling.step_ms()),
                }
            }
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

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]
mod tests {
    use super::*;

    fn zone(posix: &str) -> TimeZone {
        TimeZone::posix(posix).unwrap()
    }

    fn ms(time: &str) -> i64 {
        time.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[track_caller]
    fn check(window: Window, timezone: &TimeZone, now: &str, start: &str, end: &str) {
        let period = window.period(ms(now), timezone);
        let text = |ms| Timestamp::from_millisecond(ms).unwrap().to_string();
        let found = (text(period.start_ms), text(period.end_ms));
        assert_eq!(
            found,
            (start.to_owned(), end.to_owned()),
            "{window:?} at {now}"
        );
        for inside in [period.start_ms, period.end_ms - 1] {
            assert_eq!(
                window.period(inside, timezone),
                period,
                "{window:?} at {inside}"
            );
        }
        assert_eq!(
            window.period(period.end_ms, timezone).start_ms,
            period.end_ms
        );
        assert_eq!(
            window.period(period.start_ms - 1, timezone).end_ms,
            period.start_ms
        );
    }

    /// Window, a moment in it, its start and its end, in a time zone.
    fn check_all(timezone: &TimeZone, table: &str) {
        for line in table.lines().filter(|line| !line.trim().is_empty()) {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let window: Window = serde_json::from_str(&format!("{:?}", cells[0])).unwrap();
            check(window, timezone, cells[1], cells[2], cells[3]);
        }
    }

    #[test]
    fn windows_begin_and_end_where_the_calendar_says() {
        check_all(
            &TimeZone::UTC,
            "5m    | 2026-11-22T12:34:56Z     | 2026-11-22T12:30:00Z | 2026-11-22T12:35:00Z
             hour  | 2026-11-22T12:34:56.789Z | 2026-11-22T12:00:00Z | 2026-11-22T13:00:00Z
             day   | 2026-11-22T00:00:00Z     | 2026-11-22T00:00:00Z | 2026-11-23T00:00:00Z
             day   | 2028-02-29T23:59:59Z     | 2028-02-29T00:00:00Z | 2028-03-01T00:00:00Z
             day   | 2026-12-31T12:00:00Z     | 2026-12-31T00:00:00Z | 2027-01-01T00:00:00Z
             week  | 2026-11-22T12:00:00Z     | 2026-11-16T00:00:00Z | 2026-11-23T00:00:00Z
             week  | 2026-11-23T00:00:00Z     | 2026-11-23T00:00:00Z | 2026-11-30T00:00:00Z
             week  | 2027-01-01T00:00:00Z     | 2026-12-28T00:00:00Z | 2027-01-04T00:00:00Z
             month | 2026-11-30T23:59:59Z     | 2026-11-01T00:00:00Z | 2026-12-01T00:00:00Z
             month | 2027-01-31T12:00:00Z     | 2027-01-01T00:00:00Z | 2027-02-01T00:00:00Z
             month | 2027-02-28T12:00:00Z     | 2027-02-01T00:00:00Z | 2027-03-01T00:00:00Z
             month | 2028-02-29T12:00:00Z     | 2028-02-01T00:00:00Z | 2028-03-01T00:00:00Z
             month | 1969-12-31T12:00:00Z     | 1969-12-01T00:00:00Z | 1970-01-01T00:00:00Z",
        );
    }

    /// Days of 23 and of 25 hours, and an hour that the clock shows twice, which is two windows.
    #[test]
    fn windows_follow_the_clocks_of_their_time_zone() {
        check_all(
            &zone("EST5EDT,M3.2.0,M11.1.0"),
            "day   | 2027-03-14T12:00:00Z     | 2027-03-14T05:00:00Z | 2027-03-15T04:00:00Z
             day   | 2026-11-01T12:00:00Z     | 2026-11-01T04:00:00Z | 2026-11-02T05:00:00Z
             week  | 2026-11-01T12:00:00Z     | 2026-10-26T04:00:00Z | 2026-11-02T05:00:00Z
             month | 2026-11-01T04:00:00Z     | 2026-11-01T04:00:00Z | 2026-12-01T05:00:00Z
             month | 2026-11-01T03:59:59Z     | 2026-10-01T04:00:00Z | 2026-11-01T04:00:00Z
             hour  | 2026-11-01T05:30:00Z     | 2026-11-01T05:00:00Z | 2026-11-01T06:00:00Z
             hour  | 2026-11-01T06:30:00Z     | 2026-11-01T06:00:00Z | 2026-11-01T07:00:00Z",
        );
        check_all(
            &zone("IST-5:30"),
            "hour  | 2026-11-01T06:00:00Z     | 2026-11-01T05:30:00Z | 2026-11-01T06:30:00Z
             day   | 2026-11-01T18:30:00Z     | 2026-11-01T18:30:00Z | 2026-11-02T18:30:00Z",
        );
    }

    /// Clocks go forward at midnight, so that a day begins at one, and back at one, so that
    /// midnight is shown twice.
    #[test]
    fn a_day_begins_once_where_midnight_is_skipped_or_repeated() {
        check_all(
            &zone("CST5CDT,M3.2.0/0,M11.1.0/1"),
            "day   | 2027-03-14T12:00:00Z     | 2027-03-14T05:00:00Z | 2027-03-15T04:00:00Z
             day   | 2026-11-01T12:00:00Z     | 2026-11-01T04:00:00Z | 2026-11-02T05:00:00Z
             day   | 2026-11-01T05:30:00Z     | 2026-11-01T04:00:00Z | 2026-11-02T05:00:00Z",
        );
    }

    #[test]
    fn the_whole_of_time_is_one_window_without_end() {
        let period = Window::Total.period(0, &TimeZone::UTC);
        assert_eq!((period, period.end_unix()), (Period::ALWAYS, None));
    }

    #[test]
    fn a_moment_beyond_the_calendar_has_a_window_too() {
        let all = [
            Window::FiveMinutes,
            Window::Hour,
            Window::Day,
            Window::Week,
            Window::Month,
            Window::Total,
        ];
        for window in all {
            for now_ms in [i64::MIN, i64::MAX, ms("9999-12-30T00:00:00Z")] {
                let period = window.period(now_ms, &zone("EST5EDT,M3.2.0,M11.1.0"));
                assert!(
                    period.start_ms < period.end_ms,
                    "{window:?} {now_ms} {period:?}"
                );
            }
        }
    }
}
