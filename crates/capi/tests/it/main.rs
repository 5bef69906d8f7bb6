//! The header and the library as a C program sees them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod abi;
mod conformance;
mod declarations;
mod exports;
mod faults;
mod header;
mod host;
mod install;
mod programs;
mod watched;
