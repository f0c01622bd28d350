"""List every wording of the tiny questions: how each family asks, and the words that give each answer away."""

from collections.abc import Mapping
from dataclasses import dataclass

NEUTRAL = (
    "listen to the clip.",
    "here is a short recording.",
    "pay attention to the audio.",
    "the recording was made today.",
    "the clip is played to you.",
)
"""Sentences in place of a shortcut in plain questions, so that length alone reveals nothing."""


@dataclass(frozen=True)
class Family:
    """One kind of question.

    Attributes:
        target: what it asks for, in words.
        asks: wordings; `{subject}` is the sound asked about.
        explicit, knowledge: sentences that carry a cue of that kind.
        cues: the class of options, each with its (explicit, knowledge) cues. A cue fits one option of its class only.
    """

    target: str
    asks: tuple[str, ...]
    explicit: tuple[str, ...]
    knowledge: tuple[str, ...]
    cues: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]


_WORD = Family(
    target="the spoken word",
    asks=("which word is said?", "what does the speaker say?", "which word can be heard?", "what is the spoken word?"),
    explicit=("the speaker names {cue}.", "the word means {cue}."),
    knowledge=("think of {cue}.", "the speaker talks about {cue}."),
    cues={
        "banana": (("a curved yellow fruit",), ("a fruit that monkeys peel",)),
        "tiger": (("a big striped cat",), ("the striped hunter in the jungle",)),
        "window": (("a glass pane in the wall",), ("the glass one opens for fresh air",)),
        "doctor": (("a person who heals the sick",), ("a person who works in a hospital with the sick",)),
        "pencil": (("a wooden stick for writing",), ("writing that needs an eraser",)),
        "butterfly": (("an insect with colourful wings",), ("what a caterpillar with wings becomes",)),
        "school": (("a building where pupils learn",), ("a place where teachers meet pupils",)),
        "winter": (("the coldest season",), ("the season when snow falls and lakes freeze",)),
        "coffee": (("a hot dark drink",), ("a drink that keeps people awake",)),
        "elephant": (("a huge animal with a trunk",), ("a grey giant with a trunk in a zoo",)),
        "rocket": (("a vehicle that flies into space",), ("what brings astronauts into space",)),
        "bread": (("baked dough",), ("dough that a baker takes out of the oven",)),
        "mouse": (("a tiny rodent",), ("a rodent that likes cheese",)),
        "island": (("land with sea all around",), ("land where a lost sailor waits",)),
        "computer": (("a device with a keyboard",), ("the keyboard of a programmer",)),
        "fire": (("burning flames",), ("flames that keep a camp warm",)),
    },
)
_SPEAKER = Family(
    target="the kind of voice",
    asks=(
        "which kind of voice is it?",
        "what voice can be heard?",
        "how does the voice sound?",
        "which voice speaks?",
    ),
    explicit=("the voice is that of {cue}.", "one hears {cue}."),
    knowledge=("think of {cue}.", "the speaker acts as {cue}."),
    cues={
        "man": (("a deep male person", "a gentleman"), ("a king with a beard", "a grandfather with a beard")),
        "woman": (("a lady", "a female person"), ("a queen in a dress", "a grandmother in a dress")),
        "child": (("a young kid", "a little kid"), ("a pupil on a playground", "someone with toys on a playground")),
        "whisper": (("hushed breath", "a hushed secret"), ("a spy with a secret", "a guest in a quiet library")),
    },
)
_PACE = Family(
    target="the pace of the speaker",
    asks=("how is the word said?", "at which pace is the word said?", "what is the pace of the speaker?"),
    explicit=("one hears {cue}.", "the speaker uses {cue}."),
    knowledge=("think of {cue}.", "the speaker is like {cue}."),
    cues={
        "slow": (("long dragging vowels", "a dragging tongue"), ("a tired person", "a tired turtle")),
        "fast": (("short hasty vowels", "a hasty tongue"), ("a person in a hurry", "a messenger in a hurry")),
    },
)
_EVENT_CUES = {
    "rain": (("wet weather on a roof", "a wet shower"), ("people with an umbrella", "an umbrella under clouds")),
    "siren": (("an emergency wail", "a wail that warns"), ("a fire station", "an ambulance at a station")),
    "clock": (("the ticking of time", "something that keeps ticking"), ("a watchmaker", "the hours at a watchmaker")),
    "engine": (("a motor running", "the hum of a motor"), ("a garage with a truck", "a truck driver")),
    "bell": (("a bronze chime", "a chime of metal"), ("a church tower", "a church on sunday")),
    "knock": (("knuckles on wood", "tapping knuckles"), ("a visitor at the door", "a visitor who wants to enter")),
    "dog": (("barking", "a barking pet"), ("a puppy", "a puppy that guards a yard")),
    "bird": (("tweeting", "feathers and tweeting"), ("a nest in a tree", "eggs in a nest")),
    "thunder": (("a rumbling sky", "rumbling from above"), ("a storm with lightning", "a flash of lightning")),
    "drip": (("falling drops", "drops one by one"), ("a leaky tap", "a leaky pipe")),
    "footsteps": (("walking shoes", "someone walking"), ("a hiker in boots", "boots on a stair")),
    "phone": (("an incoming call", "a call for someone"), ("an office where people say hello", "saying hello")),
}
_EVENT = Family(
    target="the sound that is heard",
    asks=("which sound is heard?", "what can be heard?", "what is making the sound?", "which sound is in the clip?"),
    explicit=("one hears {cue}.", "the audio has {cue}."),
    knowledge=("think of {cue}.", "the sound belongs to {cue}."),
    cues=_EVENT_CUES,
)
_FIRST = Family(
    target="the first sound",
    asks=("which sound comes first?", "what is heard first?", "which sound starts the clip?"),
    explicit=("at first there is {cue}.", "it begins with {cue}."),
    knowledge=("at first think of {cue}.", "it begins at {cue}."),
    cues=_EVENT_CUES,
)
_LAST = Family(
    target="the last sound",
    asks=("which sound comes last?", "what is heard last?", "which sound ends the clip?"),
    explicit=("at last there is {cue}.", "it ends with {cue}."),
    knowledge=("at last think of {cue}.", "it ends at {cue}."),
    cues=_EVENT_CUES,
)
_KIND = Family(
    target="what kind of thing makes the sound",
    asks=("what makes this sound?", "which kind of thing is heard?", "where does the sound come from?"),
    explicit=("it is {cue}.", "one hears {cue}."),
    knowledge=("think of {cue}.", "the sound belongs to {cue}."),
    cues={
        "creature": (("something alive", "an alive body"), ("what eats and sleeps", "what sleeps at night")),
        "nature": (("weather or water", "wild water"), ("what nobody built", "the outdoors that nobody built")),
        "machine": (
            ("an electric device", "a motor or electric thing"),
            ("what a mechanic repairs", "a mechanic at work"),
        ),
        "object": (
            ("a thing being struck", "struck metal or wood"),
            ("what a carpenter makes", "a carpenter or smith"),
        ),
    },
)
_INSTRUMENT = Family(
    target="the instrument",
    asks=("which instrument plays?", "what instrument is heard?", "on what is the melody played?"),
    explicit=("one hears {cue}.", "the player uses {cue}."),
    knowledge=("think of {cue}.", "the tune belongs to {cue}."),
    cues={
        "organ": (("big pipes with keys", "rows of pipes"), ("a cathedral", "a wedding in a cathedral")),
        "flute": (("a silver woodwind", "a soft woodwind"), ("a shepherd", "a shepherd in the hills")),
        "violin": (
            ("a bow on strings", "a bow of horse hair"),
            ("a quartet in black suits", "an evening with a quartet"),
        ),
        "trumpet": (("bright brass", "brass with three valves"), ("a royal fanfare", "a fanfare on parade")),
        "guitar": (("plucked strings", "plucked frets"), ("a campfire", "friends at a campfire")),
        "xylophone": (("mallets on bars", "wooden bars"), ("a skeleton dance", "a cartoon skeleton")),
    },
)
_CONTOUR = Family(
    target="the direction of the melody",
    asks=("how does the melody move?", "what is the direction of the melody?", "where do the notes go?"),
    explicit=("one hears {cue}.", "the tune has {cue}."),
    knowledge=("think of {cue}.", "the tune is like {cue}."),
    cues={
        "rising": (("climbing notes", "notes climbing higher"), ("a balloon let go", "a free balloon")),
        "falling": (("sinking notes", "notes sinking deeper"), ("a diver going deep", "a leaf and a diver")),
        "up then down": (("an arch of notes", "notes in an arch"), ("a walk over a hill", "a ball over a hill")),
        "level": (("the same repeated note", "a repeated pitch"), ("a flat road", "a flat lake")),
    },
)
_TEMPO = Family(
    target="the tempo",
    asks=("what is the tempo?", "how quick is the music?", "at which tempo does the music go?"),
    explicit=("one hears {cue}.", "the tune has {cue}."),
    knowledge=("think of {cue}.", "the tune belongs to {cue}."),
    cues={
        "slow": (("long crawling notes", "crawling steps"), ("a lullaby", "a lullaby at night")),
        "medium": (("moderate notes", "moderate steps"), ("a stroll", "a stroll in the park")),
        "fast": (("racing notes", "racing steps"), ("a chase", "a chase in a film")),
    },
)
_MODE = Family(
    target="the mode",
    asks=("what is the mode of the music?", "which mode is the tune in?", "is the key major or minor?"),
    explicit=("one hears {cue}.", "the tune has {cue}."),
    knowledge=("think of {cue}.", "the tune belongs to {cue}."),
    cues={
        "major": (("a happy mood", "happy chords"), ("a birthday", "a birthday party")),
        "minor": (("a sad mood", "sad chords"), ("a funeral", "a funeral march")),
    },
)
_COUNT = Family(
    target="how often the sound is heard",
    asks=(
        "how many {subject} sounds are there?",
        "how often is the {subject} sound heard?",
        "count the {subject} sounds.",
    ),
    explicit=("it comes as {cue}.", "one hears {cue}."),
    knowledge=("the number is that of {cue}.", "think of {cue}."),
    cues={
        "one": (("a single sound", "a single time"), ("the sun above the earth", "the sun")),
        "two": (("a pair", "a pair of sounds"), ("the eyes of a face", "eyes")),
        "three": (("a triple", "a triple sound"), ("the sides of a triangle", "a triangle")),
        "four": (("a double double", "a double of doubles"), ("the legs of a table", "a table with legs")),
    },
)
_START = Family(
    target="when the sound starts",
    asks=(
        "when does the {subject} sound start?",
        "at what time does the {subject} sound start?",
        "when is the {subject} sound heard?",
    ),
    explicit=("it comes after {cue}.", "one waits for {cue}."),
    knowledge=("the time is that of {cue}.", "think of {cue}."),
    cues={
        "0.5 seconds": (("five tenths of a second", "five tenths"), ("a blink", "an eye blink")),
        "1.0 seconds": (("ten tenths of a second", "ten tenths"), ("a heart beat", "a calm heart")),
        "1.5 seconds": (("fifteen tenths of a second", "fifteen tenths"), ("a jump", "a jump over a rope")),
        "2.0 seconds": (("twenty tenths of a second", "twenty tenths"), ("a yawn", "a long yawn")),
    },
)
FAMILIES = {
    "word": _WORD,
    "speaker": _SPEAKER,
    "pace": _PACE,
    "event": _EVENT,
    "kind": _KIND,
    "instrument": _INSTRUMENT,
    "contour": _CONTOUR,
    "tempo": _TEMPO,
    "mode": _MODE,
    "first": _FIRST,
    "last": _LAST,
    "count": _COUNT,
    "start": _START,
}
