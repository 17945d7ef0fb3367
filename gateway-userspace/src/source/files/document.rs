//! One file's text as documents: where each starts, and the objects it holds.
//!
//! A text is cut before it is parsed, so that a broken document stays alone and an unchanged one
//! is never parsed again. `---` at the start of a line always ends a YAML document (YAML 1.2.2
//! §9.1.4 forbids it inside every scalar), so cutting needs no parser.

mod manifest;
mod sniff;

use std::sync::Arc;

use gateway_model::names::ObjectRef;
use gateway_translate::{DecodeError, Object, Problem};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::text::yaml_reason;
use sniff::sniff;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// YAML, any number of documents.
    Yaml,
    /// JSON, any number of values one after the other.
    Json,
}

/// A piece of a file, uninterpreted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The line it starts on, from 1.
    pub line: u32,
    /// Its text, a leading `---` included.
    pub text: &'a str,
}

/// A parsed document. It knows no position, so that moving it in its file changes nothing.
#[derive(Debug)]
pub struct Document {
    /// As written.
    pub text: Arc<str>,
    /// What it holds, in order: one for most documents, any number for a `List`.
    pub items: Vec<Item>,
}

/// What stands in a document.
#[derive(Debug)]
pub enum Item {
    /// An object of a kind that we read.
    Object(Arc<Decoded>),
    /// An object of another kind that runs Pods: a cluster is meant to have what stands beside it.
    Workload,
    /// An object of another kind.
    Foreign,
    /// What could not be understood.
    Fault(Fault),
}

/// An object and its name.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// Its name.
    pub object: ObjectRef,
    /// What it says.
    pub value: Object,
    /// The document as written, or the one object of it, for the last good configuration.
    pub text: Arc<str>,
    /// Fields that nobody reads.
    pub unread: Box<[Problem]>,
}

/// Why a part of a document is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line in the document, from 1, where known.
    pub line: Option<u32>,
    /// The object, where the document still shows it.
    pub object: Option<ObjectRef>,
    /// What is wrong.
    pub message: String,
}

impl Document {
    /// Whether any part of it could not be understood.
    pub fn is_broken(&self) -> bool {
        self.items.iter().any(|item| matches!(item, Item::Fault(_)))
    }

    /// Whether any object of it has fields that nobody reads.
    pub fn is_doubtful(&self) -> bool {
        self.objects().any(|object| !object.unread.is_empty())
    }

    /// Whether any object of it runs Pods.
    pub fn has_workload(&self) -> bool {
        self.items.iter().any(|item| matches!(item, Item::Workload))
    }

    /// The objects it holds.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Decoded>> {
        self.items.iter().filter_map(|item| match item {
            Item::Object(decoded) => Some(decoded),
            Item::Workload | Item::Foreign | Item::Fault(_) => None,
        })
    }
}

/// Cuts a text into documents that are not blank.
pub fn split(text: &str, syntax: Syntax) -> Vec<Piece<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match syntax {
        Syntax::Yaml => split_yaml(text),
        Syntax::Json => split_json(text),
    }
}

/// Parses one piece and decodes what it holds.
pub fn parse(text: &str, syntax: Syntax) -> Document {
    let text: Arc<str> = text.into();
    let items = match value(&text, syntax) {
        Ok(value) => items(value, &text),
        Err(fault) => vec![Item::Fault(fault)],
    };
    Document { text, items }
}

fn split_yaml(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut start, mut line) = (0, 1);
    let mut cut = |end: usize| {
        let piece = &text[start..end];
        if !is_blank(piece) {
            pieces.push(Piece { line, text: piece });
        }
        line += lines(piece);
        start = end;
    };
    for at in marker_lines(text) {
        if is_marker(&text[at..], "---") {
            cut(at);
        } else if is_marker(&text[at..], "...") {
            cut(text[at..].find('\n').map_or(text.len(), |end| at + end + 1));
        }
    }
    cut(text.len());
    pieces
}

/// The offsets of lines that begin with `---` or `...`.
fn marker_lines(text: &str) -> impl Iterator<Item = usize> + '_ {
    let bytes = text.as_bytes();
    let first = (bytes.starts_with(b"---") || bytes.starts_with(b"...")).then_some(0);
    let is_marker = |at: &usize| matches!(bytes.get(*at..*at + 3), Some(b"---" | b"..."));
    let others = memchr::memchr_iter(b'\n', bytes).map(|newline| newline + 1);
    first.into_iter().chain(others.filter(is_marker))
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| {
        rest.bytes()
            .next()
            .is_none_or(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'))
    })
}

/// Nothing but comments, directives and markers.
fn is_blank(text: &str) -> bool {
    text.lines().all(|line| {
        let rest = if is_marker(line, "---") || is_marker(line, "...") {
            &line[3..]
        } else {
            line
        };
        let rest = rest.trim();
        rest.is_empty() || rest.starts_with('#') || line.starts_with('%')
    })
}

fn split_json(text: &str) -> Vec<Piece<'_>> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let (mut pieces, mut start, mut line) = (Vec::new(), 0, 1);
    while start < text.len() {
        let end = match stream.next() {
            Some(Ok(_)) => stream.byte_offset(),
            Some(Err(_)) | None => text.len(),
        };
        let content = text[start..end].trim_start();
        line += lines(&text[start..end - content.len()]);
        if !content.is_empty() {
            pieces.push(Piece {
                line,
                text: content,
            });
        }
        line += lines(content);
        start = end;
    }
    pieces
}

fn lines(text: &str) -> u32 {
    u32::try_from(memchr::memchr_iter(b'\n', text.as_bytes()).count()).unwrap_or(u32::MAX)
}

fn value(text: &str, syntax: Syntax) -> Result<Value, Fault> {
    match syntax {
        Syntax::Yaml => yaml(text),
        Syntax::Json => serde_json::from_str(text).map_err(|error| Fault {
            line: u32::try_from(error.line()).ok().filter(|line| *line > 0),
            object: None,
            message: format!("is no JSON: {error}"),
        }),
    }
}

/// One document may be as large as Kubernetes lets an object be, times twenty; what aliases
/// expand to is bounded far below what an alias bomb needs.
fn yaml(text: &str) -> Result<Value, Fault> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        emit_comments: false,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 50_000 },
        budget: serde_saphyr::budget! { max_total_scalar_bytes: 32 * 1024 * 1024 },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error
            .location()
            .and_then(|at| u32::try_from(at.line()).ok());
        Fault {
            line,
            object: sniff(text),
            message: format!("is no YAML: {}", yaml_reason(&error)),
        }
    })
}

fn items(value: Value, text: &Arc<str>) -> Vec<Item> {
    match value {
        Value::Null => Vec::new(),
        Value::Object(mut map) if is_list(&map) => {
            let list = map.remove("items");
            let Some(Value::Array(list)) = list else {
                let is_empty = list.is_none_or(|list| list.is_null());
                let fault = || fault("items must be a list".to_owned());
                return if is_empty { Vec::new() } else { vec![fault()] };
            };
            list.into_iter()
                .map(|item| typed(item, &map))
                .flat_map(items_of_one)
                .collect()
        }
        value => vec![decode(&value, text)],
    }
}

/// An item of a list, which may be a list itself.
fn items_of_one(item: Value) -> Vec<Item> {
    let text = item.to_string().into();
    items(item, &text)
}

/// `List`, as `kubectl get` prints it, or the API's own, as in `HTTPRouteList`.
fn is_list(map: &Map<String, Value>) -> bool {
    let kind = map.get("kind").and_then(Value::as_str);
    let is_one = |kind: &str| kind == "List" || kind.ends_with("List") && map.contains_key("items");
    kind.is_some_and(is_one)
}

/// The item with what its list says for all: the items of the API's own lists name no kind.
fn typed(mut item: Value, list: &Map<String, Value>) -> Value {
    let kind = list.get("kind").and_then(Value::as_str).unwrap_or_default();
    let kind = kind.strip_suffix("List").filter(|kind| !kind.is_empty());
    if let (Value::Object(map), Some(kind)) = (&mut item, kind) {
        map.entry("kind").or_insert_with(|| kind.into());
        if let Some(api_version) = list.get("apiVersion") {
            map.entry("apiVersion")
                .or_insert_with(|| api_version.clone());
        }
    }
    item
}

fn decode(value: &Value, text: &Arc<str>) -> Item {
    if let Some(message) = manifest::mistake(value) {
        return fault(message);
    }
    match gateway_translate::decode_with_unread(value) {
        Ok(Some((value, unread))) => Item::Object(Arc::new(Decoded {
            object: value.reference(),
            value,
            text: Arc::clone(text),
            unread: unread.into(),
        })),
        Ok(None) if runs_pods(value) => Item::Workload,
        Ok(None) => Item::Foreign,
        Err(error) => Item::Fault(Fault {
            line: None,
            message: problems(&error),
            object: error.reference,
        }),
    }
}

/// Whether it is a Pod, or has a template of Pods, as a Deployment and what others think of.
fn runs_pods(value: &Value) -> bool {
    value["kind"] == "Pod" || value["spec"]["template"]["spec"]["containers"].is_array()
}

/// What is wrong with a document that names no object.
fn fault(message: String) -> Item {
    Item::Fault(Fault {
        line: None,
        object: None,
        message,
    })
}

/// What is wrong with an object, its name left out where it is known as a reference.
fn problems(error: &DecodeError) -> String {
    let all = error.to_string();
    match &error.reference {
        Some(_) => all
            .strip_prefix(&format!("{}: ", error.object))
            .unwrap_or(&all)
            .to_owned(),
        None => all,
    }
}

#[cfg(test)]
mod tests;
