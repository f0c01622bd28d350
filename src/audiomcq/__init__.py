"""Audio-contribution-aware post-training of large audio language models."""

__version__ = "0.1.0"
