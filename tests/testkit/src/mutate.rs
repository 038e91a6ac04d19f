//! Mutations of a repository, chosen by a seed: of what is signed, of who signs, of bytes, and of
//! what is served.

use formats::json::Value;
use formats::tuf::{Envelope, Role, envelope_bytes};

use crate::forge::{DAY, Forge, ForgeKey};
use crate::random::Random;

/// Changes a repository that has version 2 of everything, and publishes what it changed. Gives
/// the kinds of change, for the table.
pub fn mutate(repo: &mut Forge, random: &mut Random) -> Vec<&'static str> {
    let roles: Vec<Role> = [Role::Root, Role::Timestamp, Role::Snapshot]
        .into_iter()
        .chain(repo.targets.keys().cloned())
        .collect();
    repo.list_hashes = !random.chance(3);
    let mut kinds = Vec::new();
    let mut touched = Vec::new();
    for _ in 0..1 + random.below(3) / 2 {
        let role = random.of(&roles).clone();
        kinds.push(match random.below(10) {
            0..=4 => signed(repo, &role, random),
            5..=6 => signatures(repo, &role, random),
            7 => bytes(repo, &role, random),
            8 => header(repo, &role, random),
            _ => keys(repo, &role, random),
        });
        touched.push(role);
    }
    // Root before what its keys sign, the rest in the order of an honest signer.
    repo.publish(&touched);
    if random.chance(6) {
        kinds.push(serving(repo, random));
    }
    kinds
}

fn signed(repo: &mut Forge, role: &Role, random: &mut Random) -> &'static str {
    let random = random.fork();
    repo.deform(role, move |signed| {
        let mut random = random.clone();
        for _ in 0..1 + random.below(2) {
            change(signed, &mut random);
        }
    });
    "signed value"
}

/// Walks to some place of the value and changes what is there.
fn change(value: &mut Value, random: &mut Random) {
    let stop = random.chance(4);
    match value {
        Value::Object(members) if !members.is_empty() && !stop => {
            let name = random.of(&members.keys().cloned().collect::<Vec<_>>()).clone();
            match random.below(8) {
                0 => drop(members.remove(&name)),
                1 => {
                    if let Some(inner) = members.remove(&name) {
                        members
                            .insert(format!("{name}{}", random.of(&["x", " ", "/", "é"])), inner);
                    }
                }
                2 => drop(members.insert("x-unknown".into(), junk(random))),
                _ => change(members.get_mut(&name).expect("it has that name"), random),
            }
        }
        Value::Array(values) if !values.is_empty() && !stop => {
            let at = random.below(values.len());
            match random.below(6) {
                0 => drop(values.remove(at)),
                1 => values.push(values[at].clone()),
                2 => values.reverse(),
                3 => values.push(junk(random)),
                _ => change(&mut values[at], random),
            }
        }
        Value::Int(n) => match random.below(4) {
            0 => *n = n.wrapping_add(1),
            1 => *n = n.wrapping_sub(1),
            2 => *value = Value::from(n.to_string()),
            _ => *value = junk(random),
        },
        Value::Bool(b) if random.chance(2) => *b = !*b,
        Value::String(text) => match random.below(8) {
            0 => text.push('0'),
            1 => drop(text.pop()),
            2 => *text = text.to_uppercase(),
            3 => text.insert(0, ' '),
            4 if !text.is_empty() => {
                let at = random.below(text.chars().count());
                let with = *random.of(&['0', 'f', 'g', '*', '?', '[', '/', '\u{e9}', '\n']);
                *text =
                    text.chars().enumerate().map(|(i, c)| if i == at { with } else { c }).collect();
            }
            5 => {
                *text = random
                    .of(&[
                        "*",
                        "*/*",
                        "",
                        "targets",
                        "2.0.0",
                        "1.0.99",
                        "1.0",
                        "2030-01-01T00:00:00Z",
                    ])
                    .to_string()
            }
            _ => *value = junk(random),
        },
        _ => *value = junk(random),
    }
}

fn junk(random: &mut Random) -> Value {
    match random.below(13) {
        0 => Value::Null,
        1 => Value::Bool(true),
        2 => Value::Int(0),
        3 => Value::Int(-1),
        4 => Value::Int(1),
        5 => Value::Int(1 << 40),
        6 => Value::Int(i64::MAX),
        7 => Value::from("x"),
        8 => Value::from(""),
        9 => Value::from(vec![]),
        10 => Value::from(vec![Value::from("x")]),
        11 => Value::object([("x", Value::Int(1))]),
        _ => Value::object::<&str>([]),
    }
}

fn signatures(repo: &mut Forge, role: &Role, random: &mut Random) -> &'static str {
    let (how, pick) = (random.below(9), random.word() as usize);
    repo.garble(role, move |bytes| {
        let Ok(envelope) = Envelope::parse(&bytes) else { return bytes };
        let mut all = envelope.signatures().to_vec();
        if all.is_empty() {
            return bytes;
        }
        let at = pick % all.len();
        match how {
            0 => drop(all.remove(at)),
            1 => all.push(all[at].clone()),
            2 => {
                let last = if all[at].sig.ends_with('0') { "1" } else { "0" };
                all[at].sig.replace_range(127.., last);
            }
            3 => all[at].sig = all[at].sig.to_uppercase(),
            4 => all[at].sig.push('0'),
            5 => all[at].sig.clear(),
            6 => all[at].keyid = "0".repeat(64),
            7 => all.insert(0, ForgeKey::new(4242).sign(envelope.signed())),
            _ => {
                let mut twin = all[at].clone();
                twin.keyid = twin.keyid.to_uppercase();
                all.push(twin);
            }
        }
        envelope_bytes(envelope.signed(), &all)
    });
    match how {
        3 => "signature in upper case",
        8 => "key id in upper case",
        _ => "signatures",
    }
}

/// What may follow a document by accident, and may not.
const TAILS: [&[u8]; 5] = [b" ", b"\n\n", b"x", b"\0", b"{}"];

fn bytes(repo: &mut Forge, role: &Role, random: &mut Random) -> &'static str {
    let random = random.fork();
    repo.garble(role, move |mut bytes| {
        let mut random = random.clone();
        let at = random.below(bytes.len());
        let text = |bytes: &[u8], from: &str, to: &str| {
            String::from_utf8_lossy(bytes).replacen(from, to, 1).into_bytes()
        };
        match random.below(12) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = *random.of(b" 0\"{}[],:\\\x00\xff"),
            2 => bytes.truncate(at),
            3 => drop(bytes.remove(at)),
            4 => bytes.insert(at, *random.of(b" 0\"a")),
            5 => bytes.extend_from_slice(TAILS[random.below(TAILS.len())]),
            6 => bytes = text(&bytes, "\"version\":", "\"version\":9,\"version\":"),
            7 => bytes = text(&bytes, "\"version\":", "\"version\": "),
            8 => bytes = text(&bytes, "\"version\"", "\"\\u0076ersion\""),
            9 => bytes = text(&bytes, "\"signatures\":", "\"x\":1.5,\"signatures\":"),
            10 => {
                let digit = random.of(&["3.0", "3e0", "03", "-0", "3"]);
                bytes = text(&bytes, "\"version\":3", &format!("\"version\":{digit}"));
            }
            _ => bytes = [b"\xef\xbb\xbf", &bytes[..]].concat(),
        }
        bytes
    });
    "bytes"
}

fn header(repo: &mut Forge, role: &Role, random: &mut Random) -> &'static str {
    let header = repo.header(role);
    match random.below(3) {
        0 => {
            let days = *random.of(&[-1, 0, 1, 5, 100]);
            header.expires = crate::forge::NOW.plus(days * DAY + *random.of(&[-1, 0, 1]));
            "expiry"
        }
        1 => {
            header.version = header.version.saturating_sub(1 + random.below(3) as u64);
            "older version"
        }
        _ => {
            header.version += 1 + random.below(3) as u64;
            "version skipped"
        }
    }
}

/// Other keys or thresholds, which the signers follow or not.
fn keys(repo: &mut Forge, role: &Role, random: &mut Random) -> &'static str {
    let fresh: Vec<ForgeKey> =
        (0..1 + random.below(3)).map(|n| ForgeKey::new(7000 + n as u32)).collect();
    if let Role::Delegated(_) = role {
        if random.chance(2) {
            repo.signers.insert(role.clone(), fresh);
        } else {
            repo.signers.entry(role.clone()).or_default().extend(fresh);
        }
        return "other signers";
    }
    let threshold = 1 + random.below(3) as u32;
    let old = repo.signers[role].clone();
    let keys = match random.below(3) {
        0 => [&old[..1], &fresh].concat(),
        1 => [fresh[0].marked("a"), fresh[0].marked("b"), old[0].clone()].to_vec(),
        _ => fresh,
    };
    repo.rekey(role, threshold, &keys);
    if random.chance(3) {
        repo.signers.insert(role.clone(), old);
    }
    if *role != Role::Root {
        repo.publish(&[Role::Root]);
    }
    "other keys"
}

fn serving(repo: &mut Forge, random: &mut Random) -> &'static str {
    let names: Vec<String> = repo.served.keys().cloned().collect();
    let (name, other) = (random.of(&names).clone(), random.of(&names).clone());
    match random.below(3) {
        0 => {
            repo.served.remove(&name);
            "file not served"
        }
        1 => {
            let bytes = repo.served[&other].clone();
            repo.served.insert(name, bytes);
            "another file served"
        }
        _ => {
            let oldest = repo.history(&name).first().cloned();
            if let Some(oldest) = oldest {
                repo.served.insert(name, oldest);
            }
            "old file served"
        }
    }
}
