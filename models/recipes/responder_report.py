"""Validation figures and reference activations of the responder, with the weights as written."""

import json
import re

import torch
from torch.nn import functional as F

from common import RECIPES, write_json
from contrast import candidate_losses, place
from conversations import CONVERSATIONS, FIRST
from decoder import greedy
from responder_data import HELPFUL, entity_line

ANALYSED = f"{HELPFUL}\nintent: help_request\nsentiment: neutral\nentities: account=account"
REFERENCES = {
    "message alone": [("user", FIRST)],
    "message with its analysis": [("system", ANALYSED), ("user", FIRST)],
    "third turn": [
        ("system", f"{HELPFUL}\nintent: track_order\nsentiment: neutral\nentities: order_id=4711\nprevious_intent: help_request"),
        ("user", FIRST),
        ("assistant", "I'd be happy to help you with your account. Could you tell me a little more about the problem?"),
        ("user", "Where is order 4711?"),
    ],
}


def messages_of(turns):
    return [{"role": role, "content": content} for role, content in turns]


def prompt_of(messages):
    """The rendered prompt, as chat_template.jinja makes it."""
    return "".join(f"<|{m['role']}|>{m['content']}<|end|>" for m in messages) + "<|assistant|>"


def prompt_ids(tokenizer, messages):
    """The ids of the prompt; contents are encoded apart from the control tokens, so text never becomes one."""
    ids = []
    for m in messages:
        ids += [tokenizer.token_to_id(f"<|{m['role']}|>"), *tokenizer.encode(m["content"]).ids, tokenizer.token_to_id("<|end|>")]
    return ids + [tokenizer.token_to_id("<|assistant|>")]


def candidates_of(rows, category):
    """For each validation row: its own answer and those of nine other rows of its category, spread evenly over the category's rows."""
    groups = {}
    for row in rows:
        groups.setdefault(category[row[2]], []).append(row)
    for group in groups.values():
        for i, row in enumerate(group):
            yield row, [row[1]] + [group[(i + 1 + j * (len(group) - 1) // 9) % len(group)][1] for j in range(9)]


def by_intent_alone(data):
    """The share that would be first if only answers to the same intent were in question, one of them taken by chance."""
    intent_of = {answer: intent for _, answer, intent in data.validation}
    chances = [1 / sum(intent_of[a] == row[2] for a in answers) for row, answers in candidates_of(data.validation, data.category)]
    return sum(chances) / len(chances)


@torch.no_grad()
def true_answers_first(model, data, tokenizer, with_analysis, every=1):
    """The share of validation questions whose own answer has the lowest loss a token among ten of its category."""
    chosen = list(candidates_of(data.validation, data.category))[::every]
    first = 0
    for (question, _, intent), answers in chosen:
        system = [("system", f"{HELPFUL}\nintent: {intent}\nsentiment: neutral")] * with_analysis
        prompt = prompt_ids(tokenizer, messages_of(system + [("user", question)]))
        ids = [tokenizer.encode(answer).ids + [tokenizer.token_to_id("<|end|>")] for answer in answers]
        losses = candidate_losses(model, place([prompt], [ids]))[0]
        first += int(losses[0] < losses[1:].min())
    return first / len(chosen)


@torch.no_grad()
def validation_figures(model, data, tokenizer, generated=48, limit=128):
    """Loss on Bitext's held-out answers, and what greedy answers to a part of its questions look like."""
    end = tokenizer.token_to_id("<|end|>")
    total, count = 0.0, 0
    for question, answer, intent in data.validation:
        messages = messages_of([("system", f"{HELPFUL}\nintent: {intent}\nsentiment: neutral"), ("user", question)])
        prompt, target = prompt_ids(tokenizer, messages), tokenizer.encode(answer).ids + [end]
        hidden = model.hidden(torch.tensor([prompt + target[:-1]]))[0, len(prompt) - 1 :]
        total += F.cross_entropy(model.logits(hidden), torch.tensor(target), reduction="sum").item()
        count += len(target)
    figures = {"bitext_support": {"answers": len(data.validation), "tokens": count, "loss_per_token": round(total / count, 4)}}

    rows = data.validation[:: max(1, len(data.validation) // generated)][:generated]
    for name, with_intent in (("with_analysis", True), ("message_alone", False)):
        chats = [[("system", f"{HELPFUL}\nintent: {i}\nsentiment: neutral")] * with_intent + [("user", q)] for q, _, i in rows]
        results = [greedy(model, prompt_ids(tokenizer, messages_of(chat)), end, limit) for chat in chats]
        outputs, ended = [tokenizer.decode(ids) for ids, _ in results], [done for _, done in results]
        figures[name] = {
            "greedy_answers": len(outputs),
            "ended_by_themselves": round(sum(ended) / len(ended), 4),
            "mean_words": round(sum(len(o.split()) for o in outputs) / len(outputs), 1),
            "with_placeholder": sum("{{" in o for o in outputs),
            "repeated_4_grams": round(repeated_share([ids for ids, _ in results]), 4),
            "with_a_long_number": sum(bool(re.search(r"\d{3}", o)) for o in outputs),
        }
    print("by_intent_alone", round(by_intent_alone(data), 4))
    for name, part in figures.items():
        print(name, part)
    converse(model, tokenizer, limit)
    return figures


def repeated_share(answers):
    """The share of runs of four tokens that came before in the same answer, over all answers."""
    runs = [[tuple(ids[i : i + 4]) for i in range(len(ids) - 3)] for ids in answers]
    total = sum(map(len, runs))
    return (total - sum(len(set(part)) for part in runs)) / max(1, total)


def converse(model, tokenizer, limit):
    """Print the conversations of the card: each answer is greedy, with all turns so far before it."""
    end = tokenizer.token_to_id("<|end|>")
    for turns in CONVERSATIONS:
        history, previous = [], None
        for text, intent, sentiment in turns:
            history.append(("user", text))
            system = f"{HELPFUL}\nintent: {intent}\nsentiment: {sentiment}"
            found = entity_line(text)
            system += f"\nentities: {found}" if found else ""
            system += f"\nprevious_intent: {previous}" if previous else ""
            chat = [("system", system)] * bool(intent) + history
            ids, done = greedy(model, prompt_ids(tokenizer, messages_of(chat)), end, limit)
            history.append(("assistant", tokenizer.decode(ids)))
            print(f"{text} [{intent}]\n    {history[-1][1]!r}{'' if done else ' (cut)'}")
            previous = intent
        print()


def write_evaluation(data):
    """The prepared validation rows, as `antiphon eval --task responses` reads them."""
    path = RECIPES.parent / "evaluation" / "responses.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for question, answer, intent in data.validation:
            messages = messages_of([("user", question), ("assistant", answer)])
            record = {"messages": messages, "category": data.category[intent], "intent": intent}
            out.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")


@torch.no_grad()
def record_reference(model, tokenizer):
    """What another implementation has to reproduce from the same files."""
    end, records = tokenizer.token_to_id("<|end|>"), []
    for name, turns in REFERENCES.items():
        messages = messages_of(turns)
        ids = prompt_ids(tokenizer, messages)
        logits = model.logits(model.hidden(torch.tensor([ids])))[0, -1]
        top = logits.topk(3)
        continuation, _ = greedy(model, ids, end, 96)
        forced = model.logits(model.hidden(torch.tensor([ids + continuation[:15]])))[0, len(ids) - 1 :]
        first, second = forced.topk(2).values.unbind(-1)
        records.append(
            {
                "name": name,
                "messages": messages,
                "prompt": prompt_of(messages),
                "prompt_ids": ids,
                "last_logits_first_4": logits[:4].tolist(),
                "last_logits_top_3": [[i, v] for v, i in zip(top.values.tolist(), top.indices.tolist())],
                "greedy_ids_first_16": continuation[:16],
                # How far the chosen token was ahead: below the error of other arithmetic, another choice is no fault.
                "greedy_margins_first_16": (first - second).tolist(),
                "greedy_text": tokenizer.decode(continuation),
            }
        )
    (RECIPES / "reference").mkdir(exist_ok=True)
    write_json(RECIPES / "reference" / "responder.json", records)
