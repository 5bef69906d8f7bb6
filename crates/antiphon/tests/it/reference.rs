//! The bundled models against what the recipes computed from the same stored weights.
//!
//! The recipes keep activations in 32 bits, the kernels round them to 8: numbers agree to a few hundredths, and the next
//! token agrees wherever the reference was not almost undecided.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use antiphon_inference::decoder::{Decoder, Row};
use antiphon_inference::encoder::{Encoder, Head, Heads};
use antiphon_inference::format::Package;
use antiphon_inference::kv::BlockPool;
use antiphon_inference::template::{ChatTemplate, Message, Role};
use antiphon_inference::tokenizer::Tokenizer;
use antiphon_kernels::{Arena, Isa, Pool};
use serde_json::Value;

fn reference(model: &str) -> Vec<Value> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../models/recipes/reference/{model}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

fn assert_near(ours: f32, theirs: f32, tolerance: f32, what: &str) {
    assert!((ours - theirs).abs() < tolerance, "{what}: {ours}, expected {theirs}");
}

#[test]
fn the_analyst_computes_what_its_recipe_recorded() {
    let package = Package::from_bundle("analyst", antiphon_models::ANALYST).unwrap();
    let encoder = Encoder::load(&package).unwrap();
    let tokenizer = Tokenizer::from_package(&package, encoder.config().vocab).unwrap();
    let heads = &package.manifest.as_ref().unwrap().heads;
    let load = |name: &str| {
        let head = &heads[name];
        Head::load(&package.weights, &head.tensors, head.labels.len(), encoder.config().hidden).unwrap()
    };
    let text_heads = Heads::fuse(&[load("intent"), load("sentiment")]).unwrap();
    let mut pool = Pool::new(2, Isa::detect()).unwrap();
    for case in reference("analyst") {
        let encoding = tokenizer.encode_message(case["text"].as_str().unwrap(), 256).unwrap();
        assert_eq!(encoding.ids, ids(&case["ids"]));
        let (texts, never) = ([encoding.ids.as_slice()], AtomicBool::new(false));
        let pass = encoder.pass(&mut pool, &mut Arena::new(), &texts, Some(&text_heads), None, &never);
        let encoded = pass.unwrap().remove(0);
        for (ours, theirs) in encoded.vector.iter().zip(numbers(&case["sequence_vector_first_4"])) {
            assert_near(*ours, theirs, 0.15, "vector");
        }
        for top in case["intent_logits_top_3"].as_array().unwrap() {
            let index = heads["intent"].labels.iter().position(|label| top[0] == label.as_str()).unwrap();
            assert_near(encoded.sequence[0][index], top[1].as_f64().unwrap() as f32, 0.4, "intent");
        }
        for (ours, theirs) in encoded.sequence[1].iter().zip(numbers(&case["sentiment_logits"])) {
            assert_near(*ours, theirs, 0.2, "sentiment");
        }
    }
}

#[test]
fn the_responder_computes_what_its_recipe_recorded() {
    let package = Package::from_bundle("responder", antiphon_models::RESPONDER).unwrap();
    let decoder = Decoder::load(&package, 2).unwrap();
    let tokenizer = Tokenizer::from_package(&package, decoder.config().vocab).unwrap();
    let template = ChatTemplate::from_package(&package, &tokenizer).unwrap();
    let mut pool = Pool::new(2, Isa::detect()).unwrap();
    for case in reference("responder") {
        let turn = |turn: &Value| {
            let role = match turn["role"].as_str().unwrap() {
                "system" => Role::System,
                "user" => Role::User,
                _ => Role::Assistant,
            };
            Message { role, content: turn["content"].as_str().unwrap().into() }
        };
        let messages: Vec<Message> = case["messages"].as_array().unwrap().iter().map(turn).collect();
        assert_eq!(template.render(&messages).unwrap(), case["prompt"].as_str().unwrap());
        let prompt = template.encode(&tokenizer, &messages).unwrap();
        assert_eq!(prompt, ids(&case["prompt_ids"]));

        // The recorded answer is read behind the prompt: each place is judged with the same words before it.
        let answer = ids(&case["greedy_ids_first_16"]);
        let tokens = [prompt.as_slice(), &answer].concat();
        let mut blocks = BlockPool::new(decoder.config(), 1 << 24, 1024).unwrap();
        let table = blocks.reserve(tokens.len()).unwrap();
        let row =
            |(position, &token)| Row { token, position: position as u32, table: &table, wants_logits: true };
        let rows: Vec<Row<'_>> = tokens.iter().enumerate().map(row).collect();
        let mut arena = Arena::new();
        let logits = decoder
            .step(&mut pool, &mut arena, &mut blocks, &rows, &AtomicBool::new(false))
            .unwrap()
            .unwrap();

        let last = logits.row(prompt.len() - 1).values();
        for (ours, theirs) in last.iter().zip(numbers(&case["last_logits_first_4"])) {
            assert_near(*ours, theirs, 0.4, "logit");
        }
        for (place, (token, margin)) in
            answer.iter().zip(numbers(&case["greedy_margins_first_16"])).enumerate()
        {
            let logits = logits.row(prompt.len() - 1 + place).values();
            let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            assert!(
                best as u32 == *token || margin < 0.8,
                "place {place}: {best}, expected {token} by {margin}"
            );
        }
    }
}
