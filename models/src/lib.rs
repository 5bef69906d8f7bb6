//! The default models as bytes: files of the Hugging Face layout, by name, and nothing else.
//!
//! What they are, what they were trained on and how well they do stands in the `card` of each `antiphon.json`.

/// Names the files of one model folder and takes their bytes into the program.
macro_rules! files {
    ($folder:literal, $($name:literal),+) => {
        &[$(($name, include_bytes!(concat!("../", $folder, "/", $name)))),+]
    };
}

/// The default analyst: an encoder with heads for intent, sentiment and entities.
pub const ANALYST: &[(&str, &[u8])] =
    files!("analyst", "antiphon.json", "config.json", "tokenizer.json", "model.safetensors");

/// The default responder: a decoder that answers in a few sentences.
pub const RESPONDER: &[(&str, &[u8])] = files!(
    "responder",
    "antiphon.json",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors"
);
