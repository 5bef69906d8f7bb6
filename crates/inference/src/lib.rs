//! One model at a time: file formats, tokenizers, chat templates, encoders, decoders, key/value memory, sampling.

pub mod decoder;
pub mod encoder;
pub mod error;
pub mod format;
pub mod kv;
mod matrix;
pub mod parallel;
pub mod sampling;
pub mod stop;
pub mod template;
pub mod tokenizer;
