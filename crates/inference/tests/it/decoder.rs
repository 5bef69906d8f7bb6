//! The decoder against candle's, and against itself in every other batch, chunk, thread count and instruction set.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use antiphon_inference::decoder::{Decoder, Row};
use antiphon_inference::error::ErrorKind;
use antiphon_inference::format::Package;
use antiphon_inference::kv::{BlockPool, BlockTable};
use antiphon_inference::sampling::{LogitsBuf, Sampler, Sampling};
use antiphon_kernels::{Arena, Isa, Pool};
use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Llama, LlamaConfig};
use candle_transformers::models::quantized_llama::ModelWeights;

use crate::tiny::{self, CONTEXT, FFN, HEAD_DIM, HEADS, HIDDEN, KV_HEADS, LAYERS, Random, Tensors, VOCAB};

fn tokens(count: usize, seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.below(VOCAB) as u32).collect()
}

fn load(dir: &Path) -> Decoder {
    Decoder::load(&Package::open(dir).unwrap(), 2).unwrap()
}

/// Logits after every token of `tokens`, read in chunks.
fn logits(decoder: &Decoder, pool: &mut Pool, tokens: &[u32], chunk: usize) -> Vec<Vec<f32>> {
    let mut blocks = BlockPool::new(decoder.config(), 1 << 24, CONTEXT).unwrap();
    let table = blocks.reserve(tokens.len()).unwrap();
    let mut arena = Arena::new();
    let mut all = Vec::new();
    for (index, part) in tokens.chunks(chunk).enumerate() {
        let rows = rows(part, index * chunk, &table);
        let step =
            decoder.step(pool, &mut arena, &mut blocks, &rows, &AtomicBool::new(false)).unwrap().unwrap();
        all.extend((0..part.len()).map(|row| step.row(row).values().to_vec()));
    }
    all
}

fn rows<'a>(tokens: &[u32], first: usize, table: &'a BlockTable) -> Vec<Row<'a>> {
    let row = |(index, &token)| Row { token, position: (first + index) as u32, table, wants_logits: true };
    tokens.iter().enumerate().map(row).collect()
}

fn candle_logits(tensors: &Tensors, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut config: serde_json::Value = tiny::llama_config();
    config["tie_word_embeddings"] = (!tensors.contains_key("lm_head.weight")).into();
    let config: LlamaConfig = serde_json::from_value(config).unwrap();
    let config = config.into_config(false);
    let variables = VarBuilder::from_tensors(tensors.clone(), DType::F32, &Device::Cpu);
    let llama = Llama::load(variables, &config).unwrap();
    let mut cache = Cache::new(true, DType::F32, &config, &Device::Cpu).unwrap();
    let step = |(position, &token): (usize, &u32)| {
        let input = Tensor::new(&[[token]], &Device::Cpu).unwrap();
        llama.forward(&input, position, &mut cache).unwrap().squeeze(0).unwrap().to_vec1().unwrap()
    };
    tokens.iter().enumerate().map(step).collect()
}

fn assert_close(ours: &[Vec<f32>], theirs: &[Vec<f32>], tolerance: f32) {
    assert_eq!(ours.len(), theirs.len());
    for (position, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let difference = tiny::difference(ours, theirs);
        assert!(difference < tolerance, "position {position}: {difference}");
    }
}

#[test]
fn f32_logits_are_those_of_candle() {
    for tied in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let tensors = tiny::llama_tensors(tied);
        tiny::write(dir.path(), &tiny::llama_config(), &tensors);
        let tokens = tokens(45, 1);
        let ours = logits(&load(dir.path()), &mut Pool::new(2, Isa::detect()).unwrap(), &tokens, 16);
        // Keys and values are kept in 16 bits: 2^-11 relative.
        assert_close(&ours, &candle_logits(&tensors, &tokens), 3e-3);
    }
}

#[test]
fn q8_0_logits_are_those_of_candle_with_the_same_weights() {
    let dir = tempfile::tempdir().unwrap();
    let tensors = tiny::write_q8_0(dir.path(), &tiny::llama_config(), &tiny::llama_tensors(true));
    let tokens = tokens(45, 2);
    let ours = logits(&load(dir.path()), &mut Pool::new(2, Isa::detect()).unwrap(), &tokens, 45);
    // Ours rounds activations to 8 bits, candle's floats do not; `a_gguf_file_…` compares like with like.
    assert_close(&ours, &candle_logits(&tensors, &tokens), 0.1);
}

#[test]
fn a_gguf_file_gives_the_logits_of_candle() {
    // All of one type; then parts of one matrix that differ, some of which go together and some do not.
    let one: fn(&str) -> GgmlDType = |_| GgmlDType::Q8_0;
    let mixed: fn(&str) -> GgmlDType = |name| match name.rsplit('.').nth(1).unwrap() {
        "attn_q" | "ffn_up" => GgmlDType::Q4_0,
        "attn_k" | "token_embd" => GgmlDType::Q5_0,
        "attn_v" => GgmlDType::Q4_1,
        "attn_output" => GgmlDType::Q5_1,
        "ffn_gate" => GgmlDType::Q8_0,
        "ffn_down" => GgmlDType::F16,
        _ => GgmlDType::BF16,
    };
    for dtype in [one, mixed] {
        assert_gguf_logits_are_those_of_candle(dtype);
    }
}

fn assert_gguf_logits_are_those_of_candle(dtype: impl Fn(&str) -> GgmlDType) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    write_gguf(&path, &tiny::llama_tensors(false), dtype);
    let tokens = tokens(33, 3);
    let ours = logits(&load(&path), &mut Pool::new(2, Isa::detect()).unwrap(), &tokens, 11);

    let mut file = std::fs::File::open(&path).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let mut model = ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
    let step = |(position, &token): (usize, &u32)| {
        let input = Tensor::new(&[[token]], &Device::Cpu).unwrap();
        model.forward(&input, position).unwrap().squeeze(0).unwrap().to_vec1().unwrap()
    };
    let theirs: Vec<Vec<f32>> = tokens.iter().enumerate().map(step).collect();
    assert_close(&ours, &theirs, 4e-2);
}

/// Writes a GGUF Llama with matrices of these types. Only the shape of the numbers matters here: both readers take the same bytes.
fn write_gguf(path: &Path, tensors: &Tensors, dtype: impl Fn(&str) -> GgmlDType) {
    let metadata: Vec<(String, gguf_file::Value)> = [
        ("general.architecture", gguf_file::Value::String("llama".into())),
        ("llama.embedding_length", gguf_file::Value::U32(HIDDEN as u32)),
        ("llama.block_count", gguf_file::Value::U32(LAYERS as u32)),
        ("llama.attention.head_count", gguf_file::Value::U32(HEADS as u32)),
        ("llama.attention.head_count_kv", gguf_file::Value::U32(KV_HEADS as u32)),
        ("llama.rope.dimension_count", gguf_file::Value::U32(HEAD_DIM as u32)),
        ("llama.feed_forward_length", gguf_file::Value::U32(FFN as u32)),
        ("llama.context_length", gguf_file::Value::U32(CONTEXT as u32)),
        ("llama.attention.layer_norm_rms_epsilon", gguf_file::Value::F32(1e-5)),
        ("llama.rope.freq_base", gguf_file::Value::F32(10_000.0)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    let renames = [
        ("model.layers.", "blk."),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
    ];
    let tensors: Vec<(String, QTensor)> = tensors
        .iter()
        .map(|(name, tensor)| {
            let name = renames.iter().fold(name.clone(), |name, (from, to)| name.replace(from, to));
            let dtype = if tensor.dims().len() == 2 { dtype(&name) } else { GgmlDType::F32 };
            (name, QTensor::quantize(tensor, dtype).unwrap())
        })
        .collect();
    let metadata: Vec<(&str, &gguf_file::Value)> =
        metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<(&str, &QTensor)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut std::fs::File::create(path).unwrap(), &metadata, &tensors).unwrap();
}

#[test]
fn logits_are_bit_equal_for_any_path_thread_count_and_chunk() {
    let dir = tempfile::tempdir().unwrap();
    tiny::write_q8_0(dir.path(), &tiny::llama_config(), &tiny::llama_tensors(true));
    let decoder = load(dir.path());
    let tokens = tokens(70, 4);
    let expected = logits(&decoder, &mut Pool::new(1, Isa::Portable).unwrap(), &tokens, 70);
    for isa in Isa::available() {
        for threads in [1, 2, 3] {
            let mut pool = Pool::new(threads, isa).unwrap();
            for chunk in [1, 7, 16, 64, 70] {
                let ours = logits(&decoder, &mut pool, &tokens, chunk);
                assert!(ours == expected, "{}, {threads} threads, chunks of {chunk}", isa.name());
            }
        }
    }
}

/// The largest of each few come with a step; whoever has the logits alone looks for them.
#[test]
fn tokens_are_chosen_alike_with_the_peaks_of_a_step_and_with_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    tiny::write_q8_0(dir.path(), &tiny::llama_config(), &tiny::llama_tensors(true));
    let decoder = load(dir.path());
    let vocab = decoder.config().vocab;
    let mut blocks = BlockPool::new(decoder.config(), 1 << 24, CONTEXT).unwrap();
    let tokens = tokens(20, 9);
    let table = blocks.reserve(tokens.len()).unwrap();
    let (mut pool, mut arena) = (Pool::new(2, Isa::detect()).unwrap(), Arena::new());
    let rows = rows(&tokens, 0, &table);
    let step = decoder.step(&mut pool, &mut arena, &mut blocks, &rows, &AtomicBool::new(false));
    let step = step.unwrap().unwrap();
    for (temperature, top_k) in [(0.0, None), (1.0, Some(3)), (1.0, None)] {
        let settings = Sampling { temperature, top_k, ..Sampling::default() };
        let mut samplers = [(); 2].map(|()| Sampler::new(settings.clone(), vocab).unwrap());
        for row in 0..tokens.len() {
            let own = LogitsBuf::new(step.row(row).values().to_vec());
            let [one, other] = &mut samplers;
            assert_eq!(one.sample(step.row(row)).unwrap(), other.sample(own.view()).unwrap(), "row {row}");
        }
    }
}

#[test]
fn logits_are_bit_equal_in_any_batch() {
    let dir = tempfile::tempdir().unwrap();
    tiny::write_q8_0(dir.path(), &tiny::llama_config(), &tiny::llama_tensors(true));
    let decoder = load(dir.path());
    let mut portable = Pool::new(1, Isa::Portable).unwrap();
    let texts: Vec<Vec<u32>> = (0..16).map(|index| tokens(20 + index * 3, index as u64)).collect();
    let alone: Vec<Vec<Vec<f32>>> =
        texts.iter().map(|text| logits(&decoder, &mut portable, text, 64)).collect();
    for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 2)]) {
        let mut pool = Pool::new(threads, isa).unwrap();
        for batch in [1, 2, 7, 16] {
            assert_batch(&decoder, &mut pool, &texts[..batch], &alone);
        }
    }
}

/// Reads the texts together, every step a few tokens of each and a different number of each.
fn assert_batch(decoder: &Decoder, pool: &mut Pool, texts: &[Vec<u32>], alone: &[Vec<Vec<f32>>]) {
    let batch = texts.len();
    let mut blocks = BlockPool::new(decoder.config(), 1 << 26, CONTEXT * batch).unwrap();
    let tables: Vec<BlockTable> = texts.iter().map(|text| blocks.reserve(text.len()).unwrap()).collect();
    let mut arena = Arena::new();
    let mut read = vec![0; batch];
    while read.iter().zip(texts).any(|(&read, text)| read < text.len()) {
        let parts: Vec<_> = (0..batch).map(|i| read[i]..texts[i].len().min(read[i] + 1 + i % 4)).collect();
        let place = |(i, part): (usize, &std::ops::Range<usize>)| {
            rows(&texts[i][part.clone()], part.start, &tables[i])
        };
        let step: Vec<Row<'_>> = parts.iter().enumerate().flat_map(place).collect();
        let logits =
            decoder.step(pool, &mut arena, &mut blocks, &step, &AtomicBool::new(false)).unwrap().unwrap();
        let places =
            parts.iter().enumerate().flat_map(|(i, part)| part.clone().map(move |position| (i, position)));
        for (row, (text, position)) in places.enumerate() {
            let same = logits.row(row).values() == alone[text][position];
            assert!(same, "{}, batch {batch}, text {text}, position {position}", pool.isa().name());
        }
        for (read, part) in read.iter_mut().zip(parts) {
            *read = part.end;
        }
    }
}

#[test]
fn logits_are_bit_equal_whoever_else_wants_some() {
    let dir = tempfile::tempdir().unwrap();
    tiny::write(dir.path(), &tiny::llama_config(), &tiny::llama_tensors(true));
    let decoder = load(dir.path());
    let tokens = tokens(40, 9);
    for threads in [1, 2] {
        let mut pool = Pool::new(threads, Isa::detect()).unwrap();
        let expected = logits(&decoder, &mut pool, &tokens, tokens.len());
        for wanted in [vec![], vec![39], vec![0], vec![3, 17, 38]] {
            let mut blocks = BlockPool::new(decoder.config(), 1 << 24, CONTEXT).unwrap();
            let table = blocks.reserve(tokens.len() + 1).unwrap();
            let mut arena = Arena::new();
            let mut some = rows(&tokens, 0, &table);
            some.iter_mut().enumerate().for_each(|(index, row)| row.wants_logits = wanted.contains(&index));
            let step =
                decoder.step(&mut pool, &mut arena, &mut blocks, &some, &AtomicBool::new(false)).unwrap();
            assert_eq!(step.is_none(), wanted.is_empty());
            for (number, index) in wanted.iter().enumerate() {
                assert_eq!(step.unwrap().row(number).values(), expected[*index], "{index} of {wanted:?}");
            }
            // The next one looks back on all of them.
            let next = rows(&tokens[..1], tokens.len(), &table);
            let step =
                decoder.step(&mut pool, &mut arena, &mut blocks, &next, &AtomicBool::new(false)).unwrap();
            let all = [&tokens[..], &tokens[..1]].concat();
            assert_eq!(
                step.unwrap().row(0).values(),
                logits(&decoder, &mut pool, &all, 41)[40],
                "{wanted:?}"
            );
        }
    }
}

#[test]
fn an_interrupted_step_can_be_done_again() {
    let dir = tempfile::tempdir().unwrap();
    tiny::write(dir.path(), &tiny::llama_config(), &tiny::llama_tensors(true));
    let decoder = load(dir.path());
    let mut pool = Pool::new(2, Isa::detect()).unwrap();
    let tokens = tokens(20, 5);
    let expected = logits(&decoder, &mut pool, &tokens, 20);

    let mut blocks = BlockPool::new(decoder.config(), 1 << 24, CONTEXT).unwrap();
    let table = blocks.reserve(tokens.len()).unwrap();
    let mut arena = Arena::new();
    let step = rows(&tokens, 0, &table);
    let error =
        decoder.step(&mut pool, &mut arena, &mut blocks, &step, &AtomicBool::new(true)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    let again =
        decoder.step(&mut pool, &mut arena, &mut blocks, &step, &AtomicBool::new(false)).unwrap().unwrap();
    assert_eq!(again.row(19).values(), expected[19]);
}

#[test]
fn faults_9_and_20_what_disagrees_is_named() {
    let change = |edit: &dyn Fn(&mut serde_json::Value, &mut Tensors)| {
        let dir = tempfile::tempdir().unwrap();
        let (mut config, mut tensors) = (tiny::llama_config(), tiny::llama_tensors(true));
        edit(&mut config, &mut tensors);
        tiny::write(dir.path(), &config, &tensors);
        let package = Package::open(dir.path()).unwrap();
        let error = Decoder::load(&package, 2).err().unwrap();
        (error.kind(), error.to_string())
    };
    type Edit = fn(&mut serde_json::Value, &mut Tensors);
    let cases: [(Edit, ErrorKind, &str); 8] = [
        (|config, _| config["num_attention_heads"] = 0.into(), ErrorKind::Invalid, "num_attention_heads"),
        (|config, _| config["num_key_value_heads"] = 3.into(), ErrorKind::Invalid, "multiple"),
        (
            |config, _| config["max_position_embeddings"] = (1u64 << 40).into(),
            ErrorKind::Invalid,
            "max_position_embeddings",
        ),
        (
            |config, _| config["num_hidden_layers"] = 1_000_000_000.into(),
            ErrorKind::Invalid,
            "num_hidden_layers",
        ),
        (|config, _| config["hidden_size"] = (-64).into(), ErrorKind::Invalid, "hidden_size"),
        (|config, _| config["model_type"] = "mamba".into(), ErrorKind::Unsupported, "mamba"),
        (|config, _| config["num_hidden_layers"] = 4.into(), ErrorKind::Invalid, "model.layers.3."),
        (
            |_, tensors| {
                let name = "model.layers.1.mlp.up_proj.weight";
                tensors.insert(name.into(), Random::new(1).tensor(&[FFN, HIDDEN - 1], 1.0));
            },
            ErrorKind::Invalid,
            "model.layers.1.mlp.up_proj.weight",
        ),
    ];
    for (edit, kind, needle) in cases {
        let (found, message) = change(&edit);
        assert_eq!(found, kind, "{message}");
        assert!(message.contains(needle), "{message}");
    }
}

#[test]
fn a_token_or_position_outside_the_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    tiny::write(dir.path(), &tiny::llama_config(), &tiny::llama_tensors(true));
    let decoder = load(dir.path());
    let mut pool = Pool::new(1, Isa::detect()).unwrap();
    let mut blocks = BlockPool::new(decoder.config(), 1 << 24, CONTEXT).unwrap();
    let table = blocks.reserve(16).unwrap();
    for (token, position) in [(VOCAB as u32, 0), (u32::MAX, 0), (0, 16), (0, u32::MAX)] {
        let row = Row { token, position, table: &table, wants_logits: true };
        let mut arena = Arena::new();
        let step = decoder.step(&mut pool, &mut arena, &mut blocks, &[row], &AtomicBool::new(false));
        assert_eq!(step.err().unwrap().kind(), ErrorKind::Internal);
    }
}
