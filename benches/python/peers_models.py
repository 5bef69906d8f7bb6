"""Models with random weights in the layouts that each peer reads: speed does not depend on what weights say.

    peers_models.py FOLDER

`distilbert` and `analyst` are sentiment classifiers of the shapes that a `transformers.pipeline("sentiment-analysis")` has by
default and that our own analyst has, for transformers and, quantized to 8 bits, for onnxruntime. `135M` is a decoder, as
safetensors for transformers and as a GGUF of Q8_0 for llama.cpp and for us.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
import transformers
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quants
from onnxruntime.quantization import QuantType, quantize_dynamic

MODELS = Path(__file__).parents[2] / "models"
LABELS = ["negative", "neutral", "positive"]
LONGEST = 512
# hidden size, layers, heads, key/value heads, feed-forward size, vocabulary, context
SHAPE_135M = (576, 30, 9, 3, 1536, 49_152, 2048)


def analyst_tokenizer() -> transformers.PreTrainedTokenizerFast:
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(MODELS / "analyst" / "tokenizer.json"), model_max_length=LONGEST, **names
    )


def classifier(folder: Path, model: transformers.PreTrainedModel) -> None:
    model.eval()
    model.save_pretrained(folder)
    analyst_tokenizer().save_pretrained(folder)
    ids = torch.ones((2, 8), dtype=torch.long)
    whole = folder / "whole.onnx"
    torch.onnx.export(
        model,
        (ids, ids),
        str(whole),
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_axes={name: {0: "texts", 1: "tokens"} for name in ["input_ids", "attention_mask"]},
        dynamo=False,
    )
    quantize_dynamic(whole, folder / "int8.onnx", weight_type=QuantType.QInt8)
    whole.unlink()


def classifiers(folder: Path) -> None:
    labels = {"num_labels": len(LABELS), "id2label": dict(enumerate(LABELS)), "label2id": {l: i for i, l in enumerate(LABELS)}}
    classifier(
        folder / "distilbert",
        transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig(**labels)),
    )
    ours = json.loads((MODELS / "analyst" / "config.json").read_text())
    shape = ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"]
    config = transformers.BertConfig(**{key: ours[key] for key in shape}, max_position_embeddings=LONGEST, **labels)
    classifier(folder / "analyst", transformers.BertForSequenceClassification(config))


def decoder(folder: Path) -> None:
    hidden, layers, heads, kv_heads, ffn, vocabulary, context = SHAPE_135M
    config = transformers.LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=ffn,
        vocab_size=vocabulary,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=4,
    )
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer = json.loads((MODELS / "responder" / "tokenizer.json").read_text())
    transformers.PreTrainedTokenizerFast(tokenizer_file=str(MODELS / "responder" / "tokenizer.json")).save_pretrained(folder)

    writer = GGUFWriter(folder / "q8_0.gguf", "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    known = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    control = len(tokenizer["added_tokens"])
    spare = [f"<|spare {number}|>" for number in range(vocabulary - len(known))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(known + spare)
    types = [TokenType.CONTROL] * control + [TokenType.NORMAL] * (len(known) - control) + [TokenType.UNUSED] * len(spare)
    writer.add_token_types(types)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(3)
    writer.add_pad_token_id(4)
    for name, tensor in gguf_tensors(model.state_dict(), heads, kv_heads):
        if tensor.ndim == 1:
            writer.add_tensor(name, tensor)
        else:
            packed = quants.quantize(tensor, GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_tensors(
    state: dict[str, torch.Tensor], heads: int, kv_heads: int
) -> Iterator[tuple[str, numpy.ndarray[Any, Any]]]:
    """Tensors by their names in GGUF; there the rows of a head's two halves alternate."""
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    for name, tensor in state.items():
        array = tensor.detach().float().numpy()
        if name in whole:
            yield whole[name], array
        elif name.startswith("model.layers."):
            _, _, layer, part = name.removesuffix(".weight").split(".", 3)
            if "q_proj" in part or "k_proj" in part:
                count = heads if "q_proj" in part else kv_heads
                halves = array.reshape(count, 2, array.shape[0] // count // 2, array.shape[1])
                array = numpy.ascontiguousarray(halves.swapaxes(1, 2).reshape(array.shape))
            yield f"blk.{layer}.{names[part]}.weight", array


def main() -> None:
    folder = Path(sys.argv[1])
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    classifiers(folder)
    decoder(folder / "135M")


if __name__ == "__main__":
    main()
