//! One alternative of a rule, compiled: its conditions and where it stands in the order of matches.

use std::sync::Arc;

use regex::bytes::Regex;

use crate::head::Head;
use crate::ir::{
    HeaderMatch, HeaderName, HttpMatch, MatchOrder, PathMatch, QueryMatch, Rule, RuleMatch,
    ValueMatch,
};
use crate::pattern::{self, PatternError};
use crate::snapshot::CompiledRule;

/// Values of several lines longer than this, joined, are copied to the heap before a regular
/// expression sees them.
const JOIN_BUFFER: usize = 1024;

/// One alternative of a rule.
#[derive(Debug)]
pub(crate) struct CompiledMatch {
    source: Arc<Rule>,
    alternative: usize,
    pub path: CompiledPath,
    /// None if the path is the only condition.
    pub conditions: Option<Arc<Conditions>>,
    pub rule: Arc<CompiledRule>,
}

/// A condition on the path.
#[derive(Clone, Debug)]
pub(crate) enum CompiledPath {
    Exact(Arc<str>),
    Prefix(Arc<str>),
    Regex(Arc<Regex>),
}

/// Every condition but the path's.
#[derive(Debug)]
pub(crate) struct Conditions {
    pub method: Option<Arc<str>>,
    pub headers: Box<[CompiledHeader]>,
    pub query: Box<[CompiledQuery]>,
}

#[derive(Debug)]
pub(crate) struct CompiledHeader {
    pub name: HeaderName,
    pub value: CompiledValue,
}

#[derive(Debug)]
pub(crate) struct CompiledQuery {
    pub name: Arc<str>,
    pub value: CompiledValue,
}

#[derive(Clone, Debug)]
pub(crate) enum CompiledValue {
    Exact(Arc<str>),
    Prefix(Arc<str>),
    Regex(Regex),
}

impl CompiledMatch {
    /// Compiles an alternative; if `like` has the same conditions, what is compiled of them is shared.
    ///
    /// # Errors
    /// Names the regular expression that does not compile, and why.
    pub fn new(
        source: &Arc<Rule>,
        alternative: usize,
        rule: Arc<CompiledRule>,
        like: Option<&Arc<Self>>,
    ) -> Result<Self, String> {
        let wanted = &source.matches[alternative].conditions;
        let (path, conditions) = match like {
            Some(like) if like.source().conditions == *wanted => {
                (like.path.clone(), like.conditions.clone())
            }
            _ => (CompiledPath::new(&wanted.path)?, Conditions::new(wanted)?),
        };
        Ok(Self {
            path,
            conditions,
            source: Arc::clone(source),
            alternative,
            rule,
        })
    }

    /// Whether its path condition is a regular expression.
    pub fn has_path_regex(&self) -> bool {
        matches!(self.path, CompiledPath::Regex(_))
    }

    /// Whether every condition but the path's holds.
    pub fn holds<H: Head>(&self, head: &H) -> bool {
        self.conditions
            .as_ref()
            .is_none_or(|conditions| conditions.hold(head))
    }

    /// What was written.
    pub fn source(&self) -> &RuleMatch {
        &self.source.matches[self.alternative]
    }

    /// The rule it belongs to, as it was written.
    pub fn rule_source(&self) -> &Rule {
        &self.source
    }

    /// Its place in the order of matches.
    pub fn order(&self) -> &MatchOrder {
        &self.source().order
    }
}

impl CompiledPath {
    fn new(source: &PathMatch) -> Result<Self, String> {
        Ok(match source {
            PathMatch::Exact(path) => Self::Exact(Arc::clone(path)),
            PathMatch::Prefix(path) => Self::Prefix(Arc::clone(path)),
            PathMatch::Regex(pattern) => {
                Self::Regex(Arc::new(anchored(pattern, || "the path".to_owned())?))
            }
        })
    }

    /// Whether the path fulfils this; then how many bytes of it a prefix covers (0 for the other kinds).
    pub fn covers(&self, path: &str) -> Option<usize> {
        match self {
            Self::Exact(exact) => (**exact == *path).then_some(0),
            Self::Prefix(prefix) => {
                covers_prefix(prefix.as_bytes(), path.as_bytes()).then_some(prefix.len())
            }
            Self::Regex(regex) => regex.is_match(path.as_bytes()).then_some(0),
        }
    }
}

/// Whether `prefix`, which has no trailing slash, covers whole elements of `path`.
#[inline]
pub(crate) fn covers_prefix(prefix: &[u8], path: &[u8]) -> bool {
    // Most routes match every path, and comparing nothing would be a call all the same.
    let rest = match prefix.is_empty() {
        true => Some(path),
        false => path.strip_prefix(prefix),
    };
    rest.is_some_and(|rest| rest.first().is_none_or(|&byte| byte == b'/'))
}

impl Conditions {
    fn new(source: &HttpMatch) -> Result<Option<Arc<Self>>, String> {
        if source.method.is_none() && source.headers.is_empty() && source.query.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self {
            method: source.method.clone(),
            headers: source
                .headers
                .iter()
                .map(header)
                .collect::<Result<_, _>>()?,
            query: source.query.iter().map(query).collect::<Result<_, _>>()?,
        })))
    }

    /// Whether all of them hold.
    fn hold<H: Head>(&self, head: &H) -> bool {
        self.method.as_deref().is_none_or(|m| m == head.method())
            && self.headers.iter().all(|header| header.holds(head))
            && self.query.iter().all(|query| query.holds(head))
    }
}

impl CompiledHeader {
    pub fn holds<H: Head>(&self, head: &H) -> bool {
        match &self.value {
            CompiledValue::Exact(value) => {
                joined_equals(head.header_values(&self.name), value.as_bytes())
            }
            CompiledValue::Prefix(value) => {
                joined_starts_with(head.header_values(&self.name), value.as_bytes())
            }
            CompiledValue::Regex(regex) => joined_matches(head.header_values(&self.name), regex),
        }
    }
}

impl CompiledQuery {
    pub fn holds<H: Head>(&self, head: &H) -> bool {
        query_value(head.query(), &self.name).is_some_and(|value| match &self.value {
            CompiledValue::Exact(exact) => **exact == *value,
            CompiledValue::Prefix(prefix) => value.starts_with(&**prefix),
            CompiledValue::Regex(regex) => regex.is_match(value.as_bytes()),
        })
    }
}

/// The value of the first parameter of that name; the empty text if it has no `=`.
///
/// Names and values are compared as they were sent: `%XX` and `+` are not decoded, as Envoy's
/// query parameter matching does it, so that what was matched is what the backend receives.
pub(crate) fn query_value<'q>(query: Option<&'q str>, name: &str) -> Option<&'q str> {
    query?.split('&').find_map(|parameter| {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        (key == name).then_some(value)
    })
}

/// The values of the lines of that name, joined by `,`; nothing if there is no such line.
pub(crate) fn joined_value<H: Head>(head: &H, name: &HeaderName) -> Option<Vec<u8>> {
    let values: Vec<&[u8]> = head.header_values(name).collect();
    (!values.is_empty()).then(|| values.join(&b','))
}

fn joined_equals<'v>(values: impl Iterator<Item = &'v [u8]>, expected: &[u8]) -> bool {
    let mut rest = None;
    for value in values {
        let from = match rest {
            None => Some(expected),
            Some(rest) => <[u8]>::strip_prefix(rest, b","),
        };
        match from.and_then(|from| from.strip_prefix(value)) {
            Some(after) => rest = Some(after),
            None => return false,
        }
    }
    rest.is_some_and(<[u8]>::is_empty)
}

fn joined_starts_with<'v>(values: impl Iterator<Item = &'v [u8]>, prefix: &[u8]) -> bool {
    let mut rest = None;
    for value in values {
        let wanted = match rest {
            None => prefix,
            Some(rest) => match <[u8]>::strip_prefix(rest, b",") {
                Some(rest) => rest,
                None => return false,
            },
        };
        if value.starts_with(wanted) {
            return true;
        }
        rest = wanted.strip_prefix(value);
        if rest.is_none() {
            return false;
        }
    }
    false
}

fn joined_matches<'v>(mut values: impl Iterator<Item = &'v [u8]>, regex: &Regex) -> bool {
    let Some(first) = values.next() else {
        return false;
    };
    let Some(second) = values.next() else {
        return regex.is_match(first);
    };
    let mut buffer = [0; JOIN_BUFFER];
    let mut len = 0;
    let mut spilled = Vec::new();
    for (index, value) in [first, second].into_iter().chain(values).enumerate() {
        let comma: &[u8] = if index == 0 { b"" } else { b"," };
        for part in [comma, value] {
            match buffer.get_mut(len..len + part.len()) {
                Some(room) if spilled.is_empty() => {
                    room.copy_from_slice(part);
                    len += part.len();
                }
                _ => spill(&mut spilled, &buffer[..len], part),
            }
        }
    }
    let joined = if spilled.is_empty() {
        &buffer[..len]
    } else {
        &spilled
    };
    regex.is_match(joined)
}

fn spill(spilled: &mut Vec<u8>, buffered: &[u8], part: &[u8]) {
    if spilled.is_empty() {
        spilled.extend_from_slice(buffered);
    }
    spilled.extend_from_slice(part);
}

fn header(condition: &HeaderMatch) -> Result<CompiledHeader, String> {
    let what = || format!("header {}", condition.name.as_str());
    Ok(CompiledHeader {
        name: condition.name.clone(),
        value: value(&condition.value, what)?,
    })
}

fn query(condition: &QueryMatch) -> Result<CompiledQuery, String> {
    let what = || format!("query parameter {}", condition.name);
    Ok(CompiledQuery {
        name: Arc::clone(&condition.name),
        value: value(&condition.value, what)?,
    })
}

fn value(value: &ValueMatch, what: impl Fn() -> String) -> Result<CompiledValue, String> {
    Ok(match value {
        ValueMatch::Exact(value) => CompiledValue::Exact(Arc::clone(value)),
        ValueMatch::Prefix(value) => CompiledValue::Prefix(Arc::clone(value)),
        ValueMatch::Regex(pattern) => CompiledValue::Regex(anchored(pattern, what)?),
    })
}

fn anchored(pattern: &str, what: impl Fn() -> String) -> Result<Regex, String> {
    pattern::compile(pattern).map_err(|error| {
        let why = match error {
            PatternError::Invalid(why) => why,
            PatternError::TooLarge => "it is too large".to_owned(),
        };
        let what = what();
        format!("the regular expression {pattern:?} for {what} does not compile: {why}")
    })
}
