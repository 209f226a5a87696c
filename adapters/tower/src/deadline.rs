//! How long a request may take, as headers say it.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue};

pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The units of `grpc-timeout`, finest first, in nanoseconds.
const UNITS: [(char, u128); 6] = [
    ('n', 1),
    ('u', 1_000),
    ('m', 1_000_000),
    ('S', 1_000_000_000),
    ('M', 60 * 1_000_000_000),
    ('H', 3600 * 1_000_000_000),
];

/// The protocol has room for eight digits.
const GRPC_MAX: u128 = 99_999_999;

pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let content = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    content.is_some_and(|content| content.starts_with(b"application/grpc"))
}

/// What the client allows: the shorter one of `grpc-timeout` and the plain header. A header that can not be read is none.
pub(crate) fn asked(headers: &HeaderMap, plain: Option<&HeaderName>) -> Option<Duration> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let grpc = text(&GRPC_TIMEOUT).and_then(parse_grpc);
    let plain = plain.and_then(text).and_then(parse_millis);
    grpc.into_iter().chain(plain).min()
}

/// Reads a `grpc-timeout`: at most eight digits and a unit.
pub(crate) fn parse_grpc(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    let nanos = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    let number: u128 = digits.parse().ok().filter(|_| is_number)?;
    Some(from_nanos(number * nanos))
}

/// Writes a `grpc-timeout` that is not longer than `left`, as exact as there is room for.
pub(crate) fn format_grpc(left: Duration) -> String {
    let nanos = left.as_nanos();
    let fits = UNITS.iter().find(|(_, unit)| nanos / unit <= GRPC_MAX);
    match fits {
        Some((name, unit)) => format!("{}{name}", nanos / unit),
        None => format!("{GRPC_MAX}H"),
    }
}

/// Reads whole milliseconds, as envoy writes them.
pub(crate) fn parse_millis(text: &str) -> Option<Duration> {
    let is_number = text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).map(Duration::from_millis)
}

pub(crate) fn format_millis(left: Duration) -> String {
    left.as_millis().to_string()
}

fn from_nanos(nanos: u128) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    let seconds = u64::try_from(nanos / SECOND).unwrap_or(u64::MAX);
    let rest = u32::try_from(nanos % SECOND).unwrap_or(0);
    Duration::new(seconds, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_timeout_is_read_as_the_protocol_has_it() {
        let good = [
            ("1H", 3_600_000_000_000_u64),
            ("3M", 180_000_000_000),
            ("42S", 42_000_000_000),
            ("500m", 500_000_000),
            ("7u", 7_000),
            ("99999999n", 99_999_999),
            ("0n", 0),
        ];
        for (text, nanos) in good {
            assert_eq!(parse_grpc(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        assert_eq!(parse_grpc("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for text in ["", "S", "1", "1s", "123456789S", "-1S", "+1S", "1.5S", " 1S", "1 S", "1µ", "ü"] {
            assert_eq!(parse_grpc(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_never_longer_than_what_is_left() {
        let mut left = Duration::from_nanos(1);
        for step in 0..90_u32 {
            let written = parse_grpc(&format_grpc(left)).expect("it is what the protocol has");
            assert!(written <= left, "{left:?} became {written:?}");
            assert!(left - written <= left / 1000, "{left:?} became {written:?}");
            let plain = parse_millis(&format_millis(left)).expect("a number");
            assert!(plain <= left && left - plain < Duration::from_millis(1));
            left = left * 3 / 2 + Duration::from_nanos(u64::from(step) + 1);
        }
    }

    #[test]
    fn a_plain_header_is_whole_milliseconds() {
        assert_eq!(parse_millis("1500"), Some(Duration::from_millis(1500)));
        for text in ["", "1.5", "-1", "+1", "1s"] {
            assert_eq!(parse_millis(text), None, "{text}");
        }
    }
}
