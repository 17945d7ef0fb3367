//! Alerts that are sent before rustls has a say (RFC 8446 §6).

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

pub(crate) const UNEXPECTED_MESSAGE: u8 = 10;
pub(crate) const HANDSHAKE_FAILURE: u8 = 40;
pub(crate) const ILLEGAL_PARAMETER: u8 = 47;
pub(crate) const ACCESS_DENIED: u8 = 49;
pub(crate) const DECODE_ERROR: u8 = 50;
pub(crate) const UNRECOGNIZED_NAME: u8 = 112;

/// A record that holds a fatal alert.
pub(crate) fn record(description: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, description]
}

/// Sends a fatal alert. A client that has gone is not missed.
pub(crate) async fn send(stream: &mut TcpStream, description: u8) {
    let _ = stream.write_all(&record(description)).await;
}
