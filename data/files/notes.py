"""The lines on a data file that its reader should see: what was ignored, what looks wrong in it.

Nothing here changes a record or stops a run. Each function returns a line, or a list of lines that
is empty where there is nothing to say.
"""

import json
import re

from data.files.loading import clip

# A dialogue that somebody has already rendered: it would be learned as the words of one turn.
SPELLED = {
    "a chat mark": re.compile(r"<\|\w+\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>"),
    "a speaker's label": re.compile(
        r"^(?:Human|Assistant|### *(?:Human|Assistant|Instruction|Response)):", re.M
    ),
}


def ignored_line(ignored):
    """`ignored keys: 'id' 20 times, 'name' of a tool turn 3 times`, most frequent first."""
    ordered = sorted(ignored.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{name} {count} time{'' if count == 1 else 's'}" for name, count in ordered[:12]]
    more = f", and {len(ordered) - 12} other keys" if len(ordered) > 12 else ""
    return "ignored keys: " + ", ".join(told) + more


def spelled_in(record):
    """[(what, the mark or label)] for each kind of SPELLED that the texts of a record hold."""
    turns = record.get("messages") or record["prompt"]
    texts = [turn.get(key, "") for turn in turns for key in ("content", "think")]
    texts += [record.get("chosen", ""), record.get("rejected", ""), *record.get("responses", ())]
    found = []
    for what, pattern in SPELLED.items():
        match = next(filter(None, map(pattern.search, texts)), None)
        if match:
            found.append((what, match[0]))
    return found


def spelled_lines(spelled, count):
    """A line for each kind of SPELLED. `spelled`: kind -> [(place, mark)], one a record."""
    lines = []
    for what, places in spelled.items():
        place, mark = places[0]
        lines.append(
            f"{place}: the text holds {what}, {clip(mark)}, in {len(places)} of "
            f"{count} records, here first, and is learned as it stands; give "
            "messages with roles, or take it out"
        )
    return lines


def score_order(value):
    """How a pair's own scores put its chosen reply beside its rejected one, if not above it.

    "is below", "equals", or "" where the chosen reply is above or there are no scores.
    UltraFeedback has them in the record or in its metadata.
    """
    metadata = value["metadata"] if isinstance(value.get("metadata"), dict) else {}
    told = value | metadata
    chosen = told.get("score_chosen")
    rejected = told.get("score_rejected")
    if any(type(score) not in (int, float) for score in (chosen, rejected)):
        return ""
    if chosen < rejected:
        return "is below"
    return "equals" if chosen == rejected else ""


def score_lines(scored, count):
    """[a line on pairs that their own scores do not rank as they stand], or [].

    `scored`: what `score_order` says -> the places of the pairs.
    """
    if not scored:
        return []
    orders = [order for order in ("is below", "equals") if order in scored]
    first = orders[0]
    places = scored[first]
    also = "".join(f", and {order} it in {len(scored[order])}" for order in orders[1:])
    remedy = "; swap their replies, or take them out" if first == "is below" else ""
    return [
        f"{places[0]}: score_chosen {first} score_rejected in {len(places)} of {count} "
        f"records, here first{also}; all are learned as they stand{remedy}"
    ]


def repeat_lines(path, records, openings):
    """[a line on records that stand in the file more than once], or []; an opening a record."""
    whole = len(records) - len({json.dumps(record, sort_keys=True) for record in records})
    prompts = len(records) - len(set(openings)) - whole
    if not whole and not prompts:
        return []
    if whole:
        told = f"{whole} record{' repeats' if whole == 1 else 's repeat'} an earlier one"
    else:
        told = f"{prompts} record{' repeats' if prompts == 1 else 's repeat'}"
        told += " only the prompt of an earlier one"
    if whole and prompts:
        told += f", {prompts} more only its prompt"
    return [f"{path}: {told}; records of one prompt are trained on together or held out together"]
