//! What the command line asks for, as plain functions over plain requests.
mod error;
mod finite;
mod inspect;
mod model;
mod output_folder;
mod quantize;
mod report;
mod staging;

pub use error::{AppError, check_readable};
pub use inspect::{InspectReport, LeftAloneReport, Recognised, ValueReport, inspect};
pub use model::{Device, OpenOptions, forward, open_model};
pub use quantize::{
    CalibrationText, Effort, Format, Method, QuantizeReport, QuantizeRequest, Rounding, Stage,
    quantize,
};
pub use report::{ReportRequest, report};
