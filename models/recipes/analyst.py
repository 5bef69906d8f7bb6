"""Train the analyst: one encoder, three heads (intent, sentiment, entities), from random initialisation.

    python models/recipes/analyst.py --data DIR --work DIR --out models/analyst

Checkpoints go to --work; a run that was stopped goes on from the last one. `--export-only` writes the files from it.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn import functional as F

from analyst_data import ALIASES, SENTIMENTS, TAGS, AnalystData
from analyst_report import figures_and_calibration, record_reference
from common import Checkpoint, LengthBatches, Log, adamw, progress, seed_everything, warm_up_then_cosine, write_json
from encoder import Analyst, is_matrix
from packing import load_weights, save_tokenizer, save_weights, write_manifest

SEED = 20
STEPS = 8000
WARM_UP = 300
LEARNING_RATE = 8e-4
WEIGHT_DECAY = 0.05
TOKENS_PER_BATCH = 1024
VOCABULARY = 7680
# Each task's share of the steps, in the first half and in the second. Entities learn slowest, and most of it late.
TASKS = ["intent", "sentiment", "entities"]
SHARES = [0.42, 0.36, 0.22], [0.28, 0.34, 0.38]
OUTLIER_WEIGHT = 0.5
OUTSIDE_WEIGHT = 0.5  # of the tag O, which nine words in ten have: without it the head finds few names
MASKED_SHARE = 0.06  # input tokens hidden from the sequence tasks, so that no single word decides
CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 768,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.0,
    "max_position_embeddings": 256,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "vocab_size": VOCABULARY,
    "quantization_config": {"quant_method": "q8_0", "block_size": 32},
}
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def main():
    options = read_options()
    torch.set_num_threads(options.threads)
    seed_everything(SEED)
    data = AnalystData(options.data)
    tokenizer = make_tokenizer(data, Path(options.work) / "analyst-tokenizer.json")
    CONFIG["vocab_size"] = tokenizer.get_vocab_size()
    labels = {"intent": data.labels, "sentiment": SENTIMENTS, "entities": TAGS}
    model = Analyst(CONFIG, {name: len(values) for name, values in labels.items()})
    checkpoint = Checkpoint(Path(options.work) / "analyst.pt")
    if options.export_only:
        step, seconds = checkpoint.load(model)
    else:
        step, seconds = train(model, data, tokenizer, labels, checkpoint, options)
    export(model, data, tokenizer, labels, Path(options.out), step, seconds)


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder of data sets")
    parser.add_argument("--work", required=True, help="a folder for checkpoints")
    parser.add_argument("--out", required=True, help="the folder for the model's files")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--minutes", type=float, help="end sooner, after so many minutes of training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--export-only", action="store_true", help="write the files from the last checkpoint")
    return parser.parse_args()


def make_tokenizer(data, path):
    """A cased WordPiece vocabulary over the training texts; kept in the work folder so that a resumed run has the same."""
    if path.exists():
        return Tokenizer.from_file(str(path))
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, min_frequency=2, special_tokens=SPECIALS, limit_alphabet=300, show_progress=False
    )
    rng = random.Random(SEED)
    cased = (rng.choice([t, t, t[:1].upper() + t[1:], t.lower()]) if rng.random() > 0.06 else t.upper() for t in data.texts())
    tokenizer.train_from_iterator(cased, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=None, special_tokens=ends)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return tokenizer


def train(model, data, tokenizer, labels, checkpoint, options):
    """Multi-task training: each step takes one batch of one task, drawn by the SHARES."""
    optimizer = adamw(model, LEARNING_RATE, WEIGHT_DECAY)
    start, trained = checkpoint.load(model, optimizer)
    rng = random.Random(SEED + start)
    torch.manual_seed(SEED + start)
    encode = {"intent": encode_text, "sentiment": encode_text, "entities": encode_words}
    passes = {"intent": data.training_intent, "sentiment": data.training_sentiment, "entities": data.training_entities}

    def refresh(task):
        index = {label: i for i, label in enumerate(labels[task])}
        return lambda rng: [encode[task](tokenizer, example, index) for example in passes[task](rng)]

    queues = {task: LengthBatches(refresh(task), lambda e: len(e[0]), TOKENS_PER_BATCH, rng) for task in TASKS}
    losses = {"intent": intent_loss, "sentiment": sentiment_loss, "entities": entities_loss}
    log, since = Log(100), time.time() - trained
    model.train()
    step = start
    while (done := progress(step, options.steps, time.time() - since, options.minutes)) < 1:
        task = rng.choices(TASKS, SHARES[done >= 0.5])[0]
        batch = queues[task].next()
        ids, mask = pad([example[0] for example in batch])
        if task != "entities":
            ids = hide_tokens(ids, mask, tokenizer.token_to_id("[MASK]"))
        loss = losses[task](model, ids, mask, [example[1] for example in batch])
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warm_up_then_cosine(step, WARM_UP, done)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        log.add(task, loss.item(), mask.numel())
        step += 1
        log.print_at(step, options.steps)
        if step % 100 == 0:
            checkpoint.save(step, time.time() - since, model, optimizer)
    checkpoint.save(step, time.time() - since, model, optimizer)
    return step, time.time() - since


def encode_text(tokenizer, example, index):
    """(ids, label index); -1 stands for an outlier, which has no label."""
    text, label = example
    return tokenizer.encode(text).ids[: CONFIG["max_position_embeddings"]], index.get(label, -1)


def encode_words(tokenizer, example, index):
    """(ids, tag index of each token): a word's tag is on its first piece, -100 (no loss) everywhere else.

    A word is what the pre-tokenizer makes; a token of the data set can hold several, and those after the first continue it.
    """
    tokens, tags = example
    starts, at = {}, 0
    for token, tag in zip(tokens, tags):
        for offset in range(len(token)):
            starts[at + offset] = tag if offset == 0 else tag.replace("B-", "I-")
        at += len(token) + 1
    encoding = tokenizer.encode(" ".join(tokens))
    targets, previous = [], None
    for word, (start, _) in zip(encoding.word_ids, encoding.offsets):
        first = word is not None and word != previous
        targets.append(index[starts.get(start, "O")] if first else -100)
        previous = word
    limit = CONFIG["max_position_embeddings"]
    return encoding.ids[:limit], targets[:limit]


def pad(rows, value=0):
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [value] * (width - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    return ids, mask


def hide_tokens(ids, mask, mask_id):
    """Replace a few tokens by [MASK]; the specials (ids below len(SPECIALS)) stay."""
    hidden = (torch.rand(ids.shape) < MASKED_SHARE) & mask & (ids >= len(SPECIALS))
    return ids.masked_fill(hidden, mask_id)


def sequence_logits(model, head, ids, mask):
    return model.logits(head, model.sequence(model.hidden(ids, mask), mask))


def intent_loss(model, ids, mask, targets):
    """Cross-entropy on labelled texts; outliers are pulled towards the uniform distribution (outlier exposure)."""
    log_p = F.log_softmax(sequence_logits(model, "intent", ids, mask), -1)
    targets = torch.tensor(targets)
    outlier = targets < 0
    loss = F.nll_loss(log_p, targets.clamp(min=0), reduction="none")
    loss = torch.where(outlier, -OUTLIER_WEIGHT * log_p.mean(-1), loss)
    return loss.mean()


def sentiment_loss(model, ids, mask, targets):
    return F.cross_entropy(sequence_logits(model, "sentiment", ids, mask), torch.tensor(targets))


def entities_loss(model, ids, mask, targets):
    logits = model.logits("entities", model.hidden(ids, mask))
    weights = torch.ones(len(TAGS))
    weights[TAGS.index("O")] = OUTSIDE_WEIGHT
    return F.cross_entropy(logits.flatten(0, 1), pad(targets, -100)[0].flatten(), weights, ignore_index=-100)


def export(model, data, tokenizer, labels, out, step, seconds):
    """Write the model's folder, then measure, calibrate and record references with the weights as written."""
    out.mkdir(parents=True, exist_ok=True)
    save_weights(out / "model.safetensors", model.state_dict(), is_matrix)
    write_json(out / "config.json", CONFIG)
    save_tokenizer(tokenizer, out / "tokenizer.json")
    model.load_state_dict(load_weights(out / "model.safetensors"))
    model.eval()
    figures, calibration = figures_and_calibration(model, data, tokenizer, labels)
    head = lambda name: {
        "labels": labels[name],
        "aliases": ALIASES if name == "intent" else {},
        "temperature": calibration[name]["temperature"],
        "threshold": calibration[name]["threshold"],
        "tensors": f"heads.{name}",
    }
    manifest = {
        "schema": 1,
        "name": "analyst",
        "version": "0.1.0",
        "task": "analysis",
        "licence": "MIT OR Apache-2.0",
        "heads": {name: head(name) for name in labels},
        "card": {
            "parameters": sum(p.numel() for p in model.parameters()),
            "data": DATA,
            "validation": figures,
            "training": {"steps": step, "seed": SEED, "seconds": round(seconds), "tokens_per_batch": TOKENS_PER_BATCH},
            "limits": LIMITS,
        },
    }
    total = write_manifest(out, manifest)
    print(f"{out}: {total} bytes")
    record_reference(model, tokenizer, labels, calibration)


DATA = {
    "intent": "CLINC150 (CC BY 3.0), Bitext customer-service intents and customer support (CDLA-Sharing 1.0), own support_phrases.jsonl",
    "outliers": "CLINC150 oos, SNIPS (CC0), HWU64 (CC BY 4.0), Self-dialogue Corpus and ChatterBot corpus (BSD-3-Clause), GoEmotions",
    "sentiment": "GoEmotions (CC BY 4.0), VADER rated texts (MIT), own support_phrases.jsonl; plain requests of the intent sets as neutral",
    "entities": "WNUT17, Broad Twitter Corpus, Wikigold, HWU64 (CC BY 4.0), SNIPS (CC0), Bitext intents, own entity_phrases.json",
}
LIMITS = (
    "English only. A small model trained from random initialisation in minutes: it knows the wording of its data sets and little of the "
    "world. Names it never saw are often missed, products above all; irony and mixed feelings are read wrongly."
)

if __name__ == "__main__":
    main()
