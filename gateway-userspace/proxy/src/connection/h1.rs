//! HTTP/1.x on a client's connection: one request after the other, each served to its end by the
//! connection's own task, which drives the upstream's socket too.

mod exchange;
mod request;
mod tunnel;
mod workspace;

use super::client::Client;
use crate::buffer::Buffer;
pub(crate) use workspace::Workspaces;

/// What becomes of a connection after a request.
enum Next {
    /// The next request; what has arrived of it.
    Request(Option<Buffer>),
    /// Ended in order: the client is given time to take what was sent.
    Close,
    /// Cut off.
    Abort,
}

/// Serves a connection to its end. `first` is what has been read already.
pub(super) async fn serve(mut client: Box<Client>, first: Option<Buffer>) {
    let time = &client.downstream.worker.limits().time;
    let (first_byte, keep_alive) = (time.first_byte, time.keep_alive);
    let mut held = first;
    let mut patience = first_byte;
    loop {
        let arrived = match held.take() {
            Some(buffer) => buffer,
            None => match client.next_bytes(patience).await {
                Some(buffer) => buffer,
                None => return,
            },
        };
        patience = keep_alive;
        // Boxed, so that an idle connection keeps no room for a request; the allocator gives back what
        // the last request of any connection has left in the cache.
        match Box::pin(request::serve(&mut client, arrived)).await {
            Next::Request(rest) => held = rest,
            Next::Close => return Box::pin(client.close()).await,
            Next::Abort => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of the future that such a function gives.
    fn size<'a, F: Future>(_: impl Fn(&'a mut Client, Buffer) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_a_request_takes_is_small() {
        // Up to 1 KiB the allocator has it at hand.
        assert!(size(request::serve) <= 1_024, "{}", size(request::serve));
    }
}
