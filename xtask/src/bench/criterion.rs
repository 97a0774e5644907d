//! From criterion's result files to rows of `benches/record`.
//!
//! Criterion leaves `benchmark.json` (id and bytes or elements per iteration) and `estimates.json` (nanoseconds) per
//! benchmark. A speed in bytes is recorded with its share of the read bandwidth of the same run and thread count.

use std::path::Path;

use serde_json::Value;
use xshell::cmd;

use crate::outcome::Outcome;
use crate::record::{Figure, Record};
use crate::repo;
use crate::report::number;

/// The result of one benchmark.
struct Measured {
    id: String,
    /// Threads, the last part of the id.
    threads: String,
    /// Per iteration: the unit and how many of them.
    amount: Option<(String, f64)>,
    nanoseconds: f64,
}

pub(super) fn record(only: Option<&str>) -> Outcome {
    let home = repo::root().join("target/criterion-record");
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    let sh = repo::shell()?;
    sh.set_var("CRITERION_HOME", &home);
    match only {
        Some(name) => cmd!(sh, "cargo bench --package benches --bench {name}").run()?,
        None => cmd!(sh, "cargo bench --package benches").run()?,
    }
    let mut measured = Vec::new();
    collect(&home, &mut measured)?;
    measured.sort_by(|a, b| a.id.cmp(&b.id));
    if measured.is_empty() {
        return Err("criterion left no results".into());
    }
    let figures: Vec<Figure> = measured.iter().map(|m| figure(m, &measured)).collect();
    let record = Record::open("bench")?;
    for figure in &figures {
        repo::say(&format!("{}: {}", figure.name, figure.value));
        record.append(figure)?;
    }
    record.say()
}

/// All benchmarks below `dir`: the folders named `new`.
fn collect(dir: &Path, found: &mut Vec<Measured>) -> Outcome {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() && path.ends_with("new") {
            let read =
                |name| -> Outcome<Value> { Ok(serde_json::from_str(&std::fs::read_to_string(path.join(name))?)?) };
            found.extend(measured(&read("benchmark.json")?, &read("estimates.json")?));
        } else if path.is_dir() {
            collect(&path, found)?;
        }
    }
    Ok(())
}

fn measured(benchmark: &Value, estimates: &Value) -> Option<Measured> {
    let id = benchmark["full_id"].as_str()?.to_owned();
    let throughput = benchmark["throughput"].as_object().and_then(|members| members.iter().next());
    let amount = throughput.and_then(|(unit, n)| Some((unit.clone(), n.as_f64()?)));
    let threads = id.rsplit('/').next()?.to_owned();
    Some(Measured { threads, id, amount, nanoseconds: number(estimates, "median.point_estimate").ok()? })
}

impl Measured {
    /// Amount per second, where the amount is in `unit`.
    fn speed(&self, unit: &str) -> Option<f64> {
        self.amount.as_ref().filter(|(u, _)| u == unit).map(|(_, amount)| amount / self.nanoseconds * 1e9)
    }
}

fn figure(m: &Measured, all: &[Measured]) -> Figure {
    let limit = all.iter().find(|r| r.id.starts_with("read/") && r.threads == m.threads).and_then(|r| r.speed("Bytes"));
    let value = match (m.speed("Bytes"), m.speed("Elements"), limit) {
        (Some(speed), _, Some(limit)) if !m.id.starts_with("read/") => {
            format!("{:.2} GB/s, {:.0} % of read bandwidth", speed / 1e9, 100.0 * speed / limit)
        }
        (Some(speed), ..) => format!("{:.2} GB/s", speed / 1e9),
        (_, Some(speed), _) => format!("{:.3e} per s", speed),
        _ => format!("{:.3} ms", m.nanoseconds / 1e6),
    };
    Figure { name: m.id.clone(), value, target: "reported".to_owned(), pass: true }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{figure, measured};

    #[test]
    fn a_speed_is_set_beside_the_bandwidth_of_its_thread_count() {
        let estimates = |ns: u32| json!({"median": {"point_estimate": ns}});
        let bench = |id: &str| json!({"full_id": id, "throughput": {"Bytes": 1000}});
        let all = [
            measured(&bench("read/memory/2"), &estimates(100)).unwrap(),
            measured(&bench("read/memory/1"), &estimates(200)).unwrap(),
            measured(&bench("gemv/avx2/TQ2_0/1"), &estimates(400)).unwrap(),
        ];
        assert_eq!(figure(&all[2], &all).value, "2.50 GB/s, 50 % of read bandwidth");
        assert_eq!(figure(&all[0], &all).value, "10.00 GB/s");
    }
}
