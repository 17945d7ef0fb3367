//! Reading one manifest: a cursor that knows its path and collects what is wrong.
//!
//! A read never stops at the first mistake: what cannot be read is noted and replaced by an empty
//! value, and the object is refused as a whole at the end, with everything that was found.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::Value;

use super::unread::Asked;
use super::{Known, Problem, check};
use crate::lately::Lately;

/// Everything found wrong so far.
#[derive(Default)]
pub(super) struct Problems {
    found: RefCell<Vec<Problem>>,
    /// Which fields are read, if anyone wants to know.
    pub(super) asked: Option<Asked>,
}

impl Problems {
    /// Takes down which fields are read.
    pub(super) fn asking() -> Self {
        Self {
            asked: Some(Asked::default()),
            ..Self::default()
        }
    }

    pub(super) fn into_vec(self) -> Vec<Problem> {
        self.found.into_inner()
    }
}

/// One place in a manifest. A missing field and `null` are the same.
#[derive(Clone)]
pub(super) struct Node<'a> {
    value: Option<&'a Value>,
    path: String,
    problems: &'a Problems,
}

impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Value, problems: &'a Problems) -> Self {
        Self {
            value: Some(value),
            path: String::new(),
            problems,
        }
    }

    /// Notes that something is wrong here.
    pub(super) fn problem(&self, message: impl Into<String>) {
        self.problems.found.borrow_mut().push(Problem {
            path: self.path.clone(),
            message: message.into(),
        });
    }

    pub(super) fn is_absent(&self) -> bool {
        self.value.is_none()
    }

    pub(super) fn present(&self) -> Option<&Self> {
        self.value.is_some().then_some(self)
    }

    /// A field of this mapping.
    pub(super) fn field(&self, name: &str) -> Self {
        if let Some(asked) = &self.problems.asked {
            asked.note(&self.path, name);
        }
        let value = match self.value {
            None => None,
            Some(Value::Object(map)) => map.get(name).filter(|v| !v.is_null()),
            Some(_) => None,
        };
        let path = if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        };
        Self {
            value,
            path,
            problems: self.problems,
        }
    }

    /// Notes a problem unless this is a mapping.
    pub(super) fn mapping(self) -> Self {
        if !matches!(self.value, None | Some(Value::Object(_))) {
            self.problem(format!("must be a mapping, not {}", self.what()));
        }
        self
    }

    /// Notes a problem if this is missing.
    pub(super) fn required(self) -> Self {
        if self.is_absent() {
            self.problem("is required");
        }
        self
    }

    /// The elements of this list; at most `max`.
    pub(super) fn items(&self, max: usize) -> Vec<Self> {
        let list = match self.value {
            None => return Vec::new(),
            Some(Value::Array(list)) => list,
            Some(_) => {
                self.problem(format!("must be a list, not {}", self.what()));
                return Vec::new();
            }
        };
        if list.len() > max {
            self.problem(format!(
                "holds {} entries; at most {max} are allowed",
                list.len()
            ));
        }
        let item = |(at, value): (usize, &'a Value)| Self {
            value: Some(value),
            path: format!("{}[{at}]", self.path),
            problems: self.problems,
        };
        list.iter().take(max).enumerate().map(item).collect()
    }

    /// The text here, if any.
    pub(super) fn text(&self) -> Option<&'a str> {
        match self.value? {
            Value::String(text) => Some(text),
            Value::Bool(_) | Value::Number(_) => {
                self.problem(format!(
                    "must be a text, not {}: write it in quotes",
                    self.what()
                ));
                None
            }
            _ => {
                self.problem(format!("must be a text, not {}", self.what()));
                None
            }
        }
    }

    /// The text here; missing is a problem.
    pub(super) fn required_text(&self) -> &'a str {
        if self.is_absent() {
            self.problem("is required");
        }
        self.text().unwrap_or_default()
    }

    /// The text here, if any, which must pass a check.
    pub(super) fn checked(&self, check: impl FnOnce(&str) -> check::Checked) -> Option<Arc<str>> {
        let text = self.text()?;
        if let Err(message) = check(text) {
            self.problem(message);
        }
        Some(shared(text))
    }

    /// The text here, which must be there and pass a check.
    pub(super) fn required_checked(&self, check: impl FnOnce(&str) -> check::Checked) -> Arc<str> {
        if self.is_absent() {
            self.problem("is required");
        }
        self.checked(check).unwrap_or_default()
    }

    /// One of an enum's values, or what a later version of the API may mean.
    pub(super) fn known<T: Clone>(&self, values: &[(&str, T)]) -> Option<Known<T>> {
        let text = self.text()?;
        let value = values.iter().find(|(name, _)| *name == text);
        Some(match value {
            Some((_, value)) => Known::Known(value.clone()),
            None => Known::Unknown(text.into()),
        })
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value? {
            Value::Bool(value) => Some(*value),
            _ => {
                self.problem(format!("must be true or false, not {}", self.what()));
                None
            }
        }
    }

    /// A whole number in that range, if any.
    pub(super) fn integer(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let number = match self.value? {
            Value::Number(number) => number.as_i64(),
            _ => None,
        };
        match number {
            Some(number) if range.contains(&number) => Some(number),
            Some(number) => {
                self.problem(format!(
                    "must be between {} and {}, not {number}",
                    range.start(),
                    range.end()
                ));
                None
            }
            None => {
                self.problem(format!("must be a whole number, not {}", self.what()));
                None
            }
        }
    }

    /// A port number, if any.
    pub(super) fn port(&self) -> Option<u16> {
        self.integer(1..=65_535).and_then(|n| u16::try_from(n).ok())
    }

    /// For a field that is a number or a text (`IntOrString`).
    pub(super) fn number_or_text(&self) -> Option<Result<i64, &'a str>> {
        match self.value? {
            Value::String(text) => Some(Err(text)),
            _ => self.integer(i64::MIN..=i64::MAX).map(Ok),
        }
    }

    /// A mapping of texts to texts.
    pub(super) fn texts(&self, is_kept: impl Fn(&str) -> bool) -> BTreeMap<Arc<str>, Arc<str>> {
        self.entries()
            .into_iter()
            .filter(|(name, _)| is_kept(name))
            .filter_map(|(name, node)| Some((shared(name), shared(node.text()?))))
            .collect()
    }

    /// The fields of this mapping, whatever their names.
    pub(super) fn entries(&self) -> Vec<(&'a str, Self)> {
        let map = match self.value {
            None => return Vec::new(),
            Some(Value::Object(map)) => map,
            Some(_) => {
                self.problem(format!("must be a mapping, not {}", self.what()));
                return Vec::new();
            }
        };
        map.iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, _)| (name.as_str(), self.field(name)))
            .collect()
    }

    /// What stands here, for a message.
    fn what(&self) -> String {
        match self.value {
            None => "nothing".to_owned(),
            Some(Value::Null) => "null".to_owned(),
            Some(Value::Bool(value)) => format!("the boolean {value}"),
            Some(Value::Number(value)) => format!("the number {value}"),
            Some(Value::String(value)) => format!("the text {value:?}"),
            Some(Value::Array(_)) => "a list".to_owned(),
            Some(Value::Object(_)) => "a mapping".to_owned(),
        }
    }
}

/// A text as objects keep it. Most texts of manifests stand in many of them (kinds, groups,
/// namespaces, names of parents and backends), so those that were read lately are shared.
pub(super) fn shared(text: &str) -> Arc<str> {
    const LONGEST: usize = 64;
    thread_local! {
        static LATELY: RefCell<Lately<str, 1024>> = const { RefCell::new(Lately::new()) };
    }
    if text.len() > LONGEST {
        return text.into();
    }
    LATELY.with_borrow_mut(|lately| lately.shared(text))
}
