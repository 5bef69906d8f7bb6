//! Integration tests, one module per subject.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod allocations;
mod build;
mod decoder;
mod directories;
mod encoder;
mod format_config;
mod format_gguf;
mod format_links;
mod format_manifest;
mod format_package;
mod format_safetensors;
mod text_fixtures;
mod text_gguf;
mod text_injection;
mod text_stream;
mod text_template;
mod text_tokenizer;
mod tiny;
