//! Query parameters, both ways.

use std::fmt::Write as _;

use crate::view::explain::Question;

/// The parameters of a query, decoded.
pub fn parameters(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

/// A path with these parameters as its query.
pub fn encode(path: &str, parameters: &[(&str, String)]) -> String {
    let mut text = path.to_owned();
    for (at, (name, value)) in parameters.iter().enumerate() {
        text.push(if at == 0 { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

/// The question that `/explain`'s parameters ask.
///
/// # Errors
/// A parameter is missing, unknown or makes no sense.
pub fn explain(parameters: &[(String, String)]) -> anyhow::Result<Question> {
    let (mut method, mut url, mut headers, mut address) = (None, None, Vec::new(), None);
    for (name, value) in parameters {
        match name.as_str() {
            "method" => method = Some(value.clone()),
            "url" => url = Some(value.clone()),
            "header" => headers.push(value.clone()),
            "address" => address = Some(value.parse()?),
            other => anyhow::bail!(
                "unknown parameter {other:?}; there are method, url, header and address"
            ),
        }
    }
    let url = url.ok_or_else(|| anyhow::anyhow!("parameter url is missing"))?;
    Question::parse(method.as_deref(), &url, &headers, address)
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |byte: u8| {
            char::from(byte)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        if let Some(byte) = escaped {
            bytes.push(byte);
            rest = &rest[3..];
        } else {
            bytes.push(if *first == b'+' { b' ' } else { *first });
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_survive_the_way_through_a_query() {
        let url = "https://shop.example.com/a b?x=1&y=ü%2f+".to_owned();
        let text = encode(
            "/explain",
            &[("url", url.clone()), ("header", "x: y".to_owned())],
        );
        let (path, query) = text.split_once('?').expect("a query");
        assert_eq!(path, "/explain");
        assert_eq!(
            parameters(query),
            [
                ("url".to_owned(), url),
                ("header".to_owned(), "x: y".to_owned())
            ]
        );
    }

    #[test]
    fn a_broken_escape_is_taken_as_it_is() {
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%zz%4"), "%zz%4");
    }
}
