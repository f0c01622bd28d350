"""SpeechCraft (LibriTTS-R): descriptions of the style of speech by a language model, for read sentences.

Files: https://github.com/thuhcsi/SpeechCraft (English, "Description": without the transcript) and
https://www.openslr.org/141 (LibriTTS-R). Licence: none is stated for the descriptions; LibriTTS-R is CC-BY-4.0. Folder:

    *.jsonl, *.json or *.csv with the descriptions
    LibriTTS_R/train-clean-100/SPEAKER/CHAPTER/SPEAKER_CHAPTER_PARAGRAPH_SENTENCE.wav

The layout of LibriTTS-R is confirmed; the columns of the descriptions are not, since they are not in a public
repository. The id or path of the utterance is taken from the first of the columns in `_UTTERANCE`, and the description
from the first of `_CAPTION`; name others with audio_column and caption_column.

Files of SpeechCraft in English also describe GigaSpeech. Its utterances are passed over: the published data leave it
out because a benchmark (MMSU) is made of it. They have 228,033 questions on SpeechCraft.
"""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from audiomcq.arguments.construction import SourceArguments
from audiomcq.construction.sources.listing import split_suffix
from audiomcq.construction.sources.reading import (
    FoundCaption,
    Line,
    Source,
    find_files,
    find_text,
    need_text,
    read_file,
)

logger = logging.getLogger(__name__)

_ORIGIN = "get the English descriptions from https://github.com/thuhcsi/SpeechCraft"
_PATTERNS = ("*.jsonl", "*.json", "*.csv")
_UTTERANCE = ("id", "utt_id", "utterance_id", "item_name", "file_id", "fileid", "key", "name", "audio_path", "audio", "wav_path",
              "wav", "path", "file_name", "filename", "file")  # fmt: skip
_CAPTION = ("description", "caption", "style_prompt", "text_prompt", "prompt", "text_description")
_LIBRITTS = re.compile(r"\d+_\d+_\d{6}_\d{6}")
"""Ids of LibriTTS: speaker, chapter, paragraph and sentence."""


def _bare(name: str) -> str:
    """Return the name of a file without its folder and suffix."""
    return split_suffix(name.rpartition("/")[2])[0]


def _lines(root: Path, args: SourceArguments) -> Iterator[Line]:
    if args.splits:
        raise ValueError("splits: SpeechCraft has none; leave a folder of LibriTTS-R out of audio_root instead")
    columns = (args.audio_column,) if args.audio_column else _UTTERANCE
    others = 0
    for path in find_files(root, _PATTERNS, _ORIGIN):
        for place, row in read_file(path):
            name = _bare(find_text(row, *columns))
            if name and not _LIBRITTS.fullmatch(name):
                others += 1
            else:
                yield Line(place, "", row)
    if others:
        logger.info("%d utterances of other corpora than LibriTTS-R were passed over", others)


def _parse(line: Line, args: SourceArguments) -> list[FoundCaption]:
    utterance = _bare(need_text(line.row, *((args.audio_column,) if args.audio_column else _UTTERANCE)))
    caption = need_text(line.row, *((args.caption_column,) if args.caption_column else _CAPTION))
    return [FoundCaption(utterance, (utterance,), caption)]


SOURCE = Source(
    "SpeechCraft",
    _lines,
    _parse,
    question_types=("speech",),
    template_question="Please describe this speech in detail.",
    licence="none stated for the descriptions; clips CC-BY-4.0 (LibriTTS-R)",
    origin=_ORIGIN,
)
