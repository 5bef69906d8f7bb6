//! Our side of `peers`: a decoder or an encoder through `antiphon-inference`, as the engine uses it.
//!
//! `contestant MODEL THREADS STREAMS`: a GGUF file or a folder, and room for so many streams of 2,048 tokens. It opens the model
//! when a task wants it, and measures what the machine itself could do without.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use antiphon_benches::contest::{self, Outcome, Resident, Task};
use antiphon_benches::roof;
use antiphon_inference::decoder::{Decoder, Row};
use antiphon_inference::encoder::Encoder;
use antiphon_inference::format::Package;
use antiphon_inference::kv::{BlockPool, BlockTable};
use antiphon_inference::sampling::{Sampler, Sampling};
use antiphon_kernels::memory::return_freed;
use antiphon_kernels::{Arena, Isa, KV_BLOCK, KvStore, Pool};
use serde_json::{Value, json};

fn main() -> Outcome {
    let before = Resident::read();
    let (model, threads, streams) = contest::arguments()?;
    let open_decoder = || Generation::open(&model, threads, streams);
    let (mut decoder, mut encoder) = (None, None);
    contest::serve(|task| match task {
        Task::FirstToken { tokens } => contest::timed(|| decoder.insert(open_decoder()?).prompt(tokens)),
        Task::Prompt { tokens } => {
            let decoder = opened(&mut decoder, open_decoder)?;
            contest::timed(|| decoder.prompt(tokens))
        }
        Task::Decode { context, tokens, streams, seconds } => {
            opened(&mut decoder, open_decoder)?.decode(context, tokens, streams, seconds)
        }
        Task::Encode { texts, tokens, seconds } => {
            opened(&mut encoder, || Encoding::open(&model, threads))?.encode(texts, tokens, seconds)
        }
        Task::Memory => {
            let mut told = Resident::read().since(before);
            told["key_value_bytes"] = decoder.as_ref().map_or(0, Generation::key_value_bytes).into();
            Ok(told)
        }
        Task::Read { bytes } => Ok(json!({"bytes_per_second": roof::read(bytes, threads)})),
        Task::Multiply => Ok(json!({"operations_per_second": roof::multiply(threads)})),
    })
}

fn opened<T>(slot: &mut Option<T>, open: impl FnOnce() -> Outcome<T>) -> Outcome<&mut T> {
    match slot {
        Some(ready) => Ok(ready),
        None => Ok(slot.insert(open()?)),
    }
}

/// A decoder and the streams that it can write at once.
struct Generation {
    decoder: Decoder,
    pool: Pool,
    arena: Arena,
    blocks: BlockPool,
    streams: Vec<Stream>,
    sampler: Sampler,
}

struct Stream {
    table: BlockTable,
    /// Positions that hold the prompt's tokens.
    read: usize,
    /// Positions that ever held something.
    used: usize,
    /// The token after them.
    next: u32,
}

impl Generation {
    fn open(model: &Path, threads: usize, streams: usize) -> Outcome<Self> {
        let pool = Pool::new(threads, Isa::detect())?;
        let package = Package::open(model)?;
        let decoder = Decoder::load(&package, threads)?;
        drop(package);
        return_freed(); // as the engine does
        let mut blocks = BlockPool::new(decoder.config(), usize::MAX, streams * contest::ROOM)?;
        let mut stream = || {
            let table = blocks.reserve(contest::ROOM).ok_or("a pool of blocks for all streams")?;
            Ok(Stream { table, read: 0, used: 0, next: 0 })
        };
        let streams = (0..streams).map(|_| stream()).collect::<Outcome<_>>()?;
        let sampler = Sampler::new(Sampling::default(), decoder.config().vocab)?;
        Ok(Self { decoder, pool, arena: Arena::new(), blocks, streams, sampler })
    }

    /// Reads a prompt in the first stream, whether it was read before or not.
    fn prompt(&mut self, tokens: usize) -> Outcome<u32> {
        self.streams[0].read = 0;
        self.read(0, tokens)?;
        Ok(self.streams[0].next)
    }

    /// Reads what is missing of a prompt.
    fn read(&mut self, stream: usize, tokens: usize) -> Outcome {
        let vocab = self.decoder.config().vocab;
        while self.streams[stream].read < tokens {
            let Stream { table, read, .. } = &self.streams[stream];
            let end = tokens.min(read + CHUNK);
            let row = |position| Row {
                token: contest::token(stream, position, vocab),
                position: position as u32,
                table,
                wants_logits: position + 1 == tokens,
            };
            let rows: Vec<Row<'_>> = (*read..end).map(row).collect();
            let never = AtomicBool::new(false);
            let logits =
                self.decoder.step(&mut self.pool, &mut self.arena, &mut self.blocks, &rows, &never)?;
            let next = logits.map(|logits| self.sampler.sample(logits.row(0))).transpose()?;
            let stream = &mut self.streams[stream];
            (stream.read, stream.used) = (end, stream.used.max(end));
            stream.next = next.unwrap_or(stream.next);
        }
        Ok(())
    }

    fn decode(&mut self, context: usize, tokens: usize, streams: usize, seconds: f64) -> Outcome<Value> {
        for stream in 0..streams {
            self.read(stream, context)?;
        }
        let mut position = context;
        let Self { decoder, pool, arena, blocks, streams: all, sampler } = self;
        let writing = &mut all[..streams];
        contest::stepped(tokens, seconds, || {
            let rows: Vec<Row<'_>> = writing
                .iter()
                .map(|Stream { table, next, .. }| Row {
                    token: *next,
                    position: position as u32,
                    table,
                    wants_logits: true,
                })
                .collect();
            let logits = decoder.step(pool, arena, blocks, &rows, &AtomicBool::new(false))?;
            let logits = logits.ok_or("a row that wants logits has some")?;
            position += 1;
            for (index, stream) in writing.iter_mut().enumerate() {
                stream.next = sampler.sample(logits.row(index))?;
                // What is written lies behind the prompt, which stays as it is.
                (stream.read, stream.used) = (context, stream.used.max(position));
            }
            Ok(())
        })
    }

    /// Bytes of keys and values that were ever written.
    fn key_value_bytes(&self) -> usize {
        let config = self.decoder.config();
        let block = KvStore::block_bytes(config.layers, config.kv_heads, config.head_dim);
        self.streams.iter().map(|stream| stream.used.div_ceil(KV_BLOCK) * block).sum()
    }
}

/// An encoder without heads.
struct Encoding {
    encoder: Encoder,
    pool: Pool,
    arena: Arena,
}

impl Encoding {
    fn open(model: &Path, threads: usize) -> Outcome<Self> {
        let encoder = Encoder::load(&Package::open(model)?)?;
        Ok(Self { encoder, pool: Pool::new(threads, Isa::detect())?, arena: Arena::new() })
    }

    fn encode(&mut self, texts: usize, tokens: usize, seconds: f64) -> Outcome<Value> {
        let vocab = self.encoder.config().vocab;
        let text = |text| (0..tokens).map(|position| contest::token(text, position, vocab)).collect();
        let texts: Vec<Vec<u32>> = (0..texts).map(text).collect();
        let batch: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let never = AtomicBool::new(false);
        contest::repeated(seconds, || {
            self.encoder.pass(&mut self.pool, &mut self.arena, &batch, None, None, &never)?;
            Ok(())
        })
    }
}

/// Tokens of a prompt in one step: the engine's own `batcher.prompt_chunk_tokens`.
const CHUNK: usize = 128;
