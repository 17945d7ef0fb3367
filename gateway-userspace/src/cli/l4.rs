//! `sluice l4`.

use std::fmt::Write as _;
use std::path::Path;

use gateway_l4::{L4, Mode, Outcome, Settings};
use serde_json::Value;

use super::client::Client;
use super::print;
use super::table::{Cell, Look, Table, paint};
use crate::admin::encode;
use crate::args::{L4Args, L4Command, TraceArgs};

/// Prints or traces the packet path, or cleans up after a killed process.
pub fn l4(args: &L4Args) -> anyhow::Result<()> {
    let client = Client::new(args.state_dir.as_deref());
    match &args.command {
        None => {
            let view: Value = client.get("/l4")?;
            print(args.output, &view, |colours| text(&view, colours))
        }
        Some(L4Command::Trace(trace)) => follow(&client, trace),
        Some(L4Command::Clean { pin_dir }) => clean(pin_dir),
    }
}

fn follow(client: &Client, args: &TraceArgs) -> anyhow::Result<()> {
    let mut parameters = Vec::new();
    parameters.extend(args.peer.map(|peer| ("peer", peer.to_string())));
    parameters.extend(args.port.map(|port| ("port", port.to_string())));
    for line in client.lines(&encode("/l4/trace", &parameters))? {
        super::write(&(line? + "\n"))?;
    }
    Ok(())
}

/// Loading finds and removes what a killed process left; what a living one uses is left alone.
fn clean(pin_dir: &Path) -> anyhow::Result<()> {
    let settings = Settings {
        mode: Mode::Bpf,
        pin_dir: pin_dir.to_owned(),
        ..Settings::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let is_served = runtime.block_on(async {
        let Outcome::Bpf(l4) = L4::start(settings).await? else {
            return Ok(false);
        };
        let is_served = l4.status()?.another_is_live;
        l4.detach().await.map(|()| is_served)
    })?;
    super::write(if is_served {
        "a running sluice uses the packet path; nothing of it was removed\n"
    } else {
        "nothing of sluice is attached or pinned any more\n"
    })
}

/// The answer for people.
pub fn text(view: &Value, colours: bool) -> String {
    if view["mode"] == "sockets" {
        let reason = view["reason"].as_str().unwrap_or_default();
        return format!("connections arrive on ordinary sockets: {reason}\n");
    }
    let status = &view["status"];
    let mut out = String::new();
    let _ = writeln!(
        out,
        "pinned in {}, {} workers, {}",
        word(&status["pin_dir"]),
        word(&status["workers"]),
        if status["live"] == true {
            paint("live", Look::Good, colours)
        } else {
            paint("not live", Look::Warn, colours)
        }
    );
    for note in list(&status["notes"]) {
        let _ = writeln!(
            out,
            "{} {}",
            paint("note:", Look::Warn, colours),
            word(note)
        );
    }
    let addresses: Vec<_> = list(&status["local_routes"]).iter().map(word).collect();
    if !addresses.is_empty() {
        let _ = writeln!(
            out,
            "addresses routed to this node: {}",
            addresses.join(", ")
        );
    }
    let tables = [
        attachments(status, colours),
        frontends(&view["counters"], colours),
        reasons(&view["counters"], colours),
        maps(status, colours),
    ];
    for table in tables.iter().filter(|table| !table.is_empty()) {
        let _ = write!(out, "\n{}", table.render());
    }
    out
}

fn attachments(status: &Value, colours: bool) -> Table {
    let mut table = Table::new(["INTERFACE", "INDEX", "HOOK", "PROGRAM", "NOTE"], colours);
    for each in list(&status["attachments"]) {
        let is_attached = each["hook"] != "none";
        table.row([
            word(&each["interface"]).into(),
            word(&each["ifindex"]).into(),
            Cell::new(
                word(&each["hook"]),
                if is_attached { Look::Good } else { Look::Bad },
            ),
            word(&each["program_id"]).into(),
            word(&each["note"]).into(),
        ]);
    }
    table
}

fn frontends(counters: &Value, colours: bool) -> Table {
    let mut table = Table::new(
        [
            "FRONTEND",
            "PROTOCOL",
            "POLICY",
            "PACKETS",
            "BYTES",
            "DROPPED",
            "CONNECTIONS",
        ],
        colours,
    );
    for each in list(&counters["frontends"]) {
        let address = if each["address"].is_null() {
            "*".to_owned()
        } else {
            word(&each["address"])
        };
        let address = if address.contains(':') {
            format!("[{address}]")
        } else {
            address
        };
        table.row([
            format!("{address}:{}", word(&each["port"])).into(),
            word(&each["protocol"]).into(),
            (if each["restricted"] == true {
                "restricted"
            } else {
                ""
            })
            .into(),
            word(&each["passed_packets"]).into(),
            word(&each["passed_bytes"]).into(),
            word(&each["dropped_packets"]).into(),
            word(&each["steered"]).into(),
        ]);
    }
    table
}

/// What was never counted is left out.
fn reasons(counters: &Value, colours: bool) -> Table {
    let mut table = Table::new(["VERDICT", "COUNT"], colours);
    for (reason, count) in counters["reasons"].as_object().into_iter().flatten() {
        if count.as_u64() != Some(0) {
            table.row([reason.as_str().into(), word(count).into()]);
        }
    }
    table
}

fn maps(status: &Value, colours: bool) -> Table {
    let mut table = Table::new(["MAP", "ID", "ENTRIES", "LIMIT"], colours);
    for each in list(&status["maps"]) {
        table.row([
            word(&each["name"]).into(),
            word(&each["id"]).into(),
            word(&each["entries"]).into(),
            word(&each["limit"]).into(),
        ]);
    }
    table
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
