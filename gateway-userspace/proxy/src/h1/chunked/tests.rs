//! Chunked coding, byte by byte.

use proptest::prelude::*;

use super::*;
use crate::limits::Limits;

fn limits() -> HeadLimits {
    Limits::default().head
}

/// Body, trailers, whether it is over, and how much has been used.
type Decoded = (Vec<u8>, Vec<u8>, bool, usize);

fn decode(input: &[u8], split: usize) -> Result<Decoded, Violation> {
    decode_by(ChunkedDecoder::new(&limits()), input, split)
}

fn decode_by(
    mut decoder: ChunkedDecoder,
    input: &[u8],
    split: usize,
) -> Result<Decoded, Violation> {
    decoder.keep_trailers();
    let (mut body, mut used) = (Vec::new(), 0);
    for end in [split, input.len()] {
        while used < end && !decoder.is_done() {
            let step = decoder.step(&input[used..end])?;
            body.extend_from_slice(&input[used..end][step.data]);
            used += step.consumed;
        }
    }
    Ok((body, decoder.trailers().to_vec(), decoder.is_done(), used))
}

#[test]
fn chunks_are_read_however_they_arrive() {
    let input = b"5\r\nhello\r\n0A;x=\"y\"\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nGET /";
    for split in 0..=input.len() {
        let (body, trailers, done, used) = decode(input, split).expect("well-formed");
        assert_eq!(body, b"hello0123456789");
        assert_eq!(trailers, b"X-Sum: 1\r\n");
        assert!(done);
        assert_eq!(used, input.len() - 5);
    }
}

#[test]
fn row6_only_one_spelling_of_a_chunk_is_read() {
    for input in [
        "0x5\r\nhello\r\n",
        "+5\r\nhello\r\n",
        "-5\r\nhello\r\n",
        " 5\r\nhello\r\n",
        "5 \r\nhello\r\n",
        "5\t\r\nhello\r\n",
        "\r\nhello",
        ";x\r\nhello\r\n",
        "5\nhello\r\n",
        "5\r\nhello\n",
        "5\r\nhello\rX",
        "5\rX",
        "5\r\nhelloX",
        "5;a\nb\r\nhello",
        "5;a\rb\r\nhello",
        "5;\0\r\nhello",
        "ffffffffffffffff\r\n",
        "10000000000000000\r\n",
        "0000000000000005\r\nhello\r\n",
        "g\r\n",
        "0\r\n\rX",
    ] {
        assert_eq!(
            decode(input.as_bytes(), 0),
            Err(Violation::Chunk),
            "{input:?}"
        );
    }
}

#[test]
fn row28_trailers_obey_the_rules_of_headers() {
    for input in [
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nHost: a\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nX-Forwarded-For: 1\r\n\r\n",
        "0\r\nAuthorization: x\r\n\r\n",
        "0\r\nCookie: x\r\n\r\n",
        "0\r\nConnection: close\r\n\r\n",
        "0\r\nx_y: 1\r\n\r\n",
        "0\r\nx.y: 1\r\n\r\n",
        "0\r\n: 1\r\n\r\n",
        "0\r\nx : 1\r\n\r\n",
        "0\r\n x: 1\r\n\r\n",
        "0\r\nx: 1\n\r\n",
        "0\r\nx: 1\r2\r\n\r\n",
        "0\r\nx: \0\r\n\r\n",
        "0\r\nx\r\n\r\n",
        "0\r\n\n",
    ] {
        assert_eq!(
            decode(input.as_bytes(), 0),
            Err(Violation::Trailer),
            "{input:?}"
        );
    }
}

#[test]
fn row28_trailers_of_a_response_that_may_not_pass_are_left_out() {
    let of_response = || ChunkedDecoder::of_response(&limits());
    let input = b"1\r\na\r\n0\r\nContent-MD5: x\r\nx_sum: 1\r\nX-One: 1\r\nDate: y\r\nTE: z\r\n\
        X-Request-Id: 2\r\nX-Two: 2:3\r\nx.y!: 3\r\n\r\n";
    for split in 0..=input.len() {
        let (body, trailers, done, _) = decode_by(of_response(), input, split).expect("legal");
        assert_eq!((&body[..], done), (&b"a"[..], true));
        assert_eq!(trailers, b"X-One: 1\r\nX-Two: 2:3\r\n");
    }
    for input in [
        "0\r\n: 1\r\n\r\n",
        "0\r\nx : 1\r\n\r\n",
        "0\r\nx(y): 1\r\n\r\n",
        "0\r\n x: 1\r\n\r\n",
        "0\r\nx: 1\n\r\n",
        "0\r\nDate: \0\r\n\r\n",
        "0\r\nx_y\r\n\r\n",
        &format!("0\r\n{}\r\n", "x_y: b\r\n".repeat(101)),
    ] {
        let decoded = decode_by(of_response(), input.as_bytes(), 0);
        assert_eq!(decoded, Err(Violation::Trailer), "{input:?}");
    }
}

#[test]
fn row15_trailers_and_extensions_are_limited() {
    let lines = format!("0\r\n{}\r\n", "a: b\r\n".repeat(101));
    assert_eq!(decode(lines.as_bytes(), 0), Err(Violation::Trailer));
    let long = format!("0\r\na: {}\r\n\r\n", "b".repeat(61 * 1024));
    assert_eq!(decode(long.as_bytes(), 0), Err(Violation::Trailer));
    let extensions = format!("1;{}\r\nx\r\n", "e".repeat(1000)).repeat(17);
    assert_eq!(decode(extensions.as_bytes(), 0), Err(Violation::Chunk));
}

#[test]
fn a_body_that_stops_early_is_not_done() {
    let input = b"5\r\nhello\r\n0\r\n";
    let (_, _, done, _) = decode(input, 3).expect("a prefix");
    assert!(!done);
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6), at in 0_usize..200) {
        let mut wire = Vec::new();
        for part in &parts {
            push_chunk(&mut wire, part);
        }
        wire.extend_from_slice(LAST_CHUNK);
        let (body, _, done, used) = decode(&wire, at.min(wire.len())).expect("our own");
        prop_assert_eq!(body, parts.concat());
        prop_assert!(done);
        prop_assert_eq!(used, wire.len());
    }

    #[test]
    fn noise_never_panics(wire in prop::collection::vec(any::<u8>(), 0..80), at in 0_usize..80) {
        let _ = decode(&wire, at.min(wire.len()));
    }
}
