"""The commands that make rows: check a source, convert rows of another layout, build questions from captions, rewrite wrong options."""

from audiomcq.arguments.construction import BuildArguments, CheckSourceArguments, ConvertArguments
from audiomcq.arguments.profiles import ParaphraseArguments
from audiomcq.commands.start import require


def check(args: CheckSourceArguments) -> None:
    """Check the captions and clips of a source, or the clips of the published rows: which are there, which are missing."""
    from audiomcq.construction.sources.check import check_source, check_tree
    from audiomcq.run import set_up_logging

    set_up_logging()
    if args.published and not args.source:
        check_tree(args)
    else:
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


def paraphrase(args: ParaphraseArguments) -> None:
    """Have a language model rewrite the wrong options of rows, so that they can be asked again in other words."""
    from audiomcq.construction import paraphrase
    from audiomcq.run import set_up_logging

    require(dataset=args.dataset, writer=args.writer)
    set_up_logging()
    paraphrase.paraphrase(args)
