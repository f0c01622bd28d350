"""The commands that make rows: check a source, convert rows of another layout, build questions from captions."""

from audiomcq.arguments.construction import BuildArguments, CheckSourceArguments, ConvertArguments


def check(args: CheckSourceArguments) -> None:
    """Check the captions and clips of a source: what is there, and which clips are missing."""
    from audiomcq.construction.sources.check import check_source
    from audiomcq.run import set_up_logging

    set_up_logging()
    check_source(args)


def convert(args: ConvertArguments) -> None:
    """Bring rows of another layout into the project's schema, and say which could not be read and why."""
    from audiomcq.construction import convert
    from audiomcq.run import set_up_logging

    set_up_logging()
    convert.convert(args)


def build(args: BuildArguments) -> None:
    """Build questions, options, chains of thought and grades from the captions of a source."""
    from audiomcq.construction import build
    from audiomcq.run import set_up_logging

    set_up_logging()
    build.build(args)
