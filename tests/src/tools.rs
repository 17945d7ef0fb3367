//! Real clients: curl and h2load.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::http1::Response;
use crate::netns::Netns;
use crate::process;

/// A `curl` call. Proxies and configuration files of the machine are ignored.
#[derive(Debug)]
pub struct Curl {
    arguments: Vec<String>,
}

impl Curl {
    /// Asks for this URL and shows the response's head.
    #[must_use]
    pub fn new(url: &str) -> Self {
        let arguments = ["-q", "-sS", "-i", "--max-time", "20", "--noproxy", "*", url];
        Self {
            arguments: arguments.map(str::to_owned).to_vec(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(str::to_owned));
        self
    }

    /// Adds a header line.
    #[must_use]
    pub fn header(self, line: &str) -> Self {
        self.args(["-H", line])
    }

    /// Takes this address for a host name and port.
    #[must_use]
    pub fn resolve(self, host: &str, address: SocketAddr) -> Self {
        let ip = match address {
            SocketAddr::V4(a) => a.ip().to_string(),
            SocketAddr::V6(a) => format!("[{}]", a.ip()),
        };
        self.arg("--resolve")
            .arg(format!("{host}:{}:{ip}", address.port()))
    }

    /// Runs it in a namespace and gives the last response.
    ///
    /// # Errors
    /// With what curl printed, when it failed.
    pub fn run(self, ns: &Netns) -> Result<Response> {
        let mut command = Command::new("curl");
        command.args(&self.arguments);
        let output = process::output(ns, command).context("install curl")?;
        if !output.status.success() {
            bail!(
                "curl {}: {}",
                self.arguments.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        parse_curl(&output.stdout)
    }
}

/// Curl prints heads as they came and the body decoded; an HTTP/2 head reads `HTTP/2 200`.
fn parse_curl(mut bytes: &[u8]) -> Result<Response> {
    loop {
        let at = crate::http1::find(bytes, b"\r\n\r\n").context("no head in curl's output")?;
        let text = String::from_utf8_lossy(&bytes[..at]).into_owned();
        let raw = bytes[..at + 4].to_vec();
        bytes = &bytes[at + 4..];
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let head = crate::http1::Head {
            start,
            headers,
            raw,
        };
        let status = head.word(1).parse().context("status line")?;
        if status >= 200 || status == 101 {
            return Ok(Response {
                head,
                status,
                body: bytes.to_vec(),
                trailers: Vec::new(),
            });
        }
    }
}

/// What `h2load` counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct H2load {
    /// Requests answered with 2xx or 3xx.
    pub succeeded: u64,
    /// Requests answered otherwise or not at all.
    pub failed: u64,
    /// Everything it printed.
    pub output: String,
}

/// Runs `h2load` with these arguments in a namespace.
///
/// # Errors
/// When it cannot be started or its summary is not understood.
pub fn h2load(ns: &Netns, arguments: &[&str]) -> Result<H2load> {
    let mut command = Command::new("h2load");
    command.args(arguments);
    let output = process::output(ns, command).context("install nghttp2-client")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with("requests:"));
    let line = line.with_context(|| {
        format!(
            "no summary from h2load: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    let count = |word: &str| -> u64 {
        let before = line.split(", ").find_map(|part| part.strip_suffix(word));
        before.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
    };
    Ok(H2load {
        succeeded: count("succeeded"),
        failed: count("failed") + count("errored") + count("timeout"),
        output: text,
    })
}
