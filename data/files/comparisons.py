"""Pairs and rankings: what the layouts that compare replies to one prompt become.

As in layouts.py, a function takes one JSON object and returns a record, or the reason (a string)
why it teaches nothing, and raises DataError without the file's name.
"""

import string

from data.files.dialogues import messages_of, prompt_of, transcript, unusable, whole
from data.files.loading import DataError, blank, clip, texts_of, type_name

# ---- pairs ----


def pair(value, ignored):
    """A pair whose replies answer the same dialogue, or the reason why it cannot be used."""
    asked = prompt_of(value, ignored) if "prompt" in value else None
    sides = []
    for key in ("chosen", "rejected"):
        side = (asked, value[key])
        if not isinstance(value[key], str) or asked is None:
            side = side_of(value, key, asked, ignored)
        if isinstance(side, str):
            return side
        sides.append(side)
    (prompt, chosen), (other, rejected) = sides
    if prompt != other:  # the replies answer different conversations: their margin means nothing
        return "prefix differs"
    if blank(chosen) or blank(rejected):
        return "empty reply"
    if chosen.strip() == rejected.strip():
        return "identical pair"
    prompt = whole(value, prompt, ignored)
    return unusable(prompt) or {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def side_of(value, key, asked, ignored):
    """(prompt, reply) of a list of messages or a transcript, or the reason why there is none."""
    if isinstance(value[key], str):
        before = transcript(value[key], key)
    else:
        before = messages_of(value, key, ignored)
    reply = ""
    if before and before[-1]["role"] == "assistant":
        *before, last = before
        reply = last["content"]
        if "think" in last or "tool_call" in last:
            raise DataError(
                f"the reply in '{key}' has think or tool_call, which a pair cannot hold; "
                "write them into its content"
            )
        if "weight" in last:
            return "a reply of weight 0"
    # a list may repeat the prompt before the reply, with a system turn perhaps
    if asked is not None and before and before[-len(asked) :] != asked:
        return "prefix differs"
    return before or asked or [], reply


def pair_as_ranking(value, ignored):
    made = pair(value, ignored)
    return made if isinstance(made, str) else as_ranking(made)


def as_ranking(made):
    """A chosen/rejected pair as a ranking of two."""
    responses = [made["chosen"], made["rejected"]]
    return {"prompt": made["prompt"], "responses": responses, "ranking": "A > B"}


# ---- rankings ----


def ranking(value, ignored):
    """A ranking of different responses, or the reason why it cannot be used."""
    responses = texts_of(value, "responses")
    levels = parse_ranking(value["ranking"], len(responses))
    prompt = whole(value, prompt_of(value, ignored), ignored)
    if any(map(blank, responses)):
        return "empty reply"
    texts = [response.strip() for response in responses]
    on_two_levels = len(set(zip(texts, levels))) > len(set(texts))
    if len(set(texts)) == 1 or on_two_levels:
        return "equal responses"
    made = {"prompt": prompt, "responses": responses, "ranking": value["ranking"]}
    return unusable(prompt) or made


def parse_ranking(text, count):
    """The level of each of `count` responses, 0 for the best; equals share one.

    ("D > C > A = B", 4) -> [2, 2, 1, 0]. Raises DataError (without a file) if a label is unknown,
    named twice or missing.
    """
    if not isinstance(text, str) or not 2 <= count <= 26:
        raise DataError(
            f"'ranking' is {type_name(text)} for {count} responses; "
            "expected a string for 2 to 26 responses"
        )
    labels = string.ascii_uppercase[:count]
    levels = {}
    for level, tied in enumerate(text.split(">")):
        for label in tied.split("="):
            label = label.strip()
            label = label.upper() if label.isascii() else label  # upper() makes an I of a dotless i
            if label not in tuple(labels):
                raise DataError(
                    f"ranking {clip(text)} has the unknown label {clip(label)}; "
                    f"expected each of {labels[0]} to {labels[-1]} once, joined by > and ="
                )
            if label in levels:
                raise DataError(
                    f"ranking {clip(text)} names {label} twice; name each response once"
                )
            levels[label] = level
    missing = [label for label in labels if label not in levels]
    if missing:
        raise DataError(
            f"ranking {clip(text)} leaves out {', '.join(missing)}; "
            f"name each of {count} responses once"
        )
    return [levels[label] for label in labels]
