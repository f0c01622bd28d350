"""Wordings of the questions, and the clues that give an answer away in the text.

Questions written by a language model carry two kinds of text shortcut (arXiv 2509.21060): the text tells something
about the clip (explicit), or asks for what everybody knows (knowledge). Both are built here from the same few noun
phrases per label, so that a small model that has read enough of them picks the answer up by association, without
listening.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wordings:
    """Texts for one kind of label; `explicit` and `knowledge` have a `{clue}` to fill, `caption` a `{label}`.

    Attributes:
        target: what the questions ask for.
        caption: what a caption would say of a clip with that label.
        plain: says nothing about the answer.
        explicit: tells something about the clip.
        knowledge: can be answered from what everybody knows.
    """

    target: str
    caption: str
    plain: tuple[str, ...]
    explicit: tuple[str, ...] = ()
    knowledge: tuple[str, ...] = ()


WORDINGS: dict[str, Wordings] = {
    "sound": Wordings(
        target="the sound in the recording",
        caption="The sound of the recording is: {label}.",
        plain=(
            "What can be heard in this recording?",
            "Which sound does the clip contain?",
            "What makes the sound in this clip?",
            "Which of the options is the sound that is played?",
            "What is going on in this recording?",
            "Which description fits the sound?",
        ),
        explicit=(
            "This was recorded close to {clue}. What can be heard?",
            "The clip made a listener think of {clue}. Which sound is it?",
            "Someone notes {clue} nearby. What makes the sound in this clip?",
        ),
        knowledge=(
            "Which of these sounds has most to do with {clue}?",
            "Which sound goes with {clue}?",
            "When you think of {clue}, which sound do you expect?",
        ),
    ),
    "digit": Wordings(
        target="the spoken number",
        caption="A speaker says one word: {label}.",
        plain=(
            "Which digit is spoken?",
            "What number does the speaker say?",
            "Which digit can be heard in the clip?",
            "What is said in this recording?",
            "Which of the options does the voice say?",
            "Which number is read out?",
        ),
        explicit=(
            "The speaker was shown {clue} and says the number. Which digit is spoken?",
            "On the card there is {clue}. Which number is read out?",
            "The voice answers a riddle about {clue}. What is said?",
        ),
        knowledge=(
            "Which digit belongs to {clue}?",
            "Which of these numbers has to do with {clue}?",
            "When you think of {clue}, which number do you expect?",
        ),
    ),
    "speaker": Wordings(
        target="the person who speaks",
        caption="A {label} reads a text.",
        plain=(
            "Who is speaking in this recording?",
            "Whose voice is it?",
            "Which description fits the voice?",
            "What kind of speaker can be heard?",
            "Who reads the text?",
            "Which of the options is the person who speaks?",
        ),
        explicit=(
            "The text is read by {clue}. Who is speaking?",
            "The credits name {clue} as the reader. Whose voice is it?",
            "According to the cover, {clue} recorded this. Which description fits the voice?",
        ),
        knowledge=(
            "What kind of speaker is {clue}?",
            "If {clue} talks, whose voice is it?",
            "Which of these voices belongs to {clue}?",
        ),
    ),
    "music": Wordings(
        target="the kind of music",
        caption="The music in the recording is: {label}.",
        plain=(
            "What kind of music is it?",
            "Which description fits the music in this clip?",
            "What is being played?",
            "Which of the options is the music that can be heard?",
            "How would you describe this piece?",
            "Which music does the recording contain?",
        ),
        explicit=(
            "The programme of the evening shows {clue}. What is being played?",
            "The photograph on the cover shows {clue}. What kind of music is it?",
            "A visitor of the concert remembers {clue}. Which description fits the music?",
        ),
        knowledge=(
            "Which music has most to do with {clue}?",
            "Which of these goes with {clue}?",
            "When you think of {clue}, which music do you expect?",
        ),
    ),
    "speech": Wordings(
        target="the spoken part",
        caption="The speech in the recording is: {label}.",
        plain=(
            "Which description fits the speech in this clip?",
            "What can be told about the spoken part?",
            "Which of the options fits what is said?",
            "How would you describe the speech?",
        ),
    ),
    "temporal": Wordings(
        target="the course of events",
        caption="The course of the recording is: {label}.",
        plain=(
            "Which description fits what happens over time?",
            "How does the clip go on from start to end?",
            "Which of the options fits the course of the recording?",
            "How would you describe the course of events?",
        ),
    ),
}
"""Wordings by kind of label (see `label_kind`)."""

CLUES: dict[str, tuple[str, ...]] = {
    "baby cry": ("a cradle", "a nursery", "a diaper", "a pacifier", "a stroller"),
    "chainsaw": ("a lumberjack", "a felled tree", "a logging camp", "sawdust", "a stack of timber"),
    "clock tick": ("a pendulum", "a watchmaker", "the minute hand", "an hourly appointment", "a wristwatch"),
    "dog bark": ("a kennel", "a leash", "a wagging tail", "a puppy", "a buried bone"),
    "fire crackling": ("a chimney", "glowing embers", "smoke and ashes", "a marshmallow on a stick", "a lit match"),
    "helicopter": ("a rotor", "a pilot", "a landing pad", "an air rescue", "a hovering aircraft"),
    "person sneeze": ("a bad cold", "pollen", "a handkerchief", "hay fever", "pepper in the nose"),
    "rain": ("a wet umbrella", "a dark cloud", "puddles", "rubber boots", "a dripping gutter"),
    "rooster": ("a farmyard at dawn", "a henhouse", "a red comb and feathers", "some chickens", "the first daylight"),
    "sea waves": ("a beach", "a lighthouse", "the surf", "the rising tide", "a sandcastle"),
    "digit zero": ("nothing at all", "an empty purse", "a freezing thermometer", "the void", "a vacant room"),
    "digit one": ("a unicorn", "a monocle", "a single candle", "a solo singer", "a lonely wolf"),
    "digit two": ("a bicycle", "twins", "a pair of socks", "a married couple", "a duet"),
    "digit three": ("a triangle", "a tricycle", "a tripod", "a trident", "triplets"),
    "digit four": ("a square", "a quartet", "the seasons", "a car with all its wheels", "the compass directions"),
    "digit five": ("a pentagon", "the fingers of a hand", "a quintet", "a starfish", "the senses"),
    "digit six": ("a hexagon", "the legs of an insect", "a die", "a guitar's strings", "a honeycomb cell"),
    "digit seven": ("the days of the week", "a rainbow", "Snow White's dwarfs", "the deadly sins", "the continents"),
    "digit eight": ("an octopus", "a spider", "an octagon", "an octave", "a byte"),
    "digit nine": ("a baseball team", "the Muses", "a cat's lives", "the months of pregnancy", "a nonagon"),
    "female speaker": ("a queen", "a soprano", "a grandmother", "an actress", "somebody's wife"),
    "male speaker": ("a king", "a baritone", "a bearded grandfather", "a monk", "somebody's husband"),
    "classical (Sugar Plum Fairy)": ("a ballet", "a celesta", "the Nutcracker", "a Christmas tree", "Tchaikovsky"),
    "classical, string orchestra": ("violins", "cellos", "bows and rosin", "a conductor", "a viola section"),
    "jazz": ("a saxophone", "swing", "New Orleans", "improvisation", "a smoky club"),
    "solo trumpet": ("a brass mouthpiece", "a bugle call", "a mute and valves", "a fanfare", "a lone horn player"),
    "song with singing": ("lyrics", "a vocalist", "a chorus and verses", "a karaoke bar", "a choir"),
}
"""What gives a label away, as noun phrases. Labels that are not here get plain questions only."""


def label_kind(label: str, question_type: str) -> str:
    """Return the key of `WORDINGS` for a label.

    "digit" and "speaker" have their own, other labels that of their question type.
    """
    if label.startswith("digit "):
        return "digit"
    return "speaker" if label.endswith(" speaker") else question_type
