//! Prints the logits that tract computes: `tract_logits MODEL.onnx 12,7,90`.

use std::path::Path;
use std::process::ExitCode;

use planish_oracle::tract_logits;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, ids] = &arguments[..] else {
        eprintln!("usage: tract_logits MODEL.onnx IDS");
        return ExitCode::FAILURE;
    };
    let ids: Result<Vec<i64>, _> = ids.split(',').map(str::parse).collect();
    let logits = match ids {
        Ok(ids) => tract_logits(Path::new(model), &ids).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match logits {
        Ok((_, values)) => {
            values.iter().for_each(|value| println!("{value}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
