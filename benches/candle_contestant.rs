//! Candle's side of `peers`: its quantized decoders from GGUF files.
//!
//! `candle_contestant MODEL THREADS STREAMS`, built for the machine (`-C target-cpu=native`) and with candle's own optimisation
//! (`--profile bench`).

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use antiphon_benches::contest::{self, Outcome, Resident, Task};
use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::{quantized_llama, quantized_qwen2};
use serde_json::Value;

fn main() -> Outcome {
    let before = Resident::read();
    let (model, threads, _) = contest::arguments()?;
    if candle_core::utils::get_num_threads() != threads {
        return Err("RAYON_NUM_THREADS is not the number of threads".into());
    }
    let mut decoder = None;
    contest::serve(|task| {
        if let Task::FirstToken { tokens } = task {
            return contest::timed(|| decoder.insert(Generation::open(&model)?).prompt(tokens));
        }
        let decoder = match &mut decoder {
            Some(ready) => ready,
            none => none.insert(Generation::open(&model)?),
        };
        match task {
            Task::Prompt { tokens } => contest::timed(|| decoder.prompt(tokens)),
            Task::Decode { context, tokens, streams: 1, seconds } => decoder.decode(context, tokens, seconds),
            Task::Memory => Ok(Resident::read().since(before)),
            other => Err(format!("{other:?}: candle has nothing to do it with").into()),
        }
    })
}

struct Generation {
    decoder: Decoder,
    vocab: usize,
}

enum Decoder {
    Llama(quantized_llama::ModelWeights),
    Qwen2(quantized_qwen2::ModelWeights),
}

impl Generation {
    fn open(model: &Path) -> Outcome<Self> {
        let mut file = BufReader::new(File::open(model)?);
        let content = Content::read(&mut file)?;
        let vocab = content.tensor_infos.get("token_embd.weight").ok_or("an embedding")?.shape.dims()[0];
        let decoder = match content.metadata["general.architecture"].to_string()?.as_str() {
            "qwen2" => {
                Decoder::Qwen2(quantized_qwen2::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?)
            }
            _ => Decoder::Llama(quantized_llama::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?),
        };
        Ok(Self { decoder, vocab })
    }

    fn prompt(&mut self, tokens: usize) -> Outcome<u32> {
        let ids: Vec<u32> = (0..tokens).map(|position| contest::token(0, position, self.vocab)).collect();
        self.decoder.next(&ids, 0)
    }

    fn decode(&mut self, context: usize, tokens: usize, seconds: f64) -> Outcome<Value> {
        // A cache cannot be cut back to a prompt that was read before.
        let mut token = self.prompt(context)?;
        let mut position = context;
        contest::stepped(tokens, seconds, || {
            token = self.decoder.next(&[token], position)?;
            position += 1;
            Ok(())
        })
    }
}

impl Decoder {
    /// Reads tokens from this position on, and chooses the one after them.
    fn next(&mut self, tokens: &[u32], position: usize) -> Outcome<u32> {
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = match self {
            Self::Llama(model) => model.forward(&input, position)?,
            Self::Qwen2(model) => model.forward(&input, position)?,
        };
        Ok(logits.squeeze(0)?.argmax(0)?.to_scalar()?)
    }
}
