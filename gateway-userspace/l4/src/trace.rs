//! The packet trace: verdicts of single packets, for one peer or port, while somebody listens.
#![allow(unsafe_code, reason = "tokio::io::unix::AsyncFd::register")]

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use aya::Ebpf;
use aya_log::EbpfLogger;
use gateway_common::trace::{HOOK_SK_LOOKUP, HOOK_TC, HOOK_XDP, TraceRecord};
use gateway_common::{Reason, reason::Kind};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::addresses::Shared;
use crate::pins::Pins;
use crate::{L4Error, tables};

/// Lines that wait for a slow reader; what comes then is lost.
const QUEUE: usize = 4096;

/// Which packets are traced; both unset means all, up to 1000 per second and CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceFilter {
    /// The remote address.
    pub peer: Option<IpAddr>,
    /// The local port.
    pub port: Option<u16>,
}

/// The lines of a running trace, one per packet and program. The trace ends when this is dropped, or
/// when another one is started.
#[derive(Debug)]
pub struct TraceLines {
    lines: mpsc::Receiver<String>,
    sink: Sink,
    shared: Shared,
    pins: Arc<Pins>,
}

impl TraceLines {
    /// The next line; none when another trace took over or the packet path was taken down.
    pub async fn next(&mut self) -> Option<String> {
        self.lines.recv().await
    }
}

impl Drop for TraceLines {
    fn drop(&mut self) {
        self.lines.close();
        if !self.sink.forget_closed() {
            return;
        }
        // Without a runtime the process is ending, and the bit with its successor's first store.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (sink, shared, pins) = (self.sink.clone(), self.shared.clone(), self.pins.clone());
            runtime.spawn(async move {
                if let Err(error) = switch_off(&sink, &shared, &pins).await {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "the packet trace could not be switched off");
                }
            });
        }
    }
}

/// Clears the trace bit, unless another trace has begun or another process is live.
async fn switch_off(sink: &Sink, shared: &Shared, pins: &Pins) -> Result<(), L4Error> {
    match pins.lock_as_owner().await {
        Ok(_locked) if sink.is_idle() => set_tracing(shared, false),
        Ok(_) | Err(L4Error::Superseded) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads what the programs log, and gives it to whoever listens.
#[derive(Debug)]
pub struct Tracer {
    sink: Sink,
    reader: JoinHandle<()>,
}

impl Tracer {
    /// Starts to read.
    pub fn start(ebpf: &mut Ebpf) -> Result<Self, L4Error> {
        let failed = |source| L4Error::System {
            operation: "read the programs' log",
            source,
        };
        let sink = Sink::default();
        let logger = EbpfLogger::init_with_logger(ebpf, sink.clone())
            .map_err(|error| failed(std::io::Error::other(error)))?;
        // SAFETY: the logger owns its descriptor, gives out the same one always and is not replaced within.
        let registered = unsafe { AsyncFd::register(logger) };
        let mut records = registered.map_err(|error| failed(error.into_parts().1))?;
        let reader = tokio::spawn(async move {
            while let Ok(mut ready) = records.readable_mut().await {
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        });
        Ok(Self { sink, reader })
    }

    /// Switches the trace on; a trace that is running ends.
    pub async fn trace(
        &self,
        filter: TraceFilter,
        shared: &Shared,
        pins: &Arc<Pins>,
    ) -> Result<TraceLines, L4Error> {
        let _locked = pins.lock_as_owner().await?;
        let (sender, lines) = mpsc::channel(QUEUE);
        shared.lock().maps.set_trace(gateway_common::TraceFilter {
            peer: filter
                .peer
                .map_or([0; 4], |peer| tables::address(peer.to_canonical())),
            port: filter.port.unwrap_or(0).to_be(),
            reserved: [0; 6],
        })?;
        self.sink.give_to(sender);
        set_tracing(shared, true)?;
        Ok(TraceLines {
            lines,
            sink: self.sink.clone(),
            shared: shared.clone(),
            pins: pins.clone(),
        })
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn set_tracing(shared: &Shared, on: bool) -> Result<(), L4Error> {
    let maps = &mut shared.lock().maps;
    let word = maps.control()?;
    maps.set_control_flag(word.with_tracing(on))
}

/// Where lines go: to the one trace that is running, if any.
#[derive(Clone, Debug, Default)]
struct Sink(Arc<Mutex<Option<mpsc::Sender<String>>>>);

impl Sink {
    fn give_to(&self, sender: mpsc::Sender<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    }

    fn is_idle(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
    }

    /// Forgets a listener that is gone; says whether there was one, and not another since.
    fn forget_closed(&self) -> bool {
        let mut sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = sender.as_ref().is_some_and(mpsc::Sender::is_closed);
        if gone {
            *sender = None;
        }
        gone
    }
}

impl log::Log for Sink {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(sender), Some(record)) = (&*sender, parse(&record.args().to_string())) {
            // A full queue loses the line: the reader is slower than the limit of the trace.
            let _ = sender.try_send(line(&record));
        }
    }

    fn flush(&self) {}
}

/// A record from its hexadecimal form.
fn parse(hex: &str) -> Option<TraceRecord> {
    let bytes: Option<Vec<u8>> = (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok())
        .collect();
    bytemuck::try_pod_read_unaligned(&bytes?).ok()
}

/// `xdp if2 tcp 192.0.2.7:40000 > 198.51.100.1:443 pass permitted`
fn line(record: &TraceRecord) -> String {
    let hook = match record.hook {
        HOOK_XDP => "xdp",
        HOOK_TC => "tc",
        HOOK_SK_LOOKUP => "sk_lookup",
        _ => "?",
    };
    let interface = match record.ifindex {
        0 => String::new(),
        index => format!(" if{index}"),
    };
    let protocol = match record.protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        number => format!("proto{number}"),
    };
    let reason = Reason(record.reason);
    let verdict = match reason.kind() {
        Kind::Drop => "drop",
        Kind::Steer => "steer",
        Kind::Pass | Kind::Note => "pass",
    };
    let from = endpoint(tables::ip(record.source), record.source_port);
    let to = endpoint(tables::ip(record.destination), record.destination_port);
    format!(
        "{hook}{interface} {protocol} {from} > {to} {verdict} {}",
        reason.name()
    )
}

fn endpoint(ip: IpAddr, port: u16) -> String {
    match u16::from_be(port) {
        0 => ip.to_string(),
        port => std::net::SocketAddr::new(ip, port).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_hexadecimal_form_and_reads_as_a_line() {
        let record = TraceRecord {
            source: tables::address("192.0.2.7".parse().expect("an address")),
            destination: tables::address("2001:db8::1".parse().expect("an address")),
            source_port: 40_000_u16.to_be(),
            destination_port: 443_u16.to_be(),
            protocol: 6,
            hook: HOOK_XDP,
            reserved: [0; 2],
            reason: Reason::DENIED.0,
            ifindex: 2,
        };
        let hex: String = bytemuck::bytes_of(&record)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let parsed = parse(&hex).expect("a record");
        assert_eq!(parsed, record);
        assert_eq!(
            line(&parsed),
            "xdp if2 tcp 192.0.2.7:40000 > [2001:db8::1]:443 drop denied"
        );
    }

    #[test]
    fn what_is_no_record_is_ignored() {
        for text in ["", "zz", "00", "é"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
