//! Quantities as people write them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration in the grammar of Gateway API v1 `Duration`: `1h30m`, `10s`, `250ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no duration: write 10s, 250ms, 5m or 1h30m");
        let mut total = Duration::ZERO;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let unit = rest[digits..]
                .bytes()
                .take_while(u8::is_ascii_alphabetic)
                .count();
            let count: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            let part = match &rest[digits..digits + unit] {
                "h" => count.checked_mul(3600).map(Duration::from_secs),
                "m" => count.checked_mul(60).map(Duration::from_secs),
                "s" => Some(Duration::from_secs(count)),
                "ms" => Some(Duration::from_millis(count)),
                _ => None,
            };
            total = part.and_then(|p| total.checked_add(p)).ok_or_else(wrong)?;
            rest = &rest[digits + unit..];
        }
        if text.is_empty() {
            Err(wrong())
        } else {
            Ok(Self(total))
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, ms) = (self.0.as_secs(), self.0.subsec_millis());
        match (s, ms) {
            (0, ms) if ms > 0 => write!(f, "{ms}ms"),
            (s, 0) => write!(f, "{s}s"),
            (s, ms) => write!(f, "{s}s{ms}ms"),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A network, as in `192.0.2.0/24`, or one address; what the prefix leaves over is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let network = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let wrong = |_: std::net::AddrParseError| {
            format!("{text:?} is no network: write 192.0.2.0/24 or 2001:db8::/120")
        };
        network.map(|net| Self(net.trunc())).map_err(wrong)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A log filter: a level, or levels by module; checked when it is parsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct LogFilter(String);

impl LogFilter {
    /// As `tracing_subscriber::EnvFilter` reads it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = |what: &str| {
            format!("{what:?} is no log level: write info, or info,gateway_proxy=debug")
        };
        // A word alone is a module to the filter, which then hears everything of nobody else.
        let words = text.split(',').map(str::trim);
        let mut levels = words.filter(|word| !word.contains(['=', '[']));
        let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
        if let Some(word) = levels.find(|word| !is_level(word)) {
            return Err(fault(word));
        }
        tracing_subscriber::EnvFilter::try_new(text)
            .map(|_| Self(text.to_owned()))
            .map_err(|_| fault(text))
    }
}

impl<'de> Deserialize<'de> for LogFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for text in [
            "info",
            "WARN",
            "off",
            "info,gateway_proxy=debug",
            "gateway_l4[x]=trace,error",
        ] {
            assert!(text.parse::<LogFilter>().is_ok(), "{text}");
        }
        for text in [
            "warning",
            "inof",
            "verbose",
            "0",
            "9",
            "",
            "info,",
            "info,proxy",
            "a=b=c",
        ] {
            assert!(text.parse::<LogFilter>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_follow_the_gateway_api_grammar() {
        for (text, ms) in [
            ("10s", 10_000),
            ("250ms", 250),
            ("1h30m", 5_400_000),
            ("0s", 0),
        ] {
            let span: Span = text.parse().expect(text);
            assert_eq!(span.0, Duration::from_millis(ms));
        }
        for text in [
            "",
            "10",
            "s",
            "10 s",
            "1.5s",
            "-1s",
            "99999999999999999999h",
            "18446744073709551615h",
            "10ä",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_printed_duration_reads_back() {
        for ms in [0, 1, 999, 1000, 1500, 300_000] {
            let span = Span(Duration::from_millis(ms));
            assert_eq!(span.to_string().parse::<Span>(), Ok(span));
        }
    }
}
