"""How long the overlap audit of 571,000 training questions against 10,000 benchmark questions takes, and what it finds.

python benchmarks/overlap_audit.py    # writes benchmarks/results/overlap_audit_cpu.json

Questions are made of templates, so that n-grams repeat as they do in real ones; one benchmark question in a hundred is among the
training rows, its options in another order.
"""

import json
import platform
import random
import time
from pathlib import Path

from audiomcq.construction.decontamination import SIMILAR, audit

ROWS, ITEMS, SHARED = 571_000, 10_000, 100
TEMPLATES = (
    "What is the {0} of the {1} in the {2} part of the recording?",
    "Which {0} is heard right after the {1} has stopped and before the {2} begins?",
    "How does the {0} change while the {1} goes on in the {2}?",
    "When does the {0} end in the recording of the {1}?",
)


def questions(count: int, seed: int) -> list[dict]:
    draw = random.Random(seed)
    words = [f"{a}{b}" for a in "bcdfghjklmnprstvwz" for b in ("ell", "orn", "ain", "ird", "ock", "um", "ark", "ine")]
    rows = []
    for index in range(count):
        choices = [" ".join(draw.sample(words, 2)) for _ in range(4)]
        question = draw.choice(TEMPLATES).format(*draw.sample(words, 3))
        rows.append({"id": f"{seed}-{index}", "source_dataset": f"set{seed}", "question_type": "sound",
                     "question": question, "choices": choices, "answer": choices[0]})  # fmt: skip
    return rows


if __name__ == "__main__":
    rows, items = questions(ROWS, 0), questions(ITEMS, 1)
    for item, row in zip(items[:SHARED], random.Random(2).sample(rows, SHARED), strict=True):
        item |= {"question": row["question"].lower(), "choices": row["choices"][::-1]}
    started = time.perf_counter()
    found = audit(rows, {"benchmark": items}, content=False)
    seconds = time.perf_counter() - started
    result = {
        "machine": f"{platform.processor() or platform.machine()}, one process",
        "rows": ROWS,
        "items": ITEMS,
        "similar": SIMILAR,
        "seconds": round(seconds, 1),
        "rows_per_second": round(ROWS / seconds),
        "shared_items": SHARED,
        "shared_items_found": len({overlap.item for overlap in found.overlaps}),
        "pairs": len(found.overlaps),
    }
    path = Path(__file__).parent / "results" / "overlap_audit_cpu.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
