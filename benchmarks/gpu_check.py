"""The fused kernels against the plain operations, in every dtype: a quick check before anything is measured.

python benchmarks/gpu_check.py
"""

import json

import torch
from rich.console import Console

from audiomcq import decode_kernels, decode_plain
from audiomcq.decode_plain import LayerStates, Place

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    """Print the difference of each kernel, relative to the plain result in fp32."""
    if DEVICE == "cuda":
        found = {str(dtype): compare(dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)}
    else:  # the interpreter does not multiply in bf16
        small = {"rows": 6, "heads": 4, "width": 16, "hidden_size": 48}
        found = {str(dtype): compare(dtype, **small) for dtype in (torch.float32, torch.float16)}
    Console().print_json(json.dumps(found))


def compare(
    dtype: torch.dtype,
    rows: int = 16,
    prompts: int = 2,
    heads: int = 16,
    keys: int = 2,
    width: int = 128,
    hidden_size: int = 2048,
) -> dict[str, float]:
    """Run each operation in `dtype` by kernel, and plainly on the same inputs in fp32."""
    torch.manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=DEVICE).to(dtype)

    hidden, added, weight = draw(rows, 1, hidden_size), draw(rows, 1, hidden_size), draw(hidden_size)
    query, key, value = draw(rows, heads, width), draw(rows, keys, width), draw(rows, keys, width)
    cos, sin, gate, up = (
        draw(rows, width),
        draw(rows, width),
        draw(rows, 1, 5 * hidden_size),
        draw(rows, 1, 5 * hidden_size),
    )
    states = LayerStates(
        draw(prompts, keys, 350, width),
        draw(prompts, keys, 350, width),
        draw(rows, keys, 160, width),
        draw(rows, keys, 160, width),
    )
    place = Place(
        torch.tensor([133], device=DEVICE),
        torch.tensor([0, 70], device=DEVICE),
        torch.arange(rows, device=DEVICE) * 8,
    )
    exact = LayerStates(*(tensor.float() for tensor in vars(states).values()))
    found = {}
    for name, fused, plain in (
        ("add_norm", decode_kernels.add_norm(hidden, added, weight, 1e-6)[1], decode_plain.add_norm(hidden.float(), added.float(), weight.float(), 1e-6)[1]),
        ("rotate", decode_kernels.rotate_and_store(query, key, value, cos, sin, states, place), decode_plain.rotate_and_store(*(t.float() for t in (query, key, value, cos, sin)), exact, place)),
        ("stored keys", states.keys, exact.keys),
        ("attend", decode_kernels.attend(query, states, place, width**-0.5), decode_plain.attend(query.float(), exact, place, width**-0.5)),
        ("gated", decode_kernels.gated(gate, up), decode_plain.gated(gate.float(), up.float())),
    ):  # fmt: skip
        found[name] = ((fused.float() - plain).norm() / plain.norm()).item()
    return found


if __name__ == "__main__":
    main()
