//! What the figures were measured on.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use serde::Serialize;

/// Instruction sets that decide which form of a kernel runs, by their names in Linux.
const INSTRUCTION_SETS: [&str; 5] = ["avx2", "avx512f", "avx512_vnni", "amx_int8", "asimddp"];

/// A machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// Its processor's own name.
    pub cpu: String,
    /// Those of the instruction sets that matter that it has, as far as known.
    pub instruction_sets: Vec<&'static str>,
    /// Logical cores.
    pub cores: usize,
    /// Processes that wanted to run over the last minute, on average; nothing where the system
    /// does not say. Far above 0 before the measurement, other work disturbs it.
    pub load: Option<f64>,
}

impl Machine {
    /// This machine, now.
    pub fn new() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").ok();
        Self {
            cpu: field(&cpuinfo, "model name").or_else(sysctl).unwrap_or("unknown".into()),
            instruction_sets: instruction_sets(&cpuinfo),
            cores: available_parallelism().map_or(1, usize::from),
            load: load.and_then(|load| load.split(' ').next()?.parse().ok()),
        }
    }
}

/// The first value of `name : value`.
fn field(cpuinfo: &str, name: &str) -> Option<String> {
    let pairs = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let mut values = pairs.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim());
    values.next().map(str::to_owned)
}

fn instruction_sets(cpuinfo: &str) -> Vec<&'static str> {
    let flags = field(cpuinfo, "flags").or_else(|| field(cpuinfo, "Features")).unwrap_or_default();
    let has = |name: &&str| flags.split(' ').any(|flag| flag == *name);
    INSTRUCTION_SETS.into_iter().filter(has).collect()
}

/// The processor's name on macOS.
fn sysctl() -> Option<String> {
    let output = Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"]).output().ok()?;
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_read_from_linux() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2 avx512f\n\
                       processor\t: 1\nmodel name\t: Other\n";
        assert_eq!(field(cpuinfo, "model name").unwrap(), "Some CPU @ 2 GHz");
        assert_eq!(instruction_sets(cpuinfo), ["avx2", "avx512f"]);
        assert_eq!(field("", "model name"), None);
        assert!(instruction_sets("").is_empty());
    }
}
