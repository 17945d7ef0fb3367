//! A response's head on its way in, whatever the client speaks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use h2::Reason;

use super::relay::RelayError;
use crate::buffer::Buffer;
use crate::error::{Kind, ProxyError, Side};
use crate::h1::{Asked, Progress, ResponseHead};
use crate::head::Violation;
use crate::upstream::{Declined, Inexpressible, UpstreamStream};
use crate::worker::Worker;

/// A response's head, and what was read after it.
pub(super) struct Inbound {
    pub(super) buffer: Buffer,
    pub(super) head_len: usize,
}

/// Why no response head came.
pub(super) enum NoHead {
    /// The endpoint closed the connection before the first byte of one.
    Closed(ProxyError),
    Failed(ProxyError),
}

impl NoHead {
    /// What happened.
    pub(super) fn into_error(self) -> ProxyError {
        match self {
            Self::Closed(error) | Self::Failed(error) => error,
        }
    }

    /// Whether the endpoint says that it has not processed the request.
    pub(super) fn is_declined(&self) -> bool {
        matches!(self, Self::Closed(error) if error.kind == Kind::Declined)
    }

    /// Whether the endpoint has not heard of the request: it says so, or its connection had ended
    /// before, which only a `stale` one can have.
    pub(super) fn is_unheard(&self, stale: bool) -> bool {
        match self {
            Self::Closed(error) => match error.kind {
                Kind::Declined => true,
                Kind::Closed | Kind::Io => stale,
                _ => false,
            },
            Self::Failed(_) => false,
        }
    }
}

/// Reads until a head is complete. `held` keeps what has arrived; a buffer is kept there only while
/// there is something in it.
pub(super) fn poll_head(
    cx: &mut Context<'_>,
    worker: &Worker,
    stream: &mut UpstreamStream,
    head: &mut ResponseHead,
    asked: Asked,
    held: &mut Option<Buffer>,
) -> Poll<Result<Inbound, NoHead>> {
    let mut buffer = held.take().unwrap_or_else(Buffer::lend_large);
    loop {
        if !buffer.is_empty() {
            match parse(worker, head, asked, &mut buffer) {
                Ok(Progress::Complete(head_len)) => {
                    if !asked.head && !head.is_informational() && stream.ended_with_head() {
                        head.end_with_head();
                    }
                    return Poll::Ready(Ok(Inbound { buffer, head_len }));
                }
                Ok(Progress::Partial) => {}
                Err(error) => return Poll::Ready(Err(NoHead::Failed(error))),
            }
        }
        match buffer.poll_fill(cx, Pin::new(stream)) {
            Poll::Pending => {
                *held = Some(buffer).filter(|buffer| !buffer.is_empty());
                return Poll::Pending;
            }
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(end) => {
                let wrap = if buffer.is_empty() {
                    NoHead::Closed
                } else {
                    NoHead::Failed
                };
                return Poll::Ready(Err(wrap(upstream_closed(end.err()))));
            }
        }
    }
}

fn parse(
    worker: &Worker,
    head: &mut ResponseHead,
    asked: Asked,
    buffer: &mut Buffer,
) -> Result<Progress, ProxyError> {
    let limits = &worker.limits().head;
    let parsed = head.parse(buffer.filled(), limits, asked);
    let progress = parsed.map_err(ProxyError::upstream)?;
    if progress == Progress::Partial && buffer.is_full() && !buffer.grow(limits.bytes + 1) {
        return Err(ProxyError::upstream(Violation::HeadTooLarge));
    }
    Ok(progress)
}

/// The endpoint's connection ended, or a request never went there.
pub(super) fn upstream_closed(error: Option<io::Error>) -> ProxyError {
    let Some(error) = error else {
        return ProxyError::new(Side::Upstream, Kind::Closed);
    };
    let kind = kind_of(&error);
    let side = match kind {
        Kind::Inexpressible => Side::Gateway,
        _ => Side::Upstream,
    };
    ProxyError::new(side, kind).because(error)
}

fn kind_of(error: &io::Error) -> Kind {
    let Some(cause) = error.get_ref() else {
        return Kind::Io;
    };
    if cause.is::<Declined>() {
        return Kind::Declined;
    }
    if cause.is::<Inexpressible>() {
        return Kind::Inexpressible;
    }
    cause.downcast_ref::<h2::Error>().map_or(Kind::Io, |error| {
        Kind::Reset(error.reason().unwrap_or(Reason::INTERNAL_ERROR).into())
    })
}

/// The client's connection failed.
pub(super) fn client_io(error: io::Error) -> ProxyError {
    let kind = match error.kind() {
        io::ErrorKind::TimedOut => Kind::WriteTimeout,
        _ => Kind::Io,
    };
    ProxyError::new(Side::Downstream, kind).because(error)
}

/// A response's body failed.
pub(super) fn download_error(error: RelayError) -> ProxyError {
    match error {
        RelayError::Source(error) => upstream_closed(Some(error)),
        RelayError::Malformed(Violation::Truncated) => upstream_closed(None),
        RelayError::Malformed(violation) => ProxyError::upstream(violation),
        RelayError::Sink(error) => client_io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_said_is_not_said_again() {
        for (error, again) in [
            (io::Error::other(Inexpressible), false),
            (io::ErrorKind::ConnectionReset.into(), true),
        ] {
            let error = upstream_closed(Some(error));
            assert_eq!(error.status(), Some(502));
            assert_eq!(NoHead::Closed(error).is_unheard(true), again);
        }
    }
}
