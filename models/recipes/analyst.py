"""Train the analyst: one encoder, three heads (intent, sentiment, entities), from random initialisation, in three stages.

    python models/recipes/analyst.py --data DIR --work DIR --out models/analyst

1. general: the analyst learns the vectors of a public sentence encoder, of the words of its vocabulary and of texts of all kinds.
2. teacher: that encoder is fine-tuned for the three heads; another sentiment head is fitted to it as it comes.
3. student: the analyst learns the heads, from the labels and from both teachers.

Checkpoints go to --work; a run that was stopped goes on from the last one. `--export-only` writes the files from it.
"""

import argparse
import math
import random
import time
from collections import Counter
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn import functional as F

from analyst_data import ALIASES, SENTIMENTS, TAGS, AnalystData
from analyst_report import calibrated, record_reference
from common import AdamW, Checkpoint, LengthBatches, Log, half_precision, seed_everything, warm_up_then_cosine, write_json
from distillation import Student, forward, imitation_loss, label_loss, likeness_loss, make_example, tag_at, teacher_side
from encoder import Analyst, is_matrix, is_of_layer
from lessons import Lessons
from muon import MuonAndAdamW
from packing import load_weights, save_tokenizer, save_weights, write_manifest
from teacher import FrozenTeacher, Polarity, fit_polarity, public_encoder

SEED = 20
VOCABULARY = 12288
MASKED_SHARE = 0.06  # input tokens hidden from the student, so that no single word decides
# Passes of each task's examples, each varied anew, for which the teachers are asked once; texts of the general task.
PASSES = {"intent": 3, "sentiment": 1, "entities": 2}
GENERAL_TEXTS = 100_000
RATED_WEIGHT = 6.0  # of a text that is no comment, when the second sentiment head is fitted
WEIGHT_DECAY = 0.05
WORD_STEPS, WORD_RATE = 400, 4e-3
# Each stage: steps, warm-up, learning rate, tokens of a batch, and each task's share of the steps.
STAGES = {
    "general": (250, 50, 1e-3, 4096, {"general": 1.0}),
    "teacher": (800, 100, 1.5e-4, 3072, {"intent": 0.3, "sentiment": 0.34, "entities": 0.36}),
    "student": (3400, 100, 1e-3, 6144, {"intent": 0.24, "sentiment": 0.22, "entities": 0.30, "general": 0.24}),
}
CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "intermediate_size": 1152,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "max_position_embeddings": 256,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "vocab_size": VOCABULARY,
    "quantization_config": {"quant_method": "q8_0", "block_size": 32, "scales": "row"},
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
    parser.add_argument("--steps", type=int, help="of the last stage, instead of its own number")
    parser.add_argument("--minutes", type=float, help="stop after so many minutes; the same command goes on from there")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--export-only", action="store_true", help="write the files from the last checkpoint")
    return parser.parse_args()


class Run:
    """The data, the tokenizers and the networks of one run."""

    def __init__(self, options):
        self.work, self.steps, self.minutes, self.started = Path(options.work), options.steps, options.minutes, time.time()
        self.data = AnalystData(options.data)
        self.tokenizer = make_tokenizer(self.data, self.work / "analyst-tokenizer.json")
        CONFIG["vocab_size"] = self.tokenizer.get_vocab_size()
        self.labels = {"intent": self.data.labels, "sentiment": SENTIMENTS, "entities": TAGS}
        self.counts = {name: len(values) for name, values in self.labels.items()}
        self.index = {task: {label: i for i, label in enumerate(values)} for task, values in self.labels.items()}
        self.public, self.public_tokenizer = public_encoder(self.counts)
        self.student = Student(Analyst(CONFIG, self.counts), CONFIG["hidden_size"], 384)
        self._original = None

    def train(self, stage):
        """One stage, from where its checkpoint left off."""
        steps, warm_up, rate, tokens, shares = STAGES[stage]
        if stage == "student" and self.steps:
            steps = self.steps
        checkpoint = Checkpoint(self.work / f"{stage}.pt")
        model = self.public if stage == "teacher" else self.student
        optimizer = AdamW(model, rate, WEIGHT_DECAY) if stage == "teacher" else MuonAndAdamW(model, rate, WEIGHT_DECAY)
        step, trained = checkpoint.load(model, optimizer)
        if step >= steps:
            return
        rng = random.Random(f"{SEED} {stage} {step}")
        torch.manual_seed(SEED + step)
        if stage == "teacher":
            length = lambda e: len(e.teacher_ids)
            queues = {task: LengthBatches(partial(self.examples, task), length, tokens, rng) for task in shares}
            loss_of = lambda task, examples: self.teacher_loss(task, teacher_side(examples))
        else:
            lessons = {task: self.lessons(task, stage) for task in shares}
            queues = {task: lessons[task].batches(tokens, rng) for task in shares}
            loss_of = lambda task, numbers: self.student_loss(task, self.hidden_from(lessons[task].batch(numbers)))
        if stage == "general" and not step:
            self.learn_words()
        if stage == "student" and not step:
            Checkpoint(self.work / "general.pt").load(self.student)
        log, since = Log(50), time.time() - trained
        model.train()
        while step < steps:
            task = rng.choices(list(shares), shares.values())[0]
            with half_precision():
                loss = loss_of(task, batch := queues[task].next())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step(rate * warm_up_then_cosine(step, warm_up, step / steps))
            log.add(task, loss.item(), len(batch))
            step += 1
            log.print_at(step, steps)
            late = self.minutes and time.time() - self.started > 60 * self.minutes
            if step % 100 == 0 or step == steps or late:
                checkpoint.save(step, time.time() - since, model, optimizer)
            if late:
                raise SystemExit(f"{stage}: stopped at step {step} of {steps}; the same command goes on")

    def examples(self, task, rng):
        """One pass of a task's examples, varied anew."""
        data, index = self.data, self.index.get(task)
        make = lambda text, target: make_example(task, text, target, self.tokenizer, self.public_tokenizer)
        if task == "entities":
            return [make(" ".join(tokens), tag_at(tokens, tags, index)) for tokens, tags in data.training_entities(rng)]
        if task == "general":
            texts = data.general_texts()
            return [make(text, None) for text in rng.sample(texts, min(GENERAL_TEXTS, len(texts)))]
        passes = {"intent": data.training_intent, "sentiment": data.training_sentiment}
        return [make(text, index.get(label, -1)) for text, label in passes[task](rng)]

    def lessons(self, task, stage):
        """What the teachers say of a task's examples; asked once and kept in the work folder."""
        path = self.work / f"lessons-{stage}-{task}.pt"
        if not path.exists():
            rng = random.Random(f"{SEED} {task}")
            examples = [e for _ in range(PASSES.get(task, 1)) for e in self.examples(task, rng)]
            if stage == "general":
                lessons = Lessons.ask(examples, original=self.original())
            else:
                # Of general texts, the vectors are known since the first stage; of requests and names, none are learned.
                known = self.lessons(task, "general") if task == "general" else None
                original = self.original() if task == "sentiment" else None
                lessons = Lessons.ask(examples, original, self.tuned(), known).mix(self.polarity())
            torch.save(lessons.tensors, path)
        return Lessons(torch.load(path))

    def learn_words(self):
        """The table of the vocabulary learns what the public encoder says of each of its words alone: rows are seen too seldom to wait for texts."""
        words = [(word, at) for word, at in sorted(self.tokenizer.get_vocab().items()) if word.isalnum() and at >= len(SPECIALS)]
        vectors = Lessons.ask([make_example("words", word, None, self.tokenizer, self.public_tokenizer) for word, _ in words],
                              self.original(), sort=False).tensors["vectors"].float()  # fmt: skip
        vectors = (vectors - vectors.mean(0)) / vectors.std(0).clamp(min=1e-3)
        rows, embeddings = torch.tensor([at for _, at in words]), self.student.network.embeddings
        table, to_entry = embeddings.word_embeddings.weight, self.student.to_entry
        size = table.norm(dim=1).mean().item()
        optimizer = torch.optim.Adam([table, *to_entry.parameters()], lr=WORD_RATE)
        for step in range(WORD_STEPS):
            loss = F.mse_loss(to_entry(F.layer_norm(table[rows], table.shape[1:])), vectors)
            for group in optimizer.param_groups:
                group["lr"] = WORD_RATE * warm_up_then_cosine(step, 20, step / WORD_STEPS)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            table.mul_(size / table.norm(dim=1, keepdim=True))
        print(f"words: {len(words)}, of what the teacher says of them {1 - loss.item():.3f} is learned", flush=True)

    def polarity(self):
        """The second sentiment head, fitted once to the vectors of the labelled texts."""
        path, polarity = self.work / "polarity.pt", Polarity()
        if not path.exists():
            data, rng = self.data, random.Random(SEED)
            plain = [(text, "neutral") for text in rng.sample(data.neutral, 3000)]
            weighted = [(t, 1.0) for t in data.comments + plain] + [(t, RATED_WEIGHT) for t in data.rated + data.feelings]
            weighted.sort(key=lambda pair: len(pair[0][0]))  # texts of about one length together: little padding
            make = lambda text, label: make_example("sentiment", text, SENTIMENTS.index(label), self.tokenizer, self.public_tokenizer)
            asked = Lessons.ask([make(*t) for t, _ in weighted], self.original(), sort=False).tensors
            weights = torch.tensor([weight for _, weight in weighted])
            torch.save(fit_polarity(asked["vectors"].float(), asked["target"], weights).state_dict(), path)
        polarity.load_state_dict(torch.load(path))
        return polarity.eval().requires_grad_(False)

    def original(self):
        """The public encoder as it comes."""
        self._original = self._original or FrozenTeacher(public_encoder(self.counts)[0])
        return self._original

    def tuned(self):
        """The public encoder after its fine-tuning."""
        network, _ = public_encoder(self.counts)
        Checkpoint(self.work / "teacher.pt").load(network)
        return FrozenTeacher(network)

    def teacher_loss(self, task, batch):
        return label_loss(task, forward(self.public, batch)[2], batch.target)

    def student_loss(self, task, batch):
        vectors, words, logits = forward(self.student.network, batch)
        losses = []
        if "vectors" in batch.taught:
            losses.append(likeness_loss(self.student, vectors, words, batch.taught))
        if "intent" in batch.taught:
            losses.append(imitation_loss(logits, batch.taught))
        if batch.target is not None:
            losses.append(label_loss(task, logits, batch.target))
        return sum(losses)

    def hidden_from(self, batch):
        """The batch with some tokens masked; [CLS] and [SEP] stay."""
        hide = (torch.rand(batch.ids.shape) < MASKED_SHARE) & batch.mask & (batch.ids >= len(SPECIALS))
        batch.ids = batch.ids.masked_fill(hide, SPECIALS.index("[MASK]"))
        return batch

    @torch.no_grad()
    def take_off_prior(self, bias):
        """Comments have nearly two positive ones for each negative: what hosts get need not, so the head must not expect it (Menon et al. 2021)."""
        count = Counter(label for _, label in self.data.comments)
        shift = math.log(count["positive"] / count["negative"]) / 2
        bias[SENTIMENTS.index("negative")] += shift
        bias[SENTIMENTS.index("positive")] -= shift

    def export(self, out):
        """Write the model's folder, then calibrate and record references with the weights as written."""
        step, seconds = Checkpoint(self.work / "student.pt").load(self.student)
        out.mkdir(parents=True, exist_ok=True)
        model, labels = self.student.network, self.labels
        self.take_off_prior(model.heads["sentiment"].bias)
        save_weights(out / "model.safetensors", model.state_dict(), is_matrix, is_of_layer)
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
            "version": "0.3.0",
            "task": "analysis",
            "licence": "MIT OR Apache-2.0",
            "heads": {name: head(name) for name in labels},
            "card": {
                "parameters": sum(p.numel() for p in model.parameters()),
                "data": DATA,
                "training": {"steps": step, "seed": SEED, "seconds": round(seconds), "tokens_per_batch": STAGES["student"][3]},
                "limits": LIMITS,
            },
        }
        total = write_manifest(out, manifest)
        print(f"{out}: {total} bytes")
        record_reference(model, self.tokenizer, labels, calibration)


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
