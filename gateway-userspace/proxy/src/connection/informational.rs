//! What an endpoint may say before its response. The client may be slow to read it, and a response may
//! never come.

use crate::error::ProxyError;
use crate::head::Violation;
use crate::limits::HeadLimits;

/// Informational responses of one request; servers send one or two (RFC 8297, RFC 9110 §15.2).
const MOST: u32 = 32;

/// The informational responses of one request: together they may be no longer than one head.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Informational {
    count: u32,
    bytes: usize,
}

impl Informational {
    /// Counts one more, with a head of so many bytes.
    pub(super) fn count(&mut self, head_len: usize, limits: &HeadLimits) -> Result<(), ProxyError> {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(head_len);
        if self.count > MOST || self.bytes > limits.bytes {
            return Err(ProxyError::upstream(Violation::HeadTooLarge));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    #[test]
    fn they_are_bounded_in_number_and_in_length() {
        let limits = Limits::default().head;
        let mut short = Informational::default();
        assert!((0..MOST).all(|_| short.count(20, &limits).is_ok()));
        assert!(short.count(20, &limits).is_err());
        let mut long = Informational::default();
        assert!(long.count(limits.bytes, &limits).is_ok());
        assert!(long.count(1, &limits).is_err());
    }
}
