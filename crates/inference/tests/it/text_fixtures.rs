//! Small tokenizers of every family, and the control tokens that users write into their messages.

use antiphon_inference::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

/// Control tokens of the common families.
pub(crate) const CONTROL: [&str; 24] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<s>",
    "</s>",
    "<unk>",
    "<pad>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<</SYS>>",
    "<|begin_of_text|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<tool_call>",
    "</tool_call>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[CLS]",
    "[SEP]",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
];

/// One file of each kind.
pub(crate) fn all() -> Vec<(&'static str, Tokenizer)> {
    let files = [
        ("byte level", byte_level()),
        ("sentence piece", sentence_piece()),
        ("unigram", unigram()),
        ("metaspace", metaspace()),
    ];
    files
        .into_iter()
        .map(|(name, file)| (name, load(&file).unwrap_or_else(|error| panic!("{name}: {error}"))))
        .collect()
}

/// Loads a file whose model has as many rows as anything here needs.
pub(crate) fn load(file: &Value) -> antiphon_inference::error::Result<Tokenizer> {
    Tokenizer::from_json(file.to_string().as_bytes(), ROWS)
}

/// GPT-2's kind: a token for each byte, a few merges, and control tokens, one in three not `special`. Two of them stand
/// in the vocabulary itself and can be reached by merges, as adversarial files have it.
pub(crate) fn byte_level() -> Value {
    let mut vocab: Vec<String> = alphabet();
    let mut merges = Vec::new();
    for word in ["Ġthe", "hello", "Ġworld", "<s>", "</s>"] {
        let characters: Vec<String> = word.chars().map(String::from).collect();
        let mut left = characters[0].clone();
        for right in &characters[1..] {
            let union = format!("{left}{right}");
            if !vocab.contains(&union) {
                merges.push(json!([left, right]));
                vocab.push(union.clone());
            }
            left = union;
        }
    }
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added(&vocab),
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": numbered(&vocab), "merges": merges, "ignore_merges": true},
    })
}

/// SentencePiece's kind as BPE: a leading `▁`, bytes for what has no token.
pub(crate) fn sentence_piece() -> Value {
    let mut vocab = vec!["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()];
    vocab.extend((0..=255_u8).map(|byte| format!("<0x{byte:02X}>")));
    vocab.extend("▁abcdefghijklmnopqrstuvwxyz<>/|_[]é".chars().map(String::from));
    vocab.extend(["<s", "</", "</s", "▁t", "▁th", "▁the", "he", "hell", "ll", "hello"].map(String::from));
    let merges =
        ["< s", "<s >", "< /", "</ s", "</s >", "▁ t", "▁t h", "▁th e", "h e", "l l", "he ll", "hell o"];
    json!({
        "version": "1.0",
        "added_tokens": added(&vocab),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": numbered(&vocab), "merges": merges},
    })
}

/// Unigram, with control and byte tokens as ordinary pieces that score well.
pub(crate) fn unigram() -> Value {
    let mut pieces = vec![("<unk>".to_owned(), 0.0)];
    pieces.extend((0..=255_u8).map(|byte| (format!("<0x{byte:02X}>"), -5.0)));
    pieces.extend(
        CONTROL[..8].iter().filter(|token| **token != "<unk>").map(|token| ((*token).to_owned(), -1.0)),
    );
    pieces.extend(
        "▁abcdefghijklmnopqrstuvwxyz<>/|_[]0x1234".chars().map(|character| (character.to_string(), -8.0)),
    );
    let mut seen = std::collections::HashSet::new();
    pieces.retain(|(piece, _)| seen.insert(piece.clone()));
    let names: Vec<String> = pieces.iter().map(|(piece, _)| piece.clone()).collect();
    json!({
        "added_tokens": added(&names),
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "ByteFallback"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}]},
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": true, "vocab": pieces},
    })
}

/// BPE over characters behind a `Metaspace` that splits words.
pub(crate) fn metaspace() -> Value {
    let mut file = sentence_piece();
    file["normalizer"] = Value::Null;
    file["pre_tokenizer"] =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    file["decoder"] = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    file
}

/// BERT's kind: lower case, word pieces, `[CLS] … [SEP]`.
pub(crate) fn word_piece() -> Value {
    let words = [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "account", "un", "##able", "##s",
        "i", "can", "'", "t", ",", ".", "!", "<", ">", "|", "s", "end", "help", "cafe", "[", "]",
    ];
    let vocab: Vec<String> = words.map(String::from).to_vec();
    let special = |id: usize| {
        json!({"id": id, "content": words[id], "special": true, "normalized": false, "lstrip": false, "rstrip": false,
            "single_word": false})
    };
    json!({
        "added_tokens": (0..5).map(special).collect::<Vec<_>>(),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": numbered(&vocab)},
    })
}

/// The smallest file there is: whole words.
pub(crate) fn word_level() -> Value {
    json!({
        "added_tokens": [{"id": 2, "content": "<|end|>", "special": true}],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "unk_token": "a", "vocab": {"a": 0, "b": 1, "<|end|>": 2}},
    })
}

/// GPT-2's alphabet in order of bytes.
pub(crate) fn alphabet() -> Vec<String> {
    let mut next = 0x100;
    let character = |byte: u8| {
        let printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        let code = if printable {
            u32::from(byte)
        } else {
            next += 1;
            next - 1
        };
        char::from_u32(code).expect("the codes are below U+0200").to_string()
    };
    (0..=255).map(character).collect()
}

/// Every control token: with the vocabulary's number where it is in there, else behind it.
fn added(vocab: &[String]) -> Vec<Value> {
    let mut next = vocab.len();
    let entry = |(index, content): (usize, &&str)| {
        let id = vocab.iter().position(|token| token == content).unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        json!({"id": id, "content": content, "special": index % 3 != 0, "normalized": false, "lstrip": false,
            "rstrip": false, "single_word": false})
    };
    CONTROL.iter().enumerate().map(entry).collect()
}

fn numbered(vocab: &[String]) -> Map<String, Value> {
    vocab.iter().enumerate().map(|(id, token)| (token.clone(), Value::from(id))).collect()
}

pub(crate) const ROWS: usize = 1000;
