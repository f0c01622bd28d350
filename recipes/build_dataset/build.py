"""Build questions, options, chains of thought and grades from the captions of a source.

python recipes/build_dataset/build.py --config recipes/build_dataset/clotho/build.yaml --limit 50 \
    --writer http://127.0.0.1:8000/v1#Qwen/Qwen3-235B-A22B
"""

from pathlib import Path

from audiomcq.commands.construction import build
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(build, Path(__file__))
