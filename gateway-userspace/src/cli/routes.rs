//! `sluice routes`.

use super::table::{Cell, Look, Table};
use super::{ask, print};
use crate::args::TableArgs;
use crate::view::routes::{ActionView, RouteView};

/// Prints the route table in the order in which a request is matched.
pub fn routes(args: &TableArgs) -> anyhow::Result<()> {
    let mut views: Vec<RouteView> = ask(&args.live, "/routes", crate::view::routes::routes)?;
    if let Some(namespace) = &args.namespace {
        views.retain(|view| view.route.split('/').next() == Some(namespace));
    }
    print(args.output, &views, |colours| table(&views, colours))
}

/// The table for people; what repeats from one row to the next is left out.
pub fn table(views: &[RouteView], colours: bool) -> String {
    if views.is_empty() {
        return "no routes: no route is attached to a listener\n".to_owned();
    }
    let mut table = Table::new(
        [
            "LISTENER", "HOST", "MATCH", "ROUTE", "RULE", "ACTION", "FILTERS",
        ],
        colours,
    );
    let mut above: Option<&RouteView> = None;
    for view in views {
        let same_listener = above.is_some_and(|a| a.listener == view.listener);
        let same_host = same_listener && above.is_some_and(|a| a.hostname == view.hostname);
        let unless = |same: bool, text: &str| if same { String::new() } else { text.to_owned() };
        table.row([
            unless(same_listener, &view.listener).into(),
            unless(same_host, view.hostname.as_deref().unwrap_or("*")).into(),
            view.conditions.to_string().into(),
            view.label().into(),
            view.rule_label().into(),
            Cell::new(view.action.to_string(), look(&view.action)),
            view.filters.join(", ").into(),
        ]);
        above = Some(view);
    }
    table.render()
}

fn look(action: &ActionView) -> Look {
    match action {
        ActionView::Forward(backends) => {
            let is_down = |b: &crate::view::routes::BackendView| {
                b.unavailable.is_some() || b.endpoints == Some(0)
            };
            if backends.iter().all(is_down) {
                Look::Bad
            } else if backends.iter().any(is_down) {
                Look::Warn
            } else {
                Look::Plain
            }
        }
        ActionView::Redirect { .. } => Look::Plain,
        ActionView::Respond { .. } => Look::Bad,
    }
}
