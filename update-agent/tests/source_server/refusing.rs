//! An address on loopback where connections are refused for as long as the value lives: its port is bound, so
//! that nobody else gets it, and nobody listens. (A port that was bound and freed is soon somebody else's.)

use std::net::{Ipv4Addr, SocketAddr};

/// Holds the port.
pub(crate) struct Refusing {
    pub(crate) address: SocketAddr,
    _bound: tokio::net::TcpSocket,
}

impl Refusing {
    pub(crate) fn new() -> Self {
        let bound = tokio::net::TcpSocket::new_v4().expect("a socket");
        bound.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port on loopback");
        let address = bound.local_addr().expect("a bound socket has an address");
        Self { address, _bound: bound }
    }
}
