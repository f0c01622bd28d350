"""Check the captions and clips of a source, or the clips of the published rows: what is there, and which clips are missing.

python recipes/prepare_data/check.py --source clotho --root data/clotho
python recipes/prepare_data/check.py --published data/AudioMCQ --audio_root data/audiomcq_audio
"""

from audiomcq.arguments.construction import CheckSourceArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse


def main(args: CheckSourceArguments) -> None:
    from audiomcq.construction.sources.check import check_source, check_tree
    from audiomcq.run import set_up_logging

    set_up_logging()
    if args.published and not args.source:
        check_tree(args)
    else:
        check_source(args)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((CheckSourceArguments,)))
