//! Our matrix products, our encoder and our sampler beside candle's: the same weights, the same input, all threads of the process.
//!
//! `cargo bench -p antiphon-benches --bench candle`
#![allow(clippy::print_stdout, reason = "a command for people: its output is its result")]

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use antiphon_benches::Comparison;
use antiphon_inference::encoder::Encoder;
use antiphon_inference::format::Package;
use antiphon_inference::sampling::{LogitsBuf, Sampler, Sampling};
use antiphon_inference::tokenizer::Tokenizer;
use antiphon_kernels::{Arena, Format, Isa, Matrix, Pool, Program, available_threads};
use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::generation as candle;
use candle_transformers::models::bert::BertModel;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let mut pool = Pool::new(available_threads(), Isa::detect())?;
    println!(
        "{} threads, {} kernels; medians, and the ratio with its quartiles",
        pool.threads(),
        pool.isa().name()
    );
    println!("{:<42} {:>13} {:>13} {:>7}", "", "ours", "candle", "ratio");
    for (n, k) in [(1536, 576), (576, 1536), (2048, 2048)] {
        for rows in [1, 8, 128] {
            println!("{:<42} {}", format!("Q8_0 {n} x {k}, rows: {rows}"), product(&mut pool, n, k, rows)?);
        }
    }
    for texts in [1, 16] {
        println!(
            "{:<42} {}",
            format!("analyst's encoder, texts of 12 words: {texts}"),
            encoder(&mut pool, texts)?
        );
    }
    for vocab in [49_152, 151_936] {
        for (top_k, top_p) in [(Some(40), Some(0.95)), (None, Some(0.95)), (None, None)] {
            println!(
                "{:<42} {}",
                format!("a token of {vocab}, {}", limits(top_k, top_p)),
                sampler(vocab, top_k, top_p)?
            );
        }
    }
    Ok(())
}

/// A product with 8-bit weights in blocks of 32.
fn product(pool: &mut Pool, n: usize, k: usize, rows: usize) -> Outcome<Comparison> {
    let weights = Tensor::randn(0f32, 1.0, (n, k), &Device::Cpu)?;
    let x = Tensor::randn(0f32, 1.0, (rows, k), &Device::Cpu)?;
    let quantized = QTensor::quantize(&weights, GgmlDType::Q8_0)?;
    let matrix = Matrix::new(&[(Format::Q8_0, &quantized.data()?)], k)?;
    let theirs = QMatMul::from_qtensor(quantized)?;

    // Our programs take their input from a table; copying the rows out of it counts as ours.
    let table = Matrix::f32(&[&x.flatten_all()?.to_vec1::<f32>()?], k)?;
    let ids: Vec<u32> = (0..rows as u32).collect();
    let (mut arena, never) = (Arena::new(), AtomicBool::new(false));
    let ours = || {
        let mut program = Program::new();
        let x = program.embed(&table, &ids);
        let y = program.linear(x, &matrix, None);
        let y = program.keep(y);
        pool.run(&program, &mut arena, None, &never).map(|()| arena.read(y).row(0)[0])
    };
    Ok(Comparison::measure(ours, || theirs.forward(&x)))
}

/// The bundled encoder, without heads. Ours computes with the 8-bit weights as they are stored, candle's with the same
/// numbers as f32: it has no 8-bit BERT.
fn encoder(pool: &mut Pool, texts: usize) -> Outcome<Comparison> {
    let package = Package::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/analyst"))?;
    let ours = Encoder::load(&package)?;
    let tokenizer = Tokenizer::from_package(&package, ours.config().vocab)?;
    let ids = tokenizer.encode_message(TWELVE_WORDS, ours.config().max_tokens)?.ids;

    let mut tensors = HashMap::new();
    for name in package.weights.names() {
        let view = package.weights.tensor(name).ok_or("a tensor that is listed")?;
        tensors.insert(name.to_owned(), Tensor::from_vec(view.to_f32()?, view.shape, &Device::Cpu)?);
    }
    let mut config = package.config.clone();
    config["initializer_range"] = 0.02.into(); // asked for, of no use here
    let variables = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let theirs = BertModel::load(variables, &serde_json::from_value(config)?)?;
    let their_ids = Tensor::new(vec![ids.clone(); texts], &Device::Cpu)?;
    let types = their_ids.zeros_like()?;

    let batch = vec![ids.as_slice(); texts];
    let (mut arena, never) = (Arena::new(), AtomicBool::new(false));
    let pass = || ours.pass(pool, &mut arena, &batch, None, None, &never);
    Ok(Comparison::measure(pass, || theirs.forward(&their_ids, &types, None)))
}

/// Choosing a token at temperature 0.8 from logits that are distributed normally.
fn sampler(vocab: usize, top_k: Option<usize>, top_p: Option<f32>) -> Outcome<Comparison> {
    let logits = (Tensor::randn(0f32, 1.0, vocab, &Device::Cpu)? * 3.0)?;
    let values = LogitsBuf::new(logits.to_vec1::<f32>()?);
    let mut ours = Sampler::new(Sampling { temperature: 0.8, top_k, top_p, ..Sampling::default() }, vocab)?;
    let (temperature, p) = (0.8, top_p.map(f64::from));
    let sampling = match (top_k, p) {
        (Some(k), Some(p)) => candle::Sampling::TopKThenTopP { k, p, temperature },
        (Some(k), None) => candle::Sampling::TopK { k, temperature },
        (None, Some(p)) => candle::Sampling::TopP { p, temperature },
        (None, None) => candle::Sampling::All { temperature },
    };
    let mut theirs = candle::LogitsProcessor::from_sampling(0, sampling);
    Ok(Comparison::measure(|| ours.sample(values.view()), || theirs.sample(&logits)))
}

fn limits(top_k: Option<usize>, top_p: Option<f32>) -> String {
    let top_k = top_k.map_or_else(|| "no top-k".into(), |k| format!("top-k {k}"));
    let top_p = top_p.map_or_else(|| "no top-p".into(), |p| format!("top-p {p}"));
    format!("{top_k}, {top_p}")
}

const TWELVE_WORDS: &str = "Hello, I ordered two lamps last week and nothing has arrived yet";
