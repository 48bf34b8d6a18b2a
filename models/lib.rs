//! Fetching and rebuilding the real models that the project is measured with.
