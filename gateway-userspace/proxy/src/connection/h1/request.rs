//! One HTTP/1.x request from its first byte to the fate of its connection.

use std::io;
use std::time::Instant;

use gateway_model::snapshot::CompiledRule;

use super::Next;
use super::exchange::{End, Exchange, Failed, Forward};
use super::workspace::Workspace;
use crate::buffer::Buffer;
use crate::connection::client::Client;
use crate::connection::local::{self, Wanted};
use crate::connection::record::{Record, Refused};
use crate::downstream::Routing;
use crate::error::{Kind, ProxyError, Side};
use crate::h1::{BodyDecoder, BodyKind, Method, Progress, RequestHead, RequestView};
use crate::head::{Known, Source, Violation};
use crate::origin;
use crate::respond::{Answer, AnswerWire, is_grpc};
use crate::routing::{Act, Decision, decide};

/// Serves the request whose first bytes are in `buffer`.
pub(super) async fn serve(client: &mut Client, mut buffer: Buffer) -> Next {
    let mut lent = client.downstream.worker.workspaces.lend();
    let work = &mut *lent;
    match parse(client, &mut work.request, &buffer) {
        Ok(Progress::Complete(_)) => {}
        parsed => {
            let read = Box::pin(read_on(client, work, &mut buffer, parsed));
            if let Some(next) = read.await {
                return next;
            }
        }
    }
    let routing = client.downstream.routing();
    let (decision, mut record) = begin(client, work, &routing, &buffer);
    let rule = decision.rule.map(|rule| &**rule);
    let next = match decision.action {
        Act::Forward {
            filters,
            upstream,
            label,
        } => {
            let forward = Forward {
                rule,
                filters,
                prefix_len: decision.prefix_len,
                target: decision.target(upstream),
                label,
            };
            let mut exchange = Exchange::begin(
                client,
                work,
                buffer,
                &routing,
                &decision,
                forward,
                &mut record,
            );
            match exchange.run().await {
                Ok(End::Response { keep }) => exchange.finish(keep),
                Ok(End::Tunnel(switched)) => Box::pin(exchange.tunnel(switched)).await,
                Err(error) => {
                    let failed = exchange.fail(error);
                    Box::pin(answer_failure(client, work, failed, rule, &mut record)).await
                }
            }
        }
        _ => Box::pin(answer_locally(client, work, buffer, &decision, &mut record)).await,
    };
    record.end(&client.downstream, rule);
    next
}

/// Counts a request whose head has been read, and decides what is done with it.
fn begin<'a>(
    client: &Client,
    work: &Workspace,
    routing: &'a Routing,
    buffer: &Buffer,
) -> (Decision<'a>, Record) {
    let now = Instant::now();
    let downstream = &client.downstream;
    downstream.count_request();
    downstream.worker.counters.requests_http1.up();
    let view = work.request.view(buffer.filled());
    let mut decision = decide(routing, downstream, &view);
    if matches!(decision.action, Act::Forward { .. }) && is_call(&work.request, &view) {
        decision.action = Act::Refuse(Kind::Refused(505), "gRPC needs HTTP/2");
    }
    let protocol = protocol(&work.request);
    let record = Record::begin(downstream, routing, &decision, &view, protocol, now);
    (decision, record)
}

/// What the access log calls it.
fn protocol(head: &RequestHead) -> &'static str {
    match head.is_http10() {
        true => "HTTP/1.0",
        false => "HTTP/1.1",
    }
}

/// Whether a request is a call of gRPC, which has no form in HTTP/1.x.
fn is_call(head: &RequestHead, view: &RequestView<'_>) -> bool {
    let mut kinds = view.known_values(Known::ContentType);
    head.body() != BodyKind::None && kinds.next().is_some_and(is_grpc)
}

fn parse(client: &Client, head: &mut RequestHead, buffer: &Buffer) -> Result<Progress, ProxyError> {
    let limits = &client.downstream.worker.limits().head;
    let parsed = head.parse(buffer.filled(), limits);
    parsed.map_err(ProxyError::downstream)
}

/// Reads until the head is complete of which a part is there; what becomes of the connection if none comes.
async fn read_on(
    client: &mut Client,
    work: &mut Workspace,
    buffer: &mut Buffer,
    mut parsed: Result<Progress, ProxyError>,
) -> Option<Next> {
    client
        .deadline
        .set(client.downstream.worker.limits().time.head);
    loop {
        match parsed {
            Ok(Progress::Complete(_)) => return None,
            Ok(Progress::Partial) => {}
            Err(error) => return Some(refuse(client, work, buffer, &error).await),
        }
        parsed = match read(client, buffer).await {
            Ok(()) => parse(client, &mut work.request, buffer),
            Err(error) => Err(error),
        };
    }
}

/// Reads once.
async fn read(client: &mut Client, buffer: &mut Buffer) -> Result<(), ProxyError> {
    let most = client.downstream.worker.limits().head.bytes + 1;
    if buffer.is_full() && !buffer.grow(most) {
        return Err(ProxyError::downstream(Violation::HeadTooLarge));
    }
    client
        .fill(buffer)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => ProxyError::new(Side::Downstream, Kind::HeadTimeout),
            _ => ProxyError::new(Side::Downstream, Kind::Closed).because(error),
        })
}

/// Answers a head that cannot be read, or not trusted, and ends the connection.
async fn refuse(
    client: &mut Client,
    work: &mut Workspace,
    buffer: &Buffer,
    error: &ProxyError,
) -> Next {
    if !matches!(error.kind, Kind::Protocol(_) | Kind::HeadTimeout) {
        return Next::Abort;
    }
    tracing::debug!(peer = %client.downstream.peer, error = %error.chain(), "request refused");
    let Some(answer) = Wanted::default().answer(error) else {
        return Next::Abort;
    };
    let at = Instant::now();
    let (method, target) = RequestHead::as_sent(buffer.filled());
    let head = method == "HEAD";
    let wire = Wire {
        keep_alive: false,
        http10: false,
        head,
    };
    let next = send(client, work, &answer, wire).await;
    let refused = Refused {
        method,
        target,
        protocol: protocol(&work.request),
        at,
        status: answer.status,
        bytes_sent: answer.body_len(head),
    };
    refused.end(&client.downstream, error);
    next
}

/// Answers without a backend: redirects, failures, and what the rule itself says.
async fn answer_locally(
    client: &mut Client,
    work: &mut Workspace,
    mut buffer: Buffer,
    decision: &Decision<'_>,
    record: &mut Record,
) -> Next {
    let head_len = work.request.len();
    let view = work.request.view(buffer.filled());
    let Some(answer) = local::answer(
        &client.downstream,
        &view,
        Wanted::of_http1(&view),
        decision,
        record,
    ) else {
        return Next::Abort;
    };
    let body_end = end_of_body(&work.request, &buffer, head_len, client);
    buffer.consume(body_end.unwrap_or(head_len));
    let closes = record
        .error
        .as_ref()
        .is_some_and(ProxyError::closes_downstream);
    respond(
        client,
        work,
        buffer,
        &answer,
        body_end.is_some() && !closes,
        record,
    )
    .await
}

/// Answers a failed exchange, if the client can still be told.
async fn answer_failure(
    client: &mut Client,
    work: &mut Workspace,
    failed: Failed,
    rule: Option<&CompiledRule>,
    record: &mut Record,
) -> Next {
    let Failed {
        error,
        mut buffer,
        body_end,
        answerable,
    } = failed;
    let view = work.request.view(buffer.filled());
    let answer = Wanted::of_http1(&view).answer(&error);
    let answer = local::of_rule(answer, rule, origin::response_lines(rule, &view));
    let keep = body_end.is_some() && !error.closes_downstream();
    record.error = Some(error);
    let Some(answer) = answer.filter(|_| answerable) else {
        return Next::Abort;
    };
    buffer.consume(body_end.unwrap_or(buffer.len()));
    respond(client, work, buffer, &answer, keep, record).await
}

async fn respond(
    client: &mut Client,
    work: &mut Workspace,
    rest: Buffer,
    answer: &Answer,
    may_keep: bool,
    record: &mut Record,
) -> Next {
    let wire = Wire::of(&work.request, client, may_keep);
    record.status = answer.status;
    record.bytes_sent = answer.body_len(wire.head) as u64;
    match send(client, work, answer, wire).await {
        Next::Request(None) if !rest.is_empty() => Next::Request(Some(rest)),
        next => next,
    }
}

/// Where a body ends that has arrived whole; nothing if some of it has not.
fn end_of_body(
    head: &RequestHead,
    buffer: &Buffer,
    head_len: usize,
    client: &Client,
) -> Option<usize> {
    let limits = &client.downstream.worker.limits().head;
    let mut decoder = BodyDecoder::new(head.body(), limits);
    let mut at = head_len;
    while !decoder.is_done() {
        let step = decoder.step(&buffer.filled()[at..]).ok()?;
        at += step.consumed;
        if at == buffer.len() && !step.end {
            return None;
        }
    }
    Some(at)
}

/// How an answer is written.
#[derive(Clone, Copy)]
struct Wire {
    keep_alive: bool,
    http10: bool,
    head: bool,
}

impl Wire {
    fn of(request: &RequestHead, client: &Client, may_keep: bool) -> Self {
        Self {
            keep_alive: may_keep && request.keep_alive() && !client.downstream.is_ending(),
            http10: request.is_http10(),
            head: request.method() == Method::Head,
        }
    }
}

async fn send(client: &mut Client, work: &mut Workspace, answer: &Answer, wire: Wire) -> Next {
    work.to_client.clear();
    let date = client.downstream.worker.date();
    let wire = AnswerWire {
        date: &date,
        keep_alive: wire.keep_alive,
        http10: wire.http10,
        head: wire.head,
    };
    answer.encode(&mut work.to_client, &wire);
    match client.send(&work.to_client).await {
        Ok(()) if wire.keep_alive => Next::Request(None),
        Ok(()) => Next::Close,
        Err(_) => Next::Abort,
    }
}
