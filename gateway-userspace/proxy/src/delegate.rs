//! Reading and writing through whichever of several streams an enum holds.

/// Implements `AsyncRead` and `AsyncWrite` for an enum by the streams in its variants, which are `Unpin` and take
/// several slices at once.
macro_rules! delegate_io {
    ($holder:ident: $($variant:ident),+) => {
        impl ::tokio::io::AsyncRead for $holder {
            #[inline]
            fn poll_read(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
                buf: &mut ::tokio::io::ReadBuf<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => ::std::pin::Pin::new(stream).poll_read(cx, buf)),+
                }
            }
        }

        impl ::tokio::io::AsyncWrite for $holder {
            #[inline]
            fn poll_write(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
                buf: &[u8],
            ) -> ::std::task::Poll<::std::io::Result<usize>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => ::std::pin::Pin::new(stream).poll_write(cx, buf)),+
                }
            }

            #[inline]
            fn poll_write_vectored(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
                bufs: &[::std::io::IoSlice<'_>],
            ) -> ::std::task::Poll<::std::io::Result<usize>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => {
                        ::std::pin::Pin::new(stream).poll_write_vectored(cx, bufs)
                    }),+
                }
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            #[inline]
            fn poll_flush(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => ::std::pin::Pin::new(stream).poll_flush(cx)),+
                }
            }

            fn poll_shutdown(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => ::std::pin::Pin::new(stream).poll_shutdown(cx)),+
                }
            }
        }
    };
}

pub(crate) use delegate_io;
