//! How long a call of gRPC may take because its client says so, in `grpc-timeout` (gRPC over HTTP/2, "Requests").

use std::time::Duration;

use gateway_model::ir::Timeouts;

use crate::head::Source;
use crate::limits::TimeLimits;

/// The rule's timeouts, or less where the client waits for less. What it says goes to the backend all the same.
pub(super) fn bounded(rule: Timeouts, limits: &TimeLimits, head: &impl Source) -> Timeouts {
    let Some(asked) = head.first("grpc-timeout").and_then(parse) else {
        return rule;
    };
    let ruled = rule.request.filter(|limit| !limit.is_zero());
    let request = match (ruled, rule.request) {
        (Some(limit), _) => Some(limit.min(asked)),
        // The process's own limit would end it before, but only until the answer begins.
        (None, None) if asked >= limits.tunnel_idle => None,
        (None, _) => Some(asked),
    };
    Timeouts { request, ..rule }
}

/// `TimeoutValue TimeoutUnit`: a positive integer of at most eight digits, and a letter. What is none is as good as
/// absent.
fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = digits.iter();
    let value = digits.fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    let timeout = match unit {
        b'H' => Duration::from_secs(value * 3_600),
        b'M' => Duration::from_secs(value * 60),
        b'S' => Duration::from_secs(value),
        b'm' => Duration::from_millis(value),
        b'u' => Duration::from_micros(value),
        b'n' => Duration::from_nanos(value),
        _ => return None,
    };
    Some(timeout).filter(|timeout| !timeout.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_a_number_of_eight_digits_and_a_unit() {
        for (value, timeout) in [
            ("1H", Duration::from_secs(3_600)),
            ("2M", Duration::from_secs(120)),
            ("30S", Duration::from_secs(30)),
            ("100m", Duration::from_millis(100)),
            ("7u", Duration::from_micros(7)),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("99999999H", Duration::from_secs(99_999_999 * 3_600)),
        ] {
            assert_eq!(parse(value.as_bytes()), Some(timeout), "{value}");
        }
        for value in [
            "",
            "S",
            "1",
            "0S",
            "-1S",
            "+1S",
            "1 S",
            "1.5S",
            "1s",
            "1h",
            "100000000n",
            "1S ",
        ] {
            assert_eq!(parse(value.as_bytes()), None, "{value:?}");
        }
    }
}
