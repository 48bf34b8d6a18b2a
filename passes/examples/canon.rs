//! Prints what canonicalisation makes of a model.
use std::collections::BTreeMap;
fn main() {
    let path = std::env::args().nth(1).unwrap();
    let t = std::time::Instant::now();
    let mut model = planish_onnx::read_model(path.as_ref()).unwrap();
    println!("read {:?}", t.elapsed());
    let mut manager = planish_passes::PassManager::new().with_verify();
    let r = planish_passes::canonicalize::canonicalize(&mut model, &mut manager);
    for report in manager.reports() {
        println!("{report}");
        for note in report.notes.iter().take(12) {
            println!("      {note}");
        }
    }
    r.unwrap();
    let mut ops: BTreeMap<String, usize> = BTreeMap::new();
    for id in model.graph.node_ids() {
        let n = model.graph.node(id);
        *ops.entry(format!("{}.{}", n.domain, n.op_type)).or_default() += 1;
    }
    println!("{ops:?}");
    if let Some(n) = std::env::args().nth(2) {
        let facts = planish_kernels::infer::infer(&model).unwrap();
        for id in model.graph.topological_order().unwrap().into_iter().take(n.parse().unwrap()) {
            let n = model.graph.node(id);
            let nm = |v: &Option<planish_ir::ValueId>| v.map_or("_".into(), |v| model.graph.value(v).name.clone());
            let o = n.output(0).unwrap();
            println!("{:?}:{:?} = {} {:?} {:?}", nm(&Some(o)), facts.shape(o), n.op_type, n.inputs.iter().map(nm).collect::<Vec<_>>(), n.attributes.keys());
        }
    }
}
