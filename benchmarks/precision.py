"""How far log-probs in bf16 are from fp32: of stock's padded rows and of the shared path, over the same 2,000 and more tokens.

    python benchmarks/precision.py --model 3B     needs a GPU; smoke and 10M run on a CPU

Every completion alone, in fp32, is the reference. Written to benchmarks/results/precision_<model>.json.
"""

import argparse
import json
from copy import deepcopy
from pathlib import Path

import torch
from decode import MODELS
from grpo_step import checkout, machine
from measured_step import random_thinker
from rich.console import Console
from torch import Tensor
from trl.trainer.utils import add_fused_lm_head

from audiomcq.packing import pack
from audiomcq.shared_prefix import shared_logps
from audiomcq.training_kernels import fuse_training

PROMPT, PROMPTS, GROUP, TOKENS = 350, 2, 8, 128


def main() -> None:
    """Measure one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    output = arguments.output or Path(__file__).parent / "results" / f"precision_{arguments.model}.json"
    model, _ = random_thinker([], *MODELS[arguments.model], torch.float32)
    model.eval()
    generator = torch.Generator().manual_seed(1)
    top = model.config.get_text_config().vocab_size
    prompts = torch.randint(20, 40, (PROMPTS, PROMPT), generator=generator)
    completions = torch.randint(10, top, (PROMPTS * GROUP, TOKENS), generator=generator)
    rows = torch.cat([prompts.repeat_interleave(GROUP, dim=0), completions], dim=1).to(device)
    reference = torch.cat([rows_logps(model, row[None]) for row in rows])
    half = deepcopy(model).to(torch.bfloat16)
    del model
    found = {"stock": rows_logps(half, rows)}
    add_fused_lm_head(half, temperature=1.0, outputs=("log_probs", "entropy"))
    groups = completions.view(PROMPTS, GROUP, TOKENS).tolist()
    packed = pack(prompts.tolist(), groups)
    with torch.no_grad():
        found["shared"] = shared_logps(half, packed, {})[0]
        fused = fuse_training(half)
        found["shared, fused norms and feed-forward"] = shared_logps(half, packed, {})[0]
    errors = {name: (logps.float() - reference).abs().mean().item() for name, logps in found.items()}
    results = {
        **checkout(),
        "machine": machine(device),
        "model": arguments.model,
        "tokens": completions.numel(),
        "fused": fused or True,
        "units": "mean absolute error of log-probs, nats a token, against every row alone in fp32",
        "errors": errors,
        "of_stock": {name: error / errors["stock"] for name, error in errors.items()},
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=2) + "\n")
    Console().print_json(output.read_text())


@torch.no_grad()
def rows_logps(model: torch.nn.Module, rows: Tensor) -> Tensor:
    """Log-probs of the completions of whole rows, (N, tokens), through logits in fp32 as stock TRL computes them."""
    positions = torch.arange(rows.size(1), device=rows.device).expand(len(rows), -1)
    hidden = model.base_model(input_ids=rows, attention_mask=torch.ones_like(rows), position_ids=positions)[0]
    logps = []
    for row, states in zip(rows, hidden, strict=True):  # a row at a time: a large vocabulary has no room for all
        logits = model.lm_head(states[PROMPT - 1 : -1]).float()
        logps.append(torch.log_softmax(logits, -1).gather(-1, row[PROMPT:, None])[:, 0])
    return torch.stack(logps)


if __name__ == "__main__":
    main()
