//! The first words on a connection to a server that asks for credentials: sent alone, and nothing before the answer.
//!
//! A server that was started with an authentication file (`-Y`) takes the data block of the first `set` for a user and a
//! password. One that was not takes it for an item: that one is stored expired, so that nobody can read it.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind};
use crate::protocol::{Decoder, Expect, Reply, credentials_line};

/// Shows the credentials and waits until they are accepted. No caller's request is under way: whatever goes wrong,
/// nothing was sent. The caller sets the limit.
pub(crate) async fn authenticate<S>(socket: &mut S, credentials: &Credentials) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let unavailable = |error: io::Error| Error::not_sent(ErrorKind::Unavailable).with_source(error);
    socket.write_all(credentials_line(&credentials.token()).as_bytes()).await.map_err(unavailable)?;
    let (mut decoder, mut input) = (Decoder::new(0), BytesMut::new());
    loop {
        if socket.read_buf(&mut input).await.map_err(unavailable)? == 0 {
            let reason = "closed by the server before it answered the credentials";
            return Err(unavailable(io::Error::new(io::ErrorKind::UnexpectedEof, reason)));
        }
        let violated = || Error::not_sent(ErrorKind::Protocol);
        match decoder.decode(Expect::Stored, &mut input, |_| false).map_err(|reason| violated().with_source(reason))? {
            None => {}
            Some(Reply::Stored) if input.is_empty() => return Ok(()),
            Some(Reply::ErrorLine(refusal)) => {
                let kind = if refusal.is_clients_fault() { ErrorKind::Auth } else { ErrorKind::Unavailable };
                let words = refusal.line();
                // A server that repeats what it was told must not put it into anybody's log.
                let words = if credentials.are_in(words) { "the credentials were refused" } else { words };
                return Err(Error::not_sent(kind).with_message(words));
            }
            Some(_) => return Err(violated().with_message("more than an answer to the credentials")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    async fn answered(answer: &[u8]) -> Result<(), Error> {
        let (mut ours, mut theirs) = duplex(4096);
        let credentials = Credentials::new("user", "pass");
        let server = async {
            let mut wire = vec![0; "set memring:auth 0 -1 9\r\nuser pass\r\n".len()];
            theirs.read_exact(&mut wire).await.unwrap();
            assert_eq!(wire, b"set memring:auth 0 -1 9\r\nuser pass\r\n");
            theirs.write_all(answer).await.unwrap();
            drop(theirs);
        };
        tokio::join!(authenticate(&mut ours, &credentials), server).0
    }

    #[tokio::test]
    async fn only_stored_alone_will_do() {
        answered(b"STORED\r\n").await.unwrap();
        for (answer, kind) in [
            (&b"STORED\r\nEND\r\n"[..], ErrorKind::Protocol),
            (b"STORED\n", ErrorKind::Protocol),
            (b"NOT_STORED\r\n", ErrorKind::Protocol),
            (b"VALUE memring:auth 0 1\r\n", ErrorKind::Protocol),
            (b"END\r\n", ErrorKind::Protocol),
            (&[b'x'; 4000], ErrorKind::Protocol),
            (b"CLIENT_ERROR authentication failure\r\n", ErrorKind::Auth),
            (b"ERROR Too many open connections\r\n", ErrorKind::Unavailable),
            (b"SERVER_ERROR out of memory\r\n", ErrorKind::Unavailable),
            (b"STORED", ErrorKind::Unavailable),
            (b"", ErrorKind::Unavailable),
        ] {
            let error = answered(answer).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{}: {error:?}", String::from_utf8_lossy(answer));
            assert_eq!(error.delivery(), crate::Delivery::NotSent);
        }
    }

    #[tokio::test]
    async fn the_servers_words_are_passed_on_and_the_password_is_not() {
        let error = answered(b"CLIENT_ERROR authentication failure\r\n").await.unwrap_err();
        assert!(error.to_string().ends_with(": CLIENT_ERROR authentication failure"), "{error}");
        let error = answered(b"CLIENT_ERROR no such user: user pass\r\n").await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("pass"), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Auth);
    }
}
