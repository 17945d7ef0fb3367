//! A client's frames as they go by (RFC 9113 §4.1): what the h2 crate keeps to itself of header blocks.
//!
//! It hands a request on when its head is complete and well-formed. How long one has been under way, and that
//! one came which it refused, is seen here alone.

/// RFC 9113 §3.4: what a client sends before its first frame.
const PREFACE_LEN: usize = 24;
/// RFC 9113 §4.1: length (24 bits), type, flags, stream.
const HEAD_LEN: usize = 9;
/// RFC 9113 §6.2 and §6.10.
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;

/// Where the client is in its frames.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes that belong to no frame's head: what is left of the preface, or of a payload.
    skip: usize,
    head: [u8; HEAD_LEN],
    /// How much of the next frame's head has come.
    have: usize,
    block: Block,
    /// Blocks that have begun.
    blocks: u64,
    /// Whether the block that began last opens a stream; trailers do not.
    opens_stream: bool,
    last_stream: u32,
    /// Heads of requests that are complete.
    heads: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    None,
    /// Another frame has to come.
    Open,
    /// It ends with this frame.
    Ending,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            skip: PREFACE_LEN,
            head: [0; HEAD_LEN],
            have: 0,
            block: Block::None,
            blocks: 0,
            opens_stream: false,
            last_stream: 0,
            heads: 0,
        }
    }
}

impl Frames {
    /// These bytes have come next.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let is_head = self.skip == 0;
            let wanted = match is_head {
                true => HEAD_LEN - self.have,
                false => self.skip,
            };
            let (part, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            if is_head {
                self.head[self.have..self.have + part.len()].copy_from_slice(part);
                self.have += part.len();
                if self.have == HEAD_LEN {
                    self.have = 0;
                    self.begin();
                }
            } else {
                self.skip -= part.len();
            }
            if self.skip == 0 && self.block == Block::Ending {
                self.block = Block::None;
                self.heads += u64::from(self.opens_stream);
            }
        }
    }

    /// A frame's head is there.
    fn begin(&mut self) {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
        let is_last = flags & END_HEADERS != 0;
        match kind {
            HEADERS => {
                let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
                self.blocks += 1;
                self.opens_stream = stream > self.last_stream;
                self.last_stream = self.last_stream.max(stream);
                self.block = if is_last { Block::Ending } else { Block::Open };
            }
            CONTINUATION if is_last && self.block == Block::Open => self.block = Block::Ending,
            _ => {}
        }
    }

    /// The number of the header block that has begun and is not complete.
    pub(super) fn open_block(&self) -> Option<u64> {
        (self.block != Block::None).then_some(self.blocks)
    }

    /// How many requests' heads have come, whatever became of them.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const DATA: u8 = 0;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("short");
        let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn heads_are_counted_when_they_are_complete_however_they_come() {
        let parts = [
            (PREFACE.to_vec(), None, 0),
            (frame(4, 0, 0, &[0; 12]), None, 0),
            (frame(HEADERS, END_HEADERS, 1, b"head"), None, 1),
            // What looks like a frame in a payload is none.
            (frame(DATA, 0, 1, &frame(HEADERS, 0, 9, b"")), None, 1),
            (frame(HEADERS, 0, 3, b"he"), Some(2), 1),
            (frame(CONTINUATION, 0, 3, b""), Some(2), 1),
            (frame(CONTINUATION, END_HEADERS, 3, b"ad"), None, 2),
            // Trailers.
            (frame(HEADERS, END_HEADERS, 1, b"more"), None, 2),
            (frame(HEADERS, END_HEADERS, 5, b""), None, 3),
        ];
        for step in 1..40 {
            let mut frames = Frames::default();
            for (bytes, block, heads) in &parts {
                bytes.chunks(step).for_each(|chunk| frames.pass(chunk));
                assert_eq!((frames.open_block(), frames.heads()), (*block, *heads));
            }
        }
        let mut frames = Frames::default();
        let all: Vec<u8> = parts
            .iter()
            .flat_map(|(bytes, ..)| bytes)
            .copied()
            .collect();
        frames.pass(&all);
        assert_eq!((frames.open_block(), frames.heads()), (None, 3));
    }

    #[test]
    fn a_block_is_under_way_from_its_frames_head_to_its_last_byte() {
        let mut frames = Frames::default();
        frames.pass(PREFACE);
        let head = frame(HEADERS, END_HEADERS, 1, b"head");
        for (at, byte) in head.iter().enumerate() {
            let is_open = (HEAD_LEN..head.len()).contains(&at);
            assert_eq!(frames.open_block().is_some(), is_open, "before byte {at}");
            frames.pass(&[*byte]);
        }
        assert_eq!((frames.open_block(), frames.heads()), (None, 1));
    }
}
