//! Decoding: what is taken, what is refused, and what an error names.
