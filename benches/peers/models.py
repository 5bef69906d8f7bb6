"""Models with random weights in the layouts that each contestant reads: speed does not depend on what weights say.

    models.py FOLDER

Makes what is not there yet. A decoder is drawn once; llama.cpp's own quantizer makes the GGUF files that it, candle and we
read, CTranslate2's own makes its folder.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ctranslate2
import gguf
import llama_cpp
import numpy
import onnx
from ctranslate2.specs import common_spec, transformer_spec
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from shapes import CONTEXT, DECODERS, ENCODER, EPSILON, QUANTIZED, ROPE_BASE, DecoderShape

Array = numpy.ndarray[Any, Any]
# Weights of a block of Q8_0.
BLOCK = 32
KINDS = {
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
}


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, None)
    for name, shape in DECODERS.items():
        # The last that is made: where it is, all are.
        if (folder / f"{name}-Q4_K_M.gguf").exists():
            continue
        tensors = dict(decoder_tensors(shape))
        for_ctranslate2(folder / f"{name}-int8", shape, tensors)
        whole = folder / f"{name}-F16.gguf"
        write_gguf(whole, shape, tensors)
        del tensors
        for quantization in QUANTIZED[name]:
            quantize(whole, folder / f"{name}-{quantization}.gguf", KINDS[quantization])
        whole.unlink()
    if not all((folder / name).exists() for name in ("MiniLM-row", "MiniLM.onnx")):
        encoder = dict(encoder_tensors())
        write_safetensors(folder / "MiniLM", encoder, "block")
        write_safetensors(folder / "MiniLM-row", encoder, "row")
        write_onnx(folder / "MiniLM.onnx", encoder)


def drawn(draw: numpy.random.Generator, *shape: int) -> Array:
    return draw.standard_normal(shape, dtype=numpy.float32) * numpy.float32(0.04)


def decoder_tensors(shape: DecoderShape) -> Iterator[tuple[str, Array]]:
    """By their names in GGUF."""
    draw = numpy.random.default_rng(0)
    yield "token_embd.weight", drawn(draw, shape.vocabulary, shape.hidden).astype(numpy.float16)
    for layer in range(shape.layers):
        matrices = {
            "attn_q": (shape.hidden, shape.hidden),
            "attn_k": (shape.kv_width, shape.hidden),
            "attn_v": (shape.kv_width, shape.hidden),
            "attn_output": (shape.hidden, shape.hidden),
            "ffn_gate": (shape.ffn, shape.hidden),
            "ffn_up": (shape.ffn, shape.hidden),
            "ffn_down": (shape.hidden, shape.ffn),
        }
        for name, (rows, columns) in matrices.items():
            yield f"blk.{layer}.{name}.weight", drawn(draw, rows, columns).astype(numpy.float16)
            if shape.architecture == "qwen2" and name in ("attn_q", "attn_k", "attn_v"):
                yield f"blk.{layer}.{name}.bias", drawn(draw, rows)
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{name}.weight", numpy.ones(shape.hidden, numpy.float32)
    yield "output_norm.weight", numpy.ones(shape.hidden, numpy.float32)


def write_gguf(path: Path, shape: DecoderShape, tensors: dict[str, Array]) -> None:
    writer = gguf.GGUFWriter(path, shape.architecture)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.hidden // shape.heads)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(EPSILON)
    # Nobody reads text here: each engine is given and gives numbers.
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(shape.vocabulary)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(whole: Path, path: Path, kind: int) -> None:
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = kind
    unfinished = path.with_suffix(".unfinished")
    if llama_cpp.llama_model_quantize(str(whole).encode(), str(unfinished).encode(), ctypes.byref(settings)) != 0:
        raise RuntimeError(f"{path.name}: llama.cpp does not quantize it")
    unfinished.rename(path)


def for_ctranslate2(folder: Path, shape: DecoderShape, tensors: dict[str, Array]) -> None:
    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        shape.layers,
        shape.heads,
        activation=common_spec.Activation.SWISH,
        pre_norm=True,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=0,
        rotary_interleave=False,
        rotary_base=ROPE_BASE,
        num_heads_kv=shape.kv_heads,
    )

    def whole(name: str) -> Array:
        return tensors[name].astype(numpy.float32)

    def rotated(name: str, heads: int) -> Array:
        """Llama's heads turn pairs of neighbours in a GGUF file, and halves everywhere else."""
        matrix = whole(name)
        if shape.architecture != "llama":
            return matrix
        return matrix.reshape(heads, -1, 2, shape.hidden).swapaxes(1, 2).reshape(matrix.shape)

    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = whole("token_embd.weight")
    decoder.projection.weight = decoder.embeddings.weight
    decoder.layer_norm.gamma = whole("output_norm.weight")
    for index, layer in enumerate(decoder.layer):
        block = f"blk.{index}"
        queries, keys, values = (f"{block}.attn_{part}" for part in "qkv")
        attention, ffn = layer.self_attention, layer.ffn
        attention.layer_norm.gamma = whole(f"{block}.attn_norm.weight")
        rows = [rotated(f"{queries}.weight", shape.heads), rotated(f"{keys}.weight", shape.kv_heads), whole(f"{values}.weight")]
        attention.linear[0].weight = numpy.concatenate(rows)
        if f"{queries}.bias" in tensors:
            attention.linear[0].bias = numpy.concatenate([whole(f"{part}.bias") for part in (queries, keys, values)])
        attention.linear[1].weight = whole(f"{block}.attn_output.weight")
        ffn.layer_norm.gamma = whole(f"{block}.ffn_norm.weight")
        ffn.linear_0.weight = whole(f"{block}.ffn_gate.weight")
        ffn.linear_0_noact.weight = whole(f"{block}.ffn_up.weight")
        ffn.linear_1.weight = whole(f"{block}.ffn_down.weight")
    spec.register_vocabulary([str(token) for token in range(shape.vocabulary)])
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = "0", "1", "2"
    spec.config.layer_norm_epsilon = EPSILON
    spec.validate()
    spec.optimize(quantization="int8")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    spec.save(str(folder))


def encoder_tensors() -> Iterator[tuple[str, Array]]:
    """By their names in Hugging Face's BERT."""
    draw = numpy.random.default_rng(0)
    hidden = ENCODER.hidden
    yield "embeddings.word_embeddings.weight", drawn(draw, ENCODER.vocabulary, hidden)
    yield "embeddings.position_embeddings.weight", drawn(draw, ENCODER.longest, hidden)
    yield "embeddings.token_type_embeddings.weight", numpy.zeros((2, hidden), numpy.float32)
    norms = ["embeddings.LayerNorm"]
    for index in range(ENCODER.layers):
        layer = f"encoder.layer.{index}"
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        for name, rows, columns in [
            *((f"attention.self.{part}", hidden, hidden) for part in ("query", "key", "value")),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", ENCODER.ffn, hidden),
            ("output.dense", hidden, ENCODER.ffn),
        ]:
            yield f"{layer}.{name}.weight", drawn(draw, rows, columns)
            yield f"{layer}.{name}.bias", drawn(draw, rows)
    for norm in norms:
        yield f"{norm}.weight", numpy.ones(hidden, numpy.float32)
        yield f"{norm}.bias", numpy.zeros(hidden, numpy.float32)


def write_safetensors(folder: Path, tensors: dict[str, Array], scales: str) -> None:
    """As the bundled analyst is stored: matrices as blocks of Q8_0, in a layer with a scale each or a row, the rest as float32."""
    folder.mkdir(exist_ok=True)
    config = {
        "model_type": "bert",
        "hidden_size": ENCODER.hidden,
        "num_hidden_layers": ENCODER.layers,
        "num_attention_heads": ENCODER.heads,
        "intermediate_size": ENCODER.ffn,
        "hidden_act": "gelu",
        "max_position_embeddings": ENCODER.longest,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "vocab_size": ENCODER.vocabulary,
        "quantization_config": {"quant_method": "q8_0", "block_size": BLOCK, "scales": scales},
    }
    (folder / "config.json").write_text(json.dumps(config))
    header: dict[str, Any] = {}
    stored, end = [], 0
    for name, tensor in tensors.items():
        quantized = tensor.ndim == 2 and not ("position" in name or "token_type" in name)
        if scales == "row" and quantized and name.startswith("encoder."):
            # What is largest stands in every block: then all have one scale.
            tensor = tensor.copy()
            tensor[:, ::BLOCK] = numpy.abs(tensor).max(axis=1, keepdims=True)
        data = gguf.quants.quantize(tensor, gguf.GGMLQuantizationType.Q8_0) if quantized else tensor
        offsets = [end, end + data.nbytes]
        header[name] = {"dtype": "U8" if quantized else "F32", "shape": list(data.shape), "data_offsets": offsets}
        stored.append(data)
        end += data.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for data in stored:
            file.write(data.tobytes())


def write_onnx(path: Path, tensors: dict[str, Array]) -> None:
    """The graph that onnxruntime's own optimizer makes of an exported BERT: one node for attention, one for each sum with its
    norm, one for a bias with GELU. Then its matrices as 8 bits, their inputs quantized as they come."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(name: str, value: Array) -> str:
        weights.append(numpy_helper.from_array(numpy.ascontiguousarray(value), name))
        return name

    def node(kind: str, *inputs: str, domain: str = "", output: str = "", **attributes: Any) -> str:
        output = output or f"value_{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [output], domain=domain, **attributes))
        return output

    def product(x: str, name: str) -> str:
        return node("MatMul", x, weight(f"{name}.weight", tensors[f"{name}.weight"].T))

    def given(name: str) -> str:
        return weight(name, tensors[name])

    def integers(name: str, *values: int) -> str:
        return weight(name, numpy.array(values, numpy.int64))

    def normed(x: str, residual: str, bias: str, name: str) -> str:
        norm = [given(f"{name}.weight"), given(f"{name}.bias")]
        return node("SkipLayerNormalization", x, residual, *norm, bias, domain="com.microsoft", epsilon=1e-12)

    words = node("Gather", given("embeddings.word_embeddings.weight"), "input_ids")
    length = node("Slice", node("Shape", "input_ids"), integers("one", 1), integers("two", 2))
    places = given("embeddings.position_embeddings.weight")
    places = node("Slice", places, integers("zero", 0), length, "zero")
    norm = [given(f"embeddings.LayerNorm.{part}") for part in ("weight", "bias")]
    x = node("LayerNormalization", node("Add", words, places), *norm, epsilon=1e-12)
    for index in range(ENCODER.layers):
        layer = f"encoder.layer.{index}"
        parts = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
        qkv = weight(f"{layer}.qkv.weight", numpy.concatenate([tensors[f"{part}.weight"].T for part in parts], axis=1))
        biases = weight(f"{layer}.qkv.bias", numpy.concatenate([tensors[f"{part}.bias"] for part in parts]))
        mixed = node("Attention", x, qkv, biases, domain="com.microsoft", num_heads=ENCODER.heads)
        name = f"{layer}.attention.output"
        x = normed(product(mixed, f"{name}.dense"), x, given(f"{name}.dense.bias"), f"{name}.LayerNorm")
        name = f"{layer}.intermediate.dense"
        inner = node("BiasGelu", product(x, name), given(f"{name}.bias"), domain="com.microsoft")
        name = f"{layer}.output"
        x = normed(product(inner, f"{name}.dense"), x, given(f"{name}.dense.bias"), f"{name}.LayerNorm")
    node("ReduceMean", x, "one", output="vectors", keepdims=0)

    graph = helper.make_graph(
        nodes,
        "MiniLM",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["texts", "tokens"])],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", ENCODER.hidden])],
        weights,
    )
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    whole = path.with_suffix(".whole")
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=9), whole)
    unfinished = path.with_suffix(".unfinished")
    # Types of values behind nodes of its own domain are not inferred.
    types = {"DefaultTensorType": TensorProto.FLOAT}
    quantize_dynamic(whole, unfinished, weight_type=QuantType.QInt8, extra_options=types)
    whole.unlink()
    unfinished.rename(path)


if __name__ == "__main__":
    main()
