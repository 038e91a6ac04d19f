//! Each row of the table of the protocol, and what no request gets past.

#![cfg(test)]

use proptest::prelude::*;

use super::*;

fn id(name: &str) -> ClientId {
    ClientId::parse(name).unwrap()
}

fn rules(budget: usize) -> Rules {
    Rules::new(&[("default".to_owned(), budget)], 3600).unwrap()
}

fn ask(asked: Asked, client: &str) -> Request {
    Request { asked, group: Group::parse("default").unwrap(), client: id(client) }
}

fn holder(client: &str, since: u64, until: u64) -> Holder {
    Holder { client: id(client), since, until }
}

#[test]
fn every_row_of_the_table() {
    let (a, b) = (holder("a", 100, 3700), holder("b", 200, 3800));
    use Asked::{PreReboot, SteadyState};
    for (row, held, budget, asked, now, wanted, answer) in [
        ("free", vec![], 1, (PreReboot, "a"), 100, vec![a.clone()], Answer::Granted),
        (
            "free beside another",
            vec![a.clone()],
            2,
            (PreReboot, "b"),
            200,
            vec![a.clone(), b.clone()],
            Answer::Granted,
        ),
        (
            "again: since stays, until counts from now",
            vec![a.clone()],
            1,
            (PreReboot, "a"),
            500,
            vec![holder("a", 100, 4100)],
            Answer::Kept,
        ),
        (
            "again, where the budget was lowered",
            vec![a.clone(), b.clone()],
            1,
            (PreReboot, "b"),
            500,
            vec![a.clone(), holder("b", 200, 4100)],
            Answer::Kept,
        ),
        (
            "full",
            vec![a.clone()],
            1,
            (PreReboot, "b"),
            500,
            vec![a.clone()],
            Answer::Full(vec![a.clone()]),
        ),
        ("released", vec![a.clone()], 1, (SteadyState, "a"), 500, vec![], Answer::Released(true)),
        (
            "held by another",
            vec![a.clone()],
            1,
            (SteadyState, "b"),
            500,
            vec![a.clone()],
            Answer::Released(false),
        ),
        ("held by nobody", vec![], 1, (SteadyState, "a"), 500, vec![], Answer::Released(false)),
        (
            "expired to the second",
            vec![a.clone()],
            1,
            (PreReboot, "b"),
            3700,
            vec![holder("b", 3700, 7300)],
            Answer::Granted,
        ),
        (
            "a second before",
            vec![a.clone()],
            1,
            (PreReboot, "b"),
            3699,
            vec![a.clone()],
            Answer::Full(vec![a.clone()]),
        ),
        (
            "expired, asked for again by the same",
            vec![a.clone()],
            1,
            (PreReboot, "a"),
            9000,
            vec![holder("a", 9000, 12_600)],
            Answer::Granted,
        ),
        (
            "a clock that was set back ends it an age from then",
            vec![holder("a", 900_000, 903_600)],
            1,
            (PreReboot, "b"),
            1000,
            vec![holder("a", 900_000, 4600)],
            Answer::Full(vec![holder("a", 900_000, 4600)]),
        ),
    ] {
        let request = ask(asked.0, asked.1);
        assert_eq!(step(&held, &rules(budget), &request, now), (wanted, answer), "{row}");
    }
}

#[test]
fn a_group_that_is_not_configured_grants_nothing_and_still_releases() {
    let group = Group::parse("workers").unwrap();
    let held = [holder("a", 100, 3700)];
    let locks = Request { group: group.clone(), ..ask(Asked::PreReboot, "b") };
    assert_eq!(step(&held, &rules(9), &locks, 200), (held.to_vec(), Answer::UnknownGroup));
    // It was taken out of the configuration while nodes held its locks.
    let releases = Request { group, ..ask(Asked::SteadyState, "a") };
    assert_eq!(step(&held, &rules(9), &releases, 200), (vec![], Answer::Released(true)));
}

#[test]
fn groups_that_can_never_be_served_are_refused() {
    let long = "x".repeat(65);
    let many: Vec<(String, usize)> = (0..101).map(|nth| (format!("g{nth}"), 1)).collect();
    let one = |name: &str, budget| vec![(name.to_owned(), budget)];
    for (row, groups, age, said) in [
        ("nobody ever", one("default", 0), 3600, "budget of 0"),
        ("no name", one("", 1), 3600, "named by"),
        ("a name that no client may send", one("a_b", 1), 3600, "named by"),
        ("a long name", one(&long, 1), 3600, "named by"),
        ("twice", [one("a", 1), one("a", 2)].concat(), 3600, "more than once"),
        ("too many at once", one("a", 1001), 3600, "at most 1000"),
        ("too many groups", many, 3600, "at most 100"),
        ("locks that end before a restart does", one("a", 1), 299, "5m to 7d"),
        ("locks that a dead node keeps for ever", one("a", 1), u64::MAX, "5m to 7d"),
    ] {
        let error = Rules::new(&groups, age).expect_err(row);
        assert!(error.contains(said), "{row}: {error}");
    }
    assert!(Rules::new(&[], AGE).is_ok(), "a server without groups");
}

const GOOD: &str = r#"{"client_params":{"id":"c988","group":"default"}}"#;

#[test]
fn requests_are_read_as_the_specification_has_them() {
    let read = |body: &str| parse(Asked::PreReboot, Some(b"true"), body.as_bytes());
    let good = read(GOOD).unwrap();
    assert_eq!((good.client.as_str(), good.group.as_str()), ("c988", "default"));
    // Other members are other people's; the order and the space do not matter.
    let more = r#"{ "v": 1.5, "client_params": { "group": "a.B-9", "x": [{}], "id": "n 7" } }"#;
    assert_eq!(read(more).unwrap().client.as_str(), "n 7");
    let (long_id, long_group) = ("i".repeat(129), "g".repeat(65));
    for (row, body, kind) in [
        ("nothing", String::new(), "bad_request"),
        ("no object", "[1]".to_owned(), "bad_request"),
        ("no parameters", "{}".to_owned(), "bad_request"),
        ("no group", r#"{"client_params":{"id":"a"}}"#.to_owned(), "bad_request"),
        ("two ids", GOOD.replace("{\"id", "{\"id\":\"b\",\"id"), "bad_request"),
        ("a number", GOOD.replace("\"c988\"", "7"), "bad_request"),
        ("more behind it", format!("{GOOD}{GOOD}"), "bad_request"),
        ("deep", format!("{}{}", "[".repeat(2000), "]".repeat(2000)), "bad_request"),
        ("an empty id", GOOD.replace("c988", ""), "bad_id"),
        ("a long id", GOOD.replace("c988", &long_id), "bad_id"),
        ("an id of several lines", GOOD.replace("c988", "a\\nb"), "bad_id"),
        ("an id that moves the cursor", GOOD.replace("c988", "a\\u001b[2J"), "bad_id"),
        ("an empty group", GOOD.replace("default", ""), "bad_group"),
        ("a group with a space", GOOD.replace("default", "a b"), "bad_group"),
        ("a long group", GOOD.replace("default", &long_group), "bad_group"),
    ] {
        assert_eq!(read(&body).expect_err(row).kind, kind, "{row}");
    }
    for header in [None, Some(&b""[..]), Some(b"True"), Some(b"1"), Some(b"true, true")] {
        let refused = parse(Asked::SteadyState, header, GOOD.as_bytes()).unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.kind), (400, "missing_header"));
    }
}

#[test]
fn a_refusal_names_some_of_those_who_hold() {
    let group = Group::parse("default").unwrap();
    let refusal = |count: u64| {
        let holders = (0..count).map(|nth| holder(&format!("node-{nth}"), 0, 86_400)).collect();
        Refusal::of(&Answer::Full(holders), &group).unwrap()
    };
    let one = refusal(1);
    assert_eq!((one.status.as_u16(), one.kind), (423, "failed_lock_semaphore_full"));
    assert_eq!(
        one.value,
        "1 node of group default restarts already: node-0 (until 1970-01-02T00:00:00Z at the latest)"
    );
    assert!(refusal(5).value.ends_with(" and 2 more"), "{}", refusal(5).value);
    assert!(refusal(1000).body().to_string().len() < 1000);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is asked in whatever order, with a clock that only rises: at most the budget hold, each once.
    #[test]
    fn at_most_the_budget_hold(
        asked in proptest::collection::vec((any::<bool>(), 0_u8..6, 0_u64..2000), 0..60),
        budget in 1_usize..4,
    ) {
        let (mut held, mut now) = (Vec::new(), 0);
        for (locks, client, later) in asked {
            now += later;
            let asked = if locks { Asked::PreReboot } else { Asked::SteadyState };
            let (next, _) = step(&held, &rules(budget), &ask(asked, &client.to_string()), now);
            prop_assert!(next.len() <= budget);
            let mut names: Vec<_> = next.iter().map(|it| it.client.clone()).collect();
            names.sort();
            names.dedup();
            prop_assert_eq!(names.len(), next.len());
            prop_assert!(next.iter().all(|it| it.until > now && it.until - now <= 3600 && it.since <= now));
            held = next;
        }
    }
}
