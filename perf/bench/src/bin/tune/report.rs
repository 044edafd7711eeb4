//! What was found out, for people: text, and HTML that needs no other file.

use std::fmt::Write;

use ringwire_bench::plot::{Plot, Series, escaped};
use ringwire_bench::stats::Spread;

use crate::Args;
use crate::host;
use crate::setting::Setting;
use crate::sweep::{Sweep, Value};
use crate::target::Target;

/// All of it.
pub struct Report<'a> {
    pub args: &'a Args,
    pub target: &'a Target,
    pub cores: &'a [usize],
    pub best: Setting,
    pub fragment: &'a str,
    pub sweeps: &'a [Sweep],
}

const STYLE: &str = "body{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}tr.best{background:#e6f2ff;font-weight:bold}\
pre{background:#f4f4f4;padding:1em;overflow-x:auto}svg{max-width:100%;height:auto}";

fn mpps(spread: Spread) -> Spread {
    Spread { median: spread.median / 1e6, min: spread.min / 1e6, max: spread.max / 1e6 }
}

fn cell(spread: Option<Spread>) -> String {
    match spread.map(mpps) {
        Some(Spread { median, min, max }) => format!("{median:.3} [{min:.3}..{max:.3}]"),
        None => "-".into(),
    }
}

impl Report<'_> {
    /// What was measured, in a sentence.
    fn what(&self) -> String {
        let Args { size, traffic, rounds, seconds, front, .. } = self.args;
        let does = match traffic {
            crate::Traffic::Tx => "sends",
            crate::Traffic::Rx => "receives",
            crate::Traffic::Both => "sends and receives",
        };
        format!(
            "A guest (ringwire-pktgen on core {front}) {does} frames of {size} bytes; its backend is the NIC {}; \
             workers on cores {:?}. Each value had {rounds} turns of {seconds} s; shown are medians \
             [lowest..highest] in millions of packets a second.",
            self.target.device(),
            self.cores
        )
    }

    /// Tables.
    pub fn text(&self) -> String {
        let mut out = self.what() + "\n";
        for sweep in self.sweeps {
            let _ = writeln!(out, "\n{:<18}{:>28}{:>28}", sweep.knob.to_string(), "Mpps", "frontend's limit");
            for value in &sweep.values {
                let mark = if is_best(sweep, value) { "<- best" } else { "" };
                let star = if value.bound() { "*" } else { " " };
                let name = sweep.knob.value(value.setting);
                let _ = writeln!(
                    out,
                    "{name:<18}{:>28}{:>28}{star} {mark}",
                    cell(value.rate()),
                    cell(value.limit())
                );
            }
        }
        out + "\n*: within 10% of the frontend's own limit: the difference may be the frontend's.\n"
    }

    /// The page.
    pub fn html(&self) -> String {
        let mut out = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>ringwire: tuning</title>\
             <style>{STYLE}</style></head><body>\n<h1>ringwire: tuning</h1>\n<p>{}</p>\n",
            escaped(&self.what())
        );
        let _ = write!(
            out,
            "<h2>Best setting</h2>\n<pre>{}</pre>\n<p>{}</p>\n",
            escaped(self.fragment),
            escaped(&self.best_in_words())
        );
        self.sweeps.iter().for_each(|sweep| section(&mut out, sweep));
        out += "<h2>How to read this</h2>\n<p>Knobs are tried one after the other, each with the best values of \
                those before it; a value is taken instead of an earlier one only if it is more than 2% faster. The \
                frontend's limit is that of the same guest with a backend that only returns descriptors (on the \
                first worker's core): where a rate is within 10% of it (*), a difference may be the \
                frontend's.</p>\n<h2>Host</h2>\n<table>\n";
        for (name, value) in host::facts() {
            let _ = writeln!(out, "<tr><td>{name}</td><td>{}</td></tr>", escaped(&value));
        }
        out + "</table>\n</body></html>\n"
    }

    fn best_in_words(&self) -> String {
        let Setting { ring_size, burst, queues, workers, worker_burst, .. } = self.best;
        format!(
            "{} rings of {ring_size} entries, bursts of {burst}, {queues} queue pair(s), {workers} worker(s) \
             that move {worker_burst} packets at a time, idle = {}",
            self.best.format(),
            self.best.idle()
        )
    }
}

fn is_best(sweep: &Sweep, value: &Value) -> bool {
    sweep.best().is_some_and(|best| std::ptr::eq(best, value))
}

fn section(out: &mut String, sweep: &Sweep) {
    let series = |name: &str, of: fn(&Value) -> Option<Spread>| Series {
        name: name.into(),
        points: sweep.values.iter().map(|value| of(value).map(mpps)).collect(),
    };
    let plot = Plot {
        title: sweep.knob.to_string(),
        x: sweep.knob.to_string(),
        y: "Mpps".into(),
        labels: sweep.values.iter().map(|value| sweep.knob.value(value.setting)).collect(),
        series: vec![series("ringwire", Value::rate), series("frontend's limit", Value::limit)],
    };
    let _ = write!(
        out,
        "<h2>{}</h2>\n{}<table>\n<tr><th>{}</th><th>Mpps</th><th>frontend's limit</th></tr>\n",
        sweep.knob,
        plot.svg(),
        sweep.knob
    );
    for value in &sweep.values {
        let class = if is_best(sweep, value) { " class=\"best\"" } else { "" };
        let star = if value.bound() { "*" } else { "" };
        let why = value.failed.as_deref().map(|why| why.lines().next().unwrap_or_default());
        let rate = why.map_or_else(|| cell(value.rate()) + star, |why| format!("skipped: {why}"));
        let _ = writeln!(
            out,
            "<tr{class}><td>{}</td><td>{}</td><td>{}</td></tr>",
            sweep.knob.value(value.setting),
            escaped(&rate),
            cell(value.limit())
        );
    }
    *out += "</table>\n";
}
