//! Tests of the graphs of calibration.
