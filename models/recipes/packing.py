"""The files of a bundled model: Q8_0 matrices in safetensors, and the manifest over all files of the folder."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from common import write_json

BLOCK = 32  # weights in one Q8_0 block: an f16 scale, then 32 int8
BLOCK_BYTES = 2 + BLOCK


def quantize_q8_0(matrix, one_scale=False):
    """`[rows, columns]` F32 to `[rows, columns / 32 * 34]` U8, block for block as GGUF stores Q8_0; all blocks of a row may have one scale."""
    rows, columns = matrix.shape
    assert columns % BLOCK == 0, f"{columns} columns are not a multiple of {BLOCK}"
    blocks = matrix.detach().to(torch.float32).numpy().reshape(rows, columns // BLOCK, BLOCK)
    scale = np.abs(blocks).max(axis=(1, 2) if one_scale else 2, keepdims=True) / 127.0
    scale = np.broadcast_to(scale, (rows, columns // BLOCK, 1))
    inverse = np.where(scale > 0, 1.0 / np.where(scale > 0, scale, 1.0), 0.0)
    codes = np.clip(np.rint(blocks * inverse), -127, 127).astype(np.int8)
    packed = np.empty((rows, columns // BLOCK, BLOCK_BYTES), dtype=np.uint8)
    packed[:, :, :2] = scale.astype("<f2").view(np.uint8).reshape(rows, columns // BLOCK, 2)
    packed[:, :, 2:] = codes.view(np.uint8)
    return torch.from_numpy(packed.reshape(rows, -1))


def dequantize_q8_0(packed):
    """The F32 matrix that a reader of the packed bytes computes with."""
    rows, width = packed.shape
    blocks = packed.numpy().reshape(rows, width // BLOCK_BYTES, BLOCK_BYTES)
    scale = np.ascontiguousarray(blocks[:, :, :2]).view("<f2").astype(np.float32)
    codes = np.ascontiguousarray(blocks[:, :, 2:]).view(np.int8).astype(np.float32)
    return torch.from_numpy((codes * scale).reshape(rows, -1))


def save_weights(path, state, is_quantized, has_one_scale=lambda name: False):
    """Write a state dict; tensors whose name passes `is_quantized` as Q8_0 blocks, those that pass `has_one_scale` with one a row, all others as F32."""
    tensors = {}
    for name, tensor in state.items():
        plain = lambda: tensor.detach().to(torch.float32).contiguous()
        tensors[name] = quantize_q8_0(tensor, has_one_scale(name)) if is_quantized(name) else plain()
    save_file(tensors, path, metadata={"format": "pt"})
    Path(path).chmod(0o644)


def load_weights(path):
    """The state dict of a written file with every Q8_0 matrix dequantized (U8 has no other use in these files)."""
    return {name: dequantize_q8_0(t) if t.dtype == torch.uint8 else t for name, t in load_file(path).items()}


def write_manifest(folder, manifest):
    """Write `antiphon.json`, with size and SHA-256 of every other file of the folder; return the folder's total bytes."""
    folder, files = Path(folder), []
    for path in sorted(folder.iterdir()):
        if path.name == "antiphon.json":
            continue
        content = path.read_bytes()
        files.append({"path": path.name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)})
    ordered = {}
    for key, value in manifest.items():
        ordered[key] = value
        if key == "licence":
            ordered["files"] = files
    write_json(folder / "antiphon.json", ordered)
    return sum(path.stat().st_size for path in folder.iterdir())


def save_tokenizer(tokenizer, path):
    """`tokenizer.json` without indentation: half the bytes, the same content."""
    content = json.loads(tokenizer.to_str())
    Path(path).write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
