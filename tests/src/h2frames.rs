//! HTTP/2 frames by hand, right and wrong, for clients that do not play by the rules.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::raw::{End, Raw};
use crate::wait::PATIENCE;

/// RFC 9113 §3.4: what a client sends first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// RFC 9113 §6: frame types.
pub mod kind {
    #![expect(missing_docs, reason = "the names of RFC 9113 §6")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// RFC 9113 §6: `END_STREAM`, and `ACK` of SETTINGS and PING.
pub const END_STREAM: u8 = 0x1;
/// RFC 9113 §6.2: `END_HEADERS`.
pub const END_HEADERS: u8 = 0x4;

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// One of [`kind`].
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of a GOAWAY or RST_STREAM.
    #[must_use]
    pub fn error_code(&self) -> Option<u32> {
        let at = match self.kind {
            kind::GOAWAY => 4,
            kind::RST_STREAM => 0,
            _ => return None,
        };
        self.payload
            .get(at..at + 4)?
            .try_into()
            .ok()
            .map(u32::from_be_bytes)
    }
}

/// Writes a frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block: every field a literal without indexing and without Huffman coding.
#[must_use]
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        literal(&mut bytes, name.as_bytes());
        literal(&mut bytes, value.as_bytes());
    }
    bytes
}

/// A field that goes into the dynamic table (RFC 7541 §6.2.1), to be named by one byte afterwards:
/// `0xbe` for the newest.
#[must_use]
pub fn indexed(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0x40];
    literal(&mut bytes, name.as_bytes());
    literal(&mut bytes, value.as_bytes());
    bytes
}

fn literal(bytes: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text.len();
    if rest < 127 {
        bytes.push(u8::try_from(rest).unwrap_or(0));
    } else {
        bytes.push(127);
        rest -= 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128).unwrap_or(0) | 0x80);
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap_or(0));
    }
    bytes.extend_from_slice(text);
}

/// The pseudo-headers of a GET over clear text.
#[must_use]
pub fn get<'a>(authority: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", authority),
        (":path", path),
    ]
}

/// An HTTP/2 connection whose frames are the test's own.
#[derive(Debug)]
pub struct Http2 {
    /// The bytes below.
    pub raw: Raw,
}

impl Http2 {
    /// Sends the preface and these settings (RFC 9113 §6.5.2: identifier and value), and waits for
    /// the server's: without them it would be no HTTP/2 that is tested.
    ///
    /// # Errors
    /// When the server does not speak HTTP/2.
    pub fn open(mut raw: Raw, settings: &[(u16, u32)]) -> Result<Self> {
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| id.to_be_bytes().into_iter().chain(value.to_be_bytes()))
            .collect();
        raw.send(&[PREFACE, &frame(kind::SETTINGS, 0, 0, &payload)].concat())?;
        let mut http2 = Self { raw };
        let settings = http2.wait_frame(PATIENCE, |frame| frame.kind == kind::SETTINGS)?;
        settings.context("the server does not speak HTTP/2")?;
        Ok(http2)
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// What `write(2)` says.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.raw.send(bytes)
    }

    /// Reads frames until one fits and gives it; none when the connection ends first.
    ///
    /// # Errors
    /// When nothing fits within `limit`.
    pub fn wait_frame(
        &mut self,
        limit: Duration,
        fits: impl Fn(&Frame) -> bool,
    ) -> Result<Option<Frame>> {
        let deadline = std::time::Instant::now() + limit;
        loop {
            while let Some(frame) = self.take()? {
                if fits(&frame) {
                    return Ok(Some(frame));
                }
            }
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            ensure!(!left.is_zero(), "no such frame in {limit:?}");
            let had = self.raw.received().len();
            let end = self.raw.read_until(left, |received| received.len() > had)?;
            if end != End::Open && self.raw.received().len() == had {
                return Ok(None);
            }
        }
    }

    /// Waits until the server gives the connection up: the code of its GOAWAY, or none for a close
    /// or reset without one.
    ///
    /// # Errors
    /// When it does neither within `limit`.
    pub fn wait_given_up(&mut self, limit: Duration) -> Result<Option<u32>> {
        let frame = self.wait_frame(limit, |frame| frame.kind == kind::GOAWAY)?;
        Ok(frame.and_then(|frame| frame.error_code()))
    }

    fn take(&mut self) -> Result<Option<Frame>> {
        let bytes = self.raw.received();
        let Some(head) = bytes.get(..9) else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some(payload) = bytes.get(9..9 + length) else {
            return Ok(None);
        };
        let stream = head[5..9].try_into().context("four bytes")?;
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
            payload: payload.to_vec(),
        };
        self.raw.consume(9 + length);
        Ok(Some(frame))
    }
}
