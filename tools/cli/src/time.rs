//! Times as the command line takes and prints them.

use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// Forms of `--timestamp` that say their offset from UTC.
const WITH_OFFSET: &[&str] = &[
    "%Y-%m-%dT%H:%M:%S%:z",
    "%Y-%m-%dT%H:%M:%S%z",
    "%Y-%m-%d %H:%M:%S %z",
    "%Y-%m-%d %H:%M:%S %:z",
    "%Y-%m-%d %H:%M:%S%:z",
    "%Y-%m-%d %H:%M:%S%z",
    "%Y-%m-%d %H:%M %z",
    "%a, %d %b %Y %H:%M:%S %z",
    "%a %b %d %H:%M:%S %Y %z",
];

/// Forms that do not, and mean local time.
const LOCAL: &[&str] = &[
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
];

/// Reads a time: `@SECONDS`, ISO 8601 with or without an offset, `now`. Gives seconds since 1970.
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Some(seconds) = text.strip_prefix('@') {
        return seconds.parse().ok();
    }
    if text == "now" {
        return Some(now());
    }
    // The zone's usual names for "no offset".
    let zulu = ["Z", " UTC", " GMT"]
        .iter()
        .find_map(|suffix| text.strip_suffix(suffix));
    let text = zulu.map_or_else(|| text.to_owned(), |time| format!("{time}+00:00"));
    let absolute = WITH_OFFSET
        .iter()
        .find_map(|format| strtime::parse(format, &text).ok()?.to_timestamp().ok());
    let local = || {
        let zone = TimeZone::system();
        let civil = LOCAL.iter().find_map(|format| civil(format, &text))?;
        civil
            .to_zoned(zone)
            .ok()
            .map(|zoned: Zoned| zoned.timestamp())
    };
    u64::try_from(absolute.or_else(local)?.as_second()).ok()
}

/// Seconds since 1970, by this machine's clock.
pub fn now() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or(0)
}

fn civil(format: &str, text: &str) -> Option<DateTime> {
    let parsed = strtime::parse(format, text).ok()?;
    let date = parsed.to_date().ok()?;
    Some(
        parsed
            .to_datetime()
            .unwrap_or_else(|_| date.to_datetime(jiff::civil::Time::midnight())),
    )
}

/// A time as `ostree log` prints it: `2024-05-01 08:00:00 +0000`.
pub fn show(seconds: u64) -> String {
    in_utc(seconds, "%Y-%m-%d %H:%M:%S +0000")
}

/// A time as JSON has it: `2024-05-01T08:00:00Z`.
pub fn iso(seconds: u64) -> String {
    in_utc(seconds, "%Y-%m-%dT%H:%M:%SZ")
}

fn in_utc(seconds: u64, format: &str) -> String {
    let time = i64::try_from(seconds)
        .ok()
        .and_then(|s| Timestamp::from_second(s).ok());
    // Commits can carry times that no calendar has.
    time.map_or_else(
        || format!("@{seconds}"),
        |time| time.strftime(format).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_the_usual_forms() {
        for text in [
            "@1714550400",
            "2024-05-01T08:00:00Z",
            "2024-05-01 08:00:00 UTC",
            "2024-05-01T10:00:00+02:00",
            "2024-05-01 10:00:00 +0200",
            "2024-05-01 10:00:00 +02:00",
            "2024-05-01T10:00:00+0200",
            "2024-05-01 10:00 +0200",
            "Wed, 01 May 2024 08:00:00 +0000",
        ] {
            assert_eq!(parse(text), Some(1_714_550_400), "{text}");
        }
        for text in [
            "",
            "@",
            "@-1",
            "yesterday",
            "2024-13-01",
            "1714550400 apples",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert!(parse("2024-05-01").is_some());
        assert!(parse("2024-05-01 10:00").is_some());
    }

    #[test]
    fn times_are_printed_in_utc() {
        assert_eq!(show(1_714_550_400), "2024-05-01 08:00:00 +0000");
        assert_eq!(iso(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(show(u64::MAX), "@18446744073709551615");
    }
}
