//! Unix time as HTTP and logs write it. Takes a time, never asks for one.

use std::io::Write;

/// The length of [`http_date`].
pub const HTTP_DATE_LEN: usize = 29;

/// RFC 9110 §5.6.7 `IMF-fixdate`, as in `Sun, 06 Nov 1994 08:49:37 GMT`, for seconds since the
/// Unix epoch. Exact until the year 9999.
#[must_use]
pub fn http_date(unix_s: u64) -> [u8; HTTP_DATE_LEN] {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let time = Civil::of(unix_s);
    let mut text = [b' '; HTTP_DATE_LEN];
    // The text is as long as the array until the year 9999; what would not fit is cut.
    let _ = write!(
        &mut text[..],
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
        DAYS[(unix_s / 86_400 % 7) as usize],
        time.day,
        MONTHS[time.month as usize - 1],
        time.year,
        time.hour,
        time.minute,
        time.second
    );
    text
}

/// Appends RFC 3339 with milliseconds in UTC, as in `1994-11-06T08:49:37.123Z`.
pub fn push_rfc3339(out: &mut Vec<u8>, unix_ms: u64) {
    let time = Civil::of(unix_ms / 1000);
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        time.year,
        time.month,
        time.day,
        time.hour,
        time.minute,
        time.second,
        unix_ms % 1000
    );
}

struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Civil {
    /// Proleptic Gregorian, counted in eras of 400 years that begin on 1 March.
    fn of(unix_s: u64) -> Self {
        let days = unix_s / 86_400 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * from_march + 2) / 5 + 1,
            hour: unix_s / 3600 % 24,
            minute: unix_s / 60 % 60,
            second: unix_s % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_known_moments() {
        for (unix, date) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_102_444_799, "Thu, 31 Dec 2099 23:59:59 GMT"),
        ] {
            assert_eq!(str::from_utf8(&http_date(unix)), Ok(date));
        }
    }

    #[test]
    fn dates_agree_with_jiff() {
        for unix in (0..8_000_000_000_u64).step_by(12_345_679) {
            let mut out = Vec::new();
            push_rfc3339(&mut out, unix * 1000 + 7);
            let expected = jiff::Timestamp::from_second(unix as i64).expect("in range");
            let expected = expected.strftime("%Y-%m-%dT%H:%M:%S.007Z").to_string();
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }
}
