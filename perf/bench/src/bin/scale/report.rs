//! What was found out, for people and for programs.

use ringwire_bench::Failure;
use ringwire_bench::plot::{Plot, Series};
use ringwire_bench::stats::Spread;
use serde::Serialize;

use crate::counts::{Counts, Round};
use crate::guests::{BURST, BYTES, lanes, nics};
use crate::rates::Rates;

/// All of it.
#[derive(Debug, Serialize)]
pub struct Scale {
    /// Bytes of a packet.
    bytes: usize,
    /// Packed rings.
    packed: bool,
    /// By number of guests.
    pub rows: Vec<Row>,
}

/// One number of guests.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Guests of the worker.
    pub guests: u16,
    /// Of those, connected to a NIC; the others are connected in pairs.
    nics: u16,
    /// What the worker polls: one for a guest and its NIC, one for a pair.
    lanes: u16,
    /// Instructions.
    pub counts: Option<Counts>,
    /// Packets a second.
    pub rates: Option<Rates>,
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".into(), |value| format!("{value:.digits$}"))
}

impl Scale {
    /// Nothing measured yet.
    pub fn new(packed: bool, guests: &[u16]) -> Scale {
        let row = |guests: &u16| Row {
            guests: *guests,
            nics: nics(*guests),
            lanes: lanes(*guests),
            counts: None,
            rates: None,
        };
        Scale { bytes: BYTES, packed, rows: guests.iter().map(row).collect() }
    }

    /// The row of the fewest guests.
    fn first(&self) -> Option<&Row> {
        self.rows.iter().filter(|row| row.counts.is_some()).min_by_key(|row| row.guests)
    }

    /// What one more idle guest costs a `round`, compared with the row of the fewest guests.
    fn one_more(&self, row: &Row, round: impl Fn(&Row) -> Option<f64>) -> Option<f64> {
        let first = self.first()?;
        let more = row.guests.checked_sub(first.guests).filter(|more| *more > 0)?;
        Some((round(row)? - round(first)?) / f64::from(more))
    }

    /// Instructions that one more idle guest costs a round while nobody is busy.
    fn idle_guest(&self, row: &Row) -> Option<f64> {
        self.one_more(row, |row| Some(row.counts.as_ref()?.idle_round.median))
    }

    /// The same while one is busy.
    fn idle_guest_beside(&self, row: &Row) -> Option<f64> {
        self.one_more(row, |row| self.round_beside(row))
    }

    /// What a packet costs beyond its round: as counted with the fewest guests, all of them busy.
    fn packet(&self) -> Option<f64> {
        Some(self.first()?.counts.as_ref()?.all_busy_packet.median)
    }

    /// Instructions of a round with one busy guest, without its packets'.
    fn round_beside(&self, row: &Row) -> Option<f64> {
        let packet = self.packet()?;
        let round = |round: &Round| round.instructions - packet * round.packets;
        let rounds: Vec<f64> = row.counts.as_ref()?.one_busy.iter().map(round).collect();
        Some(Spread::of(&rounds)?.median)
    }

    /// Instructions a packet if a round finds a burst of one guest.
    fn one_busy_packet(&self, row: &Row) -> Option<f64> {
        Some(self.packet()? + self.round_beside(row)? / f64::from(BURST))
    }

    /// The same of each of all guests: they share the round.
    fn all_busy_packet(&self, row: &Row) -> Option<Spread> {
        let counts = row.counts.as_ref()?;
        let round = counts.idle_round.median / (f64::from(BURST) * f64::from(row.guests));
        let Spread { median, min, max } = counts.all_busy_packet;
        Some(Spread { median: median + round, min: min + round, max: max + round })
    }

    /// The tables.
    pub fn text(&self) -> String {
        let format = if self.packed { "packed" } else { "split" };
        let mut out = format!("One worker, {} bytes, {format} rings\n\n", self.bytes);
        out += HEAD;
        for row in &self.rows {
            let counts = row.counts.as_ref();
            let rates = row.rates.as_ref();
            let median = |spread: Option<Spread>| number(spread.map(|spread| spread.median), 1);
            let mpps = |spread: Option<Spread>| match spread {
                Some(Spread { median, min, max }) => {
                    format!("{:.2} [{:.2}..{:.2}]", median / 1e6, min / 1e6, max / 1e6)
                }
                None => "-".into(),
            };
            let percent = |part: Option<f64>| part.map_or("-".into(), |part| format!("{:.0}%", 100.0 * part));
            out += &format!(
                "{:>6}{:>7} |{:>12}{:>12}{:>12} |{:>10}{:>10} |{:>22}{:>22} |{:>5}{:>6}\n",
                row.guests,
                row.lanes,
                number(counts.map(|counts| counts.idle_round.median), 1),
                number(self.idle_guest(row), 1),
                number(self.idle_guest_beside(row), 1),
                number(self.one_busy_packet(row), 1),
                median(self.all_busy_packet(row)),
                mpps(rates.map(|rates| rates.one_busy_pps)),
                mpps(rates.map(|rates| rates.all_busy_pps)),
                percent(rates.map(|rates| rates.one_busy_full)),
                percent(rates.map(|rates| rates.all_busy_full)),
            );
        }
        out += NOTES;
        for row in &self.rows {
            let Some(Counts { functions, idle_round, .. }) = &row.counts else { continue };
            if !functions.is_empty() {
                out += &format!("\nidle round with {} guests: {:.1}\n", row.guests, idle_round.median);
            }
            for (name, instructions) in functions {
                out += &format!("{instructions:>10.2}  {name}\n");
            }
        }
        out
    }

    /// Everything.
    pub fn json(&self) -> Result<String, Failure> {
        let rows = self.rows.iter().map(|row| {
            let mut value = serde_json::to_value(row)?;
            value["idle_guest"] = self.idle_guest(row).into();
            value["idle_guest_beside_a_busy_one"] = self.idle_guest_beside(row).into();
            value["one_busy_instructions_a_packet"] = self.one_busy_packet(row).into();
            value["all_busy_instructions_a_packet"] = serde_json::to_value(self.all_busy_packet(row))?;
            Ok(value)
        });
        let rows: Vec<serde_json::Value> = rows.collect::<Result<_, serde_json::Error>>()?;
        let all =
            serde_json::json!({ "bytes": self.bytes, "packed": self.packed, "burst": BURST, "rows": rows });
        Ok(serde_json::to_string_pretty(&all)? + "\n")
    }

    /// A plot of each thing measured, one below the other.
    pub fn svg(&self) -> String {
        let labels = || self.rows.iter().map(|row| row.guests.to_string()).collect::<Vec<_>>();
        let plot = |title: &str, y: &str, series: Vec<Series>| Plot {
            title: title.into(),
            x: "guests on one worker".into(),
            y: y.into(),
            labels: labels(),
            series,
        };
        let series = |name: &str, of: &dyn Fn(&Row) -> Option<Spread>| Series {
            name: name.into(),
            points: self.rows.iter().map(of).collect(),
        };
        let mpps = |spread: Spread| Spread {
            median: spread.median / 1e6,
            min: spread.min / 1e6,
            max: spread.max / 1e6,
        };
        let mut plots = Vec::new();
        if self.rows.iter().any(|row| row.rates.is_some()) {
            plots.push(plot(
                "Packets a second",
                "Mpps",
                vec![
                    series("one busy", &|row| row.rates.map(|rates| mpps(rates.one_busy_pps))),
                    series("all busy", &|row| row.rates.map(|rates| mpps(rates.all_busy_pps))),
                ],
            ));
        }
        if self.rows.iter().any(|row| row.counts.is_some()) {
            let alone = |value: f64| Spread { median: value, min: value, max: value };
            let one_busy = |row: &Row| self.one_busy_packet(row).map(alone);
            plots.push(plot(
                "Instructions a packet, bursts of 32",
                "instructions",
                vec![series("one busy", &one_busy), series("all busy", &|row| self.all_busy_packet(row))],
            ));
            let idle_round = |row: &Row| row.counts.as_ref().map(|counts| counts.idle_round);
            plots.push(plot("An idle round", "instructions", vec![series("idle round", &idle_round)]));
        }
        Plot::stack(&plots)
    }
}

/// The table's head.
const HEAD: &str = concat!(
    "              |  idle round    one more   beside one |    instr. a packet  |                  Mpps                  Mpps |  ring full\n",
    "guests  lanes |      instr.  idle guest        busy  |  one busy  all busy |              one busy              all busy |  one   all\n",
);

/// What the table means.
const NOTES: &str = "\n\
`idle round`: what the worker does if nobody has sent anything; `one more idle guest`: what each guest adds to it;\n\
`beside one busy`: what each adds to a round in which another guest is busy.\n\
`instr. a packet`: everything the worker does, if each of its rounds finds a burst of 32 from each busy guest.\n\
`ring full`: part of the frontend's looks at a ring that found it full; near 0%, the frontend was what limited.\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn scale() -> Scale {
        let one = |value: f64| Spread { median: value, min: value, max: value };
        let mut scale = Scale::new(false, &[1, 5]);
        for (row, round) in scale.rows.iter_mut().zip([100.0, 180.0]) {
            row.counts = Some(Counts {
                idle_round: one(round),
                one_busy: vec![Round { instructions: round + 32.0 * 95.0, packets: 32.0 }],
                all_busy_packet: one(95.0),
                functions: Vec::new(),
            });
        }
        scale
    }

    #[test]
    fn the_round_is_shared_by_what_it_moves() {
        let scale = scale();
        assert_eq!(scale.idle_guest(&scale.rows[0]), None);
        assert_eq!(scale.idle_guest(&scale.rows[1]), Some(20.0));
        assert_eq!(scale.idle_guest_beside(&scale.rows[1]), Some(20.0));
        assert_eq!(scale.one_busy_packet(&scale.rows[1]), Some(95.0 + 180.0 / 32.0));
        let all_busy = scale.all_busy_packet(&scale.rows[1]).map(|packet| packet.median);
        assert_eq!(all_busy, Some(95.0 + 180.0 / 160.0));
    }

    #[test]
    fn what_was_not_measured_is_missing_everywhere() {
        let scale = scale();
        let line = scale.text().lines().nth(5).expect("a row").to_owned();
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["5", "5", "|", "180.0", "20.0", "20.0", "|", "100.6", "96.1", "|", "-", "-", "|", "-", "-"]
        );
        let json: serde_json::Value = serde_json::from_str(&scale.json().expect("numbers")).expect("JSON");
        assert_eq!(json["rows"][1]["idle_guest"], 20.0);
        assert!(json["rows"][1]["rates"].is_null());
        assert_eq!(scale.svg().matches("<circle").count(), 6);
    }
}
