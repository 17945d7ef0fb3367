//! `sluice explain`.

use std::fmt::Write as _;

use gateway_model::explain::{ExplainedBackend, ExplainedOutcome, ExplainedWinner, Explanation};

use super::table::{Cell, Look, Table, paint};
use super::{ask, print};
use crate::admin::encode;
use crate::args::ExplainArgs;
use crate::view::explain::{Answer, Question};

/// Prints where a request goes and why.
pub fn explain(args: &ExplainArgs) -> anyhow::Result<()> {
    let (method, url) = match args.request.as_slice() {
        [url] => (None, url),
        [method, url] => (Some(method.as_str()), url),
        _ => anyhow::bail!("give a URL, or a method and a URL"),
    };
    // Read here too, so that a mistake is told before anyone is asked.
    let question = Question::parse(method, url, &args.headers, args.address)?;
    let mut parameters = vec![("url", url.clone())];
    parameters.extend(method.map(|method| ("method", method.to_owned())));
    parameters.extend(args.headers.iter().map(|header| ("header", header.clone())));
    parameters.extend(args.address.map(|address| ("address", address.to_string())));
    let path = encode("/explain", &parameters);
    let answer: Answer = ask(&args.live, &path, |world| {
        crate::view::explain::explain(world, &question)
    })?;
    print(args.output, &answer, |colours| text(&answer, colours))
}

/// The answer in words.
pub fn text(answer: &Answer, colours: bool) -> String {
    let mut out = String::new();
    if let Some(refused) = &answer.refused {
        let fate = match refused.status {
            Some(status) => format!("refused with {status} before any route is asked"),
            None => "no answer".to_owned(),
        };
        let _ = writeln!(
            out,
            "{}: {}",
            paint(&fate, Look::Bad, colours),
            refused.reason
        );
    }
    if let Some(explanation) = &answer.explanation {
        explanation_text(explanation, colours, &mut out);
    }
    for note in &answer.notes {
        let _ = writeln!(out, "{} {note}", paint("note:", Look::Warn, colours));
    }
    out
}

fn explanation_text(explanation: &Explanation, colours: bool, out: &mut String) {
    let request = &explanation.request;
    let query = request
        .query
        .as_ref()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let _ = writeln!(
        out,
        "{} {}{}{query}",
        request.method, request.host, request.path
    );
    let look = match explanation.outcome {
        ExplainedOutcome::Matched => Look::Good,
        _ => Look::Bad,
    };
    let _ = writeln!(out, "{}", paint(&explanation.summary, look, colours));
    if let Some(winner) = &explanation.winner {
        out.push('\n');
        winner_text(winner, colours, out);
    }
    if !explanation.listeners.is_empty() {
        let mut table = Table::new(["", "LISTENER", "HOST", "WHY"], colours);
        for each in &explanation.listeners {
            table.row([
                mark(each.chosen, each.chosen),
                format!("{}#{}", each.gateway, each.listener).into(),
                each.hostname.as_deref().unwrap_or("*").into(),
                each.reason.as_str().into(),
            ]);
        }
        let _ = write!(out, "\n{}", table.render());
    }
    for host in &explanation.hosts {
        let mut table = Table::new(["", "ROUTE", "RULE", "CONDITIONS", "WHY"], colours);
        for each in &host.candidates {
            table.row([
                mark(each.won, each.matched),
                each.route.route_label().into(),
                each.rule.as_str().into(),
                each.conditions.as_str().into(),
                each.reason.as_str().into(),
            ]);
        }
        let title = format!(
            "rules of host {}, in the order they are asked",
            host.hostname
        );
        let _ = write!(
            out,
            "\n{}\n{}",
            paint(&title, Look::Bold, colours),
            table.render()
        );
        if host.omitted > 0 {
            let _ = writeln!(out, "and {} more that do not match", host.omitted);
        }
    }
}

fn winner_text(winner: &ExplainedWinner, colours: bool, out: &mut String) {
    let mut line = |name: &str, text: &str| {
        let _ = writeln!(
            out,
            "  {}{text}",
            paint(&format!("{name:<9}"), Look::Dim, colours)
        );
    };
    line("route", &format!("{} rule {}", winner.route, winner.rule));
    line("action", &winner.action);
    for backend in &winner.backends {
        line("backend", &backend_text(backend));
    }
    for filter in &winner.filters {
        line("filter", filter);
    }
    for limit in &winner.limits {
        line("limit", limit);
    }
}

fn backend_text(backend: &ExplainedBackend) -> String {
    let share = crate::view::routes::share(backend.weight, backend.of);
    let endpoints = match backend.endpoints.as_slice() {
        [] => "no endpoint".to_owned(),
        few if few.len() <= 4 => few.join(", "),
        [first, second, rest @ ..] => format!("{first}, {second} and {} more", rest.len()),
        [one] => one.clone(),
    };
    let filters = match backend.filters.as_slice() {
        [] => String::new(),
        filters => format!("; {}", filters.join(", ")),
    };
    format!("{} {share} ({endpoints}){filters}", backend.backend)
}

fn mark(won: bool, matched: bool) -> Cell {
    match (won, matched) {
        (true, _) => Cell::new("→", Look::Good),
        (false, true) => Cell::new("·", Look::Dim),
        (false, false) => Cell::from(" "),
    }
}
