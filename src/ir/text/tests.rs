//! Texts of models, there and back.

use super::*;
use crate::{Attribute, DataType, Graph, Model, Node, Tensor, Value, ValueType};

/// A text that uses every part of the syntax, as it is printed.
const EVERYTHING: &str = r#"<
   ir_version: 10,
   opset_import: ["" : 23, "com.microsoft" : 1],
   producer_name: "a \"quoted\" \\ name",
   producer_version: "1",
   domain: "org.example",
   model_version: 7,
   doc_string: "two
lines # no comment",
   metadata_props: ["key": "value", "": "x"]
>
agraph (
   bool flag,
   float[N,"past + seq",?,4] X,
   float[] rank,
   undefined[2] kind,
   bare,
   int64[2] fixed = {1, -2},
   encoded("1204080a1207") sequence,
   float "float"
) => (float[N] Y, "other/out:0")
<
   float[2,2] w = {1.0, -0.5, 1e-6, 3.4028235e38},
   double d = {0.1},
   float[3] odd = {inf, -inf, nan},
   int4[3] codes = {-8, 7, -1},
   uint2[5] small = {0, 1, 2, 3, 1},
   float16[1] half = {15360},
   string[2] words = {"a \"b\"", "\xff\\"},
   float[0] nothing = {},
   complex64 c = {1.0, 2.0},
   uint64 big = {18446744073709551615},
   float[N] mid
>
{
   [first] mid = MatMul (X, w)
   a, "" = com.microsoft.SkipIt:two <alpha = 1.0, axis = -1, e: strings = [], f = [0.5, inf], g = "text", i = [1, 2], s = ["x", "y"], t = float[2] {1.0, 2.0}, ts = [int64 {1}, int64[1] {2}], whole = encoded("0a01")> (mid, "", flag)
   ["/a/b"] Y = "my-domain"."1op" ("float", d)
   "other/out:0" = If (flag) <else_branch = "" () => (z) {
      z = If (flag) <then_branch = inner (q) => (fl) {
         fl = Add (mid, q)
      }>
   }, then_branch = then () => (z)
   <
      float k = {1.0}
   >
   {
      z = Add (mid, k)
   }>
}
<
   domain: "org.example",
   overload: "fast",
   opset_import: ["" : 23],
   doc_string: "what it does"
>
Scale <factor, axis = 1, empty: ints = []> (x) => (y)
<
   float[N] x
>
{
   y = Mul <alpha: float = @factor> (x, x)
}
"#;

fn options() -> PrintOptions {
    PrintOptions::complete()
}

#[test]
fn what_is_parsed_prints_the_same() {
    let model = parse(EVERYTHING).unwrap();
    let printed = print(&model, &options());
    assert_eq!(printed, EVERYTHING);
    assert_eq!(print(&parse(&printed).unwrap(), &options()), printed);
}

#[test]
fn what_is_parsed_means_what_it_says() {
    let model = parse(EVERYTHING).unwrap();
    let graph = &model.graph;
    let constant = |name: &str| graph.constant(graph.find_value(name).unwrap()).unwrap();
    assert_eq!(constant("codes").to_i64_vec().unwrap(), [-8, 7, -1]);
    assert_eq!(constant("codes").bytes().as_ref(), [0x78, 0x0F]);
    assert_eq!(constant("small").bytes().as_ref(), [0b1110_0100, 0b01]);
    assert_eq!(constant("half").to_f32_vec().unwrap(), [1.0]);
    assert_eq!(constant("words").strings().unwrap()[1].as_ref(), b"\xff\\");
    assert_eq!(model.doc, "two\nlines # no comment");
    let shape = graph.value(graph.inputs[1]).shape().unwrap();
    assert_eq!(shape[1], crate::Dim::parse("seq + past"));
    assert!(is_unknown_dim(&shape[2]));
    assert!(graph.value(graph.inputs[5]).constant.is_some());
    let (node, _) = graph.producer(graph.find_value("a").unwrap()).unwrap();
    let node = graph.node(node);
    assert_eq!((node.domain.as_str(), node.overload.as_str()), ("com.microsoft", "two"));
    assert_eq!(node.inputs.len(), 3);
    assert!(node.inputs[1].is_none() && node.outputs[1].is_none());
    assert!(matches!(&node.attributes["f"], Attribute::Floats(f) if f == &[0.5, f32::INFINITY]));
    let function = &model.functions[0];
    assert_eq!(function.attributes, ["factor"]);
    assert!(matches!(&function.attribute_defaults[0].1, Attribute::Int(1)));
}

#[test]
fn the_forms_of_onnx_itself_are_read() {
    let text = r#"
        <ir_version: 8, opset_import: ["ai.onnx" : 18]> # a comment
        agraph (float[N] x) => (float[N] y) {
            s = Constant <value: tensor = float {2}>()
            t = Constant <value_floats: floats = [1, 2.5]>()
            z = Op(x, , s,) <alpha: float = 1>
            y = ai.onnx.Relu (z)
        }"#;
    let model = parse(text).unwrap();
    assert_eq!(model.opset(""), Some(18));
    let nodes: Vec<&Node> = model.graph.node_ids().map(|n| model.graph.node(n)).collect();
    assert_eq!(nodes[0].attributes["value"].as_tensor().unwrap().to_f32_vec().unwrap(), [2.0]);
    assert!(matches!(&nodes[1].attributes["value_floats"], Attribute::Floats(f) if f[0] == 1.0));
    assert_eq!(nodes[2].inputs.len(), 3);
    assert_eq!(nodes[2].attributes["alpha"].as_float(), Some(1.0));
    assert!(nodes[3].is("Relu"));
}

#[test]
fn a_captured_value_leads_to_the_enclosing_graph() {
    let model = parse(EVERYTHING).unwrap();
    let graph = &model.graph;
    let output = graph.find_value("other/out:0").unwrap();
    let branches = &graph.producer_node(output).unwrap().attributes;
    let outer = branches["else_branch"].graphs()[0].captures.iter().map(|c| c.outer);
    let names: Vec<&str> = outer.map(|v| graph.value(v).name.as_str()).collect();
    assert_eq!(names, ["flag", "mid"]);
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn errors_say_where_they_are() {
    assert_eq!(error(""), "line 1, column 1: expected a name");
    assert_eq!(error("g (x) => (y) {\n  y = Neg (x"), {
        "line 2, column 13: expected ')', found the end of the text"
    });
    let undefined = error("g () => (y) { y = Neg (ghost) }");
    assert!(undefined.contains("reads the value \"ghost\""), "{undefined}");
    let twice = error("g (x) => (y) {\n  y = Neg (x)\n  y = Abs (x) }");
    assert!(twice.starts_with("line 3, column 3: the value \"y\" is defined twice"), "{twice}");
    assert!(error("g () => (y) <float[2] y = {1}> {}").contains("needs 8 bytes, but has 4"));
    assert!(error("g () => (y) <int4 y = {8}> {}").contains("8 is not from -8 to 7"));
    assert!(error("g () => (y) <int8 y = {128}> {}").contains("128 is out of range"));
    assert!(error("g () => (y) <float[N] y = {}> {}").contains("numeric sizes"));
    assert!(error("g (x) => (x) { y = Op <a = []> () }").contains("an empty list needs"));
    assert!(error("g (x) => (x) { y = Op <a = 1, a = 2> () }").contains("given twice"));
    assert!(error("g (x) => (x) { y = Op <a: int = 1.5> () }").contains("declared type"));
    assert!(error("g (\"x) => (x) {}").contains("has no end"));
    assert!(error("<color: 1> g () => () {}").contains("unknown key \"color\""));
    let cycle = "g () => (a) { a = Neg (b) b = Neg (a) }";
    assert!(error(cycle).contains("cycle"), "{}", error(cycle));
}

#[test]
fn endless_nesting_is_an_error() {
    let text = "g () => (y) { y = If () <b = ".repeat(10_000);
    assert!(error(&text).contains("nested too deeply"));
}

#[test]
fn a_text_that_breaks_off_is_an_error() {
    let tail = EVERYTHING.find("\n<\n   domain: \"org").unwrap();
    for (end, _) in EVERYTHING.char_indices().filter(|(i, _)| *i < tail - 1) {
        assert!(parse(&EVERYTHING[..end]).is_err(), "{}", &EVERYTHING[..end]);
    }
}

#[test]
fn large_tensors_are_elided() {
    let mut graph = Graph::new("g");
    let w = graph.add_constant("w", Tensor::from_vec(&[20], vec![1.0f32; 20]));
    let b = graph.add_constant("b", Tensor::from_vec(&[2], vec![1.0f32, 2.0]));
    let node = Node::new("Op", vec![Some(w), Some(b)]);
    let y = graph.add_op("y", node.with("t", Tensor::from_vec(&[17], vec![0i64; 17])));
    graph.value_mut(y).ty = ValueType::tensor(DataType::F32, vec![20i64.into()]);
    graph.outputs.push(y);
    let options = PrintOptions { types: true, ..PrintOptions::default() };
    let expected = "g () => (float[20] y)\n<\n   float[20] w,  # elided: 20 elements\n   \
                    float[2] b = {1.0, 2.0}\n>\n{\n   \
                    [y] y = Op <t = int64[17] {}> (w, b)  # float[20]\n}\n";
    assert_eq!(print(&graph, &options), expected);
    assert!(error(expected).contains("needs 136 bytes"));
}

#[test]
fn names_that_look_like_something_else_are_quoted() {
    let mut graph = Graph::new("int64");
    for name in ["float", "seq", "nan", "encoded", "a b", "ü", "1"] {
        let value = Value { name: name.into(), ..Value::default() };
        let id = graph.add_value(value).unwrap();
        graph.inputs.push(id);
    }
    let model = Model { graph, ..Model::default() };
    let text = print(&model, &options());
    assert!(text.contains(r#""int64" ("float", "seq", "nan", "encoded", "a b", "ü", "1")"#));
    assert_eq!(print(&parse(&text).unwrap(), &options()), text);
}
