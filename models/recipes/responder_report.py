"""Validation figures and reference activations of the responder, with the weights as written."""

import re

import torch
from torch.nn import functional as F

from common import RECIPES, write_json
from decoder import greedy

HELPFUL = "You are a helpful assistant."
FIRST = "Hello, I need help with my account"
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
SAMPLES = [
    (FIRST, None, None), (FIRST, "help_request", "neutral"), ("hi there", "greeting", "neutral"), ("Where is order 4711?", "track_order", "neutral"),
    ("Where is order 4711?", None, None), ("I want my money back!", "get_refund", "negative"), ("cancel my subscription to the newsletter", "newsletter_subscription", "neutral"),
    ("thank you so much", "thank_you", "positive"), ("I want to talk to a human", "contact_human_agent", "neutral"), ("I forgot my password", "recover_password", "neutral"),
    ("who won the world cup in 1998", "out_of_scope", "neutral"), ("What will the weather be like tomorrow?", "weather", "neutral"),
    ("Tell me about black holes", None, None), ("My laptop is very slow", None, None), ("Please cancel order 90210", "cancel_order", "neutral"),
    ("You charged me twice, this is a joke!", "payment_issue", "negative"), ("are you human?", "are_you_a_bot", "neutral"), ("bye", None, None),
    ("Write a poem about the sea", None, None), ("Hello Hello Hello", None, None),
]  # fmt: skip


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


@torch.no_grad()
def validation_figures(model, data, tokenizer, generated=96, limit=128):
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
            "looping": sum(is_looping(o) for o in outputs),
            "with_a_long_number": sum(bool(re.search(r"\d{3}", o)) for o in outputs),
        }
    for name, part in figures.items():
        print(name, part)
    for text, intent, sentiment in SAMPLES:
        chat = [("system", f"{HELPFUL}\nintent: {intent}\nsentiment: {sentiment}")] * bool(intent) + [("user", text)]
        ids, done = greedy(model, prompt_ids(tokenizer, messages_of(chat)), end, limit)
        print(f"{text!r} [{intent}] -> {tokenizer.decode(ids)!r}{'' if done else ' (cut)'}")
    return figures


def is_looping(text):
    """Whether some four words come three times."""
    words = text.split()
    fours = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return any(fours.count(f) >= 3 for f in set(fours))


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
