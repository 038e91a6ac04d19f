//! What one client may use up: connections at once, requests per second; and who makes room for a
//! newcomer when places are short.
//!
//! A client is an IPv4 address, or an IPv6 network of 64 bits, which is what one customer gets.
//! Networks of 56 and 48 bits, which customers get, too, are counted as well:
//!
//! | network | connections at once |
//! |---|---|
//! | IPv4 address, IPv6 /64 | [`Limits::client_connections`] |
//! | IPv6 /56 | twice as many, at most half of all |
//! | IPv6 /48 | four times as many, at most half of all |
//!
//! Many nodes may stand behind one address; the limits are for what none of them does.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::config::Limits;
use crate::lock::LockMutex as _;
use crate::progress::{Idleness, Progress};

/// A connection on which nothing moves makes room after so many times [`Limits::spare`]; an idle
/// one after one.
const STALLED_FACTOR: u32 = 5;

/// A network at one of the three widths: which, and its address with the rest cleared.
type Network = (u8, IpAddr);

/// The networks of one client, the widest first.
type Networks = [Network; 3];

/// All clients seen lately.
#[derive(Debug)]
pub(crate) struct Clients {
    /// Connections at once of the networks of each width.
    most: [usize; 3],
    spare: Duration,
    /// Requests per second; 0 is no limit.
    rate: u32,
    burst: u32,
    table: Mutex<ClientTable>,
}

#[derive(Debug, Default)]
struct ClientTable {
    rates: HashMap<IpAddr, Rate>,
    connections: HashMap<Network, usize>,
    slots: HashMap<u64, Arc<SlotState>>,
    next: u64,
}

#[derive(Debug)]
struct Rate {
    /// Requests it may send at once at `since`: a bucket that fills with time.
    allowance: f64,
    since: Instant,
}

/// One connection, as others see it.
#[derive(Debug)]
struct SlotState {
    networks: Networks,
    /// Empty while it waits for its place.
    progress: OnceLock<Arc<Progress>>,
    leave: Notify,
    told: AtomicBool,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    clients: Arc<Clients>,
    id: u64,
    slot: Arc<SlotState>,
}

/// One connection, as far as the choice of who makes room goes.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    networks: Networks,
    idleness: Idleness,
}

impl Clients {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let (one, half) = (limits.client_connections, limits.connections / 2);
        let most = |times: usize| one.saturating_mul(times).min(half).max(one);
        Arc::new(Clients {
            most: [most(4), most(2), one],
            spare: limits.spare,
            rate: limits.client_rate,
            burst: limits.client_burst.max(1),
            table: Mutex::default(),
        })
    }

    fn table(&self) -> MutexGuard<'_, ClientTable> {
        self.table.locked()
    }

    /// A place for one more connection; `None` when the client or its network has too many, and
    /// none of them is idle.
    pub(crate) fn connect(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionSlot> {
        let networks = networks(address);
        let mut table = self.table();
        let full = networks.iter().zip(self.most).find(|(network, most)| {
            table.connections.get(*network).is_some_and(|connections| connections >= most)
        });
        if let Some((network, _)) = full {
            table.make_room(&networks, self.spare, |slot| slot.networks.contains(network))?;
        }
        for network in networks {
            *table.connections.entry(network).or_default() += 1;
        }
        if self.rate > 0 {
            let burst = f64::from(self.burst);
            let fresh = || Rate { allowance: burst, since: Instant::now() };
            table.rates.entry(networks[2].1).or_insert_with(fresh);
        }
        let slot = Arc::new(SlotState {
            networks,
            progress: OnceLock::new(),
            leave: Notify::new(),
            told: AtomicBool::new(false),
        });
        let id = table.next;
        table.next += 1;
        table.slots.insert(id, Arc::clone(&slot));
        Some(ConnectionSlot { clients: Arc::clone(self), id, slot })
    }

    /// All places are taken: asks one connection to make room for a newcomer, if it is fair that one
    /// does.
    pub(crate) fn make_room(&self, newcomer: IpAddr) {
        self.table().make_room(&networks(newcomer), self.spare, |_| true);
    }

    /// Forgets who has no connection and has been quiet for long enough. What is left is one entry
    /// per client that is here or was a moment ago.
    pub(crate) fn forget(&self) {
        let (rate, full, now) = (self.rate, f64::from(self.burst), Instant::now());
        let mut table = self.table();
        let ClientTable { rates, connections, .. } = &mut *table;
        rates.retain(|client, it| {
            connections.contains_key(&(64, *client)) || (rate > 0 && it.fill(now, rate) < full)
        });
    }
}

impl ClientTable {
    fn make_room(
        &mut self,
        newcomer: &Networks,
        spare: Duration,
        among: impl Fn(&SlotState) -> bool,
    ) -> Option<()> {
        let staying = |slot: &&Arc<SlotState>| among(slot) && !slot.told.load(Ordering::Relaxed);
        let slots: Vec<&Arc<SlotState>> = self.slots.values().filter(staying).collect();
        let idleness =
            |slot: &SlotState| slot.progress.get().map_or(Idleness::Working, |it| it.idleness());
        let standing: Vec<Candidate> = slots
            .iter()
            .map(|slot| Candidate { networks: slot.networks, idleness: idleness(slot) })
            .collect();
        let slot = slots.get(choose_connection_to_close(newcomer, &standing, spare)?)?;
        slot.told.store(true, Ordering::Relaxed);
        slot.leave.notify_one();
        Some(())
    }
}

/// Which connection makes room for a newcomer; `None` when it would not be fair to ask one.
///
/// Idle ones first, and only then ones on which nothing moves, of networks that have more than the
/// newcomer's. Of the widest network with most connections, in it of the next one with most, and so
/// on; there, the one that has been quiet for longest. Who takes many places loses them first.
fn choose_connection_to_close(
    newcomer: &Networks,
    standing: &[Candidate],
    spare: Duration,
) -> Option<usize> {
    let mut connections: HashMap<Network, usize> = HashMap::new();
    for network in standing.iter().flat_map(|it| it.networks) {
        *connections.entry(network).or_default() += 1;
    }
    let of = |network: &Network| connections.get(network).copied().unwrap_or(0);
    let own = of(&newcomer[0]);
    let candidates = standing.iter().enumerate().filter_map(|(at, it)| {
        let (idle, quiet) = match it.idleness {
            Idleness::Idle { asked, wrote } => {
                // Answers to pings are no reason to stay, the rest of an answer is.
                let done = asked >= spare && (wrote >= spare || asked >= 4 * spare);
                (true, done.then_some(asked)?)
            }
            Idleness::Stalled(still) => {
                let stuck = still >= STALLED_FACTOR * spare && of(&it.networks[0]) > own;
                (false, stuck.then_some(still)?)
            }
            Idleness::Working => return None,
        };
        Some(((idle, it.networks.map(|network| of(&network)), quiet), at))
    });
    candidates.max().map(|(_, at)| at)
}

impl Rate {
    fn fill(&self, now: Instant, rate: u32) -> f64 {
        self.allowance + now.duration_since(self.since).as_secs_f64() * f64::from(rate)
    }
}

impl ConnectionSlot {
    /// Whether the client may send one more request now.
    pub(crate) fn admits(&self) -> bool {
        let clients = &self.clients;
        if clients.rate == 0 {
            return true;
        }
        let mut table = clients.table();
        let Some(client) = table.rates.get_mut(&self.slot.networks[2].1) else { return true };
        let now = Instant::now();
        let allowance = client.fill(now, clients.rate).min(f64::from(clients.burst));
        let admitted = allowance >= 1.0;
        client.allowance = if admitted { allowance - 1.0 } else { allowance };
        client.since = now;
        admitted
    }

    /// It is being served from now on.
    pub(crate) fn serves(&self, progress: &Arc<Progress>) {
        // Said once; a second time changes nothing.
        let _ = self.slot.progress.set(Arc::clone(progress));
    }

    /// Comes back when this connection has to make room for a newcomer.
    pub(crate) async fn leave(&self) {
        self.slot.leave.notified().await;
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut table = self.clients.table();
        table.slots.remove(&self.id);
        for network in self.slot.networks {
            if let Some(connections) = table.connections.get_mut(&network) {
                *connections = connections.saturating_sub(1);
                if *connections == 0 {
                    table.connections.remove(&network);
                }
            }
        }
    }
}

/// The networks of an address. An IPv4 address is one client at every width.
fn networks(address: IpAddr) -> Networks {
    let at = |width: u8| match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(long) => match long.to_ipv4_mapped() {
            Some(short) => IpAddr::V4(short),
            None => {
                let mask = u128::MAX << (128 - u32::from(width));
                IpAddr::V6(Ipv6Addr::from_bits(long.to_bits() & mask))
            }
        },
    };
    [48, 56, 64].map(|width| (width, at(width)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn clients(connections: usize, rate: u32, burst: u32) -> Arc<Clients> {
        Clients::new(&Limits {
            client_connections: connections,
            client_rate: rate,
            client_burst: burst,
            ..Limits::default()
        })
    }

    fn connect(clients: &Arc<Clients>, address: &str) -> Option<ConnectionSlot> {
        clients.connect(ip(address))
    }

    #[test]
    fn places_are_counted_per_network() {
        let clients = clients(2, 0, 1);
        let first = connect(&clients, "2001:db8::1");
        let second = connect(&clients, "2001:db8::2");
        assert!(first.is_some() && second.is_some());
        assert!(connect(&clients, "2001:db8::3").is_none());
        assert!(connect(&clients, "2001:db8:0:1::3").is_some());
        assert!(connect(&clients, "192.0.2.1").is_some());
        drop(first);
        let mapped = [connect(&clients, "::ffff:192.0.2.1"), connect(&clients, "192.0.2.1")];
        assert!(mapped.iter().all(Option::is_some));
        assert!(connect(&clients, "192.0.2.1").is_none());
        drop((second, mapped));
        let table = clients.table();
        assert!(table.connections.is_empty() && table.slots.is_empty(), "nobody is here any more");
    }

    #[test]
    fn wider_networks_have_a_bound_of_their_own() {
        let clients = clients(2, 0, 1);
        let fill = |network: &str, hosts: usize| {
            let places = (0..hosts).map(|i| connect(&clients, &format!("{network}{i:x}::1")));
            places.flatten().collect::<Vec<_>>()
        };
        // 64 networks of 64 bits in one of 56, and then in one of 48.
        let one = fill("2001:db8:0:1", 16);
        assert_eq!(one.len(), 4, "a /56 has twice what a /64 has");
        let two = fill("2001:db8:0:1a", 16);
        let three = fill("2001:db8:0:2b", 16);
        assert_eq!(two.len() + three.len(), 4, "a /48 has four times as many");
        assert_eq!(fill("2001:db8:1:1", 16).len(), 4, "another /48");
    }

    #[test]
    fn half_of_all_places_is_the_most_for_any_network() {
        let limits = Limits { connections: 100, client_connections: 20, ..Limits::default() };
        assert_eq!(Clients::new(&limits).most, [50, 40, 20]);
        let limits = Limits { connections: 100, client_connections: 80, ..limits };
        assert_eq!(Clients::new(&limits).most, [80, 80, 80], "as the operator said");
    }

    #[test]
    fn reconnecting_gives_no_new_allowance() {
        let clients = clients(9, 1, 3);
        let mut admitted = 0;
        for _ in 0..10 {
            let place = connect(&clients, "192.0.2.1").unwrap();
            admitted += u32::from(place.admits());
            drop(place);
            clients.forget();
        }
        assert!((3..=4).contains(&admitted), "{admitted}");
    }

    /// Who makes room, by the address of the one chosen.
    #[test]
    fn who_takes_most_makes_room() {
        let secs = Duration::from_secs;
        let idle = |seconds| Idleness::Idle { asked: secs(seconds), wrote: secs(seconds) };
        let pings = |asked, wrote| Idleness::Idle { asked: secs(asked), wrote: secs(wrote) };
        let still = |seconds| Idleness::Stalled(secs(seconds));
        let many = |address: &'static str, n: usize, idleness| vec![(address, idleness); n];
        type Crowd = Vec<(&'static str, Idleness)>;
        let cases: [(&str, &str, Crowd, Option<&str>); 12] = [
            ("nobody is here", "192.0.2.1", vec![], None),
            ("all work", "192.0.2.1", many("192.0.2.2", 9, Idleness::Working), None),
            ("all are fresh", "192.0.2.1", many("192.0.2.2", 9, idle(1)), None),
            (
                "the one who has most",
                "192.0.2.1",
                [many("192.0.2.2", 2, idle(60)), many("192.0.2.3", 3, idle(5))].concat(),
                Some("192.0.2.3"),
            ),
            (
                "not who works, whatever he has",
                "192.0.2.1",
                [many("192.0.2.2", 2, idle(60)), many("192.0.2.3", 3, Idleness::Working)].concat(),
                Some("192.0.2.2"),
            ),
            (
                "a /48 counts as one",
                "192.0.2.1",
                [
                    many("2001:db8:0:1::1", 2, idle(6)),
                    many("2001:db8:0:200::1", 2, idle(5)),
                    many("192.0.2.2", 3, idle(60)),
                ]
                .concat(),
                Some("2001:db8:0:1::1"),
            ),
            (
                "in it, the /56 that has most",
                "192.0.2.1",
                [
                    many("2001:db8:0:1::1", 1, idle(5)),
                    many("2001:db8:0:2::1", 1, idle(5)),
                    many("2001:db8:0:200::1", 1, idle(60)),
                ]
                .concat(),
                Some("2001:db8:0:2::1"),
            ),
            (
                "idle before still",
                "192.0.2.1",
                [many("192.0.2.2", 1, idle(5)), many("192.0.2.3", 5, still(60))].concat(),
                Some("192.0.2.2"),
            ),
            (
                "still, of one who has more than the newcomer",
                "192.0.2.1",
                many("192.0.2.3", 5, still(60)),
                Some("192.0.2.3"),
            ),
            ("still, but not for long", "192.0.2.1", many("192.0.2.3", 5, still(5)), None),
            ("still, but his own", "192.0.2.3", many("192.0.2.3", 5, still(60)), None),
            (
                "pings keep nobody, the end of an answer does",
                "192.0.2.1",
                vec![("192.0.2.2", pings(5, 0)), ("192.0.2.3", pings(60, 0))],
                Some("192.0.2.3"),
            ),
        ];
        for (name, newcomer, crowd, wanted) in cases {
            let standing: Vec<_> = crowd
                .iter()
                .map(|(address, idleness)| Candidate {
                    networks: networks(ip(address)),
                    idleness: *idleness,
                })
                .collect();
            let found = choose_connection_to_close(&networks(ip(newcomer)), &standing, secs(2));
            assert_eq!(found.map(|at| crowd[at].0), wanted, "{name}");
        }
    }
}
