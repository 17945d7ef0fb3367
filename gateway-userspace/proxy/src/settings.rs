//! What an operator chooses for a process, as opposed to what manifests configure.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::limits::Limits;

/// Settings of one [`crate::Proxy`]; they do not change while it lives.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Worker threads. Default: the CPUs this process may use.
    pub workers: NonZeroUsize,
    /// Pins each worker to one of the CPUs this process may use. Default false.
    pub pin_workers: bool,
    /// Limits.
    pub limits: Limits,
    /// Access log lines. Default off.
    pub access_log: AccessLogFormat,
    /// Where access log lines go. Default standard output.
    pub access_log_output: AccessLogOutput,
    /// Proxies in front of Sluice whose `X-Forwarded-*` and `Forwarded` are believed. Default 0:
    /// what a client sends in these is dropped.
    pub trusted_hops: u8,
}

/// How an access log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// No lines, no cost.
    #[default]
    Off,
    /// One line of text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where access log lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLogOutput {
    /// Standard output.
    #[default]
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            pin_workers: false,
            limits: Limits::default(),
            access_log: AccessLogFormat::default(),
            access_log_output: AccessLogOutput::default(),
            trusted_hops: 0,
        }
    }
}
