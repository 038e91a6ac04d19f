//! The listening socket, and which newcomers get a place.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clients::{Clients, ConnectionSlot};
use crate::config::Limits;
use crate::error::ServerError;
use crate::handle::App;
use crate::memory;

/// 128 KiB: what a connection's socket takes of an answer before the network takes it.
pub(super) const UNSENT: u32 = 128 << 10;

/// Connections that wait in the kernel: a fleet that comes back after an outage comes at once.
const BACKLOG: u32 = 4096;

pub(super) fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let failed = |source| ServerError::Listen { address: address.to_string(), source };
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        // Connections inherit it.
        memory::bound_unsent(&socket, UNSENT)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    let listener = bind().map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// How often a newcomer without a place looks again whether somebody else should leave.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A newcomer that has a place.
pub(super) struct Admitted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) client: ConnectionSlot,
    pub(super) place: OwnedSemaphorePermit,
}

/// The next connection that gets a place; `None` for one that is refused. One newcomer waits here,
/// others in the kernel's queue, not in our memory. Nothing is lost when this is dropped and called
/// again with the same `newcomer`.
pub(super) async fn admit(
    listener: &TcpListener,
    newcomer: &mut Option<(TcpStream, SocketAddr, ConnectionSlot)>,
    clients: &Arc<Clients>,
    connections: &Arc<Semaphore>,
    app: &App,
) -> io::Result<Option<Admitted>> {
    if newcomer.is_none() {
        let (stream, peer) = listener.accept().await?;
        let Some(client) = clients.connect(peer.ip()) else {
            tracing::debug!(%peer, "too many connections of one client");
            app.metrics.limited("client connections");
            return Ok(None);
        };
        *newcomer = Some((stream, peer, client));
    }
    let place = loop {
        if connections.available_permits() == 0
            && let Some((_, peer, _)) = newcomer
        {
            clients.make_room(peer.ip());
        }
        let free = Arc::clone(connections).acquire_owned();
        if let Ok(place) = tokio::time::timeout(LOOK_AGAIN, free).await {
            break place.map_err(io::Error::other)?;
        }
    };
    let admitted = newcomer.take();
    Ok(admitted.map(|(stream, peer, client)| Admitted { stream, peer, client, place }))
}

/// Whether a new connection is one of a crowd, and gets less of what costs memory while a client
/// does not read: fewer requests at once, smaller records.
pub(super) fn crowded(limits: &Limits, free: usize) -> bool {
    limits.connections.saturating_sub(free) > limits.crowd
}
