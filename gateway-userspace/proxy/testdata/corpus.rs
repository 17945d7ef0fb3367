//! Reads the tables of this directory. Self-contained, so that any test can include it by `#[path]`.

/// One line of `requests.tsv` or `responses.tsv`.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, which begins with a row of the edge safety tables.
    pub name: &'static str,
    /// What is made of the bytes.
    pub verdict: &'static str,
    /// What `pass` and `head` expect, as words.
    pub expected: Vec<Vec<u8>>,
    /// What is sent.
    pub bytes: Vec<u8>,
}

impl Case {
    /// The status of a refusal.
    pub fn status(&self) -> Option<u16> {
        self.verdict.parse().ok()
    }

    /// A word of the expectation as text; `-` is nothing.
    pub fn word(&self, index: usize) -> &str {
        let word = self.expected.get(index).map_or(&b"-"[..], |word| word);
        match std::str::from_utf8(word) {
            Ok("-") | Err(_) => "",
            Ok(word) => word,
        }
    }
}

/// Every request.
pub fn requests() -> Vec<Case> {
    cases(include_str!("requests.tsv"))
}

/// Every response.
pub fn responses() -> Vec<Case> {
    cases(include_str!("responses.tsv"))
}

fn cases(table: &'static str) -> Vec<Case> {
    let lines = table.lines();
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(case)
        .collect()
}

fn case(line: &'static str) -> Case {
    let columns = line.splitn(4, '\t').collect::<Vec<_>>();
    let [name, verdict, expected, bytes] = columns[..] else {
        panic!("four columns: {line}");
    };
    Case {
        name,
        verdict,
        expected: expected.split_ascii_whitespace().map(unescape).collect(),
        bytes: unescape(bytes),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match first {
            '\\' => rest = escape(rest, &mut out),
            '{' => {
                let (body, after) = rest.split_once('}').expect("a closing brace");
                let (part, times) = body.rsplit_once('*').expect("a count");
                let times = times.parse().expect("a number");
                out.extend(unescape(part).repeat(times));
                rest = after;
            }
            _ => out.extend(first.to_string().bytes()),
        }
    }
    out
}

fn escape<'a>(rest: &'a str, out: &mut Vec<u8>) -> &'a str {
    let (byte, len) = match rest.as_bytes() {
        [b'r', ..] => (b'\r', 1),
        [b'n', ..] => (b'\n', 1),
        [b't', ..] => (b'\t', 1),
        [b'0', ..] => (0, 1),
        [b'\\', ..] => (b'\\', 1),
        [b'x', ..] => (u8::from_str_radix(&rest[1..3], 16).expect("two digits"), 3),
        _ => panic!("an escape: {rest}"),
    };
    out.push(byte);
    &rest[len..]
}
