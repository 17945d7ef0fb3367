//! Secrets: which make a certificate, and why the others do not.
