"""Compare training rows with benchmarks: same clips, same sources, near-identical questions. Needs no model.

python recipes/evaluate/audit_overlap.py --config recipes/evaluate/tiny/audit_overlap.yaml
"""

from pathlib import Path

from audiomcq.commands.evaluation import audit_overlap
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(audit_overlap, Path(__file__))
