//! New connections, as what an upstream speaks asks for.

use std::rc::Rc;

use gateway_model::ir::UpstreamProtocol;
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::{self, ConnectError};
use super::http2::Multiplexed;
use super::{Endpoint, Pool, UpstreamConnection, UpstreamStream};
use crate::worker::Worker;

/// What a request asks of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// Whether sending the request twice does no harm.
    pub(crate) repeatable: bool,
    /// Whether it is an upgrade, which only HTTP/1.1 can carry.
    pub(crate) upgrade: bool,
}

/// How a request goes to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// A connection of its own, HTTP/1.1.
    Http1,
    /// A stream of a shared connection.
    Http2,
    /// Whichever the endpoint agrees on.
    Either,
    /// A connection of its own, for bytes.
    Stream,
    /// A connection of its own, for bytes that are TLS already: the policy for the upstream is for others.
    Untouched,
}

impl Pool {
    /// How a request goes to this upstream; none when it cannot.
    pub(crate) fn via(&self, needs: Needs) -> Option<Via> {
        match self.protocol() {
            UpstreamProtocol::Http1 => Some(Via::Http1),
            UpstreamProtocol::Negotiated if needs.upgrade => Some(Via::Http1),
            UpstreamProtocol::Negotiated => Some(Via::Either),
            UpstreamProtocol::Http2 => Some(Via::Http2).filter(|_| !needs.upgrade),
            UpstreamProtocol::Opaque => None,
        }
    }
}

impl Endpoint {
    /// A connection that is there already.
    pub(crate) fn take(
        &self,
        worker: &Worker,
        via: Via,
        needs: Needs,
    ) -> Option<UpstreamConnection> {
        let limits = &worker.limits().upstream;
        match via {
            Via::Stream | Via::Untouched => None,
            Via::Http1 => self.take_idle(needs.repeatable),
            Via::Http2 => self.take_shared(limits),
            Via::Either => {
                let shared = self.take_shared(limits);
                shared.or_else(|| self.take_idle(needs.repeatable))
            }
        }
    }

    /// A new connection, or a stream of a new one that others wait for too.
    pub(crate) async fn dial(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        via: Via,
    ) -> Result<UpstreamConnection, ConnectError> {
        let alone = match via {
            Via::Http1 | Via::Stream | Via::Untouched => true,
            Via::Either => self.agreed_on_http1(),
            Via::Http2 => false,
        };
        if alone {
            return match self.connect(worker, via).await? {
                Made::Alone(connection) => Ok(connection),
                Made::Shared => self
                    .take_shared(&worker.limits().upstream)
                    .ok_or_else(ended),
            };
        }
        // Each round makes a connection; where there is no room on it, others have taken it, or it
        // is over already, which no endpoint is forgiven twice.
        let mut over = 0;
        while over < 2 {
            let made = self.dial_once(|| {
                let (this, worker) = (Rc::clone(self), Rc::clone(worker));
                async move {
                    if let Made::Alone(connection) = this.connect(&worker, via).await? {
                        this.keep(connection, worker.limits().upstream.idle_per_endpoint);
                    }
                    Ok(())
                }
            });
            made.await?;
            if let Some(connection) = self.take_shared(&worker.limits().upstream) {
                return Ok(connection);
            }
            if self.agreed_on_http1() {
                if let Some(connection) = self.take_idle(true) {
                    return Ok(connection);
                }
                if let Made::Alone(connection) = self.connect(worker, via).await? {
                    return Ok(connection);
                }
            }
            over += u32::from(!self.has_shared());
        }
        Err(ended())
    }

    async fn connect(&self, worker: &Rc<Worker>, via: Via) -> Result<Made, ConnectError> {
        let limit = worker.limits().upstream.connect;
        let made = match tokio::time::timeout(limit, self.establish(worker, via)).await {
            Ok(made) => made,
            Err(_) => Err(ConnectError::TimedOut),
        };
        match &made {
            Ok(_) => worker.counters.upstream_connections.up(),
            Err(error) => {
                worker.counters.upstream_connect_failures.up();
                tracing::debug!(endpoint = %self.address(), %error, "cannot connect");
            }
        }
        made
    }

    async fn establish(&self, worker: &Worker, via: Via) -> Result<Made, ConnectError> {
        let tcp = connection::dial(self.address()).await?;
        if matches!(via, Via::Http2 | Via::Either) {
            connection::keep_alive(&tcp)?;
        }
        let Some(identity) = self.identity().filter(|_| via != Via::Untouched) else {
            return match via {
                Via::Http1 | Via::Stream | Via::Untouched => {
                    Ok(alone(worker, UpstreamStream::Plain(tcp)))
                }
                Via::Http2 | Via::Either => self.begin_http2(worker, tcp, false).await,
            };
        };
        let tls = Box::pin(identity.handshake(tcp, via)).await?;
        let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        match via {
            Via::Http2 | Via::Either if is_http2 => self.begin_http2(worker, tls, true).await,
            Via::Http2 => Err(ConnectError::Failed(
                "TLS: the endpoint does not agree to HTTP/2 (ALPN)".into(),
            )),
            Via::Either => {
                self.agree_on_http1();
                Ok(alone(worker, UpstreamStream::Tls(Box::new(tls))))
            }
            Via::Http1 | Via::Stream | Via::Untouched => {
                Ok(alone(worker, UpstreamStream::Tls(Box::new(tls))))
            }
        }
    }

    async fn begin_http2(
        &self,
        worker: &Worker,
        io: impl AsyncRead + AsyncWrite + Unpin + 'static,
        https: bool,
    ) -> Result<Made, ConnectError> {
        let now_ms = worker.timers.now_ms();
        let shared = Multiplexed::begin(io, https, worker.limits(), now_ms).await?;
        self.share(shared);
        Ok(Made::Shared)
    }
}

fn alone(worker: &Worker, stream: UpstreamStream) -> Made {
    Made::Alone(UpstreamConnection::new(stream, worker.timers.now_ms()))
}

/// A connection that has been made.
enum Made {
    /// For one request at a time.
    Alone(UpstreamConnection),
    /// Among the endpoint's shared ones.
    Shared,
}

fn ended() -> ConnectError {
    ConnectError::Failed("the endpoint ends its HTTP/2 connections as soon as they are made".into())
}
