//! The WebSocket opening handshake (RFC 6455 §4.1), as far as a gateway looks at it.

/// Whether the key is the base64 of 16 bytes and the version is 13.
pub(crate) fn is_handshake(key: &[u8], version: &[u8]) -> bool {
    version == b"13" && is_key(key)
}

fn is_key(key: &[u8]) -> bool {
    let [text @ .., last, b'=', b'='] = key else {
        return false;
    };
    key.len() == 24
        && text
            .iter()
            .all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
        && matches!(last, b'A' | b'Q' | b'g' | b'w')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row12_only_sixteen_bytes_of_base64_are_a_key() {
        assert!(is_handshake(b"dGhlIHNhbXBsZSBub25jZQ==", b"13"));
        assert!(!is_handshake(b"dGhlIHNhbXBsZSBub25jZQ==", b"8"));
        assert!(!is_handshake(b"dGhlIHNhbXBsZSBub25jZR==", b"13"));
        assert!(!is_handshake(b"dGhlIHNhbXBsZQ==", b"13"));
        assert!(!is_handshake(b"", b"13"));
    }
}
