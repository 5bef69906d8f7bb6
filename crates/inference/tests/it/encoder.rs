//! The encoder against candle's, and against itself in every other batch, thread count and instruction set.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use antiphon_inference::encoder::{Encoded, Encoder, Head, Heads};
use antiphon_inference::error::ErrorKind;
use antiphon_inference::format::Package;
use antiphon_kernels::{Arena, Isa, Pool};
use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::{Module, VarBuilder};
use candle_transformers::models::bert::BertModel;

use crate::tiny::{self, CONTEXT, HIDDEN, Random, Tensors, VOCAB};

const LABELS: usize = 5;
const TAGS: usize = 3;

type Write = fn(&Path, &serde_json::Value, &Tensors) -> Tensors;
/// With a scale a block, and with one a row.
const Q8_0: [Write; 2] = [tiny::write_q8_0, tiny::write_q8_0_rows];

struct Model {
    encoder: Encoder,
    /// Of intents, and that of the tokens once more.
    text_heads: Heads,
    entities: Head,
}

impl Model {
    fn load(dir: &Path) -> Self {
        let package = Package::open(dir).unwrap();
        let head = |name, labels| Head::load(&package.weights, name, labels, HIDDEN).unwrap();
        let entities = || head("heads.entities", TAGS);
        Self {
            encoder: Encoder::load(&package).unwrap(),
            text_heads: Heads::fuse(&[head("heads.intent", LABELS), entities()]).unwrap(),
            entities: entities(),
        }
    }

    fn pass(&self, pool: &mut Pool, texts: &[&[u32]]) -> Vec<Encoded> {
        let (heads, never) = (Some(&self.text_heads), AtomicBool::new(false));
        self.encoder.pass(pool, &mut Arena::new(), texts, heads, Some(&self.entities), &never).unwrap()
    }
}

fn texts() -> Vec<Vec<u32>> {
    let mut random = Random::new(9);
    [1, 5, 33, 16, 64, 100, 2].map(|count| (0..count).map(|_| random.below(VOCAB) as u32).collect()).into()
}

/// What candle computes for one text: vector, intent logits, tag logits.
fn candle(tensors: &Tensors, text: &[u32]) -> (Vec<f32>, Vec<f32>, Vec<Vec<f32>>) {
    let config = serde_json::from_value(tiny::bert_config()).unwrap();
    let variables = VarBuilder::from_tensors(tensors.clone(), DType::F32, &Device::Cpu);
    let model = BertModel::load(variables, &config).unwrap();
    let ids = Tensor::new(text, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let types = ids.zeros_like().unwrap();
    let tokens = model.forward(&ids, &types, None).unwrap().i(0).unwrap(); // [tokens, hidden]
    let head = |name: &str, x: &Tensor| {
        let part = |part: &str| tensors[&format!("{name}.{part}")].clone();
        candle_nn::Linear::new(part("weight"), Some(part("bias"))).forward(x).unwrap()
    };
    let vector = tokens.mean_keepdim(0).unwrap();
    let intent = head("heads.intent", &vector);
    (
        vector.i(0).unwrap().to_vec1().unwrap(),
        intent.i(0).unwrap().to_vec1().unwrap(),
        head("heads.entities", &tokens).to_vec2().unwrap(),
    )
}

fn assert_close(ours: &Encoded, tensors: &Tensors, text: &[u32], tolerance: f32) {
    let (vector, intent, tags) = candle(tensors, text);
    // A head of the mean is the mean of the head.
    let count = tags.len() as f32;
    let mean: Vec<f32> =
        (0..TAGS).map(|tag| tags.iter().map(|tags| tags[tag]).sum::<f32>() / count).collect();
    let [of_intents, of_tags] = ours.sequence.as_slice() else { panic!("two heads were fused") };
    for (ours, theirs) in [(&ours.vector, &vector), (of_intents, &intent), (of_tags, &mean)] {
        let difference = tiny::difference(ours, theirs);
        assert!(difference < tolerance, "{} tokens: {difference}", text.len());
    }
    assert!(tiny::difference(&ours.tokens.concat(), &tags.concat()) < tolerance);
}

#[test]
fn f32_answers_are_those_of_candle() {
    let dir = tempfile::tempdir().unwrap();
    let tensors = tiny::bert_tensors(LABELS, TAGS);
    tiny::write(dir.path(), &tiny::bert_config(), &tensors);
    let model = Model::load(dir.path());
    let mut pool = Pool::new(2, Isa::detect()).unwrap();
    for text in texts() {
        assert_close(&model.pass(&mut pool, &[&text])[0], &tensors, &text, 1e-4);
    }
}

#[test]
fn q8_0_answers_are_those_of_candle_with_the_same_weights() {
    for write in Q8_0 {
        let dir = tempfile::tempdir().unwrap();
        let tensors = write(dir.path(), &tiny::bert_config(), &tiny::bert_tensors(LABELS, TAGS));
        let model = Model::load(dir.path());
        let mut pool = Pool::new(2, Isa::detect()).unwrap();
        for text in texts() {
            assert_close(&model.pass(&mut pool, &[&text])[0], &tensors, &text, 0.1); // activations are rounded to 8 bits
        }
    }
}

#[test]
fn a_row_of_several_scales_is_refused_where_one_was_promised() {
    let dir = tempfile::tempdir().unwrap();
    tiny::write_q8_0(dir.path(), &tiny::bert_config(), &tiny::bert_tensors(LABELS, TAGS));
    let path = dir.path().join("config.json");
    let config = std::fs::read_to_string(&path).unwrap().replace("\"q8_0\"", "\"q8_0\",\"scales\":\"row\"");
    std::fs::write(&path, config).unwrap();
    let error = Encoder::load(&Package::open(dir.path()).unwrap()).err().expect("scales differ");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("query.weight`: a row has blocks of several scales"), "{error}");
}

#[test]
fn answers_are_bit_equal_for_any_path_thread_count_and_batch() {
    Q8_0.into_iter().for_each(check_bits);
}

fn check_bits(write: Write) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &tiny::bert_config(), &tiny::bert_tensors(LABELS, TAGS));
    let model = Model::load(dir.path());
    let texts = texts();
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let mut portable = Pool::new(1, Isa::Portable).unwrap();
    let expected: Vec<Encoded> =
        texts.iter().map(|text| model.pass(&mut portable, &[text]).remove(0)).collect();
    for isa in Isa::available() {
        for threads in [1, 2, 3] {
            let mut pool = Pool::new(threads, isa).unwrap();
            for batch in [1, 2, 7] {
                let ours: Vec<Encoded> =
                    texts.chunks(batch).flat_map(|texts| model.pass(&mut pool, texts)).collect();
                assert!(ours == expected, "{}, {threads} threads, batches of {batch}", isa.name());
            }
        }
    }
}

#[test]
fn a_text_outside_the_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    tiny::write(dir.path(), &tiny::bert_config(), &tiny::bert_tensors(LABELS, TAGS));
    let model = Model::load(dir.path());
    let mut pool = Pool::new(1, Isa::detect()).unwrap();
    let long = vec![1; CONTEXT + 1];
    for text in [&[][..], &long, &[VOCAB as u32]] {
        let pass =
            model.encoder.pass(&mut pool, &mut Arena::new(), &[text], None, None, &AtomicBool::new(false));
        assert_eq!(pass.err().unwrap().kind(), ErrorKind::Internal);
    }
    let none = model.encoder.pass(&mut pool, &mut Arena::new(), &[], None, None, &AtomicBool::new(false));
    assert!(none.unwrap().is_empty());
}

#[test]
fn an_interrupt_ends_the_pass() {
    let dir = tempfile::tempdir().unwrap();
    tiny::write(dir.path(), &tiny::bert_config(), &tiny::bert_tensors(LABELS, TAGS));
    let model = Model::load(dir.path());
    let mut pool = Pool::new(2, Isa::detect()).unwrap();
    let pass =
        model.encoder.pass(&mut pool, &mut Arena::new(), &[&[1, 2]], None, None, &AtomicBool::new(true));
    assert_eq!(pass.err().unwrap().kind(), ErrorKind::Interrupted);
}
