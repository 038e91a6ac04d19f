//! The curve of a roll-out: its signed bounds, and how many nodes are confirmed.

use maud::{Markup, html};

use super::super::rollout::Rollout;
use super::super::{count, counted};
use super::words::time;

/// The size of the picture, in its own units; it is stretched to the width of the page.
const WIDTH: u64 = 1000;
const HEIGHT: u64 = 200;

pub(super) fn rollout(it: &Rollout) -> Markup {
    let (from, to) = it.span();
    let confirmed = it.confirmed.last().map_or(0, |(_, nodes)| *nodes);
    let label = format!(
        "{} of {} are confirmed; the waves that follow say how many may be",
        count(confirmed),
        counted(it.nodes, "node"),
    );
    html! {
        figure class="rollout" {
            div class="chart" {
                div class="scale" aria-hidden="true" { span { "100 %" } span { "50 %" } span { "0 %" } }
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(label) {
                    path class="grid" d="M0 0H1000M0 100H1000M0 200H1000" {}
                    path class="area" d={ (curve(it)) "V200H" (x(it, from)) "Z" } {}
                    path class="curve" d=(curve(it)) {}
                    path class="bound" d=(bound(it)) {}
                    path class="lost" d=(reverted(it)) {}
                    path class="now" d={ "M" (x(it, it.now)) " 0V200" } {}
                }
            }
            div class="ends" aria-hidden="true" { (time(from)) (time(to)) }
            figcaption {
                ul class="states" {
                    li { span class="line is-curve" aria-hidden="true" {} "confirmed" }
                    li { span class="line is-bound" aria-hidden="true" {} "at most, as it is signed" }
                    @if !it.reverted.is_empty() {
                        li { span class="dot is-reverted" aria-hidden="true" {} "reverted" }
                    }
                    li { span class="line is-now" aria-hidden="true" {} "now" }
                }
                (waves(it))
            }
        }
    }
}

/// When which share of the nodes may install.
fn waves(it: &Rollout) -> Markup {
    let windows: Vec<String> = it.channel.windows.iter().map(ToString::to_string).collect();
    html! {
        ul class="waves" {
            @for wave in &it.channel.waves {
                li {
                    strong { (wave.percent) " %" }
                    @if wave.start <= it.now { " of the nodes since " } @else { " of the nodes from " }
                    (time(wave.start))
                    @if wave.start > it.now { " at the latest" }
                }
            }
        }
        @if !windows.is_empty() {
            p { "Maintenance windows, every day in UTC: " (windows.join(", ")) }
        }
    }
}

fn x(it: &Rollout, at: u64) -> u64 {
    let (from, to) = it.span();
    let wide = u128::from(at.saturating_sub(from)) * u128::from(WIDTH);
    u64::try_from(wide / u128::from(to.saturating_sub(from).max(1))).unwrap_or(WIDTH).min(WIDTH)
}

/// Where so many of 1,000 are drawn.
fn y(thousandths: u64) -> u64 {
    HEIGHT - (thousandths * HEIGHT / 1000).min(HEIGHT)
}

fn of_nodes(it: &Rollout, nodes: usize) -> u64 {
    let (nodes, all) = (nodes as u64, it.nodes.max(1) as u64);
    y(nodes.saturating_mul(1000) / all)
}

/// How many nodes were confirmed, from the beginning to now.
fn curve(it: &Rollout) -> String {
    let (from, _) = it.span();
    let steps = it.confirmed.iter();
    let steps: String =
        steps.map(|(at, nodes)| format!("H{}V{}", x(it, *at), of_nodes(it, *nodes))).collect();
    format!("M{} {HEIGHT}{steps}H{}", x(it, from), x(it, it.now))
}

/// The share that may install, to the end of the picture.
fn bound(it: &Rollout) -> String {
    let waves = it.channel.waves.iter();
    let steps: String = waves
        .map(|wave| format!("H{}V{}", x(it, wave.start), y(u64::from(wave.percent) * 10)))
        .collect();
    format!("M0 {HEIGHT}{steps}H{WIDTH}")
}

/// A dot on the curve of confirmed nodes for each time at which a node reverted.
fn reverted(it: &Rollout) -> String {
    let height = |at: u64| {
        let before = it.confirmed.iter().take_while(|(time, _)| *time <= at).last();
        of_nodes(it, before.map_or(0, |(_, nodes)| *nodes))
    };
    it.reverted.iter().map(|(at, _)| format!("M{} {}h0", x(it, *at), height(*at))).collect()
}
