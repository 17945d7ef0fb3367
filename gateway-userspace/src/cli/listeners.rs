//! `sluice listeners`.

use jiff::Timestamp;

use super::table::{Cell, Look, Table};
use super::{ask, print};
use crate::args::TableArgs;
use crate::view::listeners::{CertificateView, ListenerView};

/// Prints where connections are accepted.
pub fn listeners(args: &TableArgs) -> anyhow::Result<()> {
    let mut views: Vec<ListenerView> =
        ask(&args.live, "/listeners", crate::view::listeners::listeners)?;
    let of_all = views.len();
    if let Some(namespace) = &args.namespace {
        views.retain(|view| view.gateway.split('/').next() == Some(namespace));
    }
    print(args.output, &views, |colours| match &args.namespace {
        Some(namespace) if views.is_empty() && of_all > 0 => {
            format!("no listeners in namespace {namespace}; {of_all} in others\n")
        }
        _ => table(&views, Timestamp::now(), colours),
    })
}

/// The table for people.
pub fn table(views: &[ListenerView], now: Timestamp, colours: bool) -> String {
    if views.is_empty() {
        return "no listeners: there is no Gateway of a class that is ours\n".to_owned();
    }
    let mut table = Table::new(
        [
            "ADDRESS",
            "PROTOCOL",
            "HOST",
            "GATEWAY",
            "LISTENER",
            "ROUTES",
            "CERTIFICATE",
            "STATE",
        ],
        colours,
    );
    for view in views {
        table.row([
            addresses(view).into(),
            view.protocol.as_str().into(),
            view.hostname.as_deref().unwrap_or("*").into(),
            view.gateway.as_str().into(),
            view.listener.as_str().into(),
            view.routes.to_string().into(),
            certificates(view, now),
            state(view),
        ]);
    }
    table.render()
}

fn state(view: &ListenerView) -> Cell {
    match &view.failure {
        None => Cell::new("served", Look::Good),
        Some(reason) if view.served.is_empty() => {
            Cell::new(format!("not served: {reason}"), Look::Bad)
        }
        // Says itself where it is served.
        Some(reason) => Cell::new(reason, Look::Warn),
    }
}

fn addresses(view: &ListenerView) -> String {
    if view.addresses.is_empty() {
        return format!("*:{}", view.port);
    }
    let each = view
        .addresses
        .iter()
        .map(|ip| std::net::SocketAddr::new(*ip, view.port).to_string());
    each.collect::<Vec<_>>().join(", ")
}

fn certificates(view: &ListenerView, now: Timestamp) -> Cell {
    let is_valid = |c: &CertificateView| (c.not_before..c.not_after).contains(&now);
    let look = if !view.certificates.iter().all(is_valid) {
        Look::Bad
    } else if view.certificates.iter().any(|c| c.ends_soon(now)) {
        Look::Warn
    } else {
        Look::Plain
    };
    let each = view
        .certificates
        .iter()
        .map(|c| format!("{} ({})", c.secret, c.expiry(now)));
    let of_clients = view
        .client_certificates
        .iter()
        .map(|how| format!("of clients: {how}"));
    Cell::new(each.chain(of_clients).collect::<Vec<_>>().join(", "), look)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_served_somewhere_is_not_called_unserved() {
        let shown = |served: &[&str], failure: &str| {
            let view = json!({
                "gateway": "infra/web", "listener": "http", "protocol": "http", "port": 80,
                "addresses": ["127.0.0.5", "192.0.2.1"], "routes": 1,
                "served": served, "failure": failure,
            });
            let view = serde_json::from_value(view).expect("a view");
            table(&[view], Timestamp::UNIX_EPOCH, false)
        };
        let partly = "served on 127.0.0.5; cannot listen on 192.0.2.1:80: no interface";
        let text = shown(&["127.0.0.5"], partly);
        assert!(
            text.contains(partly) && !text.contains("not served"),
            "{text}"
        );
        assert!(shown(&[], "no interface").contains("not served: no interface"));
    }
}
