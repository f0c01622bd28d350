"""Bring rows of another layout into the project's schema, and say which could not be read and why.

python recipes/prepare_data/convert.py --dataset their_rows.jsonl --output_file rows.jsonl
"""

from audiomcq.commands.construction import convert
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(convert)
