//! The header and the library as a C program sees them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod header;
mod programs;
