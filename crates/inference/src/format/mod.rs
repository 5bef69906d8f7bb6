//! Model files: safetensors, GGUF, and the JSON beside them, read so that no file can hurt the process.
//!
//! Every count, length, offset, product and alignment is checked with checked arithmetic against the file's size before
//! anything is allocated for it; what passes is handed out as typed views. The readers are ours: no other parser of tensors
//! sees foreign bytes.

mod config;
mod dequantize;
mod dtype;
mod files;
mod foreign;
mod gguf;
mod gguf_metadata;
mod index;
pub(crate) mod json;
mod manifest;
mod package;
mod safetensors;
mod weights;

pub use config::ConfigReader;
pub use dtype::Dtype;
pub use files::Bytes;
pub use gguf_metadata::GgufMetadata;
pub use manifest::{HeadManifest, Manifest, ManifestFile, is_model_name};
pub use package::Package;
pub use weights::{TensorView, Weights};
