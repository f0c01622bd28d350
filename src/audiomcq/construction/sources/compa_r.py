"""CompA-R: questions that need reasoning, and their answers, on sounds of AudioSet (the strongly labelled part).

Files: the folder of GAMA (https://github.com/Sreyan88/GAMA names the address), or
https://huggingface.co/datasets/PinnHe/CompA-R-Backup, which the published data name as its copy. Licence: none is
stated; the clips are of YouTube. Folder:

    CompA-R.json           a list of {"audio_id", "instruction", "output", "input", "dataset", "task"}
    CompA-R-test.json      a list of {"audio_id", "instruction_output": [{"instruction", "output"}, ...]}
    any folders with the clips, e.g. compa_r_train_audios/YVIDEO.wav

Keys are confirmed by public loaders and by a row in an issue of GAMA; `input` is read as the question where
`instruction` is empty, which is an assumption. Only the last part of `audio_id` counts, "./compa_r_train_audios/Y...wav"
for training.

The published data have 197,218 questions on CompA-R and skip the writing of questions for it, since it has its own. It
has no captions: its answer is the caption of a question, which is an assumption too.
"""

from collections.abc import Iterator
from pathlib import Path

from audiomcq.arguments.construction import SourceArguments
from audiomcq.construction.sources.listing import split_suffix
from audiomcq.construction.sources.reading import FoundCaption, Line, Source, need_text, read_splits

_ORIGIN = "get the files from the folder that https://github.com/Sreyan88/GAMA names"
_FILES = {"train": ("CompA-R.json",), "test": ("CompA-R-test.json",)}


def _lines(root: Path, args: SourceArguments) -> Iterator[Line]:
    return read_splits(root, args, _FILES, ("train",), _ORIGIN)


def _parse(line: Line, args: SourceArguments) -> list[FoundCaption]:
    name = need_text(line.row, "audio_id").rpartition("/")[2]
    pairs = line.row.get("instruction_output") or [line.row]
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        raise ValueError("instruction_output is no list of questions and answers")
    found = []
    for pair in pairs:
        answer = need_text(pair, "output")
        question = need_text(pair, "instruction", "input")
        found.append(FoundCaption(split_suffix(name)[0], (name,), answer, question=question, answer=answer))
    return found


SOURCE = Source(
    "CompA-R",
    _lines,
    _parse,
    question_types=("sound", "speech", "music"),
    template_question=None,
    licence="none stated; the clips are of YouTube",
    origin=_ORIGIN,
    numbered=True,
)
