"""What one GRPO step costs at least: the multiplications and bytes that no exact implementation can leave out.

Derived in docs/performance.md. FLOPs count a multiply-add as two. Letters: P prompt tokens, G completions of C tokens.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch

FFT = 400  # samples in the window of one mel frame
FRAMES_PER_SECOND = 100


@dataclass(frozen=True)
class Work:
    """Floating-point operations and bytes moved between memory and the processor."""

    flops: float
    bytes: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, times: float) -> "Work":
        return Work(self.flops * times, self.bytes * times)

    def seconds(self, peak: "Peak") -> float:
        """The larger of the two, as if they overlapped perfectly."""
        return max(self.flops / peak.flops, self.bytes / peak.bandwidth)


@dataclass(frozen=True)
class Peak:
    """What the machine was seen to do: FLOP/s of a matrix product, bytes/s of a copy."""

    flops: float
    bandwidth: float


def measured_peak(device: str, dtype: torch.dtype) -> Peak:
    """Best of five square matrix products, and of five copies that no cache holds (bytes read and written)."""
    side, copied = (2_048, 2**28) if device == "cpu" else (8_192, 2**31)
    left, right = torch.randn(2, side, side, device=device).to(dtype)
    source = torch.ones(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product = _best_seconds(lambda: left @ right, device)
    return Peak(2 * side**3 / product, 2 * copied / _best_seconds(lambda: target.copy_(source), device))


def _best_seconds(run: Any, device: str, repeats: int = 5) -> float:
    best = math.inf
    for _ in range(repeats + 1):
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def synchronize(device: str) -> None:
    """Wait for the GPU, so that a clock sees its work."""
    if device != "cpu":
        torch.cuda.synchronize()


def mel_flops(seconds: float, mels: int = 128) -> float:
    """One real FFT and one filter bank per frame, 100 frames a second."""
    return FRAMES_PER_SECOND * seconds * (2.5 * FFT * math.log2(FFT) + 2 * (FFT // 2 + 1) * mels)


def encoder_flops(audio: Any, frames: int) -> float:
    """Audio tower over mel of `frames`: two convolutions (the second halves the frames), layers with attention inside
    windows of `n_window` positions, and the projection of every second position."""
    width, positions = audio.d_model, math.ceil(frames / 2)
    windows = [min(audio.n_window, positions - start) for start in range(0, positions, audio.n_window)]
    convolutions = 2 * 3 * width * (audio.num_mel_bins * frames + width * positions)
    per_layer = 2 * (4 * width**2 + 2 * width * audio.encoder_ffn_dim) * positions
    attention = 4 * width * sum(window**2 for window in windows)
    return (
        convolutions + audio.encoder_layers * (per_layer + attention) + 2 * width * audio.output_dim * (positions // 2)
    )


def decoder_flops(text: Any, positions: int, pairs: int) -> float:
    """Language model over `positions` tokens with `pairs` of (query, key) that attention may see."""
    return text.num_hidden_layers * (2 * _layer_weights(text) * positions + 4 * text.hidden_size * pairs)


def head_flops(text: Any, rows: int) -> float:
    """Logits of `rows` positions."""
    return 2 * text.hidden_size * text.vocab_size * rows


def _layer_weights(text: Any) -> int:
    width, keys = text.hidden_size, text.hidden_size // text.num_attention_heads * text.num_key_value_heads
    return 2 * width**2 + 2 * width * keys + 3 * width * text.intermediate_size


def step_floor(
    config: Any, clip_seconds: float, prompt: int, group: int, completion: int, element: int, prompts: int = 1
) -> dict[str, list[Work]]:
    """Least work of each phase of one step, as a list of parts that follow one another.

    config: of the thinker. prompt, completion: tokens. element: bytes of a number. The phases are taken one by one: what
    generation computed is not kept for the update.
    """
    audio, text = config.audio_config, config.get_text_config()
    answered = group * (completion - 1)  # the last token of a completion is predicted but never read
    encode = Work(encoder_flops(audio, round(FRAMES_PER_SECOND * clip_seconds)))
    prefill = Work(decoder_flops(text, prompt, prompt * (prompt + 1) // 2) + head_flops(text, 1))
    pairs = answered * prompt + group * completion * (completion - 1) // 2
    answer = Work(decoder_flops(text, answered, pairs) + head_flops(text, answered))
    forward = (encode + prefill + answer) * prompts
    decoder = text.num_hidden_layers * _layer_weights(text) + text.hidden_size * text.vocab_size
    weights = Work(0, element * (decoder + encoder_weights(audio)))
    cache = 2 * text.num_hidden_layers * text.hidden_size // text.num_attention_heads * text.num_key_value_heads
    read = prompts * sum(prompt + group * step for step in range(1, completion))
    decoding = Work(0, element * ((completion - 1) * decoder + cache * read))
    return {
        "mel": [Work(prompts * mel_flops(clip_seconds, audio.num_mel_bins))],
        "generate": [(encode + prefill) * prompts + weights, answer * prompts + decoding],
        "logps": [forward + weights],
        "update": [forward * 3 + weights * 3],  # read forward and backward, gradients written
        "optimizer": [weights * 7],  # AdamW reads weight, gradient and two moments, and writes three of them
    }


def answer_floor(
    config: Any, clip_seconds: float, clips: int, prefix: int, questions: int, suffix: int, answer: int, element: int
) -> dict[str, list[Work]]:
    """Least work of answering `questions` on `clips`: what is heard is encoded and read once, whatever is asked about it.

    config: of the thinker. prefix: tokens before a question, audio included. suffix: tokens of a question and what follows.
    answer: tokens written. element: bytes of a number. Weights are read once, and once more for every token of an answer, as
    if all questions were one batch.
    """
    audio, text = config.audio_config, config.get_text_config()
    frames = round(FRAMES_PER_SECOND * clip_seconds)
    read = questions * (answer - 1)  # the last token is predicted and never read
    decoder = text.num_hidden_layers * _layer_weights(text) + text.hidden_size * text.vocab_size
    cache = 2 * text.num_hidden_layers * text.hidden_size // text.num_attention_heads * text.num_key_value_heads
    kept = sum(clips * prefix + questions * (suffix + step) for step in range(1, answer))
    heard = Work(clips * (encoder_flops(audio, frames) + decoder_flops(text, prefix, prefix * (prefix + 1) // 2)))
    asked = decoder_flops(text, questions * suffix, questions * (suffix * prefix + suffix * (suffix + 1) // 2))
    pairs = read * (prefix + suffix) + questions * answer * (answer - 1) // 2
    written = decoder_flops(text, read, pairs) + head_flops(text, read)
    return {
        "mel": [Work(clips * mel_flops(clip_seconds, audio.num_mel_bins))],
        "heard": [heard + Work(0, element * encoder_weights(audio))],
        "asked": [Work(asked + head_flops(text, questions), element * decoder)],
        "written": [Work(written, element * ((answer - 1) * decoder + cache * kept))],
    }


def encoder_weights(audio: Any) -> int:
    """Weights of the audio tower's matrices."""
    width = audio.d_model
    return (
        3 * width * (audio.num_mel_bins + width)
        + audio.encoder_layers * (4 * width**2 + 2 * width * audio.encoder_ffn_dim)
        + width * audio.output_dim
    )


def floor_seconds(floor: dict[str, list[Work]], peak: Peak) -> dict[str, float]:
    """Seconds of each phase at the machine's peak, and of the whole step as their sum."""
    seconds = {phase: sum(part.seconds(peak) for part in parts) for phase, parts in floor.items()}
    return {**seconds, "step": sum(seconds.values())}


def total_flops(floor: dict[str, list[Work]]) -> dict[str, float]:
    """FLOPs of each phase, and of the whole step."""
    flops = {phase: sum(part.flops for part in parts) for phase, parts in floor.items()}
    return {**flops, "step": sum(flops.values())}
