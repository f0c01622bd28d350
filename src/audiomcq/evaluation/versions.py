"""Tell versions of a benchmark's question file apart by content: organisers correct their files under one name."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from audiomcq.examples import Row

UNKNOWN = "unknown version"


def content_fingerprint(items: Iterable[Row]) -> str:
    """Hash the ids, questions, options and gold answers of a benchmark.

    The hash depends neither on the order of the items nor on runs of white space, and is the same for a question file
    and a table on the Hub with the same content.
    """
    lines = []
    for item in items:
        choices = [_collapse_spaces(choice) for choice in item["choices"]]
        lines.append(
            json.dumps(
                [
                    _collapse_spaces(item["id"]),
                    _collapse_spaces(item["question"]),
                    choices,
                    _collapse_spaces(item["answer"]),
                ]
            )
        )
    return hashlib.blake2b("\n".join(sorted(lines)).encode(), digest_size=16).hexdigest()


def recorded_versions(texts: Sequence[str]) -> dict[str, str]:
    """Parse versions that a user knows, written name=fingerprint, to names by fingerprint.

    Raises:
        ValueError: a text is not of that form.
    """
    found = {}
    for text in texts:
        name, _, fingerprint = text.rpartition("=")
        if not name.strip() or len(fingerprint) != 32 or set(fingerprint) - set("0123456789abcdef"):
            raise ValueError(
                f"known_versions {text!r}: write name=fingerprint, the fingerprint (32 hexadecimal digits) as results.json "
                "or the log of a run says it"
            )
        found[fingerprint] = name.strip()
    return found


def _collapse_spaces(text: str | None) -> str | None:
    return None if text is None else " ".join(text.split())


MMAU_TEST_MINI_VERSIONS: Mapping[str, str] = {
    "7b5e70f3049644df757b1c52d5a90e24": "of 2024-10-25",
    "01212b2f2308fe36bcafcbae12da8381": "of 2024-12-09",
    "c5ff56026d5011a0217c685c84448170": "of 2025-01-28",
    "886b8fc3aa5c97c2af447673be6c04f3": "of 2025-03-25",
    "605b715ca7504d82ecb81aa4c5027f84": "v05.15.25 of 2025-05-15",
    "958c20e37df358b53fd082f6ec6cae9d": "v05.15.25 of 2025-05-16",
    "c39979a1a546855c3f2450429596931a": "v05.15.25 of 2025-05-18",
    "049ea462eaee2fa9a16d67bda75fdac9": "v05.15.25 of 2025-05-19",
    "e103bb7428a84f228d164d68a4c66292": "v05.15.25 of 2025-05-22",
    "e23ae71e6c1bf5bfd5beb65528e4d9ae": "v05.15.25 of 2025-05-30",
    "92321ba603dccb14247061b5d79981c2": "v05.15.25 of 2025-06-23, first file of that day",
    "2d173a1414f7e907b4d036ef62ca4e60": "v05.15.25 of 2025-06-23",
    "8f054938609958027b4a3b6e9baaaab9": "v05.15.25 of 2025-08-09",
}
"""Computed from the 17 revisions of mmau-test-mini.json up to Sakshi113/MMAU@110127f: three repeat the content of the
one before, 78fe032 and 26d9342, f2017e3 and 2dcf44d, 65c0574 and 8415fc1; the first of all, 1c6af99, has no ids and
does not load. The organisers call v05.15.25 what they publish since that day; its content went on changing until
2025-08-09 (f0a4a97)."""
MMAR_VERSIONS: Mapping[str, str] = {
    "3acee0fcdbd8484c241b5a34382bb203": "of 2025-05-11",
    "f3168b862435eec7a71406b980d758c6": "of 2026-02-16",
}
"""Computed from both files of ddlBoJack/MMAR: 6249700 (MMAR-meta.json, five gold answers of which are no option) and
a355584."""
SAKURA_VERSIONS: Mapping[str, str] = {"cf0cc6ef5bf8281478d0cd4b10a51b00": "of 2025-02-17"}
"""Computed from the four metadata.csv of ckyang1124/SAKURA@a1fdb14, which have one revision."""
