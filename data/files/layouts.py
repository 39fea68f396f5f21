r"""What a record of each layout becomes: one function a layout, and the table of them at the end.

kind "instruction" (for sft.py)
    {"messages": [{"role": "user", "content": "2+3?"}, {"role": "assistant", "content": "5"}]}
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}   ShareGPT
    {"prompt": "Name a planet.", "response": "Mars."}
    {"prompt": "Name a planet.", "completion": "Mars."}     TRL, both perhaps lists of messages
    {"question": "2+3?", "answer": "2+3=<<2+3=5>>5\n#### 5"}     GSM8K, or a plain answer
    {"instruction": "To French.", "input": "cat", "output": "chat"}     Alpaca; no "input" will do
    {"instruction": "Add.", "instances": [{"input": "2 3", "output": "5"}]}     self-instruct
    {"text": "Double x.", "code": "def f(x): return 2*x", "test_list": ["assert f(2) == 4"]}   MBPP
    {"prompt": "Double x.", "code": "def f(x): return 2*x", "test_list": ["assert f(2) == 4"]}
kind "preference" (for dpo.py, reward_model.py)
    {"prompt": "Name a planet.", "chosen": "Mars.", "rejected": "The Moon."}
    {"chosen": "\n\nHuman: Hi\n\nAssistant: Hi!", "rejected": "\n\nHuman: Hi\n\nAssistant: No"}   HH
kind "ranking" (for reward_model.py)
    {"prompt": "Name a planet.", "responses": ["Pluto", "The Sun", "Mars"], "ranking": "C > A = B"}
    or a "preference" as above, which is a ranking of two

The last layout of instructions is MBPP's sanitized one, perhaps with "test_imports". A prompt is a
string (one user turn) or a list of messages. "chosen" and "rejected" are strings (HH-RLHF's hold
the dialogue too), or lists of messages that end in the reply, with the prompt or without it.

Before any of them may stand the columns "system", a string, "history", messages or
[[question, reply], ...], and "tools", OpenAI's list, which goes into the system turn. What a
message may hold is said in dialogues.py. What an assistant said in the prompt of a "completion" is
read and not learned from, as in TRL.

A "messages" record may carry its own checks: "answer", a string, or "tests", {"test_list": [...],
"test_setup_code": "..."}. GSM8K and MBPP records get theirs from the file. An MBPP prompt does not
say what the function is called, only its tests do: whoever runs them has to show the model at least
one.

A function takes one JSON object and returns a record, a list of them, or the reason (a string) why
it teaches nothing. It raises DataError without the file's name. Refused by name: KTO's "label".
"""

import re

from data.files.comparisons import pair, pair_as_ranking, ranking
from data.files.dialogues import (
    THOUGHTS,
    assistant,
    conversation_of,
    given,
    ignore,
    messages_of,
    prompt_of,
    thought_of,
    unlearnable,
    user,
    whole,
)
from data.files.loading import (
    DataError,
    clip,
    list_of,
    object_of,
    text_of,
    texts_of,
)

# The answer is a number or a fraction, so that a Markdown heading ("#### Summary") stays text.
GSM8K_ANSWER = re.compile(r"(.*?)(?:^|\n)#### *(-?[$]?\.?\d[\d.,/]*)\s*", re.DOTALL)
FIRST = ("system", "history", "tools")  # what `dialogues.whole` reads in every layout
USED_BY = {
    "instruction": "sft.py",
    "preference": "dpo.py and reward_model.py",
    "ranking": "reward_model.py",
}


# ---- instructions ----


def with_messages(value, ignored):
    checks = {}
    if value.get("answer") is not None:
        checks["answer"] = text_of(value, "answer")
    if value.get("tests") is not None:
        checks["tests"] = tests_of(object_of(value["tests"], "tests"))
        ignore(value["tests"], ("test_list", "test_setup_code"), ignored, " of 'tests'")
    return dialogue(value, messages_of(value, "messages", ignored), ignored, **checks)


def with_conversations(value, ignored):
    return dialogue(value, conversation_of(value, ignored), ignored)


def with_response(value, ignored):
    reply = thoughtful(value, assistant(text_of(value, "response")))
    return dialogue(value, [*prompt_of(value, ignored), reply], ignored)


def with_completion(value, ignored):
    prompt = [
        turn | {"weight": 0} if turn["role"] == "assistant" else turn
        for turn in prompt_of(value, ignored)
    ]
    if isinstance(value["completion"], str):
        reply = thoughtful(value, assistant(value["completion"]))
        return dialogue(value, [*prompt, reply], ignored)
    return dialogue(value, prompt + messages_of(value, "completion", ignored), ignored)


def with_answer(value, ignored):
    reply = assistant(text_of(value, "answer"))
    checks = {}
    worked = GSM8K_ANSWER.fullmatch(reply["content"])
    if worked:
        steps = re.sub(r"<<.*?>>", "", worked[1]).strip()
        checks["answer"] = re.sub("[$,]", "", worked[2]).rstrip(".")
        reply["content"] = checks["answer"]
        if steps:
            reply["think"] = steps
    asked = user(text_of(value, "question"))
    return dialogue(value, [asked, thoughtful(value, reply)], ignored, **checks)


def with_output(value, ignored):
    asked = [text_of(value, "instruction")]
    if value.get("input") is not None and text_of(value, "input").strip():
        asked.append(value["input"])
    reply = thoughtful(value, assistant(text_of(value, "output")))
    return dialogue(value, [user("\n\n".join(asked)), reply], ignored)


def with_instances(value, ignored):
    shared = {key: value.get(key) for key in ("instruction", *FIRST)}
    made = []
    for i, instance in enumerate(list_of(value, "instances")):
        object_of(instance, f"instances[{i}]")
        ignore(instance, ("input", "output", *THOUGHTS), ignored, " of an instance")
        made.append(with_output({**instance, **shared}, ignored))
    return made


def with_text_and_code(value, ignored):
    return program(value, text_of(value, "text"), ignored)


def with_prompt_and_code(value, ignored):
    return program(value, text_of(value, "prompt"), ignored)


def program(value, asked, ignored):
    """MBPP's program with its tests."""
    checks = {"tests": tests_of(value)} if "test_list" in value else {}
    reply = thoughtful(value, assistant(tidy_code(text_of(value, "code"))))
    return dialogue(value, [user(asked), reply], ignored, **checks)


def dialogue(value, messages, ignored, **checks):
    """The record of a dialogue with its checks, or the reason why there is none."""
    ended = messages[-1]["role"] == "assistant"
    messages = whole(value, messages, ignored)
    if not ended:
        return "no reply at the end"
    return unlearnable(messages) or {"messages": messages, **checks}


def thoughtful(value, reply):
    """The reply with the thought that stands beside it."""
    thought = thought_of(value)
    if thought and "think" in reply:
        raise DataError(
            "the record has a thought beside the worked steps of its 'answer'; keep one of the two"
        )
    return reply | {"think": thought} if thought else reply


def tests_of(value):
    """MBPP's tests: {"test_list": [...], "test_setup_code": "..."}, imports in the latter."""
    setup = text_of(value, "test_setup_code") if value.get("test_setup_code") is not None else ""
    imports = texts_of(value, "test_imports") if value.get("test_imports") else []
    setup = "\n".join([*imports, setup] if setup else imports)
    return {"test_list": texts_of(value, "test_list"), "test_setup_code": tidy_code(setup)}


def tidy_code(code):
    return code.replace("\r\n", "\n").replace("\t", "    ")


# ---- the table: of a kind the first layout whose keys are all there is taken ----

PAIRS = (("prompt", "chosen", "rejected"), ("chosen", "rejected"))
LAYOUTS = {  # kind -> keys -> (function, the other keys that it reads)
    "instruction": {
        ("messages",): (with_messages, ("answer", "tests")),
        ("conversations",): (with_conversations, ()),
        ("prompt", "response"): (with_response, THOUGHTS),
        ("prompt", "completion"): (with_completion, THOUGHTS),
        ("question", "answer"): (with_answer, THOUGHTS),
        ("instruction", "instances"): (with_instances, ()),
        ("instruction", "output"): (with_output, ("input", *THOUGHTS)),
        ("text", "code"): (
            with_text_and_code,
            ("test_list", "test_setup_code", "test_imports", *THOUGHTS),
        ),
        ("prompt", "code"): (
            with_prompt_and_code,
            ("test_list", "test_setup_code", "test_imports", *THOUGHTS),
        ),
    },
    "preference": {keys: (pair, ()) for keys in PAIRS},
    "ranking": {("prompt", "responses", "ranking"): (ranking, ())}
    | {keys: (pair_as_ranking, ()) for keys in PAIRS},
}


def layout_of(value, kind):
    """The keys of the layout of this kind that an object has, or None."""
    return next((keys for keys in LAYOUTS[kind] if all(key in value for key in keys)), None)


def records_of(value, kind, ignored):
    """What one object becomes: a list of records, or of the reasons (strings) why there is none.

    Keys that are not used are counted in `ignored`.
    """
    if "completion" in value and str(value.get("label")).lower() in ("true", "false", "0", "1"):
        raise DataError(
            "the record has a 'label', which is KTO's layout of single replies, and no loss here "
            "learns from it; for sft.py keep the records whose label is true and take 'label' "
            "out, for dpo.py join two replies to a prompt as 'chosen' and 'rejected'"
        )
    layout = layout_of(value, kind)
    if layout is None:
        accepted = " | ".join(", ".join(keys) for keys in LAYOUTS[kind])
        raise DataError(
            f"no {kind} layout fits the keys {key_names(value)}; expected one of: {accepted}"
            f"{elsewhere(value)}"
        )
    function, others = LAYOUTS[kind][layout]
    ignore(value, (*layout, *others, *FIRST), ignored)
    made = function(value, ignored)
    return made if isinstance(made, list) else [made]


def elsewhere(value):
    """`; these keys are for dpo.py`, where another kind has a layout for them, or ""."""
    fitting = [USED_BY[kind] for kind in LAYOUTS if layout_of(value, kind)]
    if not fitting and isinstance(value.get("text"), str) and given(value["text"]):
        fitting = ["sft.py --pretrain"]
    return f"; these keys are for {fitting[0]}" if fitting else ""


def key_names(value):
    return ", ".join(map(clip, value)) or "(none)"
