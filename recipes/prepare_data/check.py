"""Check the captions and clips of a source, or the clips of the published rows: what is there, and which clips are missing.

python recipes/prepare_data/check.py --source clotho --root data/clotho
python recipes/prepare_data/check.py --published data/AudioMCQ --audio_root data/audiomcq_audio
"""

from audiomcq.commands.construction import check
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(check)
