//! Filters and redirects in words.

use gateway_model::ir::{Filter, HeaderEdits, HeaderLine, PathRewrite, Redirect, Rule, Scheme};

use super::share;
use crate::config::Span;

/// Filters in words.
pub fn filters(rule: &Rule) -> Vec<String> {
    let mut words: Vec<_> = rule.filters.iter().flat_map(filter).collect();
    if rule.cors.is_some() {
        words.push("CORS".to_owned());
    }
    if let Some(timeout) = rule.timeouts.request {
        words.push(format!("timeout {}", Span(timeout)));
    }
    if let Some(timeout) = rule.timeouts.backend_request {
        words.push(format!("backend timeout {}", Span(timeout)));
    }
    if let Some(retry) = &rule.retry {
        words.push(format!("up to {} retries", retry.attempts));
    }
    words
}

/// Where a redirect leads, with `{host}`, `{path}` and `{port}` for what the request has.
pub fn location(redirect: &Redirect) -> String {
    let scheme = redirect.scheme.map_or("{scheme}", Scheme::as_str);
    let host = redirect.hostname.as_deref().unwrap_or("{host}");
    let port = match (redirect.port, redirect.scheme) {
        (Some(port), _) => format!(":{port}"),
        (None, Some(_)) => String::new(),
        (None, None) => ":{port}".to_owned(),
    };
    let path = match &redirect.path {
        None => "{path}".to_owned(),
        Some(PathRewrite::Full(path)) => path.to_string(),
        Some(PathRewrite::Prefix(path)) => format!("{}{{rest}}", path.trim_end_matches('/')),
    };
    format!("{scheme}://{host}{port}{path}")
}

fn filter(filter: &Filter) -> Vec<String> {
    let edits = |side: &str, edits: &HeaderEdits| {
        let line = |verb: &str, l: &HeaderLine| {
            format!("{verb} {side} header {}: {}", l.name.as_str(), l.value)
        };
        let remove = edits
            .remove
            .iter()
            .map(|n| format!("remove {side} header {}", n.as_str()));
        let set = edits.set.iter().map(|l| line("set", l));
        let add = edits.add.iter().map(|l| line("add", l));
        remove.chain(set).chain(add).collect::<Vec<_>>()
    };
    match filter {
        Filter::RequestHeaders(headers) => edits("request", headers),
        Filter::ResponseHeaders(headers) => edits("response", headers),
        Filter::Rewrite(rewrite) => {
            let host = rewrite
                .hostname
                .as_ref()
                .map(|host| format!("rewrite host to {host}"));
            let path = rewrite.path.as_ref().map(|path| match path {
                PathRewrite::Full(path) => format!("rewrite path to {path}"),
                PathRewrite::Prefix(path) => format!("rewrite prefix to {path}"),
            });
            host.into_iter().chain(path).collect()
        }
        Filter::Mirror(mirror) => {
            let to = mirror
                .target
                .upstream()
                .map_or_else(|| "nowhere".to_owned(), ToString::to_string);
            let part = mirror.fraction.map_or_else(String::new, |fraction| {
                format!(
                    " {}",
                    share(fraction.numerator, u64::from(fraction.denominator.get()))
                )
            });
            vec![format!("mirror{part} to {to}")]
        }
    }
}
