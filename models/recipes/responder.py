"""Train the responder: a small decoder that answers support messages, from random initialisation.

    python models/recipes/responder.py --data DIR --work DIR --out models/responder

Checkpoints go to --work; a run that was stopped goes on from the last one. `--export-only` writes the files from it.
"""

import argparse
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F

from common import Checkpoint, LengthBatches, Log, half_precision, progress, seed_everything, warm_up_then_cosine, write_json
from contrast import FIRST_PART, candidate_losses, contrast_loss, place_side_by_side
from decoder import Responder, is_matrix
from muon import MuonAndAdamW
from packing import load_weights, save_tokenizer, save_weights, write_manifest
from responder_data import ResponderData
from responder_report import prompt_ids, record_reference, true_answers_first, validation_figures, write_evaluation
from sink import close_sink, count_tokens

SEED = 21
STEPS = 4000
WARM_UP = 40
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.05
SHARES, TOKENS_PER_BATCH = 2, 1536  # a step learns from so many batches, with a contrast each
LONGEST = 512  # tokens of a training example
LONGEST_ANSWER = 96
# Questions of a contrast, and how many tokens of each answer are compared: the first words tell answers apart, the rest must do no harm.
CONTRASTS = [(9, 24), (8, 40), (7, 56), (6, LONGEST_ANSWER)]
# In the last part of a run a share of an answer's tokens is misread.
LAST_PART, SLIPS, SHARE_OF_LAST = 0.84, 0.06, 0.7
CONTRAST_WEIGHT, PAIRS_WEIGHT = 2.5, 1.0
VOCABULARY = 6144
SYSTEM, USER, ASSISTANT, END, PAD = SPECIALS = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 704,
    "hidden_act": "silu",
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "vocab_size": VOCABULARY,
    "bos_token_id": None,
    "eos_token_id": SPECIALS.index(END),
    "pad_token_id": SPECIALS.index(PAD),
    "quantization_config": {"quant_method": "q8_0", "block_size": 32},
}


def main():
    options = read_options()
    torch.set_num_threads(1)
    seed_everything(SEED)
    data = ResponderData(options.data)
    tokenizer = make_tokenizer(data, Path(options.work) / "responder-tokenizer.json")
    CONFIG["vocab_size"] = tokenizer.get_vocab_size()
    model = Responder(CONFIG)
    checkpoint, earlier = (Checkpoint(Path(options.work) / name) for name in ("responder.pt", "responder-earlier.pt"))
    if options.export_only:
        step, seconds = checkpoint.load(model)
    else:
        step, seconds = train(model, data, tokenizer, checkpoint, earlier, options)
    average(model, earlier)
    export(model, data, tokenizer, Path(options.out), step, seconds)


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
    """A byte-level BPE over one pass of examples; kept in the work folder so that a resumed run has the same."""
    if path.exists():
        return Tokenizer.from_file(str(path))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    examples = data.training(random.Random(SEED))
    # Digits stay single tokens, so that any number is read digit by digit.
    texts = (re.sub(r"(?<=\d)(?=\d)", "\n", m["content"]) for messages, _ in examples for m in messages)
    tokenizer.train_from_iterator(texts, trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return tokenizer


def train(model, data, tokenizer, checkpoint, earlier, options):
    """Each step learns from a batch of conversations and from a contrast: whose answer is whose, of a few alike."""
    optimizer = MuonAndAdamW(model, LEARNING_RATE, WEIGHT_DECAY)
    start, trained = checkpoint.load(model, optimizer)
    encode = lambda rng: [e for e in (encode_example(tokenizer, *example) for example in data.training(rng)) if e]
    batches = LengthBatches(encode, lambda e: len(e[0]), TOKENS_PER_BATCH, random.Random(SEED))
    # A run that goes on draws what one that was never stopped would.
    for _ in range(start * SHARES):
        batches.next()
    log, since = Log(50), time.time() - trained
    # A share for each thread: the products of so small a model are not worth two.
    workers = ThreadPoolExecutor(options.threads)
    model.train()
    step = start
    while (done := progress(step, options.steps, time.time() - since, options.minutes)) < 1:
        if done > LAST_PART and not earlier.path.exists():
            earlier.save(step, time.time() - since, model, optimizer)
        rng = random.Random(f"{SEED} {step}")
        torch.manual_seed(SEED + step)
        shares = [draw_share(data, tokenizer, batches, done, rng) for _ in range(SHARES)]
        learned = [work.result() for work in [workers.submit(learn, model, share, done) for share in shares]]
        for parameter, *gradients in zip(model.parameters(), *(gradients for _, gradients in learned)):
            parameter.grad = sum(gradients)
        for losses, _ in learned:
            log.add("answer", losses["answer"], losses["tokens"])
            log.add("contrast", losses["contrast"], 0)
            log.add("chosen", losses["chosen"], 0)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(LEARNING_RATE * rate(step, done), workers.map)
        step += 1
        log.print_at(step, options.steps)
        if step % 200 == 0:
            checkpoint.save(step, time.time() - since, model, optimizer)
            print(f"step {step}: first among ten {true_answers_first(model, data, tokenizer, True, every=6):.3f}", flush=True)
    checkpoint.save(step, time.time() - since, model, optimizer)
    return step, time.time() - since


def draw_share(data, tokenizer, batches, done, rng):
    """A batch of conversations, and a contrast."""
    ids, learned, tokens = collate(batches.next())
    read = with_slips(ids, learned) if done > LAST_PART else ids
    count, length = rng.choice(CONTRASTS if done < FIRST_PART else CONTRASTS[1:])
    pairs = draw_pairs(data, tokenizer, count, length, rng)
    placed = place_side_by_side([prompt for prompt, _ in pairs], [answer for _, answer in pairs])
    return read, ids, learned, placed, tokens + placed.ids.numel()


def draw_pairs(data, tokenizer, count, length, rng):
    """Questions that are alike and the first tokens of their answers, as ids."""
    return [(prompt_ids(tokenizer, m), answer_ids(tokenizer, a)[:length]) for m, a in data.contrast(count, rng)]


def learn(model, share, done):
    """The losses of a share, and the gradients of their sum."""
    read, ids, learned, placed, tokens = share
    with half_precision():
        hidden = model.hidden(read[:, :-1])
        # Logits are computed only where something is learned: the assistant's tokens and the end of its turn.
        answer = F.cross_entropy(model.logits(hidden[learned[:, 1:]]), ids[:, 1:][learned[:, 1:]])
        losses = candidate_losses(model, placed)
    contrast = contrast_loss(losses, done)
    loss = (answer + CONTRAST_WEIGHT * contrast + PAIRS_WEIGHT * losses.diagonal().mean()) / SHARES
    chosen = (losses.argmin(1) == torch.arange(len(losses))).float().mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return {"answer": answer.item(), "contrast": contrast.item(), "chosen": chosen.item(), "tokens": tokens}, gradients


@torch.no_grad()
def average(model, earlier):
    """Put the weights between those of before the last part and those of its end: the first tell answers apart better, the last write better."""
    last = {name: weight.clone() for name, weight in model.state_dict().items()}
    earlier.load(model)
    model.load_state_dict({name: (1 - SHARE_OF_LAST) * weight + SHARE_OF_LAST * last[name] for name, weight in model.state_dict().items()})


def rate(step, done):
    """The factor on the learning rate: warm-up and cosine, then a smaller part that falls to nothing."""
    if done < LAST_PART:
        return warm_up_then_cosine(step, WARM_UP, done, floor=0.02)
    return 0.3 * (1 - (done - LAST_PART) / (1 - LAST_PART))


def with_slips(ids, learned):
    """The ids with some of the learned ones exchanged: a model that answers must find back from a wrong word of its own."""
    slips = learned & (torch.rand(ids.shape) < SLIPS)
    words = ids[learned]
    return ids.masked_scatter(slips, words[torch.randint(len(words), (int(slips.sum()),))])


def answer_ids(tokenizer, answer):
    return [*tokenizer.encode(answer).ids, tokenizer.token_to_id(END)]


def encode_message(tokenizer, message):
    """The ids of one message as the chat template renders it."""
    role, end = tokenizer.token_to_id(f"<|{message['role']}|>"), tokenizer.token_to_id(END)
    return [role, *tokenizer.encode(message["content"]).ids, end]


def encode_example(tokenizer, messages, all_turns):
    """(ids, learned): which ids are learned; None for an example that is too long."""
    ids, learned = [], []
    for i, message in enumerate(messages):
        part = encode_message(tokenizer, message)
        is_learned = message["role"] == "assistant" and (all_turns or i == len(messages) - 1)
        ids += part
        learned += [False] + [is_learned] * (len(part) - 1)
    return (ids, learned) if len(ids) <= LONGEST else None


def collate(batch):
    width = max(len(ids) for ids, _ in batch)
    pad = SPECIALS.index(PAD)
    ids = torch.tensor([row + [pad] * (width - len(row)) for row, _ in batch])
    learned = torch.tensor([row + [False] * (width - len(row)) for _, row in batch])
    return ids, learned, sum(len(row) for row, _ in batch)


def export(model, data, tokenizer, out, step, seconds):
    """Write the model's folder, then measure and record references with the weights as written."""
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    draw = lambda: draw_pairs(data, tokenizer, *CONTRASTS[1], rng)
    never, seldom = close_sink(model, *count_tokens(data, tokenizer, SEED), SPECIALS.index(PAD), draw)
    print(f"{never} tokens are in no example, {seldom} are seldom written")
    save_weights(out / "model.safetensors", model.state_dict(), is_matrix)
    write_json(out / "config.json", CONFIG)
    save_tokenizer(tokenizer, out / "tokenizer.json")
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_bos_token": False,
            "bos_token": None,
            "eos_token": END,
            "pad_token": PAD,
            "additional_special_tokens": [SYSTEM, USER, ASSISTANT],
            "model_max_length": CONFIG["max_position_embeddings"],
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    model.load_state_dict(load_weights(out / "model.safetensors"))
    model.eval()
    figures = validation_figures(model, data, tokenizer)
    manifest = {
        "schema": 1,
        "name": "responder",
        "version": "0.3.0",
        "task": "generation",
        "licence": "MIT OR Apache-2.0",
        "card": {
            "parameters": sum(p.numel() for p in model.parameters()),
            "data": DATA,
            "validation": figures,
            "training": {"steps": step, "seed": SEED, "seconds": round(seconds), "tokens_per_step": SHARES * TOKENS_PER_BATCH},
            "limits": LIMITS,
        },
    }
    total = write_manifest(out, manifest)
    print(f"{out}: {total} bytes")
    record_reference(model, tokenizer)
    write_evaluation(data)


DATA = {
    "support": "Bitext customer support and customer-service intents (CDLA-Sharing 1.0), own support_phrases.jsonl and support_answers.jsonl",
    "small talk and refusals": "questions of CLINC150 (CC BY 3.0), HWU64 (CC BY 4.0), SNIPS (CC0), own answers",
    "dialogues": "STAR (MIT), MultiWOZ 2.1 test (MIT), Taskmaster-4 (CC BY 4.0), Self-dialogue Corpus (BSD-3-Clause), Synthetic-Persona-Chat test (CC BY 4.0), "
    "Topical-Chat test (CDLA-Sharing 1.0), ChatterBot corpus (BSD-3-Clause)",
}
LIMITS = (
    "English only. A small model trained from random initialisation: it answers support requests in the manner of its data, "
    "knows no facts about your shop, can invent names of menus, and turns anything else down or answers it wrongly. Its sentences can break off into others. "
    "It repeats no order numbers. Long conversations confuse it."
)

if __name__ == "__main__":
    main()
