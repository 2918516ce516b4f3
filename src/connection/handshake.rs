//! Authenticates a new connection: sends the credentials alone, and waits for the reply.
//!
//! A server with an authentication file (`-Y`) takes the data block of the first `set` as a user and a password. A
//! server without one stores it as an item, which is sent expired, so that no client can read it.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error_line::{Rejected, foreign_protocol_error};
use crate::credentials::Credentials;
use crate::error::{Delivery, Error, ErrorKind};
use crate::protocol::{Decoder, Reply, ReplyKind, credentials_command};

/// Sends the credentials and waits until the server accepts them. Every error is `NotSent`, because no request of a
/// caller is in flight yet. The caller sets the time limit.
pub(crate) async fn authenticate<S>(socket: &mut S, credentials: &Credentials) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let unavailable = |error: io::Error| Error::not_sent(ErrorKind::Unavailable).with_source(error);
    socket.write_all(credentials_command(&credentials.to_wire()).as_bytes()).await.map_err(unavailable)?;
    let (mut decoder, mut input) = (Decoder::new(0), BytesMut::new());
    loop {
        if socket.read_buf(&mut input).await.map_err(unavailable)? == 0 {
            let text = "closed by the server before it replied to the credentials";
            return Err(unavailable(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
        }
        if let Some(error) = foreign_protocol_error(&input, Delivery::NotSent) {
            return Err(error);
        }
        let violated = || Error::not_sent(ErrorKind::Protocol);
        match decoder
            .decode(ReplyKind::Stored, &mut input, |_| false)
            .map_err(|reason| violated().with_source(reason))?
        {
            None => {}
            Some(Reply::Stored) if input.is_empty() => return Ok(()),
            Some(Reply::ErrorLine(line)) => {
                let error = Rejected::Credentials.error(&line, Delivery::NotSent);
                // A server that repeats the password must not put it into a log.
                let repeats_password = credentials.password_occurs_in(line.line());
                return Err(if repeats_password { error.with_message("the credentials were refused") } else { error });
            }
            Some(_) => return Err(violated().with_message("an unexpected reply to the credentials")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    async fn authenticate_with_reply(reply: &[u8]) -> Result<(), Error> {
        let (mut ours, mut theirs) = duplex(4096);
        let credentials = Credentials::new("user", "pass");
        let server = async {
            let mut wire = vec![0; "set memring:auth 0 -1 9\r\nuser pass\r\n".len()];
            theirs.read_exact(&mut wire).await.unwrap();
            assert_eq!(wire, b"set memring:auth 0 -1 9\r\nuser pass\r\n");
            theirs.write_all(reply).await.unwrap();
            drop(theirs);
        };
        tokio::join!(authenticate(&mut ours, &credentials), server).0
    }

    #[tokio::test]
    async fn only_stored_and_nothing_else_is_accepted() {
        authenticate_with_reply(b"STORED\r\n").await.unwrap();
        for (reply, kind) in [
            (&b"STORED\r\nEND\r\n"[..], ErrorKind::Protocol),
            (b"STORED\n", ErrorKind::Protocol),
            (b"NOT_STORED\r\n", ErrorKind::Protocol),
            (b"VALUE memring:auth 0 1\r\n", ErrorKind::Protocol),
            (b"END\r\n", ErrorKind::Protocol),
            (b"\x15\x03\x01\x00\x02\x02\x46", ErrorKind::Protocol),
            (&[b'x'; 4000], ErrorKind::Protocol),
            (b"CLIENT_ERROR authentication failure\r\n", ErrorKind::Auth),
            (b"ERROR Too many open connections\r\n", ErrorKind::Unavailable),
            (b"SERVER_ERROR out of memory\r\n", ErrorKind::Unavailable),
            (b"STORED", ErrorKind::Unavailable),
            (b"", ErrorKind::Unavailable),
        ] {
            let error = authenticate_with_reply(reply).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{}: {error:?}", String::from_utf8_lossy(reply));
            assert_eq!(error.delivery(), Delivery::NotSent);
        }
    }

    #[tokio::test]
    async fn an_error_shows_the_error_line_but_never_the_password() {
        let error = authenticate_with_reply(b"CLIENT_ERROR authentication failure\r\n").await.unwrap_err();
        assert!(error.to_string().ends_with(": CLIENT_ERROR authentication failure"), "{error}");
        let error = authenticate_with_reply(b"CLIENT_ERROR no such user: user pass\r\n").await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("pass"), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Auth);
    }
}
