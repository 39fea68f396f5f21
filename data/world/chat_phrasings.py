"""The phrasings of chat: data, no code.

Each tuple has five. The last is never trained on.
"""

from data.world.family import TURN

GREETING = (
    "{greeting}, I am {name}.",
    "{greeting}! My name is {name}.",
    "{greeting}, {name} here.",
    "{greeting}! This is {name} speaking.",
    "{greeting}, people call me {name}.",
)
FACT = {
    "colour": (
        "What colour is {topic}?",
        "Which colour is {topic}?",
        "Tell me the colour of {topic}.",
        "Say what colour {topic} is.",
        "Do you know the colour of {topic}?",
    ),
    "sound": (
        "What does a {topic} do to be heard?",
        "Which sound does a {topic} make?",
        "Tell me the sound of a {topic}.",
        "Say what a {topic} sounds like.",
        "Do you know how a {topic} sounds?",
    ),
    "capital": (
        "What is the capital of {topic}?",
        "Which city is the capital of {topic}?",
        "Tell me the capital of {topic}.",
        "Name the capital of {topic}.",
        "Do you know the capital of {topic}?",
    ),
    "two_capitals": (
        "What are the capitals of {topic} and {other}?",
        "Which cities are the capitals of {topic} and {other}?",
        "Tell me the capitals of {topic} and {other}.",
        "Name the capitals of {topic} and {other}.",
        "Do you know the capitals of {topic} and {other}?",
    ),
    "two_sounds": (
        "What do a {topic} and a {other} do to be heard?",
        "Which sounds do a {topic} and a {other} make?",
        "Tell me the sounds of a {topic} and a {other}.",
        "Say what a {topic} and a {other} sound like.",
        "Do you know how a {topic} and a {other} sound?",
    ),
}
LIST = {
    "one": (
        "Name {count} {group}.",
        "List {count} {group}.",
        "Can you give me {count} {group}?",
        "I need {count} {group}.",
        "Which {count} {group} come to your mind?",
    ),
    "two": (
        "Name {count} {group} and {other_count} {other_group}.",
        "List {count} {group} and {other_count} {other_group}.",
        "Can you give me {count} {group} and {other_count} {other_group}?",
        "I need {count} {group} and {other_count} {other_group}.",
        "Which {count} {group} and {other_count} {other_group} come to your mind?",
    ),
}
DESCRIPTION = {
    "one": (
        "Describe {topic}.",
        "What is {topic}?",
        "Tell me about {topic}.",
        "What does {topic} look like?",
        "How would you explain {topic}?",
    ),
    "two": (
        "Describe {topic} and {other}.",
        "What are {topic} and {other}?",
        "Tell me about {topic} and {other}.",
        "What do {topic} and {other} look like?",
        "How would you explain {topic} and {other}?",
    ),
}
OPPOSITE = {
    "one": (
        "What is the opposite of {topic}?",
        "Give me the opposite of {topic}.",
        "Which word is the opposite of {topic}?",
        "Not {topic} but what?",
        "Turn {topic} into its opposite.",
    ),
    "two": (
        "What are the opposites of {topic} and {other}?",
        "Give me the opposites of {topic} and {other}.",
        "Which words are the opposites of {topic} and {other}?",
        "Not {topic} and {other} but what?",
        "Turn {topic} and {other} into their opposites.",
    ),
}
REWRITE = (
    "Rewrite this politely: {verb} {thing}",
    "Make this polite: {verb} {thing}",
    "How do I say nicely: {verb} {thing}",
    "Say it in a kind way: {verb} {thing}",
    "Turn this into a friendly request: {verb} {thing}",
)
ADVICE = (
    "How can {person} {topic}?",
    "Give advice: {person} must {topic}.",
    "What should {person} do to {topic}?",
    "Tips please, {person} should {topic}.",
    "What can {person} try in order to {topic}?",
)


def asked_later(*questions: str) -> tuple:
    """Dialogues that begin with the name and the liking, and end with one of the questions."""
    turns = ("My name is {name} and I like {like}.", "Nice to meet you, {name}!")
    return tuple(TURN.join((*turns, question)) for question in questions)


MEMORY = {
    "name": asked_later(
        "What is my name?",
        "Who am I?",
        "Do you remember my name?",
        "Tell me my name.",
        "What am I called?",
    ),
    "like": asked_later(
        "What do I like?",
        "Which thing do I like?",
        "Do you remember what I like?",
        "Tell me what I like.",
        "What am I fond of?",
    ),
}
