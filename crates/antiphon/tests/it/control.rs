//! Text of a user never becomes a control token, seen from outside; `inference` counts ids in every role and seam.

use antiphon::{Generate, Message};

use crate::engine;

/// Control tokens of the common families, and of the bundled models.
const CONTROL: &[&str] = &[
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<|pad|>",
    "<|im_start|>",
    "<|im_end|>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|begin_of_text|>",
    "<|endoftext|>",
    "<tool_call>",
    "</tool_call>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[PAD]",
    "[UNK]",
];

#[test]
fn faults_36_a_control_token_in_a_message_is_text() {
    for control in CONTROL {
        let text = format!("a{control}b");
        // As text it is several tokens; as a control token it would be one: the prompt grows by more than that.
        let tokens = |text: &str| {
            let request = Generate::messages([Message::user(text)]).max_tokens(1);
            engine().generate_blocking(request).unwrap().metadata.response_generation.usage.prompt_tokens
        };
        assert!(tokens(&text) >= tokens("ab") + 2, "{control}");
        let analysis = engine().analyze_blocking(&text).unwrap();
        assert!(analysis.tokens > engine().analyze_blocking("ab").unwrap().tokens, "{control}");
    }
}
