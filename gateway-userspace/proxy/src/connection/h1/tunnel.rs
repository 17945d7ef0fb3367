//! An upgraded connection: bytes both ways until either side ends.

use std::future::poll_fn;
use std::task::Poll;

use super::Next;
use crate::buffer::Buffer;
use crate::connection::client::Client;
use crate::connection::pipe::Direction;
use crate::connection::record::Record;
use crate::upstream::UpstreamStream;

/// Copies bytes until both sides have ended, one fails, or nothing moves for the tunnel's limit.
/// `late` is what the client sent after its request, `early` what the upstream sent after its answer.
pub(super) async fn run(
    client: &mut Client,
    mut upstream: UpstreamStream,
    late: Buffer,
    early: Buffer,
    record: &mut Record,
) -> Next {
    let worker = client.downstream.worker.clone();
    worker.counters.tunnels.up();
    worker.counters.tunnels_open.up();
    let limit = worker.limits().time.tunnel_idle;
    client.deadline.set(limit);
    let mut up = Direction::new(Some(late));
    let mut down = Direction::new(Some(early));
    poll_fn(|cx| {
        let up_now = up.poll(cx, &mut client.stream, &mut upstream);
        let down_now = down.poll(cx, &mut upstream, &mut client.stream);
        let has_failed = up.failure.is_some() || down.failure.is_some();
        if has_failed || (up_now.is_ready() && down_now.is_ready()) {
            return Poll::Ready(());
        }
        client.deadline.register(cx);
        if up.take_moved() | down.take_moved() {
            client.deadline.set(limit);
        }
        if client.deadline.is_expired() {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
    worker.counters.tunnels_open.down();
    record.bytes_received += up.bytes;
    record.bytes_sent += down.bytes;
    Next::Abort
}
