//! Copies both ways what is not read, to the original destination, untouched.

use std::io;

use tokio::io::{AsyncWriteExt as _, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;

use crate::forward::{Destination, DialError, Dialer};

/// Per direction. Two TLS records fit; larger buffers gained nothing on loopback.
const COPY_BYTES: usize = 32 << 10;

/// Connects to `destination` and copies until both sides are done, starting with `head`, which
/// the client has sent already.
///
/// # Errors
/// [`DialError::Unreachable`]. An error later on is the application's and its server's to see.
pub(crate) async fn splice(
    dialer: &Dialer,
    mut client: TcpStream,
    head: &[u8],
    destination: &Destination,
    host: Option<&str>,
) -> Result<(), DialError> {
    let mut server = match dialer.tcp(destination, host).await {
        Ok(server) => server,
        Err(error) => {
            reset(client);
            return Err(error);
        }
    };
    let copied = async {
        server.write_all(head).await?;
        copy_bidirectional_with_sizes(&mut client, &mut server, COPY_BYTES, COPY_BYTES).await?;
        Ok::<_, io::Error>(())
    };
    if let Err(error) = copied.await {
        tracing::debug!(%destination, %error, "a tunnel was cut");
    }
    Ok(())
}

/// Closes `client` with a TCP reset, as an unreachable destination would have refused it: the
/// application's own retry then runs.
pub(crate) fn reset(client: TcpStream) {
    if let Err(error) = socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO))
    {
        tracing::debug!(%error, "expected to reset a connection; it is closed instead");
    }
    drop(client);
}
