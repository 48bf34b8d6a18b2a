use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Instant;
use planish_cpu::ThreadPool;
use planish_ir::{Tensor, ValueId};
use planish_kernels::buffers::BufferPool;
use planish_kernels::{CpuContext, Kernel, OpNode, ops};

#[test]
fn perf() {
    for which in ["optimum", "dynamo18"] { for seq in [1usize, 128] {
    let path = std::env::var("HOME").unwrap() + "/.cache/planish/smollm2/" + which + "/model.onnx";
    let model = planish_onnx::read_model(Path::new(&path)).unwrap();
    let g = &model.graph;
    let past = 128usize;
    let mut values: HashMap<ValueId, Tensor> = HashMap::new();
    for id in g.value_ids() {
        if let Some(t) = g.constant(id) { values.insert(id, t.clone()); }
    }
    for i in &g.inputs {
        let v = g.value(*i);
        let shape: Vec<usize> = v.shape().unwrap().iter().map(|d| d.eval(&|s| Some(match s { "batch" | "batch_size" => 1, "sequence_length" => seq as i64, "past_sequence_length" => past as i64, _ => (past + seq) as i64 })).unwrap() as usize).collect();
        let n: usize = shape.iter().product();
        let t = match v.name.as_str() {
            "input_ids" => Tensor::from_vec(&shape, vec![5i64; n]),
            "attention_mask" => Tensor::from_vec(&shape, vec![1i64; n]),
            "position_ids" => Tensor::from_vec(&shape, (past as i64..(past + seq) as i64).collect()),
            _ => Tensor::from_vec(&shape, vec![0.1f32; n]),
        };
        values.insert(*i, t);
    }
    let order = g.topological_order().unwrap();
    let (pool, buffers) = (ThreadPool::new(2), BufferPool::new());
    let mut caches = Vec::new();
    let kernels: Vec<Option<Box<dyn Kernel>>> = order.iter().map(|id| {
        let node = g.node(*id);
        let op = ops::find(&node.domain, &node.op_type).unwrap();
        let view = OpNode { node, opset: 18 };
        let c: Vec<Option<Tensor>> = node.inputs.iter().map(|i| g.constant((*i)?).cloned()).collect();
        op.cpu.and_then(|cpu| cpu(&view, &c).unwrap())
    }).collect();
    for round in 0..3 {
        let mut values = values.clone();
        let mut times: BTreeMap<String, (u128, usize)> = BTreeMap::new();
        let t0 = Instant::now();
        for (id, kernel) in order.iter().zip(&kernels) {
            let node = g.node(*id);
            let op = ops::find(&node.domain, &node.op_type).unwrap();
            let start = Instant::now();
            let outs = match kernel {
                Some(k) => {
                    let ins: Vec<Option<&Tensor>> = node.inputs.iter().enumerate().map(|(i, v)| v.map(|v| &values[&v]).filter(|_| !(k.owns_input(i)))).collect();
                    k.run(&mut CpuContext { pool: &pool, buffers: &buffers, caches: &mut caches }, &ins).unwrap()
                }
                None => {
                    let ins: Vec<Option<Tensor>> = node.inputs.iter().map(|v| v.map(|v| values[&v].clone())).collect();
                    (op.eval)(&OpNode { node, opset: 18 }, &ins).unwrap()
                }
            };
            let e = times.entry(format!("{}{}", node.op_type, if kernel.is_some() { "" } else { " (eval)" })).or_default();
            e.0 += start.elapsed().as_micros(); e.1 += 1;
            for (o, t) in node.outputs.iter().zip(outs) { if let Some(o) = o { values.insert(*o, t); } }
        }
        if round == 2 {
            println!("== {which} seq {seq}: total {:?}", t0.elapsed());
            let mut v: Vec<_> = times.into_iter().collect(); v.sort_by_key(|x| std::cmp::Reverse(x.1.0));
            for (k, (us, n)) in v.iter().take(16) { println!("{k}: {us} µs, {n}"); }
        }
    }
    } }
}
