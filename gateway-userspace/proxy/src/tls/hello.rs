//! The ClientHello as it arrives: kept byte for byte, read for the server name alone, and judged by
//! nobody else. What is passed through must reach the backend as the client sent it, whatever
//! version or extension it speaks of; what is terminated is read again, strictly, by rustls.

use std::io;
use std::task::Poll;

use tokio::net::TcpStream;

use crate::buffer::Buffer;

/// A whole ClientHello.
#[derive(Debug)]
pub(crate) struct Hello {
    /// Everything that has been read, records included; what follows the hello too.
    pub(crate) bytes: Buffer,
    /// The server name in lower case, without a dot at its end; none if there is none, or an address.
    pub(crate) server_name: Option<Box<str>>,
}

/// Why bytes are no ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoHello {
    /// The first record is something else.
    #[error("not a TLS handshake")]
    NotTls,
    /// A length or a name makes no sense.
    #[error("the ClientHello is malformed")]
    Malformed,
    /// It is over the limit.
    #[error("the ClientHello is too long")]
    TooLong,
}

impl NoHello {
    /// The alert that says so (RFC 8446 §6).
    pub(crate) fn alert(self) -> u8 {
        match self {
            Self::NotTls => super::alert::UNEXPECTED_MESSAGE,
            Self::Malformed => super::alert::DECODE_ERROR,
            Self::TooLong => super::alert::HANDSHAKE_FAILURE,
        }
    }
}

/// Reads until the ClientHello is whole, at most `limit` bytes of it. Holds no buffer before the first byte.
///
/// # Errors
/// The stream's; `UnexpectedEof` when the client ends; `InvalidData` with a [`NoHello`].
pub(crate) async fn read(stream: &mut TcpStream, limit: usize) -> io::Result<Hello> {
    stream.readable().await?;
    let mut bytes = Buffer::lend();
    let mut gathered = Gathered::default();
    loop {
        if bytes.is_full() && !bytes.grow(limit) {
            return Err(refused(NoHello::TooLong));
        }
        let filled = std::future::poll_fn(|cx| {
            let stream = std::pin::Pin::new(&mut *stream);
            bytes.poll_fill(cx, stream)
        });
        if filled.await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match gathered.advance(bytes.filled(), limit) {
            Ok(Poll::Ready(server_name)) => return Ok(Hello { bytes, server_name }),
            Ok(Poll::Pending) if bytes.len() < limit => {}
            Ok(Poll::Pending) => return Err(refused(NoHello::TooLong)),
            Err(why) => return Err(refused(why)),
        }
    }
}

fn refused(why: NoHello) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// What the records so far have brought of the first handshake message.
#[derive(Debug, Default)]
struct Gathered {
    /// Bytes of the stream that are in `message`, or were headers.
    taken: usize,
    message: Vec<u8>,
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;

/// RFC 8446 §5.1: the length of a plaintext record must not exceed this.
const RECORD_BYTES: usize = 1 << 14;

impl Gathered {
    /// Goes on where it stopped. Each byte is looked at once, however small the pieces are that it comes in.
    fn advance(&mut self, bytes: &[u8], limit: usize) -> Result<Poll<Option<Box<str>>>, NoHello> {
        while let Some(record) = Record::read(&bytes[self.taken..])? {
            self.taken += RECORD_HEADER + record.payload.len();
            self.message.extend_from_slice(record.payload);
            if let Some(body) = self.body(limit)? {
                return Ok(Poll::Ready(server_name(body)?));
            }
        }
        Ok(Poll::Pending)
    }

    /// The ClientHello without its header, once it is whole.
    fn body(&self, limit: usize) -> Result<Option<&[u8]>, NoHello> {
        let Some((header, rest)) = self.message.split_at_checked(MESSAGE_HEADER) else {
            return Ok(None);
        };
        if header[0] != CLIENT_HELLO {
            return Err(NoHello::NotTls);
        }
        let length =
            usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]);
        if length > limit {
            return Err(NoHello::TooLong);
        }
        Ok(rest.get(..length))
    }
}

/// One record of the handshake.
struct Record<'a> {
    payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record that these bytes begin with; none if it is not whole. A header is judged as soon as it is there.
    fn read(bytes: &'a [u8]) -> Result<Option<Self>, NoHello> {
        // A handshake record of any version: 22, 3, anything (RFC 8446 §5.1).
        let begins = [HANDSHAKE, 3];
        if bytes
            .iter()
            .zip(begins)
            .any(|(byte, expected)| *byte != expected)
        {
            return Err(NoHello::NotTls);
        }
        let Some((header, rest)) = bytes.split_at_checked(RECORD_HEADER) else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        // RFC 8446 §5.1: zero-length fragments of handshake types must not be sent.
        if length == 0 || length > RECORD_BYTES {
            return Err(NoHello::Malformed);
        }
        Ok(rest.get(..length).map(|payload| Self { payload }))
    }
}

/// The server name of a ClientHello's body (RFC 8446 §4.1.2, RFC 6066 §3).
fn server_name(body: &[u8]) -> Result<Option<Box<str>>, NoHello> {
    let mut body = Fields(body);
    let _version_and_random = body.take(2 + 32)?;
    let _session = body.vector8()?;
    let _cipher_suites = body.vector16()?;
    let _compression = body.vector8()?;
    if body.0.is_empty() {
        return Ok(None);
    }
    let mut extensions = Fields(body.vector16()?);
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let data = extensions.vector16()?;
        if kind == 0 && found.replace(data).is_some() {
            return Err(NoHello::Malformed);
        }
    }
    found.map_or(Ok(None), host_name)
}

/// The host name of a `server_name` extension.
fn host_name(extension: &[u8]) -> Result<Option<Box<str>>, NoHello> {
    const HOST_NAME: u8 = 0;
    let mut list = Fields(Fields(extension).vector16()?);
    let mut found = None;
    while !list.0.is_empty() {
        let kind = list.take(1)?[0];
        let name = list.vector16()?;
        // RFC 6066 §3: the list must not hold more than one name of the same type.
        if kind == HOST_NAME && found.replace(name).is_some() {
            return Err(NoHello::Malformed);
        }
    }
    let Some(name) = found else {
        return Ok(None);
    };
    let name = name.strip_suffix(b".").unwrap_or(name);
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || b"-._".contains(b);
    let is_address = |text: &str| text.parse::<std::net::IpAddr>().is_ok();
    match std::str::from_utf8(name) {
        Ok(text) if is_address(text) => Ok(None),
        Ok(text) if !text.is_empty() && text.len() <= 253 && text.bytes().all(|b| is_name(&b)) => {
            Ok(Some(text.to_ascii_lowercase().into()))
        }
        _ => Err(NoHello::Malformed),
    }
}

/// What is left of a structure to be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], NoHello> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(NoHello::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number16(&mut self) -> Result<u16, NoHello> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A vector with a length of one byte.
    fn vector8(&mut self) -> Result<&'a [u8], NoHello> {
        let length = self.take(1)?[0];
        self.take(length.into())
    }

    /// A vector with a length of two bytes.
    fn vector16(&mut self) -> Result<&'a [u8], NoHello> {
        let length = self.number16()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 16 * 1024;

    fn vector(width: usize, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).expect("short").to_be_bytes();
        [&length[4 - width..], content].concat()
    }

    fn sni(names: &[&[u8]]) -> Vec<u8> {
        let list: Vec<u8> = names
            .iter()
            .flat_map(|name| [vec![0], vector(2, name)].concat())
            .collect();
        [&[0, 0][..], &vector(2, &vector(2, &list))].concat()
    }

    fn message(extensions: Option<&[u8]>) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend(vector(1, &[1; 32]));
        body.extend(vector(2, &[0x13, 1, 0x13, 2]));
        body.extend(vector(1, &[0]));
        body.extend(extensions.map(|e| vector(2, e)).unwrap_or_default());
        [vec![CLIENT_HELLO], vector(3, &body)].concat()
    }

    /// The message in records of at most `size` bytes each.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message
            .chunks(size)
            .flat_map(|part| [&[HANDSHAKE, 3, 1][..], &vector(2, part)].concat())
            .collect()
    }

    fn read_all(bytes: &[u8]) -> Result<Poll<Option<Box<str>>>, NoHello> {
        Gathered::default().advance(bytes, LIMIT)
    }

    fn name(message: &[u8]) -> Result<Poll<Option<Box<str>>>, NoHello> {
        read_all(&records(message, RECORD_BYTES))
    }

    #[test]
    fn the_name_is_found_however_the_hello_is_cut() {
        let padding = [&[0, 21][..], &vector(2, &[0; 300])].concat();
        let hello = message(Some(&[padding, sni(&[b"Shop.Example.COM."])].concat()));
        let found = Ok(Poll::Ready(Some("shop.example.com".into())));
        for size in [1, 2, 5, 100, RECORD_BYTES] {
            let bytes = records(&hello, size);
            assert_eq!(read_all(&bytes), found, "records of {size}");
            let mut gathered = Gathered::default();
            for end in 0..bytes.len() {
                assert_eq!(gathered.advance(&bytes[..end], LIMIT), Ok(Poll::Pending));
            }
            assert_eq!(gathered.advance(&bytes, LIMIT), found);
        }
    }

    #[test]
    fn a_hello_without_a_name_is_whole() {
        for extensions in [None, Some(&[][..]), Some(&[0, 23, 0, 0][..])] {
            assert_eq!(name(&message(extensions)), Ok(Poll::Ready(None)));
        }
        assert_eq!(
            name(&message(Some(&sni(&[b"192.0.2.1"])))),
            Ok(Poll::Ready(None))
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let twice = [sni(&[b"a.example"]), sni(&[b"b.example"])].concat();
        for extensions in [
            twice,
            sni(&[b"a.example", b"b.example"]),
            sni(&[b""]),
            sni(&[b"a\0.example"]),
            sni(&[b"a b"]),
            sni(&["\u{e9}.example".as_bytes()]),
            sni(&[&[b'a'; 254]]),
            vec![0, 0, 0, 9, 0],
        ] {
            assert_eq!(name(&message(Some(&extensions))), Err(NoHello::Malformed));
        }
    }

    #[test]
    fn what_is_not_tls_is_known_by_its_first_bytes() {
        for text in [&b"G"[..], b"SSH-2.0-", &[0x16, 2], &[0x80, 0x2e, 1]] {
            assert_eq!(read_all(text), Err(NoHello::NotTls), "{text:?}");
        }
        assert_eq!(read_all(&[HANDSHAKE, 3, 1, 0, 0]), Err(NoHello::Malformed));
        assert_eq!(
            read_all(&[HANDSHAKE, 3, 1, 0xff, 0xff]),
            Err(NoHello::Malformed)
        );
        assert_eq!(
            read_all(&[HANDSHAKE, 3, 1, 0, 4, 2, 0, 0, 0]),
            Err(NoHello::NotTls)
        );
        let long = [HANDSHAKE, 3, 1, 0, 4, CLIENT_HELLO, 0xff, 0, 0];
        assert_eq!(read_all(&long), Err(NoHello::TooLong));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read_all(&bytes);
            let _ = server_name(&bytes);
            let _ = name(&message(Some(&bytes)));
            let _ = read_all(&[&[HANDSHAKE, 3, 1][..], &bytes].concat());
        }
    }
}
