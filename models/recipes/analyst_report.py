"""Calibration, validation figures and reference activations of the analyst, all with the weights as written."""

import math

import torch
from torch.nn import functional as F

from common import RECIPES, write_json

REFERENCE_TEXTS = [
    "Hello, I need help with my account",
    "Where is order 4711? Anna Freeman from Amazon said it would be in Berlin on Monday.",
    "THANK you so much 😊 — das war großartig!",
]
CHECK_TEXTS = [
    "Hello, I need help with my account", "Where is order 4711?", "I want my money back!", "cancel my subscription to the newsletter",
    "hi there", "thank you so much", "I want to talk to a human", "who won the world cup in 1998", "My name is John Smith and I live in Paris",
]  # fmt: skip
# Calling a text of ours out of scope is this many times as bad as answering one that is not.
FALSE_REJECT_COST = 4.0


def figures_and_calibration(model, data, tokenizer, labels):
    """Temperatures and the threshold from the even half of each validation set, calibration figures from the odd half."""
    intent, outlier = intent_outputs(model, data, tokenizer, labels["intent"])
    sentiment = sentiment_outputs(model, data, tokenizer)
    calibration = {"entities": {"temperature": 1.0, "threshold": None}}

    temperature = fit_temperature(*joined(half(intent, 0)))
    threshold = best_threshold(joined(half(intent, 0)), joined(half(outlier, 0))[0], temperature)
    calibration["intent"] = {"temperature": temperature, "threshold": threshold}
    temperature = fit_temperature(*joined(half(sentiment, 0)))
    calibration["sentiment"] = {"temperature": temperature, "threshold": None}

    figures = {"intent": intent_figures(intent, outlier, calibration["intent"])}
    figures["sentiment"] = {name: sentiment_figures(part, temperature) for name, part in half(sentiment, 1).items()}
    figures["entities"] = {name: entity_figures(model, tokenizer, part) for name, part in data.validation_entities.items()}
    for name, part in figures.items():
        print(name, part)
    for text in CHECK_TEXTS:
        print(describe(model, tokenizer, labels, calibration, text))
    return figures, calibration


@torch.no_grad()
def sequence_vectors(model, tokenizer, texts):
    """One vector a text, computed one by one as the reference: no padding, no truncation but the position table."""
    limit = model.embeddings.position_embeddings.num_embeddings
    vectors = []
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text).ids[:limit]])
        mask = torch.ones_like(ids, dtype=torch.bool)
        vectors.append(model.sequence(model.hidden(ids, mask), mask)[0])
    return torch.stack(vectors)


@torch.no_grad()
def intent_outputs(model, data, tokenizer, labels):
    """(logits, targets) of the in-scope part of each validation set, and of the outliers."""
    index, outputs = {label: i for i, label in enumerate(labels)}, {}
    for name, part in data.validation_intent.items():
        inside = [(text, index[label]) for text, label in part if label in index]
        logits = model.heads["intent"](sequence_vectors(model, tokenizer, [text for text, _ in inside]))
        outputs[name] = logits, torch.tensor([target for _, target in inside])
    oos = [text for text, label in data.validation_intent["clinc150"] if label == "oos"]
    other = [text for text in data.validation_outliers if text not in set(oos)]
    outliers = {}
    for name, texts in {"clinc150_oos": oos, "hwu64_other": other}.items():
        logits = model.heads["intent"](sequence_vectors(model, tokenizer, texts))
        outliers[name] = logits, torch.zeros(len(texts), dtype=torch.long)
    return outputs, outliers


@torch.no_grad()
def sentiment_outputs(model, data, tokenizer):
    index = {"negative": 0, "neutral": 1, "positive": 2}
    return {
        name: (
            model.heads["sentiment"](sequence_vectors(model, tokenizer, [text for text, _ in part])),
            torch.tensor([index[label] for _, label in part]),
        )
        for name, part in data.validation_sentiment.items()
    }


def half(parts, which):
    """Every second example of each set: 0 tunes, 1 measures."""
    return {name: (logits[which::2], targets[which::2]) for name, (logits, targets) in parts.items()}


def joined(parts):
    return torch.cat([p[0] for p in parts.values()]), torch.cat([p[1] for p in parts.values()])


def fit_temperature(logits, targets):
    """The temperature of the lowest negative log-likelihood, to two digits."""
    candidates = [t / 100 for t in range(30, 401)]
    return min(candidates, key=lambda t: F.cross_entropy(logits / t, targets).item())


def best_threshold(inside, outlier_logits, temperature):
    """The top probability below which a text is out of scope, at the least cost of false rejects and false accepts."""
    top_inside, best = (inside[0] / temperature).softmax(-1).max(-1)
    top_right = top_inside[best == inside[1]]  # a wrong label is no loss when it is refused
    top_outside = (outlier_logits / temperature).softmax(-1).max(-1).values
    cost = lambda p: FALSE_REJECT_COST * (top_right < p).float().mean() + (top_outside >= p).float().mean()
    return min((p / 1000 for p in range(20, 990, 5)), key=lambda p: cost(p).item())


def calibration_error(probabilities, right, bins=15):
    """Expected calibration error of the top probability."""
    error = 0.0
    for i in range(bins):
        inside = (probabilities > i / bins) & (probabilities <= (i + 1) / bins)
        if inside.any():
            gap = (probabilities[inside].mean() - right[inside].float().mean()).abs().item()
            error += gap * inside.float().mean().item()
    return error


def intent_figures(intent, outlier, calibration):
    temperature, threshold = calibration["temperature"], calibration["threshold"]
    figures = {}
    for name, (logits, targets) in intent.items():
        top, best = (logits / temperature).softmax(-1).max(-1)
        right = best == targets
        figures[name] = {
            "texts": len(targets),
            "accuracy": rounded(right.float().mean()),
            "accuracy_with_threshold": rounded((right & (top >= threshold)).float().mean()),
            "ece": rounded(calibration_error(top[1::2], right[1::2])),
        }
    for name, (logits, _) in outlier.items():
        top = (logits / temperature).softmax(-1).max(-1).values
        figures[name] = {"texts": len(top), "refused": rounded((top < threshold).float().mean())}
    return figures


def sentiment_figures(part, temperature):
    logits, targets = part
    top, best = (logits / temperature).softmax(-1).max(-1)
    right = best == targets
    recalls = [right[targets == i].float().mean() for i in range(3) if (targets == i).any()]
    return {
        "texts": len(targets),
        "accuracy": rounded(right.float().mean()),
        "macro_recall": rounded(sum(recalls) / len(recalls)),
        "ece": rounded(calibration_error(top, right)),
    }


@torch.no_grad()
def word_tags(model, tokenizer, text):
    """[(start, end, tag index, probability)] of each word: that of its first piece."""
    encoding = tokenizer.encode(text)
    limit = model.embeddings.position_embeddings.num_embeddings
    ids = torch.tensor([encoding.ids[:limit]])
    probabilities = model.heads["entities"](model.hidden(ids, torch.ones_like(ids, dtype=torch.bool)))[0].softmax(-1)
    words = []
    for word, (start, end), row in zip(encoding.word_ids, encoding.offsets, probabilities):
        if word is None:
            continue
        if words and words[-1][0] == word:
            words[-1][2] = end
            continue
        top, tag = row.max(-1)
        words.append([word, start, end, tag.item(), top.item()])
    return [tuple(w[1:]) for w in words]


def spans(words, tags):
    """BIO tags to {(start, end, kind)}; an I without a fitting predecessor starts a span."""
    found, open_span = set(), None
    for start, end, tag, _ in list(words) + [(0, 0, 0, 0.0)]:
        name = tags[tag]
        if open_span and name == f"I-{open_span[2]}":
            open_span = (open_span[0], end, open_span[2])
            continue
        if open_span:
            found.add(open_span)
        open_span = None if name == "O" else (start, end, name[2:])
    return found


def entity_figures(model, tokenizer, sentences):
    """Exact-span precision, recall and F1 on the text of a sentence (its tokens joined by a blank)."""
    from analyst_data import TAGS

    counts = {}
    for tokens, gold_tags in sentences:
        words, at = [], 0
        for token, tag in zip(tokens, gold_tags):
            words.append((at, at + len(token), TAGS.index(tag), 1.0))
            at += len(token) + 1
        gold, found = spans(words, TAGS), spans(word_tags(model, tokenizer, " ".join(tokens)), TAGS)
        for group in ("all", *{s[2] for s in gold | found}):
            of_group = lambda s: {x for x in s if group in ("all", x[2])}
            row = counts.setdefault(group, [0, 0, 0])
            row[0] += len(of_group(gold) & of_group(found))
            row[1] += len(of_group(found))
            row[2] += len(of_group(gold))
    table = {}
    for group, (hit, predicted, wanted) in sorted(counts.items()):
        precision, recall = hit / max(1, predicted), hit / max(1, wanted)
        f1 = 2 * precision * recall / max(1e-9, precision + recall)
        table[group] = {"precision": rounded(precision), "recall": rounded(recall), "f1": rounded(f1), "spans": wanted}
    return table


def rounded(value):
    return round(float(value), 4)


def describe(model, tokenizer, labels, calibration, text):
    vector = sequence_vectors(model, tokenizer, [text])
    line = f"{text!r}:"
    for name in ("intent", "sentiment"):
        logits = model.heads[name](vector)[0] / calibration[name]["temperature"]
        top = logits.softmax(-1).topk(3)
        line += f" {name} " + ", ".join(f"{labels[name][i]} {p:.2f}" for p, i in zip(top.values, top.indices)) + ";"
    names = [(text[s:e], kind) for s, e, kind in sorted(spans(word_tags(model, tokenizer, text), labels["entities"]))]
    return line + f" entities {names}"


@torch.no_grad()
def record_reference(model, tokenizer, labels, calibration):
    """What another implementation has to reproduce from the same files."""
    records = []
    for text in REFERENCE_TEXTS:
        encoding = tokenizer.encode(text)
        vector = sequence_vectors(model, tokenizer, [text])
        intent, sentiment = model.heads["intent"](vector)[0], model.heads["sentiment"](vector)[0]
        top = intent.topk(3)
        temperature = calibration["sentiment"]["temperature"]
        records.append(
            {
                "text": text,
                "ids": encoding.ids,
                "tokens": encoding.tokens,
                "sequence_vector_first_4": vector[0, :4].tolist(),
                "sequence_vector_norm": math.sqrt(vector.square().sum().item()),
                "intent_logits_top_3": [[labels["intent"][i], v.item()] for v, i in zip(top.values, top.indices)],
                "intent_confidence": (intent / calibration["intent"]["temperature"]).softmax(-1).max().item(),
                "sentiment_logits": sentiment.tolist(),
                "sentiment_probabilities": dict(zip(labels["sentiment"], (sentiment / temperature).softmax(-1).tolist())),
                "word_tags": [[s, e, labels["entities"][t], p] for s, e, t, p in word_tags(model, tokenizer, text)],
            }
        )
    (RECIPES / "reference").mkdir(exist_ok=True)
    write_json(RECIPES / "reference" / "analyst.json", records)
