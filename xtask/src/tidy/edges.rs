//! Who may know whom: the edges between crates, and between modules of one crate.
//!
//! A crate's manifest and the paths in its sources are held against one table. A manifest alone
//! would miss `std`, and sources alone would miss what is only linked.

use super::Report;
use super::code::Code;

/// What one crate, or one module of a crate, must not know.
struct Edge {
    /// The directory that it stands in, or the file.
    of: &'static str,
    /// Crates, by prefix of their names (`tokio` is also `tokio-rustls`), with `_` for `-`.
    crates: &'static [&'static str],
    /// Paths, by prefix of their segments.
    paths: &'static [&'static str],
    /// Of this crate, only the paths listed may be named.
    only: Option<(&'static str, &'static [&'static str])>,
    /// The rule, in words.
    rule: &'static str,
}

const KUBERNETES: &[&str] = &["kube", "k8s_openapi", "gateway_api"];
const BPF: &[&str] = &["aya", "libbpf", "gateway_common", "gateway_l4"];
const IO: &[&str] = &[
    "tokio",
    "mio",
    "hyper",
    "h2",
    "quinn",
    "reqwest",
    "socket2",
    "rtnetlink",
    "netlink",
    "inotify",
    "notify",
    "libc",
    "rustix",
    "nix",
    "async_",
    "futures",
];
const IO_PATHS: &[&str] = &[
    "std::fs",
    "std::os",
    "std::process",
    "std::env",
    "std::thread",
    "std::io::stdin",
    "std::io::stdout",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
];

const EDGES: &[Edge] = &[
    Edge {
        of: "gateway-userspace/model",
        crates: KUBERNETES,
        paths: &[],
        only: None,
        rule: "the model knows no Kubernetes",
    },
    Edge {
        of: "gateway-userspace/model",
        crates: IO,
        paths: IO_PATHS,
        only: None,
        rule: "the model knows no I/O and no clock",
    },
    Edge {
        of: "gateway-userspace/model",
        crates: &["gateway_", "aya", "rustls"],
        paths: &[],
        only: None,
        rule: "the model is the innermost crate",
    },
    Edge {
        of: "gateway-userspace/translate",
        crates: IO,
        paths: IO_PATHS,
        only: None,
        rule: "translation is pure: no sockets, no files, no clock",
    },
    Edge {
        of: "gateway-userspace/translate",
        crates: &["gateway_proxy", "gateway_l4", "gateway_common", "aya"],
        paths: &[],
        only: None,
        rule: "translation knows the model and nothing that serves it",
    },
    Edge {
        of: "gateway-userspace/proxy",
        crates: KUBERNETES,
        paths: &[],
        only: None,
        rule: "the proxy knows no Kubernetes",
    },
    Edge {
        of: "gateway-userspace/proxy",
        crates: BPF,
        paths: &[],
        only: None,
        rule: "the proxy knows no BPF",
    },
    Edge {
        of: "gateway-userspace/proxy",
        crates: &["gateway_translate", "serde_saphyr"],
        paths: &[],
        only: None,
        rule: "the proxy knows snapshots, not manifests",
    },
    Edge {
        of: "gateway-userspace/l4",
        crates: &[
            "kube",
            "k8s_openapi",
            "gateway_api",
            "gateway_proxy",
            "gateway_translate",
            "hyper",
            "rustls",
        ],
        paths: &[],
        only: Some((
            "gateway_model",
            &["l4_plan", "names", "ir::SourcePolicy", "ir::Cidr"],
        )),
        rule: "l4 knows the plan and the kernel, nothing else",
    },
    Edge {
        of: "gateway-userspace/heap",
        crates: &["gateway_", "tokio", "kube", "hyper"],
        paths: &[],
        only: None,
        rule: "the heap does not know what it is for",
    },
    Edge {
        of: "gateway-common",
        crates: &["gateway_", "tokio", "std"],
        paths: &[],
        only: None,
        rule: "gateway-common is the ABI and nothing else",
    },
    Edge {
        of: "gateway-ebpf",
        crates: &[
            "gateway_model",
            "gateway_userspace",
            "gateway_l4",
            "gateway_proxy",
            "std",
        ],
        paths: &[],
        only: None,
        rule: "the eBPF programs know gateway-common and nothing else of Sluice",
    },
    Edge {
        of: "gateway-userspace/src/source",
        crates: &["gateway_proxy", "gateway_l4", "gateway_common"],
        paths: &[],
        only: None,
        rule: "a source yields objects; it knows nobody who serves them",
    },
    Edge {
        of: "xtask",
        crates: &["gateway_", "tokio", "hyper"],
        paths: &[],
        only: None,
        rule: "xtask stays light: it builds and runs the binaries that do the work",
    },
];

/// Edges that a manifest draws; dev-dependencies are free.
pub fn manifest(text: &str, report: &mut Report<'_>) {
    let Some(dir) = report.path.parent() else {
        return;
    };
    // `gateway-userspace/src/source` has no manifest of its own, so `ends_with` a crate's directory is exact.
    let edges: Vec<&Edge> = EDGES
        .iter()
        .filter(|edge| dir == std::path::Path::new(edge.of))
        .collect();
    for (line, name) in dependencies(text) {
        for edge in edges.iter().filter(|edge| starts_any(&name, edge.crates)) {
            report.add(
                line,
                format!("depends on `{name}`: {}", edge.rule),
                "move what needs it to a crate that may",
            );
        }
    }
}

/// Edges that the sources draw, tests left out.
pub fn sources(code: &Code, report: &mut Report<'_>) {
    let edges: Vec<&Edge> = EDGES
        .iter()
        .filter(|edge| covers(edge.of, report.path))
        .collect();
    // Benches and examples are programs beside the crate, not part of it.
    let beside = report
        .path
        .iter()
        .any(|dir| dir == "benches" || dir == "examples");
    if edges.is_empty() || beside || super::rules::is_test_file(report.path) {
        return;
    }
    for path in code.paths() {
        for edge in edges.iter().filter(|edge| edge.forbids(&path.path)) {
            let what = format!("names `{}`: {}", path.path, edge.rule);
            report.add(
                path.line,
                what,
                "move what needs it to a crate or module that may",
            );
        }
    }
}

impl Edge {
    fn forbids(&self, path: &str) -> bool {
        let path = path.trim_start_matches("::");
        let (krate, below) = path.split_once("::").unwrap_or((path, ""));
        let outside = match self.only {
            Some((only, allowed)) if krate == only => {
                !allowed.iter().any(|prefix| has_prefix(below, prefix))
            }
            _ => false,
        };
        outside
            || starts_any(krate, self.crates)
            || self.paths.iter().any(|prefix| has_prefix(path, prefix))
    }
}

/// Whether `file` stands in the directory `of`, or is the module of that name (`of.rs`, `of/…`).
fn covers(of: &str, file: &std::path::Path) -> bool {
    let is_root_of_crates = of == "gateway-userspace";
    !is_root_of_crates
        && (file.starts_with(of) || file.with_extension("") == std::path::Path::new(of))
}

/// Whether `name` is one of `prefixes` or goes on from it with `_`; a prefix that ends in `_` is open.
fn starts_any(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('_') || prefix.ends_with('_'))
    })
}

fn has_prefix(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The dependencies of a manifest that end up in the product, as identifiers, with their lines.
fn dependencies(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section.ends_with("dependencies") && !section.ends_with("dev-dependencies");
            if let Some((table, name)) = section.rsplit_once('.')
                && table.ends_with("dependencies")
                && !table.ends_with("dev-dependencies")
                && !table.starts_with("workspace")
            {
                found.push((i + 1, name.replace('-', "_")));
            }
            inside &= !section.starts_with("workspace");
        } else if inside && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            if !name.is_empty() {
                found.push((i + 1, name.replace('-', "_")));
            }
        }
    }
    found
}
