//! `planish run`: generate text.
use std::ops::ControlFlow;
use std::path::PathBuf;

use planish_runtime::generate::{
    GenerateOptions, Generation, Sampler, SamplingOptions, StopReason, generate,
};
use planish_runtime::text::{Message, TextTokenizer};

use super::Global;
use super::common::{load_tokenizer, open_checked};
use super::output::{note, print};

/// Generate text from a prompt
///
/// Streams the text to stdout; statistics go to stderr.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  planish run quantized --prompt \"The capital of France is\" --max-new-tokens 16
  planish run quantized --chat --prompt \"Write a haiku.\" --temperature 0.8 --top-p 0.95 --seed 7")]
pub(super) struct RunArgs {
    /// The model: a folder with model.onnx and tokenizer.json
    #[arg(value_name = "DIR")]
    model: PathBuf,
    /// What the text begins with, or with --chat what the user says
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Put the prompt into the model's chat template
    #[arg(long)]
    chat: bool,
    /// Most tokens to generate
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,
    /// Randomness; 0 takes the likeliest token always
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Choose among the likeliest tokens that have this probability together
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Seed of the random choices
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

pub(super) fn execute(args: RunArgs, global: &Global) -> anyhow::Result<()> {
    let RunArgs { temperature, top_p, seed, max_new_tokens, .. } = args;
    let sampling = SamplingOptions { temperature, top_p, seed };
    Sampler::new(sampling)?;
    let tokenizer = load_tokenizer(&args.model)?;
    let prompt = prompt_ids(&tokenizer, &args.prompt, args.chat)?;
    let mut model = open_checked(&args.model, &global.open_options(1), &tokenizer)?;

    let mut written = Ok(());
    let options = GenerateOptions { max_new_tokens, sampling };
    let generation = generate(model.as_mut(), &tokenizer, &prompt, options, &mut |piece| {
        written = print(piece);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    written?;
    print("\n")?;
    note(&summary(&generation));
    Ok(())
}

/// The tokens of the prompt. A chat template writes the model's special tokens itself.
fn prompt_ids(tokenizer: &TextTokenizer, prompt: &str, chat: bool) -> anyhow::Result<Vec<u32>> {
    if !chat {
        return Ok(tokenizer.encode(prompt, true)?);
    }
    let text = tokenizer.chat_template()?.render(&[Message::user(prompt)], true)?;
    Ok(tokenizer.encode(&text, false)?)
}

fn summary(generation: &Generation) -> String {
    let stop = match generation.stop {
        StopReason::EndOfText => "the text ended",
        StopReason::MaxNewTokens => "the maximum was reached",
        StopReason::ContextFull => "the context is full",
        StopReason::Callback => "stopped",
    };
    format!(
        "prompt: {} tokens at {:.1} tokens/s; generated: {} tokens at {:.1} tokens/s; {stop}",
        generation.prompt_tokens,
        generation.prefill_tokens_per_s(),
        generation.ids.len(),
        generation.decode_tokens_per_s(),
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    #[test]
    fn chat_puts_the_prompt_into_the_template() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/smollm2");
        let tokenizer = TextTokenizer::load(&folder).unwrap();
        let plain = prompt_ids(&tokenizer, "Hi", false).unwrap();
        let chat = prompt_ids(&tokenizer, "Hi", true).unwrap();
        assert!(chat.len() > plain.len() + 10 && chat[0] == 1);
        assert!(tokenizer.decode(&chat).unwrap().ends_with("user\nHi\nassistant\n"));
    }

    #[test]
    fn statistics_are_one_line() {
        let second = Duration::from_secs(1);
        let generation = Generation {
            ids: vec![5, 6, 2],
            stop: StopReason::EndOfText,
            prompt_tokens: 10,
            decoded_tokens: 2,
            prefill: second / 2,
            decode: second,
        };
        let line = "prompt: 10 tokens at 20.0 tokens/s; generated: 3 tokens at 2.0 tokens/s; the \
                    text ended";
        assert_eq!(summary(&generation), line);
    }
}
