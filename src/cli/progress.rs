//! Progress bars, for terminals only.
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use planish::app::Stage;
use planish_runtime::evaluate::Progress;

/// A bar on stderr; it draws nothing where stderr is no terminal, and goes when it is dropped.
#[derive(Debug)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// An empty bar.
    pub(super) fn new() -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {eta} {msg}");
        Self(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    /// Shows `done` of `total` steps of a stage.
    pub(super) fn show(&self, stage: &str, done: u64, total: u64) {
        if self.0.prefix() != stage {
            self.0.set_prefix(stage.to_owned());
            self.0.reset();
        }
        self.0.set_length(total);
        self.0.set_position(done);
    }

    /// Shows how far a quantisation has come.
    pub(super) fn show_stage(&self, stage: &Stage<'_>) {
        self.show(stage.name, stage.done, stage.total);
        self.0.set_message(stage.loss.map_or(String::new(), |loss| format!("loss {loss:.3e}")));
    }

    /// Shows how far an evaluation has come.
    pub(super) fn show_evaluation(&self, progress: Progress) {
        self.show("evaluate", progress.tokens_done as u64, progress.tokens as u64);
        if let Some(perplexity) = progress.perplexity {
            self.0.set_message(format!("perplexity {perplexity:.3}"));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
