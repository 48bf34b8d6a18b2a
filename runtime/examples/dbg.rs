use planish_runtime::decoder::*; use planish_runtime::engine::cpu::CpuEngine; use planish_runtime::*;
use std::time::Instant;
fn rss() -> u64 { std::fs::read_to_string("/proc/self/status").unwrap().lines().filter(|l| l.starts_with("VmHWM")||l.starts_with("RssAnon")||l.starts_with("VmRSS")).for_each(|l| println!("{l}")); 0 }
fn main() {
    let a: Vec<String> = std::env::args().collect();
    if a[1]=="steps" { return steps(); }
    let mut model = planish_onnx::read_model(std::path::Path::new(&a[1])).unwrap();
    if let Ok(bits) = std::env::var("BITS") {
        use planish_passes::quantize::*;
        planish_passes::canonicalize::canonicalize(&mut model, &mut planish_passes::PassManager::new()).unwrap();
        let o = QuantizeOptions { bits: bits.parse().unwrap(), method: Method::Hadamard, clip_search: false, ..Default::default() };
        let t = Instant::now();
        quantize(&mut model, &o, None, &mut |_| {}).unwrap();
        println!("quantized in {:?}", t.elapsed());
    }
    let mode = if a.get(2).map(|s| s=="raw").unwrap_or(false) { Mode::AsImported } else { Mode::Lowered };
    let t = Instant::now();
    let profile = std::env::var("PROFILE").is_ok();
    let mut d = Decoder::new(model, &CpuEngine::new(2), DecoderOptions { mode, profile, ..Default::default() }).unwrap();
    println!("open {:?} {:?}", t.elapsed(), d.summary());
    for r in d.pass_reports() { println!("{r}"); for n in &r.notes { println!("    {n}"); } }
    rss();
    let ids: Vec<u32> = (0..512).map(|i| (i * 37 % 400) as u32).collect();
    for _ in 0..2 { d.reset(); let t = Instant::now(); d.forward(&ids[..d.max_positions().unwrap_or(512).min(512)/2], Logits::Last).unwrap(); println!("prefill {:?}", t.elapsed()); }
    let t = Instant::now();
    let n = 30;
    for i in 0..n { d.forward(&[i], Logits::Last).unwrap(); }
    println!("decode {:?} a token", t.elapsed() / n);
    println!("{:?}", d.memory());
    if let Some(p) = d.profile() { println!("{p}"); }
    rss();
}

fn steps() {
    use planish_ir::*; use planish_runtime::engine::*;
    let mut m = Model { graph: Graph::new("g"), ..Model::default() }; m.set_opset("", 23);
    let g = &mut m.graph;
    let x = g.new_value("x", ValueType::tensor(DataType::F32, vec![Dim::symbol("n")])); g.inputs.push(x);
    let mut v = x; for _ in 0..1000 { v = g.add_op("v", Node::new("Identity", vec![Some(v)])); } g.outputs.push(v);
    let e = CpuEngine::new(2).compile(&m, &CompileOptions::default()).unwrap(); let mut s = e.session();
    let t = Tensor::from_vec(&[1], vec![1f32]);
    for _ in 0..3 { let i = Instant::now(); for _ in 0..1000 { s.run(std::slice::from_ref(&t)).unwrap(); } println!("{:?} a step", i.elapsed() / 1000000); }
}
