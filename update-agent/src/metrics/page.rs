//! The page, in both formats that Prometheus and its relatives read.
//!
//! [OpenMetrics 1.0](https://prometheus.io/docs/specs/om/open_metrics_spec/) is what prometheus-client
//! writes. node_exporter's textfile collector and `promtool check metrics` read the older
//! [text format 0.0.4](https://prometheus.io/docs/instrumenting/exposition_formats/), which has neither info
//! nor units, and names counters with their `_total`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};

use super::facts::Facts;
use super::families::{Family, Kind, families};
use crate::agent::Agent;

/// The metrics of a node at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    openmetrics: String,
}

impl Page {
    /// The media type of [`Page::openmetrics`].
    pub const OPENMETRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    /// The media type of [`Page::text`].
    pub const TEXT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// The page of a node as it is now. What cannot be read is missing in it.
    pub fn of(agent: &Agent) -> Self {
        Self::new(&Facts::of(agent))
    }

    pub(super) fn new(facts: &Facts) -> Self {
        let mut registry = Registry::with_prefix("update_agent");
        registry.register_collector(Box::new(Families(families(facts))));
        let mut openmetrics = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut openmetrics, &registry);
        Page { openmetrics }
    }

    /// In OpenMetrics 1.0.
    pub fn openmetrics(&self) -> String {
        self.openmetrics.clone()
    }

    /// In Prometheus' text format 0.0.4.
    pub fn text(&self) -> String {
        let kinds: BTreeMap<&str, &str> = self
            .openmetrics
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .collect();
        let mut text = String::new();
        for line in self.openmetrics.lines() {
            let Some((keyword, rest)) =
                line.strip_prefix("# ").and_then(|line| line.split_once(' '))
            else {
                if line != "# EOF" {
                    text += line;
                    text.push('\n');
                }
                continue;
            };
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            let (suffix, kind) = match kinds.get(name).copied() {
                Some("info") => ("_info", "gauge"),
                Some("counter") => ("_total", "counter"),
                Some(other) => ("", other),
                None => ("", "untyped"),
            };
            match keyword {
                "HELP" => text += &format!("# HELP {name}{suffix} {rest}\n"),
                "TYPE" => text += &format!("# TYPE {name}{suffix} {kind}\n"),
                _ => {}
            }
        }
        text
    }
}

/// Families, as prometheus-client collects them: in their order, samples sorted by their labels.
#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        self.0.iter().try_for_each(|family| encode_family(family, &mut encoder))
    }
}

fn encode_family(family: &Family, encoder: &mut DescriptorEncoder) -> Result<(), fmt::Error> {
    if family.samples.is_empty() {
        return Ok(());
    }
    let name = match family.kind {
        Kind::Time => Cow::Owned(format!("{}_timestamp", family.name)),
        _ => Cow::Borrowed(family.name),
    };
    let (metric_type, unit) = match family.kind {
        Kind::Info => (MetricType::Info, None),
        Kind::Gauge => (MetricType::Gauge, None),
        Kind::Time | Kind::Seconds => (MetricType::Gauge, Some(Unit::Seconds)),
        Kind::Count => (MetricType::Counter, None),
        Kind::Bytes => (MetricType::Counter, Some(Unit::Bytes)),
    };
    let mut metric = encoder.encode_descriptor(&name, family.help, unit.as_ref(), metric_type)?;
    for (labels, value) in &family.samples {
        match (family.kind, labels.is_empty()) {
            (Kind::Info, _) => metric.encode_info(labels)?,
            // No braces around nothing.
            (kind, true) => encode_value(kind, *value, &mut metric)?,
            (kind, false) => encode_value(kind, *value, &mut metric.encode_family(labels)?)?,
        }
    }
    Ok(())
}

fn encode_value(kind: Kind, value: u64, metric: &mut MetricEncoder<'_>) -> Result<(), fmt::Error> {
    let none: Option<&Exemplar<NoLabelSet, u64>> = None;
    match kind {
        Kind::Count | Kind::Bytes => metric.encode_counter(&value, none),
        Kind::Info | Kind::Gauge | Kind::Time | Kind::Seconds => {
            metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
        }
    }
}
