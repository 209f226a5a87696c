//! The listening socket, bound before the run so that what is wrong is said at once.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// Why nobody can be listened to, with what to do about it.
#[derive(Debug)]
pub struct NoListener {
    port: u16,
    error: io::Error,
}

/// Listens on 127.0.0.1; port 0 is a free one. A port that `is_shared` may be bound by several processes that say so; the system
/// deals new connections out among them.
///
/// # Errors
///
/// If the port is taken, or not ours to bind.
pub fn listen(port: u16, is_shared: bool) -> Result<TcpListener, NoListener> {
    bind(port, is_shared).map_err(|error| NoListener { port, error })
}

fn bind(port: u16, is_shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(is_shared)?;
    #[cfg(not(unix))]
    if is_shared {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "this system can not share a port"));
    }
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl fmt::Display for NoListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { port, error } = self;
        write!(f, "can not listen on 127.0.0.1:{port}: {error}")?;
        if error.kind() == io::ErrorKind::AddrInUse {
            f.write_str("; give another --port, or 0 for a free one")?;
        } else if error.kind() == io::ErrorKind::PermissionDenied {
            f.write_str("; give a --port above 1023")?;
        }
        Ok(())
    }
}

impl std::error::Error for NoListener {}
