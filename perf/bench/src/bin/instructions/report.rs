//! What was found out, for people and for programs.

use serde::Serialize;

use crate::Failure;
use crate::callgrind::{Cost, Profile};
use crate::functions::Names;
use crate::steps::{BURST, Part, Who};

/// What one side spends on a packet (of the idle path: on a round).
#[derive(Clone, Debug, Serialize)]
pub struct Spent {
    /// Instructions.
    pub instructions: f64,
    /// Estimated cycles.
    pub cycles: f64,
    /// Where instructions are spent, most first.
    pub functions: Vec<Function>,
}

/// A function's own instructions a packet, without those of functions it calls, but with the standard library's
/// small ones.
#[derive(Clone, Debug, Serialize)]
pub struct Function {
    /// Source file and function, or library and function.
    pub name: String,
    /// Instructions.
    pub instructions: f64,
}

/// One path, both sides.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// Its name.
    pub path: String,
    /// ringwire; none if it lacks the feature, and for what is not its work.
    pub ringwire: Option<Spent>,
    /// Instructions of rte_vhost, which net_vhost calls.
    pub rte_vhost: Option<f64>,
    /// net_vhost with rte_vhost, or the NIC's stand-in.
    pub net_vhost: Option<Spent>,
}

impl Row {
    /// ringwire's instructions for one of net_vhost.
    pub fn ratio(&self) -> Option<f64> {
        Some(self.ringwire.as_ref()?.instructions / self.net_vhost.as_ref()?.instructions)
    }
}

/// Rows, from what was counted.
pub fn rows(parts: &[(Part, Profile)], names: &Names) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (part, profile) in parts {
        let each = |cost: u64| cost as f64 / part.count as f64;
        let function =
            |(name, cost): (String, Cost)| Function { name, instructions: each(cost.instructions) };
        // DPDK's part begins where it is called: what our way to it costs is not its fault.
        let total = match part.who {
            Who::Ringwire => profile.total,
            Who::Ethdev => profile.calls_to("rw_eth_"),
        };
        let spent = Spent {
            instructions: each(total.instructions),
            cycles: each(total.cycles()),
            functions: names.functions(profile).into_iter().map(function).collect(),
        };
        let vhost = profile.calls_to("rte_vhost_").instructions;
        let at = rows.iter().position(|row| row.path == part.path).unwrap_or_else(|| {
            rows.push(Row { path: part.path.clone(), ..Row::default() });
            rows.len() - 1
        });
        let row = &mut rows[at];
        match part.who {
            Who::Ringwire => row.ringwire = Some(spent),
            Who::Ethdev => {
                row.rte_vhost = (vhost > 0).then(|| each(vhost));
                row.net_vhost = Some(spent);
            }
        }
    }
    rows
}

/// The table, and the first `functions` functions of each of our paths.
pub fn text(rows: &[Row], bytes: usize, functions: usize) -> String {
    let mut out =
        format!("Instructions a packet, {bytes} bytes, bursts of {BURST}; estimated cycles (c)\n\n");
    out += &format!(
        "{:<37}{:>9}{:>12}{:>12}{:>8}{:>14}{:>14}\n",
        "path", "ringwire", "rte_vhost", "+net_vhost", "ratio", "c ringwire", "c net_vhost"
    );
    let number = |value: Option<f64>, digits| value.map_or("-".into(), |v: f64| format!("{v:.digits$}"));
    for row in rows {
        let (ours, theirs) = (row.ringwire.as_ref(), row.net_vhost.as_ref());
        out += &format!(
            "{:<37}{:>9}{:>12}{:>12}{:>8}{:>14}{:>14}\n",
            row.path,
            number(ours.map(|spent| spent.instructions), 1),
            number(row.rte_vhost, 1),
            number(theirs.map(|spent| spent.instructions), 1),
            number(row.ratio(), 3),
            number(ours.map(|spent| spent.cycles), 0),
            number(theirs.map(|spent| spent.cycles), 0),
        );
    }
    out += "\nAn idle round is counted as a whole. net_null stands in for the NIC: in none of the paths, and the same\n\
            for both sides. NIC->guest includes freeing the mbufs; rte_vhost alone does not free them.\n";
    for row in rows.iter().filter(|_| functions > 0) {
        let Some(spent) = &row.ringwire else { continue };
        out += &format!("\n{}: {:.2}\n", row.path, spent.instructions);
        for function in spent.functions.iter().take(functions) {
            out += &format!("{:>10.2}  {}\n", function.instructions, function.name);
        }
    }
    out
}

/// Everything, as JSON.
pub fn json(rows: &[Row], bytes: usize) -> Result<String, Failure> {
    let all = serde_json::json!({ "bytes": bytes, "burst": BURST, "paths": rows });
    Ok(serde_json::to_string_pretty(&all)? + "\n")
}
