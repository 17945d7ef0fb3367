//! The lines of a body that comes bit by bit.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use kube::client::Body;

/// The longest line; etcd takes objects of 1.5 MiB, and JSON may write them longer.
const MAX_LINE_BYTES: usize = 32 * 1024 * 1024;

/// A body and what of it is not a whole line yet.
pub struct Lines {
    body: Body,
    held: BytesMut,
    searched: usize,
}

impl Lines {
    /// The lines of a body.
    pub fn new(body: Body) -> Self {
        Self {
            body,
            held: BytesMut::new(),
            searched: 0,
        }
    }

    /// The next line that is not empty, without its end; none at the end of the body, where half
    /// a line does not count. May be dropped while it waits, and called again.
    ///
    /// # Errors
    /// In words: the connection broke, or a line has no end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            while let Some(found) = memchr::memchr(b'\n', &self.held[self.searched..]) {
                let line = self.held.split_to(self.searched + found + 1).freeze();
                self.searched = 0;
                if line.len() > 1 {
                    return Ok(Some(line.slice(..line.len() - 1)));
                }
            }
            self.searched = self.held.len();
            if self.searched > MAX_LINE_BYTES {
                return Err("an event of the watch is too large".to_owned());
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(crate::telemetry::chain(&error)),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.held.extend_from_slice(data);
                    }
                }
            }
        }
    }
}
