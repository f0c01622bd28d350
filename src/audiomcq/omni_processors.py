"""The Omni families' processors for audio and text, without torchvision."""

import os
import shutil
from pathlib import Path
from typing import Any

from transformers import ProcessorMixin, Qwen2_5OmniProcessor, Qwen3OmniMoeProcessor


class AudioOnlyOmniProcessor(Qwen2_5OmniProcessor):
    """Qwen2.5-Omni's processor without its image and video parts, which import torchvision. Ids and mel are identical.

    It saves copies of the files that it was loaded from, so that a checkpoint opens with the stock `AutoProcessor`.
    """

    def __init__(self, feature_extractor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        ProcessorMixin.__init__(self, feature_extractor, tokenizer, chat_template=chat_template)
        for kind in ("image", "audio", "video"):
            setattr(self, f"{kind}_token", getattr(tokenizer, f"{kind}_token"))
            setattr(self, f"{kind}_token_id", getattr(tokenizer, f"{kind}_token_id"))
        for edge in ("vision_bos", "vision_eos", "audio_bos", "audio_eos"):
            setattr(self, f"{edge}_token", getattr(tokenizer, f"{edge}_token"))
        self.source_files: list[Path] = []

    @property
    def model_input_names(self) -> list[str]:
        names = [
            *self.tokenizer.model_input_names,
            *self.feature_extractor.model_input_names,
            "feature_attention_mask",
        ]
        return list(dict.fromkeys(names))

    def save_pretrained(self, save_directory: str | os.PathLike, *_: Any, **__: Any) -> None:
        target = Path(save_directory)
        target.mkdir(parents=True, exist_ok=True)
        for file in self.source_files:
            if file.resolve() != (target / file.name).resolve():
                shutil.copyfile(file, target / file.name)


class AudioOnlyOmni3Processor(AudioOnlyOmniProcessor):
    """Qwen3-Omni's processor, likewise. The stock one (transformers 5.23) drops `audio_kwargs`, and with them the
    padding length.
    """

    audio_kwargs = Qwen3OmniMoeProcessor.audio_kwargs
    n_window = Qwen3OmniMoeProcessor.n_window
    _process_audio = Qwen3OmniMoeProcessor._process_audio
