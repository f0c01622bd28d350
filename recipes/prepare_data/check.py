"""Check the captions and clips of a source: what is there, and which clips are missing.

python recipes/prepare_data/check.py --source clotho --root data/clotho
"""

from audiomcq.commands.construction import check
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(check)
