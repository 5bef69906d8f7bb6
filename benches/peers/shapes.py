"""The shapes that are measured, and what a pass through them costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DecoderShape:
    architecture: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    vocabulary: int

    @property
    def kv_width(self) -> int:
        return self.hidden // self.heads * self.kv_heads

    def prompt_operations(self, tokens: int) -> int:
        """Multiplications and additions in matrices; only the last token goes through the output matrix."""
        layer = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv_width + 3 * self.hidden * self.ffn
        return 2 * (self.layers * layer * tokens + self.vocabulary * self.hidden)


@dataclass(frozen=True)
class EncoderShape:
    hidden: int
    layers: int
    heads: int
    ffn: int
    vocabulary: int
    longest: int

    def operations(self, tokens: int) -> int:
        return 2 * self.layers * (4 * self.hidden * self.hidden + 2 * self.hidden * self.ffn) * tokens


DECODERS = {
    "135M": DecoderShape("llama", 576, 30, 9, 3, 1536, 49_152),
    "0.5B": DecoderShape("qwen2", 896, 24, 14, 2, 4864, 151_936),
    "1B": DecoderShape("llama", 2048, 16, 32, 8, 8192, 32_000),
}
# The files of each that are measured.
QUANTIZED = {"135M": ["Q8_0", "Q4_0", "Q4_K_M"], "0.5B": ["Q8_0", "Q4_0", "Q4_K_M"], "1B": ["Q8_0", "Q4_K_M"]}
ENCODER = EncoderShape(384, 6, 12, 1536, 30_522, 512)

CONTEXT = 4096
EPSILON = 1e-5
ROPE_BASE = 10_000.0
