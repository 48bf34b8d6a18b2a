//! Where the time of a session's runs went.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

/// Time of all nodes of one operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpTime {
    /// Operator with its domain.
    pub op: String,
    /// How many nodes ran, all runs together.
    pub count: u64,
    /// How long they took.
    pub time: Duration,
}

/// Time by operator, the most expensive first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// One line an operator.
    pub ops: Vec<OpTime>,
}

impl Profile {
    /// Sums up (operator, runs, nanoseconds) of single nodes.
    pub(crate) fn of_steps<'a>(steps: impl Iterator<Item = (&'a str, u64, u64)>) -> Self {
        let mut by_op: HashMap<&str, (u64, u64)> = HashMap::new();
        for (op, count, nanos) in steps {
            let sums = by_op.entry(op).or_default();
            *sums = (sums.0 + count, sums.1 + nanos);
        }
        let line = |(op, (count, nanos)): (&str, (u64, u64))| OpTime {
            op: op.to_owned(),
            count,
            time: Duration::from_nanos(nanos),
        };
        let mut ops: Vec<OpTime> = by_op.into_iter().map(line).collect();
        ops.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| a.op.cmp(&b.op)));
        Self { ops }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: f64 = self.ops.iter().map(|op| op.time.as_secs_f64()).sum();
        for OpTime { op, count, time } in &self.ops {
            let (millis, share) = (time.as_secs_f64() * 1e3, time.as_secs_f64() / total.max(1e-12));
            writeln!(f, "{op:40} {count:9} {millis:12.3} ms {:5.1} %", share * 100.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_an_operator_are_summed_and_sorted_by_time() {
        let steps = [("Add", 2, 10), ("MatMul", 1, 500), ("Add", 3, 20)];
        let profile = Profile::of_steps(steps.into_iter());
        assert_eq!(profile.ops[0].op, "MatMul");
        assert_eq!((profile.ops[1].count, profile.ops[1].time.as_nanos()), (5, 30));
        assert!(profile.to_string().contains("MatMul"));
    }
}
