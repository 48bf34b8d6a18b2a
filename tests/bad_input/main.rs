//! Bad input of every kind gets one sentence and exit code 1, and leaves nothing behind; good
//! input of the same kind works.
mod arrays;
mod graphs;
mod learned;
mod model_files;
mod options;
mod output;
mod pipeline;
mod support;
mod texts;
mod weights;
#[path = "../common/words.rs"]
mod words;
