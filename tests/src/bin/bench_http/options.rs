//! The command line of the measurement.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use super::peers::{Kind, Peer};
use super::scenario::{Protocol, SCENARIOS, Scenario};

const USAGE: &str =
    "bench_http [--quick] [--rounds N] [--seconds N] [--scenario A,B] [--peers A,B] [--routes N] [-o json]
    [--sluice [NAME=]PATH]... [--envoy PATH] [--other NAME:http|https|h2=COMMAND]...";

/// What was asked for.
pub struct Options {
    /// Windows of each proxy.
    pub rounds: usize,
    /// Length of a window.
    pub seconds: u64,
    /// In order.
    pub scenarios: Vec<&'static Scenario>,
    /// In order.
    pub peers: Vec<Peer>,
    /// Print JSON instead of tables.
    pub json: bool,
}

impl Options {
    /// Reads the command line.
    pub fn parse(arguments: &[String]) -> anyhow::Result<Options> {
        let mut options = Options {
            rounds: 5,
            seconds: 3,
            scenarios: SCENARIOS.iter().collect(),
            peers: Vec::new(),
            json: false,
        };
        let mut names: Option<Vec<String>> = None;
        let (mut sluices, mut others) = (Vec::new(), Vec::new());
        let mut envoy = PathBuf::from("envoy");
        let mut routes: Option<usize> = None;
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("{word} needs a value\n{USAGE}"))
            };
            match word.as_str() {
                "--quick" => (options.rounds, options.seconds) = (3, 1),
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.seconds = value()?.parse()?,
                "--scenario" => options.scenarios = scenarios(value()?)?,
                "--peers" => names = Some(value()?.split(',').map(str::to_owned).collect()),
                "--sluice" => sluices.push(named(value()?)),
                "--routes" => routes = Some(value()?.parse()?),
                "--envoy" => envoy = PathBuf::from(value()?),
                "--other" => others.push(other(value()?)?),
                "-o" => options.json = value()? == "json",
                _ => bail!("unknown argument {word}\n{USAGE}"),
            }
        }
        ensure!(
            options.rounds > 0 && options.seconds > 0,
            "rounds and seconds are at least 1"
        );
        let fixed = [
            ("null", Kind::Null),
            ("nginx", Kind::Nginx),
            ("haproxy", Kind::Haproxy),
            ("envoy", Kind::Envoy(envoy)),
        ];
        let fixed = fixed.map(|(name, kind)| Peer {
            name: name.to_owned(),
            kind,
        });
        if let Some(routes) = routes {
            let crowded: Vec<Peer> = sluices
                .iter()
                .filter_map(|peer| with_routes(peer, routes))
                .collect();
            sluices.extend(crowded);
        }
        options.peers = fixed.into_iter().chain(others).chain(sluices).collect();
        if let Some(names) = names {
            let known = |name: &String| options.peers.iter().any(|peer| peer.name == *name);
            if let Some(name) = names.iter().find(|name| !known(name)) {
                bail!("no peer is called {name}");
            }
            options.peers.retain(|peer| names.contains(&peer.name));
        }
        Ok(options)
    }
}

fn scenarios(names: &str) -> anyhow::Result<Vec<&'static Scenario>> {
    let find = |name| {
        let all: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
        found.with_context(|| format!("no scenario is called {name}; there are {}", all.join(", ")))
    };
    names.split(',').map(find).collect()
}

fn named(value: &str) -> Peer {
    let (name, path) = value.split_once('=').unwrap_or(("sluice", value));
    Peer {
        name: name.to_owned(),
        kind: Kind::Sluice(PathBuf::from(path), 0),
    }
}

/// The same build once more, with a crowd of routes.
fn with_routes(peer: &Peer, routes: usize) -> Option<Peer> {
    let Kind::Sluice(path, _) = &peer.kind else {
        return None;
    };
    Some(Peer {
        name: format!("{}+{routes}", peer.name),
        kind: Kind::Sluice(path.clone(), routes),
    })
}

fn other(value: &str) -> anyhow::Result<Peer> {
    let (name, command) = value.split_once('=').context(USAGE)?;
    let (name, protocol) = name.split_once(':').context(USAGE)?;
    let protocol = match protocol {
        "http" => Protocol::Http,
        "https" => Protocol::Https,
        "h2" => Protocol::H2,
        _ => bail!("{USAGE}"),
    };
    Ok(Peer {
        name: name.to_owned(),
        kind: Kind::Other(protocol, command.to_owned()),
    })
}
