//! What the command line asks for, as plain functions over plain requests.
mod device;
mod error;
mod finite;
mod inspect;
mod model;
mod output_folder;
mod quantize;
mod report;
mod staging;

pub use device::{Device, FloatType, OpenOptions};
pub use error::{AppError, check_readable};
pub use inspect::{InspectReport, LeftAloneReport, Recognised, ValueReport, inspect};
pub use model::{forward, open_model};
pub use quantize::{
    CalibrationText, Effort, Format, Method, QuantizeReport, QuantizeRequest, Rounding, Stage,
    quantize,
};
pub use report::{ReportRequest, report};
