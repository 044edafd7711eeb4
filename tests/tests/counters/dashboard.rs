//! The Grafana dashboard asks for what there is: each metric and label in it is on a live daemon's page.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tests::bare_guest::BareGuest;

const DASHBOARD: &str = include_str!("../../../tools/grafana/ringwire.json");

/// Labels by metric.
type Metrics = BTreeMap<String, BTreeSet<String>>;

fn exported(page: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        metrics.entry(name.to_owned()).or_default().extend(labels);
    }
    metrics
}

fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'
}

/// The metrics of an expression, with the labels that each is selected by.
fn selected(expr: &str) -> Vec<(String, BTreeSet<String>)> {
    let mut found = Vec::new();
    let mut rest = expr;
    while let Some(at) = rest.find("ringwire_") {
        let (name, behind) = rest[at..].split_at(rest[at..].find(|c| !is_name(c)).unwrap_or(rest.len() - at));
        let selectors = behind.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let labels =
            selectors.map_or("", |(inside, _)| inside).split(',').map(|one| one.split(['=', '!']).next());
        let labels = labels.flatten().map(|label| label.trim().to_owned());
        found.push((name.to_owned(), labels.filter(|label| !label.is_empty()).collect()));
        rest = behind;
    }
    found
}

/// The labels in each `KEYWORD (a, b)`.
fn grouped(expr: &str) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    for keyword in ["by", "without", "ignoring", "on"] {
        for (at, _) in expr.match_indices(keyword) {
            let behind = expr[at + keyword.len()..].trim_start();
            let alone = !expr[..at].ends_with(is_name);
            if let Some((inside, _)) =
                behind.strip_prefix('(').filter(|_| alone).and_then(|list| list.split_once(')'))
            {
                labels.extend(inside.split(',').map(|label| label.trim().to_owned()));
            }
        }
    }
    labels
}

/// What of an expression and its legend is not there.
fn missing(metrics: &Metrics, expr: &str, legend: &str) -> Vec<String> {
    let selected = selected(expr);
    let mut missing = Vec::new();
    if selected.is_empty() {
        missing.push(format!("no metric in {expr:?}"));
    }
    let mut known = BTreeSet::new();
    for (name, labels) in selected {
        let Some(there) = metrics.get(&name) else {
            missing.push(name);
            continue;
        };
        known.extend(there.iter().cloned());
        missing.extend(labels.difference(there).map(|label| format!("{name}{{{label}}}")));
    }
    let shown =
        legend.split("{{").skip(1).filter_map(|part| Some(part.split_once("}}")?.0.trim().to_owned()));
    let wanted: BTreeSet<String> = grouped(expr).into_iter().chain(shown).collect();
    missing.extend(wanted.difference(&known).map(|label| format!("label {label} of {expr:?}")));
    missing
}

#[test]
fn every_query_names_what_there_is() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let scene = crate::scene();
    let mut daemon = scene.start();
    let load = BareGuest::connect(&scene.socket("vm1"), crate::FRAME).load([0, 0]);
    daemon.wait_count("vm1", "rx", 20, 1000, |port| port.rx_packets);
    let page = daemon.get("/metrics").expect("the page");
    drop(load.end());
    assert!(daemon.stop(Duration::from_secs(5)).success());
    let metrics = exported(&page);
    // What is looked for can be missed.
    assert_eq!(missing(&metrics, "rate(ringwire_no_such_total[1m])", ""), ["ringwire_no_such_total"]);
    assert_eq!(missing(&metrics, "sum by (nobody) (ringwire_port_state{none=\"x\"})", "{{no}}").len(), 3);
    assert_eq!(missing(&metrics, "1 + 1", "").len(), 1);

    let panels = dashboard["panels"].as_array().expect("panels");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (mut queries, mut problems) = (0, Vec::new());
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(!targets.is_empty(), "{}: nothing is asked for", panel["title"]);
        for target in targets {
            let found = missing(&metrics, &text(&target["expr"]), &text(&target["legendFormat"]));
            problems.extend(found.into_iter().map(|what| format!("{}: {what}", panel["title"])));
            queries += 1;
        }
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        let query = text(&variable["query"]["query"]);
        if let Some((metric, label)) =
            query.strip_prefix("label_values(").and_then(|inside| inside.strip_suffix(')')?.split_once(", "))
        {
            assert!(metrics.get(metric).is_some_and(|labels| labels.contains(label)), "{query}");
        }
    }
    assert_eq!(problems, [""; 0]);
    println!("{queries} queries in {} panels, of {} metrics", panels.len(), metrics.len());
    assert!(queries > 20 && dashboard["schemaVersion"].as_u64() >= Some(39));
}
