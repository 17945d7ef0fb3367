//! Just enough HTTP/1.1 for backends and clients of tests: lenient about nothing, blind to nothing.
//!
//! Heads are kept as they came (order, case, raw bytes), so that a test can look at every byte.

use std::io;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest head that is read.
const MAX_HEAD_BYTES: usize = 1 << 20;

/// A start line and header lines, as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The request line or status line.
    pub start: String,
    /// Names and values in the order they came; values without outer white space.
    pub headers: Vec<(String, String)>,
    /// Every byte up to and including the empty line.
    pub raw: Vec<u8>,
}

impl Head {
    /// The first value of a header, its name compared without case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let same = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .find(same)
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a header.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        let same = move |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .filter(same)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a comma-separated header has this element.
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|v| v.split(','))
            .any(|t| t.trim().eq_ignore_ascii_case(token))
    }

    /// The word at this place of the start line, or nothing.
    #[must_use]
    pub fn word(&self, index: usize) -> &str {
        self.start.split(' ').nth(index).unwrap_or_default()
    }

    fn parse(raw: &[u8]) -> Result<Self> {
        let text = String::from_utf8_lossy(raw);
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let start = lines.next().context("no start line")?.to_owned();
        let headers = lines
            .map(|line| {
                let (name, value) = line
                    .split_once(':')
                    .with_context(|| format!("no colon in {line:?}"))?;
                Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            start,
            headers,
            raw: raw.to_vec(),
        })
    }
}

/// A response with its whole body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Its head.
    pub head: Head,
    /// The status code.
    pub status: u16,
    /// Its body, chunked coding removed.
    pub body: Vec<u8>,
    /// Trailer lines.
    pub trailers: Vec<(String, String)>,
}

impl Response {
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {:?}", self.text()))
    }

    /// Whether the connection can take another request.
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        !self.head.has_token("connection", "close") && self.head.start.starts_with("HTTP/1.1")
    }
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    Close,
}

impl Framing {
    /// The framing of a request. A request without any has no body.
    ///
    /// # Errors
    /// When `Content-Length` is no number.
    pub fn of_request(head: &Head) -> Result<Self> {
        Ok(Self::declared(head)?.unwrap_or(Self::Length(0)))
    }

    /// The framing of the response to a request of this method.
    ///
    /// # Errors
    /// When `Content-Length` is no number.
    pub fn of_response(head: &Head, status: u16, method: &str) -> Result<Self> {
        if method == "HEAD" || matches!(status, 100..=199 | 204 | 304) {
            return Ok(Self::Length(0));
        }
        Ok(Self::declared(head)?.unwrap_or(Self::Close))
    }

    fn declared(head: &Head) -> Result<Option<Self>> {
        if head.has_token("transfer-encoding", "chunked") {
            return Ok(Some(Self::Chunked));
        }
        let length = head.header("content-length").map(str::parse).transpose();
        Ok(length
            .context("content-length is no number")?
            .map(Self::Length))
    }
}

/// A stream with what was read from it and not used yet.
#[derive(Debug)]
pub struct Wire<S> {
    /// The stream.
    pub stream: S,
    buffer: Vec<u8>,
    start: usize,
}

impl<S: AsyncRead + Unpin> Wire<S> {
    /// Wraps a stream.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// What was read and not used.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// The stream and what was read and not used.
    pub fn into_parts(self) -> (S, Vec<u8>) {
        let rest = self.rest().to_vec();
        (self.stream, rest)
    }

    /// Reads more; false at the end of the stream.
    ///
    /// # Errors
    /// What `read(2)` says.
    pub async fn fill(&mut self) -> io::Result<bool> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.reserve(16 * 1024);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// Reads a head; none if the stream ends before its first byte.
    ///
    /// # Errors
    /// When the stream ends inside, or the head cannot be split into lines.
    pub async fn head(&mut self) -> Result<Option<Head>> {
        let mut searched = 0;
        loop {
            let rest = self.rest();
            if let Some(at) = find(&rest[searched..], b"\r\n\r\n") {
                let length = searched + at + 4;
                let head = Head::parse(&rest[..length])?;
                self.start += length;
                return Ok(Some(head));
            }
            searched = rest.len().saturating_sub(3);
            if rest.len() > MAX_HEAD_BYTES {
                bail!("head of more than {MAX_HEAD_BYTES} bytes");
            }
            if !self.fill().await? {
                match self.rest().len() {
                    0 => return Ok(None),
                    n => bail!("the stream ends after {n} bytes of a head"),
                }
            }
        }
    }

    /// Reads a body and its trailer lines.
    ///
    /// # Errors
    /// When the stream ends too early or the chunked coding is wrong.
    pub async fn body(&mut self, framing: Framing) -> Result<(Vec<u8>, Vec<(String, String)>)> {
        match framing {
            Framing::Length(length) => {
                let length = usize::try_from(length)?;
                Ok((self.exactly(length).await?, Vec::new()))
            }
            Framing::Chunked => self.chunked().await,
            Framing::Close => {
                while self.fill().await? {}
                let body = self.rest().to_vec();
                self.start = self.buffer.len();
                Ok((body, Vec::new()))
            }
        }
    }

    /// Reads a whole response to a request of this method, interim ones skipped.
    ///
    /// # Errors
    /// When there is none or it breaks off.
    pub async fn response(&mut self, method: &str) -> Result<Response> {
        loop {
            let head = self.head().await?.ok_or(NothingCame)?;
            let status: u16 = head.word(1).parse().with_context(|| head.start.clone())?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let framing = Framing::of_response(&head, status, method)?;
            let (body, trailers) = self.body(framing).await.context("body breaks off")?;
            return Ok(Response {
                head,
                status,
                body,
                trailers,
            });
        }
    }

    async fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.rest().len() < length {
            if !self.fill().await? {
                bail!(
                    "the stream ends after {} of {length} bytes",
                    self.rest().len()
                );
            }
        }
        let body = self.rest()[..length].to_vec();
        self.start += length;
        Ok(body)
    }

    async fn line(&mut self) -> Result<String> {
        loop {
            if let Some(at) = find(self.rest(), b"\r\n") {
                let line = String::from_utf8_lossy(&self.rest()[..at]).into_owned();
                self.start += at + 2;
                return Ok(line);
            }
            if !self.fill().await? {
                bail!("the stream ends inside a line");
            }
        }
    }

    async fn chunked(&mut self) -> Result<(Vec<u8>, Vec<(String, String)>)> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default();
            let size =
                usize::from_str_radix(size, 16).with_context(|| format!("chunk size {line:?}"))?;
            if size == 0 {
                break;
            }
            body.extend(self.exactly(size).await?);
            anyhow::ensure!(self.line().await?.is_empty(), "no line end after a chunk");
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok((body, trailers));
            }
            let (name, value) = line.split_once(':').context("no colon in a trailer")?;
            trailers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
}

/// The peer closed the connection where a response was expected, and not a byte of one had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NothingCame;

impl std::fmt::Display for NothingCame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connection closed before a response")
    }
}

impl std::error::Error for NothingCame {}

/// Where `needle` begins in `haystack`.
#[must_use]
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &'static [u8]) -> Result<Response> {
        let wire = async { Wire::new(bytes).response("GET").await };
        crate::netns::runtime().unwrap().block_on(wire)
    }

    #[test]
    fn chunks_trailers_and_interim_responses_are_understood() {
        let answer = read(
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
              3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-End: 1\r\n\r\n",
        );
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "abcde"));
        assert_eq!(answer.trailers, [("X-End".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn a_body_that_breaks_off_is_an_error() {
        assert!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc").is_err());
        assert!(read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab").is_err());
        assert!(read(b"").unwrap_err().is::<NothingCame>());
    }
}
