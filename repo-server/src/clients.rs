//! What one client may use up: connections at once, requests per second.
//!
//! A client is an IPv4 address, or an IPv6 network of 64 bits, which is what one customer gets.
//! Many nodes may stand behind one address; the limits are for what none of them does.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config::Limits;

/// All clients seen lately.
#[derive(Debug)]
pub(crate) struct Clients {
    connections: usize,
    /// Requests per second; 0 is no limit.
    rate: u32,
    burst: u32,
    known: Mutex<HashMap<IpAddr, Client>>,
}

#[derive(Debug)]
struct Client {
    connections: usize,
    /// Requests it may send at once at `since`: a bucket that fills with time.
    allowance: f64,
    since: Instant,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    clients: Arc<Clients>,
    address: IpAddr,
}

impl Clients {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Clients {
            connections: limits.client_connections,
            rate: limits.client_rate,
            burst: limits.client_burst.max(1),
            known: Mutex::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<IpAddr, Client>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection; `None` when the client has too many.
    pub(crate) fn connect(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut known = self.known();
        let client = known.entry(address).or_insert_with(|| Client {
            connections: 0,
            allowance: f64::from(self.burst),
            since: Instant::now(),
        });
        if client.connections >= self.connections {
            return None;
        }
        client.connections += 1;
        Some(Place { clients: Arc::clone(self), address })
    }

    /// Forgets who has no connection and has been quiet for long enough. What is left is one entry
    /// per client that is here or was a moment ago.
    pub(crate) fn forget(&self) {
        let rate = self.rate;
        let full = f64::from(self.burst);
        let now = Instant::now();
        self.known().retain(|_, it| it.connections > 0 || (rate > 0 && it.fill(now, rate) < full));
    }
}

impl Client {
    fn fill(&self, now: Instant, rate: u32) -> f64 {
        self.allowance + now.duration_since(self.since).as_secs_f64() * f64::from(rate)
    }
}

impl Place {
    /// Whether the client may send one more request now.
    pub(crate) fn admits(&self) -> bool {
        let clients = &self.clients;
        if clients.rate == 0 {
            return true;
        }
        let mut known = clients.known();
        let Some(client) = known.get_mut(&self.address) else { return true };
        let now = Instant::now();
        let allowance = client.fill(now, clients.rate).min(f64::from(clients.burst));
        let admitted = allowance >= 1.0;
        client.allowance = if admitted { allowance - 1.0 } else { allowance };
        client.since = now;
        admitted
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut known = self.clients.known();
        let Some(client) = known.get_mut(&self.address) else { return };
        client.connections = client.connections.saturating_sub(1);
        if client.connections == 0 && self.clients.rate == 0 {
            known.remove(&self.address);
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(long) => match long.to_ipv4_mapped() {
            Some(short) => IpAddr::V4(short),
            None => {
                let [a, b, c, d, ..] = long.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(connections: usize, rate: u32, burst: u32) -> Arc<Clients> {
        Clients::new(&Limits {
            client_connections: connections,
            client_rate: rate,
            client_burst: burst,
            ..Limits::default()
        })
    }

    #[test]
    fn places_are_counted_per_network() {
        let clients = clients(2, 0, 1);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = clients.connect(ip("2001:db8::1"));
        let second = clients.connect(ip("2001:db8::2"));
        assert!(first.is_some() && second.is_some());
        assert!(clients.connect(ip("2001:db8::3")).is_none());
        assert!(clients.connect(ip("2001:db8:0:1::3")).is_some());
        assert!(clients.connect(ip("192.0.2.1")).is_some());
        drop(first);
        let mapped = [clients.connect(ip("::ffff:192.0.2.1")), clients.connect(ip("192.0.2.1"))];
        assert!(mapped.iter().all(Option::is_some));
        assert!(clients.connect(ip("192.0.2.1")).is_none());
        drop((second, mapped));
        assert!(clients.known().is_empty(), "nobody is here any more");
    }

    #[test]
    fn reconnecting_gives_no_new_allowance() {
        let clients = clients(9, 1, 3);
        let ip = "192.0.2.1".parse().unwrap();
        let mut admitted = 0;
        for _ in 0..10 {
            let place = clients.connect(ip).unwrap();
            admitted += u32::from(place.admits());
            drop(place);
            clients.forget();
        }
        assert!((3..=4).contains(&admitted), "{admitted}");
    }
}
