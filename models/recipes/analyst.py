"""Train the analyst: one encoder, three heads (intent, sentiment, entities), from random initialisation, in three stages.

    python models/recipes/analyst.py --data DIR --work DIR --out models/analyst

1. general: the analyst learns the vectors of a public sentence encoder on texts of all kinds.
2. teacher: that encoder is fine-tuned for the three heads; another sentiment head is fitted to it as it comes.
3. student: the analyst learns the heads, from the labels and from the fine-tuned teacher.

Checkpoints go to --work; a run that was stopped goes on from the last one. `--export-only` writes the files from it.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from analyst_data import ALIASES, SENTIMENTS, TAGS, AnalystData
from analyst_report import calibrated, record_reference
from common import Checkpoint, LengthBatches, Log, adamw, seed_everything, warm_up_then_cosine, write_json
from distillation import (
    Student, forward, imitation_loss, label_loss, likeness_loss, make_example, student_side, tag_at, teacher_side,
)  # fmt: skip
from encoder import Analyst, is_matrix
from packing import load_weights, save_tokenizer, save_weights, write_manifest
from teacher import FrozenTeacher, Polarity, fit_polarity, public_encoder

SEED = 20
VOCABULARY = 12288
TOKENS_PER_BATCH = 3072
MASKED_SHARE = 0.06  # input tokens hidden from the student, so that no single word decides
GENERAL_TEXTS = 24_000  # of one pass
RATED_WEIGHT = 6.0  # of a text that is no comment, when the second sentiment head is fitted
WEIGHT_DECAY = 0.05
# Each stage: steps, warm-up, learning rate, and each task's share of the steps.
STAGES = {
    "general": (600, 100, 8e-4, {"general": 1.0}),
    "teacher": (1000, 100, 1.5e-4, {"intent": 0.3, "sentiment": 0.34, "entities": 0.36}),
    "student": (12000, 100, 8e-4, {"intent": 0.24, "sentiment": 0.22, "entities": 0.30, "general": 0.24}),
}
CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 320,
    "num_hidden_layers": 6,
    "num_attention_heads": 5,
    "intermediate_size": 1152,
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
    run = Run(options)
    if not options.export_only:
        for stage in options.stages or STAGES:
            run.train(stage)
    if not options.stages:
        run.export(Path(options.out))


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder of data sets")
    parser.add_argument("--work", required=True, help="a folder for checkpoints")
    parser.add_argument("--out", required=True, help="the folder for the model's files")
    parser.add_argument("--stages", nargs="*", choices=STAGES, help="train only these, and write nothing")
    parser.add_argument("--minutes", type=float, help="stop after so many minutes; the same command goes on from there")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--export-only", action="store_true", help="write the files from the last checkpoint")
    return parser.parse_args()


class Run:
    """The data, the tokenizers and the networks of one run."""

    def __init__(self, options):
        self.work, self.minutes, self.started = Path(options.work), options.minutes, time.time()
        self.data = AnalystData(options.data)
        self.tokenizer = make_tokenizer(self.data, self.work / "analyst-tokenizer.json")
        CONFIG["vocab_size"] = self.tokenizer.get_vocab_size()
        self.labels = {"intent": self.data.labels, "sentiment": SENTIMENTS, "entities": TAGS}
        self.counts = {name: len(values) for name, values in self.labels.items()}
        self.index = {task: {label: i for i, label in enumerate(values)} for task, values in self.labels.items()}
        self.public, self.public_tokenizer = public_encoder(self.counts)
        self.student = Student(Analyst(CONFIG, self.counts), CONFIG["hidden_size"], 384)
        self.general = self._original = self.polarity = None

    def train(self, stage):
        """One stage, from where its checkpoint left off."""
        steps, warm_up, rate, shares = STAGES[stage]
        checkpoint = Checkpoint(self.work / f"{stage}.pt")
        if stage == "student":
            self.fit_polarity()
            if not checkpoint.path.exists():
                Checkpoint(self.work / "general.pt").load(self.student)
        model = self.public if stage == "teacher" else self.student
        optimizer = adamw(model, rate, WEIGHT_DECAY)
        step, trained = checkpoint.load(model, optimizer)
        if step >= steps:
            return
        loss_of = getattr(self, f"{stage}_loss")(model)
        rng = random.Random(f"{SEED} {stage} {step}")
        torch.manual_seed(SEED + step)
        length = lambda e: max(len(e.ids), len(e.teacher_ids))
        queues = {task: LengthBatches(self.examples(task), length, TOKENS_PER_BATCH, rng) for task in shares}
        log, since = Log(50), time.time() - trained
        model.train()
        while step < steps:
            task = rng.choices(list(shares), shares.values())[0]
            batch = queues[task].next()
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(task, batch)
            for group in optimizer.param_groups:
                group["lr"] = rate * warm_up_then_cosine(step, warm_up, step / steps)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            log.add(task, loss.item(), sum(len(e.ids) for e in batch))
            step += 1
            log.print_at(step, steps)
            late = self.minutes and time.time() - self.started > 60 * self.minutes
            if step % 100 == 0 or step == steps or late:
                checkpoint.save(step, time.time() - since, model, optimizer)
            if late:
                raise SystemExit(f"{stage}: stopped at step {step} of {steps}; the same command goes on")

    def examples(self, task):
        """A function that makes one pass of a task's examples, varied anew."""
        data, index = self.data, self.index.get(task)
        make = lambda text, target: make_example(task, text, target, self.tokenizer, self.public_tokenizer)

        def entities(rng):
            return [make(" ".join(tokens), tag_at(tokens, tags, index)) for tokens, tags in data.training_entities(rng)]

        def general(rng):
            self.general = self.general or data.general_texts()
            return [make(text, None) for text in rng.sample(self.general, GENERAL_TEXTS)]

        def labelled(rng):
            passes = {"intent": data.training_intent, "sentiment": data.training_sentiment}
            return [make(text, index.get(label, -1)) for text, label in passes[task](rng)]

        return {"entities": entities, "general": general}.get(task, labelled)

    def fit_polarity(self):
        """The second sentiment head, fitted once to the vectors of the labelled texts."""
        path = self.work / "polarity.pt"
        if not path.exists():
            data, rng = self.data, random.Random(SEED)
            plain = [(text, "neutral") for text in rng.sample(data.neutral, 3000)]
            texts = data.comments + data.rated + data.feelings + plain
            make = lambda text, label: make_example("sentiment", text, SENTIMENTS.index(label), self.tokenizer, self.public_tokenizer)
            batches = LengthBatches(lambda _: [make(*t) for t in texts], lambda e: len(e.teacher_ids), TOKENS_PER_BATCH, rng).one_pass()
            vectors = torch.cat([ask(self.original(), batch)["vectors"] for batch in batches]).clone()
            targets = torch.tensor([e.target for batch in batches for e in batch])
            comments = {tuple(self.public_tokenizer.encode(text).ids) for text, _ in data.comments}
            weights = torch.tensor([1.0 if tuple(e.teacher_ids) in comments else RATED_WEIGHT for batch in batches for e in batch])
            torch.save(fit_polarity(vectors, targets, weights).state_dict(), path)
        self.polarity = Polarity().eval().requires_grad_(False)
        self.polarity.load_state_dict(torch.load(path, weights_only=True))

    def original(self):
        """The public encoder as it comes."""
        self._original = self._original or FrozenTeacher(public_encoder(self.counts)[0])
        return self._original

    def general_loss(self, student):
        def loss(_, batch):
            vectors, words, _ = forward(student.network, self.hidden_from(student_side(batch)))
            return likeness_loss(student, vectors, words, ask(self.original(), batch))

        return loss

    def teacher_loss(self, network):
        return lambda task, batch: label_loss(task, forward(network, teacher_side(batch))[2], batch)

    def student_loss(self, student):
        tuned, _ = public_encoder(self.counts)
        Checkpoint(self.work / "teacher.pt").load(tuned)
        tuned = FrozenTeacher(tuned)

        def loss(task, batch):
            vectors, words, logits = forward(student.network, self.hidden_from(student_side(batch)))
            taught = ask(tuned, batch)
            if task in ("general", "sentiment"):
                original = ask(self.original(), batch)
                both = [taught["sentiment"].softmax(-1), self.polarity(original["vectors"]).softmax(-1)]
                taught["sentiment"] = torch.stack(both).mean(0).log()
            known = likeness_loss(student, vectors, words, original) if task == "general" else label_loss(task, logits, batch)
            return known + imitation_loss(logits, taught)

        return loss

    def hidden_from(self, view):
        """The view with some tokens masked; [CLS] and [SEP] stay."""
        hide = (torch.rand(view.ids.shape) < MASKED_SHARE) & view.mask & (view.ids >= len(SPECIALS))
        view.ids = view.ids.masked_fill(hide, SPECIALS.index("[MASK]"))
        return view

    def export(self, out):
        """Write the model's folder, then calibrate and record references with the weights as written."""
        step, seconds = Checkpoint(self.work / "student.pt").load(self.student)
        out.mkdir(parents=True, exist_ok=True)
        model, labels = self.student.network, self.labels
        save_weights(out / "model.safetensors", model.state_dict(), is_matrix)
        write_json(out / "config.json", CONFIG)
        save_tokenizer(self.tokenizer, out / "tokenizer.json")
        model.load_state_dict(load_weights(out / "model.safetensors"))
        model.eval()
        calibration = calibrated(model, self.data, self.tokenizer, labels)
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
            "version": "0.2.0",
            "task": "analysis",
            "licence": "MIT OR Apache-2.0",
            "heads": {name: head(name) for name in labels},
            "card": {
                "parameters": sum(p.numel() for p in model.parameters()),
                "data": DATA,
                "training": {"steps": step, "seed": SEED, "seconds": round(seconds), "tokens_per_batch": TOKENS_PER_BATCH},
                "limits": LIMITS,
            },
        }
        total = write_manifest(out, manifest)
        print(f"{out}: {total} bytes")
        record_reference(model, self.tokenizer, labels, calibration)


def ask(teacher, batch):
    view = teacher_side(batch)
    return teacher.outputs(view.ids, view.mask, view.words)


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
    cased = (rng.choice([t, t, t[:1].upper() + t[1:], t.lower()]) if rng.random() > 0.03 else t.upper() for t in data.texts())
    tokenizer.train_from_iterator(cased, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=None, special_tokens=ends)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return tokenizer


DATA = {
    "intent": "CLINC150 (CC BY 3.0), Bitext customer-service intents and customer support (CDLA-Sharing 1.0), own support_phrases.jsonl",
    "outliers": "CLINC150 oos, SNIPS (CC0), HWU64 (CC BY 4.0), Self-dialogue Corpus and ChatterBot corpus (BSD-3-Clause), GoEmotions",
    "sentiment": "GoEmotions (CC BY 4.0), VADER rated texts (MIT), own support_phrases.jsonl; plain requests of the intent sets as neutral",
    "entities": "WNUT17, Broad Twitter Corpus, Wikigold, HWU64 (CC BY 4.0), SNIPS (CC0), CrossNER (MIT), Bitext intents, own entity_phrases.json; "
    "names from GeoNames (CC BY 4.0) and the US Census (public domain)",
    "texts without labels": "those above, BANKING77 (CC BY 4.0), MultiDoGO (CDLA-Permissive 1.0), STAR, MultiWOZ 2.1 test, QMSum (MIT), Taskmaster-4, "
    "Synthetic-Persona-Chat test (CC BY 4.0), Topical-Chat test (CDLA-Sharing 1.0)",
    "teacher": "all-MiniLM-L6-v2 (Apache-2.0), for its vectors and, fine-tuned on the same data, its probabilities",
}
LIMITS = (
    "English only. A small model trained from random initialisation: it knows the wording of its data sets and little of the "
    "world. Names it never saw are often missed, products above all; irony and mixed feelings are read wrongly."
)

if __name__ == "__main__":
    main()
