//! One apply through cut connections and kills: what is fetched again.

use std::fs;
use std::time::Instant;

use anyhow::{Result, bail};
use racklet_testkit::random::Random;

use super::proxy::Proxy;
use super::rig::{Bench, Booted, V2};
use super::run::Background;
use super::server;
use super::table::{Goal, Row, Unit};

const CUTS: usize = 20;
const KILLS: usize = 5;

/// Of one connection, bytes per second: 240 Mbit/s.
const RATE: u64 = 30_000_000;

/// `full` is what an undisturbed install fetches, bytes.
pub(super) fn rows(bench: &Bench, full: f64) -> Result<Vec<Row>> {
    let seed = u64::from(std::process::id()) | 1 << 32;
    let mut random = Random::seeded(seed);
    // Up to 4 % of the image each, 40 % together: kills take connections' budgets with them, and
    // all 20 should be met before the download ends.
    let budgets = (0..CUTS).map(|_| random.below((full * 0.04) as usize) as u64).collect();
    let (_server, address) = server::plain(bench)?;
    let proxy = Proxy::start(&address, budgets, RATE)?;
    let size = fs::metadata(&bench.v2)?.len();
    let node = bench.node(&format!("docker://{}", proxy.address), size, Booted::Nothing)?;

    let until = Instant::now() + bench.limit(240);
    let (mut kills, mut runs) = (0, 0);
    let code = loop {
        runs += 1;
        let log = bench.path("faults.log");
        let mut agent = Background::start(&mut node.killable(&["apply", "--version", V2]), &log)?;
        let ended = loop {
            if let Some(code) = agent.ended()? {
                break Some(code);
            }
            let next = full * (kills + 1) as f64 / (KILLS + 1) as f64;
            if kills < KILLS && proxy.down() as f64 >= next {
                agent.kill()?;
                kills += 1;
                break None;
            }
            if Instant::now() > until {
                bail!("not finished after {kills} kills and {} cuts, seed {seed}", proxy.cut());
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        };
        match ended {
            Some(0) => break 0,
            // An agent may give up on a network like this; its timer would start it again.
            Some(code) if runs > CUTS + KILLS => break code,
            _ => {}
        }
    };
    if code != 0 {
        let log = fs::read_to_string(bench.path("faults.log"))?;
        bail!("gave up after {runs} runs with exit code {code}, seed {seed}: {log}");
    }
    node.settle()?;
    node.expect(&bench.v2)?;
    let note = format!(
        "{} connections cut, {kills} kills, 240 Mbit/s, {runs} runs of the agent, seed {seed}; slot b compared",
        proxy.cut()
    );
    Ok(vec![
        Row::ratio(
            "full install through 20 cut connections and 5 kills / undisturbed",
            Unit::Bytes,
            &[proxy.down() as f64],
            &[full],
            Goal::AtMost(1.05),
        )
        .note(note),
    ])
}
