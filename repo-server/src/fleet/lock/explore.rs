//! Every order of requests, lost messages, kills and expiry, as a model that stateright walks with [`step`].
//!
//! Three nodes of one group, a server that answers whole batches at once (as its committer does), and a clock.
//! A node believes that it holds from the moment it reads the answer until it asks to have none, or until its lock
//! has ended: also over its own crash, which is what a restart is. The server is killed at any moment, and goes on
//! with what is durable. Requests and answers are lost anywhere.
//!
//! The promise: never more nodes believe than the budget. A violated promise prints the shortest way to it.

#![cfg(test)]

use stateright::{Checker, HasDiscoveries, Model, Path, Property};

use super::*;

const NODES: usize = 3;
/// Of a lock, in ticks.
const LASTS: u64 = 2;
/// The last tick: enough that a lock ends and the next one, too.
const LAST: u64 = 4;

/// What a node reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Told {
    /// It holds until then.
    Holds(u64),
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Node {
    /// On its way to the server.
    sent: Option<Asked>,
    /// On its way back.
    told: Option<Told>,
    believes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    now: u64,
    nodes: Vec<Node>,
    /// What the server works with.
    memory: Vec<Holder>,
    /// What it finds after it was killed.
    durable: Vec<Holder>,
    /// Answers that wait for the disk.
    batch: Vec<(usize, Told)>,
    /// Requests whose clients gave them up, in the one faulty world that still handles them.
    late: Option<(usize, Asked)>,
    /// Somebody was refused a place that was free.
    starved: bool,
}

/// A faulty server that the promises must catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// An answer leaves before the disk has it.
    AnswersFirst,
    /// Locks are in memory alone.
    KeepsNothing,
    /// One more than the budget.
    OneMore,
    /// A node that asks again is told that it has its whole age again, and has not.
    ProlongsOnPaper,
    /// Whoever asks to have none ends somebody's lock.
    ReleasesAny,
    /// A lock ends earlier than its node was told.
    EndsEarly,
    /// Locks that ended count.
    CountsExpired,
    /// A request is handled after its client gave it up and asked for something else: what the protocol
    /// cannot rule out, and a server that hangs for longer than its clients wait could do.
    HandlesLate,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Send(usize, Asked),
    LoseRequest(usize),
    Handle(usize),
    HandleLate,
    Commit,
    Kill,
    Read(usize),
    LoseAnswer(usize),
    Tick,
}

struct Explored {
    fault: Fault,
    budget: usize,
}

impl Explored {
    fn request(node: usize, asked: Asked) -> Request {
        let client = ClientId::parse(&format!("node-{node}")).expect("a name");
        Request { asked, group: Group::parse("g").expect("a name"), client }
    }

    fn rules(&self) -> Rules {
        let budget = self.budget + usize::from(self.fault == Fault::OneMore);
        Rules { groups: [(Group::parse("g").expect("a name"), budget)].into(), age: LASTS }
    }

    /// The table after a request, and what its node is told: by the real function, and as the fault has it.
    fn table(&self, world: &World, node: usize, asked: Asked) -> (Vec<Holder>, Answer) {
        let request = Self::request(node, asked);
        let (before, now) = (&world.memory, world.now);
        let early = |it: &Holder| Holder { until: it.until.saturating_sub(1), ..it.clone() };
        match self.fault {
            Fault::CountsExpired => {
                let kept = |it: &Holder| Holder { until: it.until.max(now + 1), ..it.clone() };
                step(&before.iter().map(kept).collect::<Vec<_>>(), &self.rules(), &request, now)
            }
            Fault::EndsEarly => {
                step(&before.iter().map(early).collect::<Vec<_>>(), &self.rules(), &request, now)
            }
            Fault::ReleasesAny if asked == Asked::SteadyState => {
                (before.iter().skip(1).cloned().collect(), Answer::Released(true))
            }
            Fault::ProlongsOnPaper => {
                let (mut next, answer) = step(before, &self.rules(), &request, now);
                for it in &mut next {
                    let old = before.iter().find(|old| old.client == it.client && old.until > now);
                    it.until = old.map_or(it.until, |old| old.until);
                }
                (next, answer)
            }
            _ => step(before, &self.rules(), &request, now),
        }
    }

    fn handle(&self, world: &mut World, node: usize, asked: Asked) {
        let (next, answer) = self.table(world, node, asked);
        let held = world.memory.iter().filter(|it| it.until > world.now).count();
        world.starved |= matches!(answer, Answer::Full(_)) && held < self.budget;
        // Since when it holds is only shown.
        world.memory = next.into_iter().map(|it| Holder { since: 0, ..it }).collect();
        world.memory.sort_by(|a, b| a.client.cmp(&b.client));
        let told = match answer {
            Answer::Granted | Answer::Kept => Told::Holds(world.now + LASTS),
            _ => Told::Other,
        };
        match self.fault {
            Fault::AnswersFirst => {
                if let Some(it) = world.nodes.get_mut(node) {
                    it.told = Some(told);
                }
            }
            _ => world.batch.push((node, told)),
        }
    }
}

impl World {
    fn waits(&self, node: usize) -> bool {
        let it = &self.nodes[node];
        it.sent.is_some() || it.told.is_some() || self.batch.iter().any(|(who, _)| *who == node)
    }

    fn believers(&self) -> usize {
        let holds = |node: &&Node| node.believes.is_some_and(|until| until > self.now);
        self.nodes.iter().filter(holds).count()
    }
}

impl Model for Explored {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            now: 0,
            nodes: vec![Node::default(); NODES],
            memory: Vec::new(),
            durable: Vec::new(),
            batch: Vec::new(),
            late: None,
            starved: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (node, it) in world.nodes.iter().enumerate() {
            if !world.waits(node) {
                actions.push(Action::Send(node, Asked::PreReboot));
                actions.push(Action::Send(node, Asked::SteadyState));
            }
            if it.sent.is_some() {
                actions.extend([Action::Handle(node), Action::LoseRequest(node)]);
            }
            if it.told.is_some() {
                actions.extend([Action::Read(node), Action::LoseAnswer(node)]);
            }
        }
        if world.memory != world.durable || !world.batch.is_empty() {
            actions.extend([Action::Commit, Action::Kill]);
        }
        if self.fault == Fault::KeepsNothing {
            actions.push(Action::Kill);
        }
        if world.late.is_some() {
            actions.push(Action::HandleLate);
        }
        if world.now < LAST {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::Send(node, asked) => {
                next.nodes[node].sent = Some(asked);
                if asked == Asked::SteadyState {
                    next.nodes[node].believes = None;
                }
            }
            Action::LoseRequest(node) => {
                let lost = next.nodes[node].sent.take()?;
                if self.fault == Fault::HandlesLate {
                    next.late = Some((node, lost));
                }
            }
            Action::Handle(node) => {
                let asked = next.nodes[node].sent.take()?;
                self.handle(&mut next, node, asked);
            }
            Action::HandleLate => {
                let (node, asked) = next.late.take()?;
                self.handle(&mut next, node, asked);
                // Nobody listens any more.
                next.batch.pop();
            }
            Action::Commit => {
                next.durable.clone_from(&next.memory);
                for (node, told) in std::mem::take(&mut next.batch) {
                    next.nodes[node].told = Some(told);
                }
            }
            Action::Kill => {
                next.memory.clone_from(&next.durable);
                next.batch.clear();
                if self.fault == Fault::KeepsNothing {
                    next.memory.clear();
                    next.durable.clear();
                }
            }
            Action::Read(node) => {
                if let Told::Holds(until) = next.nodes[node].told.take()? {
                    next.nodes[node].believes = Some(until);
                }
            }
            Action::LoseAnswer(node) => next.nodes[node].told = None,
            Action::Tick => {
                next.now += 1;
                for node in &mut next.nodes {
                    node.believes = node.believes.filter(|until| *until > next.now);
                }
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no more than the budget", |model: &Explored, world: &World| {
                world.believers() <= model.budget
            }),
            Property::always("a free place is granted", |_, world: &World| !world.starved),
            Property::sometimes("as many as may", |model: &Explored, world: &World| {
                world.believers() == model.budget
            }),
            Property::sometimes("after a lock that nobody released", |_, world: &World| {
                world.now == LAST && world.believers() > 0
            }),
        ]
    }
}

/// The shortest way to a violated promise, in words.
fn story(path: Path<World, Action>) -> String {
    path.into_actions().iter().map(|action| format!("{action:?}")).collect::<Vec<_>>().join(", ")
}

#[test]
#[expect(clippy::print_stdout, reason = "how much was explored")]
fn never_more_than_the_budget_hold_over_every_order_of_crashes() {
    for budget in [1, 2] {
        let checked = Explored { fault: Fault::None, budget }.checker().spawn_bfs().join();
        println!("budget {budget}: {} states", checked.unique_state_count());
        checked.assert_properties();
        assert!(checked.unique_state_count() > 10_000, "{}", checked.unique_state_count());
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the shortest way to the fault")]
fn faulty_servers_are_caught() {
    const SAFE: &str = "no more than the budget";
    for (fault, promise) in [
        (Fault::AnswersFirst, SAFE),
        (Fault::KeepsNothing, SAFE),
        (Fault::OneMore, SAFE),
        (Fault::ProlongsOnPaper, SAFE),
        (Fault::ReleasesAny, SAFE),
        (Fault::EndsEarly, SAFE),
        (Fault::CountsExpired, "a free place is granted"),
        (Fault::HandlesLate, SAFE),
    ] {
        let until = HasDiscoveries::AnyOf([promise].into());
        let checked = Explored { fault, budget: 1 }.checker().finish_when(until);
        let checked = checked.spawn_bfs().join();
        let mut found = checked.discoveries();
        let path = found.remove(promise).unwrap_or_else(|| panic!("{fault:?} is not caught"));
        println!("{fault:?}: {}", story(path));
    }
}
