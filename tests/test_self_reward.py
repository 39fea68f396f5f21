"""self_reward.py: the verdict's parser, the selection, the filters of new prompts,
a whole round, and what measures it against the truth."""

import ast
import functools
import itertools
import json
import random
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import dpo
import self_reward
from data import world
from data.files import formats, writing
from data.files.checkpoints import save_checkpoint
from data.runtime import alone, judging
from data.runtime.decoding import Samples
from data.runtime.measures import kendall, mean_ranks, spearman, win_share
from data.runtime.rows import pad_rows
from data.world import judge as world_judge
from data.world import novelty
from data.world.novelty import rouge_l, words_of
from dpo import sequence_logprobs
from model import GPT, Config, load_checkpoint
from self_reward import (
    Settings,
    chat_answers,
    check_seed_model,
    create_self_instruction_data,
    generate_prompts,
    generate_responses,
    generate_rewards,
    judge,
    judge_report,
    mean_score,
    measure,
    next_iteration_model,
    select,
    text_of,
    train_instruction_following,
)

CPU = torch.device("cpu")
TINY = Settings(
    prompts=6,
    requests=6,
    responses=4,
    verdicts=3,
    held_out=6,
    training=dpo.Settings(steps=8, rows=4, lr=1e-3, warmup=1),
    passes=8,
)
evaluation_tasks = functools.cache(world.evaluation_tasks)
evaluation_judge_pairs = functools.cache(world.evaluation_judge_pairs)


@pytest.fixture(autouse=True)
def lists_are_drawn_once(monkeypatch):
    """The evaluation lists never change, and drawing thousands
    of prompts for every test takes most of the time."""
    monkeypatch.setattr(world, "evaluation_tasks", evaluation_tasks)
    monkeypatch.setattr(world, "evaluation_judge_pairs", evaluation_judge_pairs)


def samples_of(rows):
    """What `generate` returns when it wrote these token rows."""
    own = pad_rows([[True] * len(row) for row in rows], False)
    lengths = torch.tensor([len(row) for row in rows])
    return Samples(
        pad_rows(rows, 511),
        torch.zeros(own.shape),
        own,
        lengths,
        torch.zeros(len(rows), dtype=torch.bool),
    )


def said(tokenizer, text):
    return [*tokenizer.encode(text), tokenizer.end_id]


def user_of(tokenizer, ids):
    """The text of a prompt of one user turn."""
    text = tokenizer.encoding.decode(ids)
    assert text.startswith("<|user|>") and text.endswith("<|assistant|>"), text
    return text[len("<|user|>") : -len("<|assistant|>")]


class Script:
    """Stands in for `generate`: reply(prompt text,
    k) is the k-th sample, as text or as token ids; every call is kept."""

    def __init__(self, tokenizer, reply):
        self.tokenizer, self.reply, self.calls = tokenizer, reply, []

    def __call__(self, model, tokenizer, prompts, *, n=1, **how):
        texts = [user_of(tokenizer, ids) for ids in prompts]
        self.calls.append({"model": model, "texts": texts, "n": n, **how})
        replies = [self.reply(text, k) for text in texts for k in range(n)]
        return samples_of(
            [said(tokenizer, reply) if isinstance(reply, str) else reply for reply in replies]
        )


def is_request(text):
    return text.splitlines()[0] in world_judge.NEW_PROMPT_FRAMES


def kind_of(text):
    return (
        "prompt"
        if is_request(text)
        else "verdict"
        if world_judge.read_judge_prompt(text)
        else "response"
    )


@pytest.fixture
def script(tokenizer, monkeypatch):
    """script(reply) puts a Script in the place of `generate`."""

    def install(reply):
        monkeypatch.setattr(self_reward, "generate", played := Script(tokenizer, reply))
        return played

    return install


@pytest.fixture
def play(script):
    """A whole loop by script: numbered prompts,
    four responses of growing length, verdicts that like the longer ones."""
    counter = itertools.count()

    def reply(text, k):
        if kind_of(text) == "prompt":
            return f"Number {next(counter)} please"
        if kind_of(text) == "verdict":
            return f"fine. Score: {len(world_judge.read_judge_prompt(text)[1].split())}"
        return " ".join(["yes"] * (k + 1))

    return script(reply)


def bits(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model, state):
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


SHOWN = [
    "Sing of blue rivers.",
    "How heavy are seven clouds?",
    "Paint two quiet doors.",
    "Who sold my violin?",
    "Fold this letter twice.",
    "Do owls ever knit?",
]


def train_prompts(count, families=world_judge.SINGLE_TURN):
    """Different prompts that training may use, no two of them alike."""
    rng, found = random.Random(1), []
    while len(found) < count:
        task = world_judge.chat_task(rng, "train", families)
        if all(rouge_l(words_of(task.prompt), words_of(other)) < 0.8 for other in found):
            found.append(task.prompt)
    return found


# ---- verdicts ----


@pytest.mark.parametrize(
    "text, score",
    [
        ("Score: 4", 4),
        ("Score: 4.5", 4.5),
        ("Score: 4/5", 4),
        ("Score: 0", 0),
        ("Score: 5", 5),
        ("Score: 0.0", 0),
        ("Score: 4.5/5", 4.5),
        ("relevant, wrong. Score: 2", 2),
        ("Score: 3.", 3),
        ("Score:3", 3),
        ("Score:\n3", 3),
        ("Score: 4 out of 5", 4),
        ("5 of 5. Score: 1", 1),
    ],
)
def test_a_readable_verdict_gives_its_score(text, score):
    assert world_judge.parse_verdict(text) == score


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "4",
        "Score",
        "Score:",
        "Score: ",
        "Score 4",
        "score: 4",
        "SCORE: 4",
        "Rating: 4",
        "five",
        "Score: five",
        "Score: x",
        "Score: ?",
        "Score: 7",
        "Score: 6",
        "Score: 5.1",
        "Score: 5.0001",
        "Score: 10",
        "Score: 45",
        "Score: -1",
        "Score: -0",
        "Score: +4",
        "Score: 6/5",
        "Score: 4/10",
        "Score: \u0664",
        "Score: \uff14",
        "Score: 4.\u0665",
        "Score: \u00b2",
        "Score: 4/",
        "Score: /5",
        "Score: 4/5/5",
        "Score: 3-4",
        "Score: 4,5",
        "Score: 4..",
        "Score: .5",
        "Score: 1e0",
        "Score: 0x4",
        "Score: nan",
        "Score: inf",
        "Score: 4%",
        "Score: **4**",
        "**Score:** 4",
        "Score: (4)",
        "Score: " + "9" * 400,
        "Score: 4 Score: 4",
        "Score: 4. Score: 5",
        "Score: 4\nScore: 4",
        "Score: 4 Score: x",
        "Score: x Score: 4",
        "Score: Score: 4",
        "Score:4Score:4",
    ],
)
def test_a_verdict_that_is_missing_malformed_doubled_or_out_of_range_is_none_and_never_0(text):
    assert world_judge.parse_verdict(text) is None


@pytest.mark.parametrize(
    "verdicts, mean",
    [
        ((4, 4, 5), 4.333333),
        ((3, "x", 4), 3.5),
        (("x", "x", "x"), None),
        ((1, 2, 1), 1.333333),
        ((0, 0, 0), 0),
        ((), None),
    ],
)
def test_what_cannot_be_read_is_left_out_of_the_mean(verdicts, mean):
    assert mean_score([f"so so. Score: {verdict}" for verdict in verdicts]) == (
        mean if mean is None else pytest.approx(mean, abs=1e-6)
    )


# ---- select ----


@pytest.mark.parametrize(
    "rewards, picked",
    [
        ((13 / 3, 3.5, None, 4 / 3), (0, 3)),
        ((1, 5, 3), (1, 0)),
        ((2, 5, 5, 2), (1, 0)),
        ((5, 1, 5, 1), (0, 1)),
        ((None, 3, None, 4), (3, 1)),
        ((0, 5), (1, 0)),
        ((0.0, None), None),
        ((3, 3, 3), None),
        ((3, None, 3), None),
        ((None, None), None),
        ((4,), None),
        ((), None),
    ],
)
def test_the_highest_stands_against_the_lowest_the_first_of_equals_and_only_among_known_rewards(
    rewards, picked
):
    assert select(list(rewards), [1] * len(rewards)) == picked


# section 7's vector of Meta-Rewarding
REWARDS, LENGTHS = [4, 3.2, 2, 1.8, 1], [120, 60, 80, 200, 40]


@pytest.mark.parametrize("rho, picked", [(0, (0, 4)), (0.32, (1, 3)), (0.01, (0, 4))])
def test_a_window_of_rho_takes_the_shortest_of_the_good_and_the_longest_of_the_bad(rho, picked):
    """rho 0.32: the windows reach down to 3.04 and up to 1.96."""
    assert select(REWARDS, LENGTHS, rho) == picked


def test_a_window_leaves_unknown_rewards_out_whatever_their_length():
    assert select([None, *REWARDS, None], [1, *LENGTHS, 999], 0.32) == (2, 4)


def test_windows_that_overlap_never_choose_what_is_not_better():
    assert select([3, 2], [50, 10], 1.0) is None and select([3, 2], [10, 50], 1.0) == (0, 1)


@pytest.mark.parametrize("rho", [0.0, 0.32])
def test_one_known_reward_or_equal_ones_make_no_pair_with_any_window(rho):
    assert select([3, 3], [1, 9], rho) is None and select([3, None], [1, 9], rho) is None


def test_show_prints_the_numbers_of_the_chapters_functions(capsys):
    """Verdicts 4, 5, 4; 4, 4, 4; 2, 1, 3; 1, unreadable, 2. The windows of rho 0.2 are 0.567 wide:
    the shorter of 4.33 and 4 against the longer of 2 and 1.5."""
    self_reward.show()
    told = capsys.readouterr().out
    lengths = [int(length) for length in re.findall(r"^response \d, (\d+) tokens", told, re.M)]
    verdicts = [ast.literal_eval(texts) for texts in re.findall(r"tokens: (.*)$", told, re.M)]
    scores = [[world_judge.parse_verdict(text) for text in texts] for texts in verdicts]
    assert scores == [[4, 5, 4], [4, 4, 4], [2, 1, 3], [1, None, 2]]
    assert [ast.literal_eval(row) for row in re.findall(r"scores (.*), reward", told)] == scores
    rewards = [mean_score(texts) for texts in verdicts]
    assert rewards == [pytest.approx(13 / 3), 4, 2, 1.5]
    assert re.findall(r"reward ([\d.]+)$", told, re.M) == [f"{r:.4f}" for r in rewards]
    for rho, picked in ((0.0, (0, 3)), (0.2, (1, 2))):
        assert select(rewards, lengths, rho) == picked
        assert f"rho {rho}: response {picked[0]} is chosen, response {picked[1]} rejected\n" in told
    logps = [ast.literal_eval(row) for row in re.findall(r"(\[-[\d., -]+\])", told)]
    losses, *rewards = dpo.dpo_loss(*torch.tensor(sum(logps, []))[:, None], beta=0.1)
    assert f"implicit rewards: {rewards[0].item():.4f}, {rewards[1].item():.4f}\n" in told
    assert told.endswith(f"L_DPO = -log sigmoid(their difference) = {losses.item():.4f}\n")


# ---- what the truth says of a round ----


def test_a_round_is_audited_by_hand(tokenizer, monkeypatch):
    """Two prompts that the world knows, one that it does not,
    and one with a response that broke off."""
    truth = {"a": 5, "b": 3, "c": 3, "d": 0}
    monkeypatch.setattr(
        world,
        "parse",
        lambda prompt: None if prompt == "unknown" else SimpleNamespace(domain="chat"),
    )
    monkeypatch.setattr(world_judge, "true_reward", lambda task, text: truth[text])
    # which criterion whose response meets; all are concise
    meets = {"relevant": "abc", "correct": "ab", "complete": "a", "polite": "ac", "concise": "abcd"}
    monkeypatch.setattr(
        world_judge,
        "criteria_met",
        lambda task, text: {name: text in texts for name, texts in meets.items()},
    )

    def row(text, whole=True):
        ids = tokenizer.encode(text) + [tokenizer.end_id] * whole
        return ids, [True] * len(ids)

    groups = [
        [row("a"), row("b"), row("c")],
        [row("d"), row("a"), row("b")],
        [row("a"), row("d")],
        [row("a"), row("b", whole=False)],
    ]
    rewards = [[4.0, 2.0, 3.0], [5.0, 5.0, 1.0], [5.0, 0.0], [5.0, None]]
    got = judging.audit(
        tokenizer,
        ["one", "two", "unknown", "three"],
        groups,
        rewards,
        [(0, 1), (0, 2), (0, 1), (None, None)],
    )
    # one: a over b and a over c, both right, b and c equally good;
    # two: d ties with a (half), d over b is wrong, a over b is right
    assert got == {
        "own_agreement": pytest.approx((1 + 1 + 0.5 + 0 + 1) / 5),
        "equally_good": pytest.approx(1 / 6),
        "true_gap": pytest.approx(((5 - 3) + (0 - 3)) / 2),
        # one: a and b against c; two: a against d (a tie), b against d
        "own_correct": pytest.approx((1 + 0 + 0.5 + 0) / 4),
        "own_relevant": pytest.approx((0.5 + 0) / 2),
        # one: a and c against b; two: a against d, a against b
        "own_polite": pytest.approx((1 + 1 + 0.5 + 1) / 4),
        "own_complete": pytest.approx((1 + 1 + 0.5 + 1) / 4),
        "own_concise": None,
    }
    nothing = judging.audit(tokenizer, ["unknown"], groups[2:3], rewards[2:3], [(0, 1)])
    assert set(nothing) == set(got) and set(nothing.values()) == {None}


# ---- the likeness of prompts ----


# twice the common subsequence by the sum of both lengths
@pytest.mark.parametrize(
    "a, b, expected",
    [
        ("a b c d", "a c d", 6 / 7),
        ("a b c", "a b c", 1),
        ("a b c", "c b a", 1 / 3),
        ("a b", "x y", 0),
        ("", "a", 0),
        ("", "", 0),
        ("a b c d e", "a x c y e", 0.6),
        ("a a a", "a", 0.5),
    ],
)
def test_rouge_l_by_hand(a, b, expected):
    assert rouge_l(a.split(), b.split()) == pytest.approx(expected) == rouge_l(b.split(), a.split())


def test_words_are_compared_without_case_and_punctuation():
    assert words_of("What's 7 + 8, Tom?") == ["what's", "7", "8", "tom"]


# ---- new prompts ----


def accepted_of(tokenizer, script, replies, settings=TINY, **how):
    """(accepted prompts, counts) when the seed model writes these replies, one a request."""
    replies = iter(replies)
    played = script(lambda text, k: next(replies))
    accepted, dropped, counts = generate_prompts("M_1", tokenizer, settings, 1, SHOWN, **how)
    assert len(dropped) == sum(counts[reason] for reason in {one["dropped"] for one in dropped})
    return accepted, counts, played


@pytest.mark.slow
def test_good_prompts_are_accepted_as_they_stand_and_counted(tokenizer, script):
    good = [*train_prompts(4), "Why is the moon so green?", "Count my trains"]
    accepted, counts, played = accepted_of(tokenizer, script, good)
    assert accepted == good
    assert (
        counts["accepted"] == 6
        and counts["parsed"] == pytest.approx(4 / 6)
        and 2 / 6 <= counts["novel"] <= 1
    )
    (call,) = played.calls
    assert call["model"] == "M_1" and len(call["texts"]) == TINY.requests
    assert (
        (call["temperature"], call["top_p"]) == (TINY.prompt_temperature, TINY.top_p) == (0.6, 0.9)
    )


def test_a_request_shows_two_to_four_training_prompts_and_changes_with_the_seed(tokenizer, script):
    played, settings = script(lambda text, k: "no"), replace(TINY, requests=60)
    for seed in (1, 1, 2):
        generate_prompts(None, tokenizer, settings, seed, SHOWN)
    requests = [call["texts"] for call in played.calls]
    assert (
        requests[0] == requests[1] != requests[2]
        and played.calls[0]["seed"] != played.calls[2]["seed"]
    )
    for request in requests[0]:
        examples = [line[2:] for line in request.splitlines()[1:]]
        assert is_request(request) and 2 <= len(examples) <= 4
        assert set(examples) <= set(SHOWN) and len(set(examples)) == len(examples)


def evaluation_prompts():
    """Prompts that evaluation can use: a few of each list."""
    lists = [
        [task.prompt for task in world.evaluation_tasks(domain, 1000, part)]
        for part in ("test", "dev")
        for domain in ("chat", "phrasing")
    ]
    lists += [
        [task.prompt for task, *_ in world.evaluation_judge_pairs(1000, part)]
        for part in ("test", "dev")
    ]
    rng = random.Random(3)
    return [
        prompt
        for texts in lists
        for prompt in rng.sample([text for text in texts if 2 <= len(words_of(text)) <= 24], 20)
    ]


def test_no_evaluation_prompt_is_accepted(tokenizer, script):
    replies = evaluation_prompts()
    accepted, counts, _ = accepted_of(
        tokenizer, script, replies, replace(TINY, requests=len(replies))
    )
    assert accepted == [] and counts == {"evaluation prompt": len(replies), "parsed": 0, "novel": 0}


@pytest.mark.parametrize(
    "disguise",
    [str, str.lower, str.upper, lambda text: text.rstrip("?.") + "!"],
    ids=["as it is", "lower", "upper", "end"],
)
def test_an_evaluation_prompt_is_refused_by_its_words_where_it_cannot_be_parsed(
    tokenizer, script, monkeypatch, disguise
):
    monkeypatch.setattr(world, "parse", lambda text: None)
    replies = [disguise(prompt) for prompt in evaluation_prompts()]
    accepted, counts, _ = accepted_of(
        tokenizer, script, replies, replace(TINY, requests=len(replies))
    )
    assert accepted == [] and counts["evaluation prompt"] == len(replies)


@pytest.mark.slow
def test_no_held_out_content_is_accepted_in_any_phrasing_whether_it_is_on_a_list_or_not(
    tokenizer, script, monkeypatch
):
    monkeypatch.setattr(novelty, "evaluation_words", frozenset)
    rng = random.Random(2)
    replies = [
        family.draw(rng, part, range(1, 6), (k,)).prompt
        for family in world.FAMILIES
        for part in ("test", "dev")
        for k in range(5)
    ]
    replies = [text for text in replies if 2 <= len(words_of(text)) <= 24]
    accepted, counts, _ = accepted_of(
        tokenizer, script, replies, replace(TINY, requests=len(replies))
    )
    assert len(replies) > 100 and accepted == [] and counts["evaluation prompt"] == len(replies)


def test_the_phrasing_that_is_never_trained_on_is_not_accepted_even_with_training_content(
    tokenizer, script
):
    rng = random.Random(2)
    replies = [
        family.draw(rng, "train", range(1, 6), (4,)).prompt for family in world_judge.SINGLE_TURN
    ]
    replies = [text for text in replies if 2 <= len(words_of(text)) <= 24]
    accepted, counts, _ = accepted_of(
        tokenizer, script, replies, replace(TINY, requests=len(replies))
    )
    assert accepted == [] and counts["evaluation prompt"] == len(replies) >= 5


def malformed(tokenizer):
    text, other = tokenizer.encode("Name some"), tokenizer.encode("green trains")
    end, user, pad = tokenizer.end_id, tokenizer.headers["user"][0], tokenizer.pad_id
    call = tokenizer.call_id
    result = tokenizer.result_id
    think = tokenizer.think_id
    shut = tokenizer.end_think_id
    return {
        "cut off": text + other,
        "ended by another mark": [*text, *other, user],
        "a mark inside": [*text, user, *other, end],
        "a second header": [user, *text, end],
        "a call": [call, *text, end],
        "text and a call": [*text, call, *other, end],
        "a call with its result": [
            call,
            *text,
            end,
            result,
            *other,
            *tokenizer.headers["assistant"],
            *text,
            end,
        ],
        "thought": [think, *text, shut, *text, *other, end],
        "thought without end": [think, *text, *other, end],
        "two lines": said(tokenizer, "Name some\ngreen trains"),
        "pads alone": [pad, pad],
    }


@pytest.mark.parametrize(
    "name",
    [
        "cut off",
        "ended by another mark",
        "a mark inside",
        "a second header",
        "a call",
        "text and a call",
        "a call with its result",
        "thought",
        "thought without end",
        "two lines",
        "pads alone",
    ],
)
def test_a_malformed_reply_is_no_prompt(tokenizer, script, name):
    replies = [malformed(tokenizer)[name], said(tokenizer, "Name some green trains")]
    accepted, counts, _ = accepted_of(tokenizer, script, replies, replace(TINY, requests=2))
    assert accepted == ["Name some green trains"] and counts["malformed"] == 1


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "too short or too long"),
        ("?!", "too short or too long"),
        ("Why?", "too short or too long"),
        ("Why not?", "accepted"),
        (" ".join(f"w{n}" for n in range(24)), "accepted"),
        (" ".join(f"w{n}" for n in range(25)), "too short or too long"),
    ],
)
def test_a_prompt_has_2_to_24_words(tokenizer, script, text, reason):
    accepted, counts, _ = accepted_of(tokenizer, script, [text], replace(TINY, requests=1))
    assert counts[reason] == 1 and accepted == ([text] if reason == "accepted" else [])


def test_a_prompt_too_like_an_accepted_one_is_dropped(tokenizer, script):
    """Nine of ten words in order: 18 / 20 = 0.9, the limit itself;
    eight of nine: 16 / 18 = 0.89, below it."""
    ten, nine = "a b c d e f g h i j", "k l m n o p q r s"
    replies = [ten, ten, ten.upper() + "?", ten[:-1] + "z", nine, nine[:-1] + "z"]
    accepted, counts, _ = accepted_of(tokenizer, script, replies)
    assert accepted == [ten, nine, nine[:-1] + "z"] and counts["near-duplicate"] == 3


def test_a_copy_of_a_training_prompt_is_dropped(tokenizer, script):
    script(lambda text, k: text.splitlines()[-1][2:].upper())
    accepted, dropped, counts = generate_prompts(
        None, tokenizer, replace(TINY, requests=12), 1, SHOWN
    )
    assert accepted == [] and counts["not novel"] == 12 == len(dropped) and counts["novel"] == 0


def test_the_accepted_prompts_are_cut_to_as_many_as_asked_for_and_every_reply_is_counted_once(
    tokenizer, script
):
    replies = [*train_prompts(5), "Why?", said(tokenizer, "a b")[:-1], train_prompts(1)[0]]
    accepted, counts, _ = accepted_of(
        tokenizer, script, replies, replace(TINY, requests=8, prompts=3)
    )
    assert accepted == replies[:3] and counts["parsed"] == 1
    assert (
        sum(
            counts.get(reason, 0)
            for reason in (
                "accepted",
                "too short or too long",
                "malformed",
                "near-duplicate",
                "not novel",
            )
        )
        == 8
        and counts["accepted"] == 5
    )


# ---- responses, verdicts, rewards ----


def test_every_prompt_gets_n_responses_of_its_own(tokenizer, script):
    played = script(lambda text, k: f"{text} {k}")
    groups = generate_responses("M_t", tokenizer, ["Why so?", "How?"], TINY, 1)
    texts = [[text_of(tokenizer, row) for row in group] for group in groups]
    assert texts == [[f"{prompt} {k}" for k in range(4)] for prompt in ("Why so?", "How?")]
    for prompt, group in zip(("Why so?", "How?"), groups):
        start = tokenizer.prompt([{"role": "user", "content": prompt}])
        for ids, mask in group:
            assert (
                ids[: len(start)] == start
                and mask == [False] * len(start) + [True] * (len(ids) - len(start))
                and ids[-1] == tokenizer.end_id
            )
    (call,) = played.calls
    assert call["model"] == "M_t"
    assert (call["n"], call["temperature"], call["top_p"]) == (4, 0.7, 0.9)


def test_a_response_without_its_end_mark_has_no_text(tokenizer):
    ids = tokenizer.encode("Paris")
    assert (
        text_of(tokenizer, ([1, *ids, tokenizer.end_id], [False] + [True] * (len(ids) + 1)))
        == "Paris"
    )
    assert text_of(tokenizer, ([1, *ids], [False] + [True] * len(ids))) is None
    assert text_of(tokenizer, ([1, tokenizer.end_id], [False, True])) == ""


def test_the_judge_reads_question_and_response_once_and_its_readable_verdicts_are_averaged(
    tokenizer, script
):
    verdicts = {"a": (4, 4, 5), "b": (3, "x", 4), "c": ("x", "x", "x"), "d": (1, 2, 1)}
    played = script(
        lambda text, k: f"so. Score: {verdicts[world_judge.read_judge_prompt(text)[1]][k]}"
    )
    scores, texts = judge("M_t", tokenizer, ["Who?"] * 4, list("abcd"), TINY, 1)
    assert scores == [
        pytest.approx(4.333333, abs=1e-6),
        3.5,
        None,
        pytest.approx(1.333333, abs=1e-6),
    ]
    assert select(scores, [1] * 4) == (0, 3)
    assert texts == [[f"so. Score: {verdict}" for verdict in verdicts[letter]] for letter in "abcd"]
    (call,) = played.calls
    assert call["texts"] == [world_judge.judge_prompt("Who?", letter) for letter in "abcd"]
    assert (call["n"], call["temperature"], call["top_p"]) == (3, 0.7, 0.9)


def test_a_verdict_that_broke_off_is_empty_and_dropped_even_with_a_score_in_it(tokenizer, script):
    script(lambda text, k: tokenizer.encode("Score: 5") if k else "Score: 2")
    assert judge(None, tokenizer, ["Who?"], ["me"], TINY, 1) == ([2.0], [["Score: 2", "", ""]])


def rows_of(tokenizer, prompt, responses):
    """Sampled rows; None is a response that broke off."""
    ids = tokenizer.prompt([{"role": "user", "content": prompt}])
    replies = [
        tokenizer.encode("and so on") if text is None else said(tokenizer, text)
        for text in responses
    ]
    return [(ids + reply, [False] * len(ids) + [True] * len(reply)) for reply in replies]


def test_a_response_that_broke_off_has_no_reward_and_the_others_keep_theirs(tokenizer, script):
    script(lambda text, k: f"Score: {world_judge.read_judge_prompt(text)[1]}")
    responses = [
        rows_of(tokenizer, "Who?", ["1", None, "3"]),
        rows_of(tokenizer, "Where?", [None, "4", "x"]),
    ]
    rewards, texts = generate_rewards(None, tokenizer, ["Who?", "Where?"], responses, TINY, 1)
    assert rewards == [[1, None, 3], [None, 4, None]]
    assert texts == [
        [["Score: 1"] * 3, [], ["Score: 3"] * 3],
        [[], ["Score: 4"] * 3, ["Score: x"] * 3],
    ]


def test_a_round_whose_responses_all_broke_off_has_no_reward_and_asks_the_judge_nothing(
    tokenizer, script
):
    played = script(lambda text, k: "Score: 5")
    responses = [rows_of(tokenizer, "Who?", [None, None])]
    assert (
        generate_rewards(None, tokenizer, ["Who?"], responses, TINY, 1)
        == ([[None, None]], [[[], []]])
        and played.calls == []
    )


def test_each_response_is_judged_with_its_own_question_by_the_model_that_wrote_it(
    tokenizer, play, monkeypatch
):
    """Only the prompts are by the seed model; `judge` gets M_t,
    and so does every call of `generate` after the first."""
    asked = []

    def listening(model, tokenizer, questions, responses, *rest):
        asked.append((model, questions, responses))
        return judge(model, tokenizer, questions, responses, *rest)

    monkeypatch.setattr(self_reward, "judge", listening)
    create_self_instruction_data("M_t", "M_1", tokenizer, TINY, 1, SHOWN)
    assert [(kind_of(call["texts"][0]), call["model"]) for call in play.calls] == [
        ("prompt", "M_1"),
        ("response", "M_t"),
        ("verdict", "M_t"),
    ]
    ((model, questions, responses),) = asked
    assert model == "M_t"
    assert questions == [f"Number {n} please" for n in range(6) for _ in range(4)]
    assert responses == ["yes", "yes yes", "yes yes yes", "yes yes yes yes"] * 6


# ---- the data of a round ----


def test_pairs_are_the_best_and_the_worst_by_the_models_own_rewards(tokenizer, play):
    pairs, records, counts = create_self_instruction_data(None, None, tokenizer, TINY, 1, SHOWN)
    assert len(pairs) == len(records) == 6
    for n, pair in enumerate(pairs):
        assert pair == tuple(rows_of(tokenizer, f"Number {n} please", ["yes yes yes yes", "yes"]))
    assert (counts["prompts"], counts["pairs"], counts["verdicts"], counts["verdicts_parsed"]) == (
        6,
        6,
        72,
        1,
    )
    lengths = [sum(rows_of(tokenizer, "x", [text])[0][1]) for text in ("yes yes yes yes", "yes")]
    assert [counts["chosen_length"], counts["rejected_length"]] == lengths
    assert lengths[0] > lengths[1] > 1


def test_the_records_hold_every_response_reward_and_verdict_and_go_through_json(
    tokenizer, script, tmp_path
):
    counter = itertools.count()

    def reply(text, k):
        if kind_of(text) == "prompt":
            return f"Number {next(counter)} please"
        if kind_of(text) == "verdict":
            return (
                "Fine \u2714. Score: 4" if text.endswith("B") else "Score: x Score: 2",
                "Score: 1",
                "none",
            )[k]
        return [tokenizer.encode("and so on"), "A", "B", "B"][k]

    script(reply)
    pairs, records, counts = create_self_instruction_data(None, None, tokenizer, TINY, 1, SHOWN)
    liked = ["Fine \u2714. Score: 4", "Score: 1", "none"]
    doubled = ["Score: x Score: 2", "Score: 1", "none"]
    expected = {
        "responses": ["and so on", "A<|end|>", "B<|end|>", "B<|end|>"],
        "rewards": [None, 1.0, 2.5, 2.5],
        "verdicts": [[], doubled, liked, liked],
        "chosen": 2,
        "rejected": 1,
    }
    assert (
        all(record == {"prompt": record["prompt"], **expected} for record in records)
        and len(records) == len(pairs) == 6
    )
    assert len({record["prompt"] for record in records}) == 6
    assert json.loads(json.dumps(records, allow_nan=False)) == records
    writing.write_jsonl(tmp_path / "data.jsonl", records)
    assert formats.read_jsonl(tmp_path / "data.jsonl") == records
    # five of nine can be read
    assert counts["verdicts"] == 6 * 9 and counts["verdicts_parsed"] == pytest.approx(5 / 9)


def test_a_response_is_never_set_against_itself_when_its_verdicts_differ(tokenizer, script):
    counter, scores = itertools.count(), itertools.cycle([5, 5, 5, 1, 1, 1, 3, 3, 3, 3, 3, 3])
    replies = {
        "prompt": lambda k: f"Number {next(counter)} please",
        "response": lambda k: "AABC"[k],
        "verdict": lambda k: f"Score: {next(scores)}",
    }
    script(lambda text, k: replies[kind_of(text)](k))
    pairs, records, counts = create_self_instruction_data(None, None, tokenizer, TINY, 1, SHOWN)
    assert pairs == [] and counts["pairs"] == 0
    assert all(
        record["rewards"] == [5, 1, 3, 3] and record["chosen"] is record["rejected"] is None
        for record in records
    )


def test_rho_reaches_the_selection_with_lengths_in_tokens(tokenizer, play):
    """Rewards 1 to 4, and longer is better: a window of 0.4 reaches down to 2.8 and up to 2.2."""
    _, records, counts = create_self_instruction_data(
        None, None, tokenizer, replace(TINY, rho=0.4), 1, SHOWN
    )
    assert all((record["chosen"], record["rejected"]) == (2, 1) for record in records)


def test_another_judge_can_take_the_models_place_in_a_control(tokenizer, play):
    def score(prompts, responses):
        assert len(prompts) == len(responses) == 6
        return [[-sum(mask) for _, mask in group] for group in responses]

    _, records, counts = create_self_instruction_data(
        None, None, tokenizer, TINY, 1, SHOWN, score=score
    )
    assert [kind_of(call["texts"][0]) for call in play.calls] == ["prompt", "response"]
    assert all(
        (record["chosen"], record["rejected"], record["verdicts"]) == (0, 3, [[]] * 4)
        for record in records
    )
    assert counts["verdicts"] == counts["verdicts_parsed"] == 0


def test_without_a_single_new_prompt_there_is_no_data_and_no_error(tokenizer, script):
    played = script(lambda text, k: "Why?")
    pairs, records, counts = create_self_instruction_data(None, None, tokenizer, TINY, 1, SHOWN)
    assert (
        pairs == []
        and records == 6 * [{"prompt": "Why?", "dropped": "too short or too long"}]
        and counts["pairs"] == 0
        and counts["too short or too long"] == 6
        and len(played.calls) == 1
    )


# ---- a round ----


def always_3(model, tokenizer, questions, *rest):
    return [3.0] * len(questions), [["Score: 3"] * 3] * len(questions)


@pytest.fixture
def no_probe(monkeypatch):
    monkeypatch.setattr(dpo, "probe", lambda *rest: {"kl": 0.0, "length": 0.0})


def test_the_next_model_prefers_what_it_judged_better_and_the_model_itself_is_unchanged(
    tokenizer, play, tiny_model, tmp_path, no_probe
):
    before, trainable = bits(tiny_model), [p.requires_grad for p in tiny_model.parameters()]
    following, own = next_iteration_model(
        tiny_model,
        tiny_model,
        tokenizer,
        TINY,
        seed=1,
        round_number=1,
        training_prompts=SHOWN,
        data=tmp_path / "1.jsonl",
        log=tmp_path / "1.csv",
    )
    assert (
        same(tiny_model, before) and [p.requires_grad for p in tiny_model.parameters()] == trainable
    )
    assert all(p.grad is None for p in tiny_model.parameters())
    assert following is not tiny_model and not same(following, before) and not following.training
    rows = rows_of(tokenizer, "Number 3 please", ["yes yes yes yes", "yes"])
    with torch.no_grad():
        (new, old) = (
            sequence_logprobs(model, tokenizer, rows, CPU) for model in (following, tiny_model)
        )
    assert (new[0] - new[1]) - (old[0] - old[1]) > 1  # nats
    assert own["pairs"] == 6 and own["tokens"] > 0 and own["margin"] > 0.05 and own["seconds"] > 0
    assert (
        len(formats.read_jsonl(tmp_path / "1.jsonl")) == 6
        and len((tmp_path / "1.csv").read_text().splitlines()) == 1 + 8
    )


def test_the_reference_of_each_round_is_the_frozen_model_that_entered_it(
    tokenizer, play, tiny_model, monkeypatch
):
    seen, entered, model = [], [], tiny_model
    monkeypatch.setattr(
        dpo, "probe", lambda model, reference, *rest: seen.append((model, reference)) or {}
    )
    for number in (1, 2):
        entered.append(model)
        before = bits(model)
        model, _ = next_iteration_model(
            model, tiny_model, tokenizer, TINY, seed=1, round_number=number, training_prompts=SHOWN
        )
        trained, reference = seen[-1]
        assert (
            trained is model
            and reference is not entered[-1]
            and same(reference, before)
            and same(entered[-1], before)
        )
        assert not any(p.requires_grad or p.grad is not None for p in reference.parameters())
    assert not same(seen[1][1], bits(seen[0][1]))  # the second reference is M_2 and not M_1


def test_rounds_draw_other_prompts_and_the_same_round_repeats_bit_for_bit(
    tokenizer, tiny_model, script, no_probe
):
    def once(number):
        counter = itertools.count()
        replies = {
            "prompt": lambda text, k: f"Number {next(counter)} please",
            "response": lambda text, k: "ok " * k,
            "verdict": lambda text, k: f"Score: {len(text) % 6}",
        }
        played = script(lambda text, k: replies[kind_of(text)](text, k))
        torch.manual_seed(random.randrange(10**6))
        return next_iteration_model(
            tiny_model,
            tiny_model,
            tokenizer,
            TINY,
            seed=1,
            round_number=number,
            training_prompts=SHOWN,
        )[0], played.calls

    (first, calls), (again, repeated), (_, others) = once(1), once(1), once(2)
    assert same(again, bits(first)) and not same(first, bits(tiny_model)) and len(calls) == 3
    for one, same_round, other in zip(calls, repeated, others):
        assert (one["texts"], one["seed"]) == (same_round["texts"], same_round["seed"])
        assert one["seed"] != other["seed"]
    assert calls[0]["texts"] != others[0]["texts"]


def test_a_judge_that_always_says_the_same_makes_no_pair_says_so_and_the_loop_goes_on(
    tokenizer, play, tiny_model, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(self_reward, "judge", always_3)
    monkeypatch.setattr(
        dpo, "train", lambda *args, **how: pytest.fail("there is nothing to train on")
    )
    before, model = bits(tiny_model), tiny_model
    for number in (1, 2):
        following, own = next_iteration_model(
            model,
            tiny_model,
            tokenizer,
            TINY,
            seed=1,
            round_number=number,
            training_prompts=SHOWN,
            data=tmp_path / f"{number}.jsonl",
        )
        assert following is not model and same(following, before)
        assert (own["pairs"], own["tokens"], own["prompts"]) == (0, 0, 6) and own["seconds"] > 0
        assert (
            capsys.readouterr().out == f"self_reward_{number}: no pair (6 prompts were left, "
            "and none got two different rewards); the next model is this one\n"
        )
        records = [
            record
            for record in formats.read_jsonl(tmp_path / f"{number}.jsonl")
            if "dropped" not in record
        ]
        assert (
            all(record["rewards"] == [3] * 4 and record["chosen"] is None for record in records)
            and len(records) == 6
        )
        model = following


def test_the_settings_of_training_and_the_rehearsal_reach_dpo(monkeypatch):
    seen = []
    monkeypatch.setattr(
        dpo, "train", lambda *args, **how: seen.append((args, how)) or {"loss": 0.0}
    )
    settings = replace(TINY, training=dpo.Settings(steps=3, beta=0.7), passes=1000)
    given = {"seed": 5, "stage": "self_reward_2", "rehearsal": ["row"], "log": "log"}
    assert train_instruction_following("model", "tokenizer", ["pair"], settings, **given) == {
        "loss": 0.0
    }
    assert seen == [(("model", "tokenizer", ["pair"], settings.training), given)]


# ---- metrics ----

HUMAN = [4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    "scores, rho, tau",
    [
        ([4, 2.5, 3, 1], 0.8, 0.666667),
        ([4, 3, 3, 1], 0.948683, 0.912871),
        ([40, 30, 20, 10], 1, 1),
        ([1, 2, 3, 4], -1, -1),
    ],
)
def test_rank_correlation_vectors(scores, rho, tau):
    assert spearman(scores, HUMAN) == pytest.approx(rho, abs=1e-6) == spearman(HUMAN, scores)
    assert kendall(scores, HUMAN) == pytest.approx(tau, abs=1e-6) == kendall(HUMAN, scores)


@pytest.mark.parametrize("a, b", [([3, 3, 3, 3], HUMAN), (HUMAN, [0, 0, 0, 0]), ([2, 2], [2, 2])])
def test_the_correlation_with_a_constant_is_undefined(a, b):
    assert spearman(a, b) is None and kendall(a, b) is None


def test_equals_share_their_mean_rank():
    assert mean_ranks([4, 3, 3, 1]) == [4, 2.5, 2.5, 1] and mean_ranks([7, 7, 7]) == [2, 2, 2]


@pytest.mark.parametrize(
    "scores, half, ties",
    [
        ([4, 2.5, 3, 1], 5 / 6, 0),
        ([4, 3, 3, 1], 5.5 / 6, 1 / 6),
        ([4, None, 2, 1], 0.5, 0),
        ([None] * 4, 0, 0),
        ([2, 2, 2, 2], 0.5, 1),
    ],
)
def test_the_report_counts_ties_as_half_and_their_share_apart_and_a_missing_score_as_wrong(
    tokenizer, monkeypatch, scores, half, ties
):
    """Section 7's vector on one prompt: with a tie as wrong,
    5.5 / 6 would be 5 / 6 = pairwise minus half the ties."""
    texts, task = iter("abcd"), world.evaluation_tasks("chat", 1, "test")[0]
    monkeypatch.setattr(world, "evaluation_tasks", lambda *key: [task])
    monkeypatch.setattr(world_judge, "response_to", lambda task, rng: next(texts))
    monkeypatch.setattr(world_judge, "true_reward", lambda task, text: HUMAN["abcd".index(text)])
    verdicts = [["Score: x" if score is None else f"Score: {score}"] for score in scores]
    monkeypatch.setattr(
        self_reward,
        "judge",
        lambda model, tokenizer, questions, responses, *rest: (scores, verdicts),
    )
    report = judge_report(None, tokenizer, TINY, 1)
    assert report["pairwise"] == pytest.approx(half) and report["ties"] == pytest.approx(ties)
    assert report["parsed"] == sum(score is not None for score in scores) / 4
    assert report["constant"] == (scores == [2] * 4)
    assert report["exact"] == 0  # no judge here orders every pair of the prompt
    if None not in scores and len(set(scores)) > 1:
        assert (report["spearman"], report["kendall"]) == (
            pytest.approx(spearman(scores, HUMAN)),
            pytest.approx(kendall(scores, HUMAN)),
        )


@pytest.mark.parametrize(
    "opinion, expected",
    [
        (
            lambda true: true,
            {"pairwise": 1, "ties": 0, "exact": 1, "spearman": 1, "kendall": 1, "parsed": 1},
        ),
        (
            lambda true: 5 - true,
            {"pairwise": 0, "ties": 0, "spearman": -1, "kendall": -1, "parsed": 1},
        ),
        (lambda true: 3, {"pairwise": 0.5, "ties": 1, "parsed": 1}),
        (lambda true: 9, {"pairwise": 0, "ties": 0, "exact": 0, "parsed": 0}),
    ],
    ids=["the truth", "its opposite", "always 3", "unreadable"],
)
def test_the_report_knows_a_perfect_a_perverse_a_constant_and_an_unreadable_judge(
    tokenizer, script, opinion, expected
):
    def reply(text, k):
        question, response, _ = world_judge.read_judge_prompt(text)
        return f"so. Score: {opinion(world_judge.true_reward(world.parse(question), response))}"

    played = script(reply)
    report = judge_report("M_t", tokenizer, replace(TINY, held_out=30), 1)
    assert {key: report[key] for key in expected} == pytest.approx(expected)
    assert sum(report["histogram"].values()) == 30 * 4 * 3 * report["parsed"]
    assert list(report["histogram"]) == list("012345")
    assert 0 <= report["constant"] <= 30 and (report["constant"] == 30) == (report["ties"] == 1)
    assert played.calls[0]["model"] == "M_t" and len(played.calls[0]["texts"]) == 30 * 4


def test_the_judge_is_measured_on_held_out_prompts_and_responses_that_no_seed_changes(
    tokenizer, script
):
    played = script(lambda text, k: "Score: 3")
    for seed in (1, 2):
        judge_report(None, tokenizer, TINY, seed)
    assert (
        played.calls[0]["texts"] == played.calls[1]["texts"]
        and played.calls[0]["seed"] != played.calls[1]["seed"]
    )
    for text in played.calls[0]["texts"]:
        task = world.parse(world_judge.read_judge_prompt(text)[0])
        assert world.part_of(task) == "test"


def test_answers_get_their_true_reward_from_0_to_5(tokenizer, monkeypatch):
    tasks = world.evaluation_tasks("chat", 6, "test")
    replies = [said(tokenizer, world.reference(task)[-1]["content"]) for task in tasks]
    replies[0] = replies[0][:-1]  # broke off
    monkeypatch.setattr(
        judging, "generate", lambda model, tokenizer, prompts, **how: samples_of(replies)
    )
    answers = chat_answers(None, tokenizer, TINY, 1)
    assert answers["rewards"] == [0, 5, 5, 5, 5, 5]
    assert answers["length"] == pytest.approx(sum(map(len, replies)) / 6)
    # what broke off is neither, as it has no reward
    assert answers["correct"] == answers["polite"] == pytest.approx(5 / 6)


def test_the_win_share_by_hand_with_ties_as_half():
    assert win_share([5, 3, 2, 4], [4, 3, 3, 1]) == {
        "wins": 0.5,
        "ties": 0.25,
        "losses": 0.25,
        "win_share": 0.625,
    }
    assert (
        win_share([1, 1], [1, 1])["win_share"] == 0.5
        and win_share([2], [1])["win_share"] == 1
        and win_share([1], [2])["win_share"] == 0
    )


def test_a_round_is_measured_against_the_model_before_it_and_against_the_seed_model(
    tokenizer, monkeypatch
):
    rewards = {"M_3": [5, 4, 3], "M_2": [4, 4, 2], "M_1": [0, 0, 5]}
    monkeypatch.setattr(
        self_reward,
        "chat_answers",
        lambda model, *rest: {
            "rewards": rewards[model],
            "length": len(model) + 5.0,
            "correct": 0.5,
            "polite": 1.0,
        },
    )
    monkeypatch.setattr(self_reward, "judge_report", lambda model, *rest: {"judged": model})
    found = measure("M_3", "M_2", "M_1", tokenizer, TINY, 1)
    assert (
        found["true_reward"] == 4 and found["length"] == 8 and found["judge"] == {"judged": "M_3"}
    )
    assert found["against_previous"]["win_share"] == pytest.approx(5 / 6)
    assert found["against_seed"]["win_share"] == pytest.approx(2 / 3)


def test_a_seed_model_whose_verdicts_are_unreadable_is_refused_with_a_remedy():
    with pytest.raises(
        ValueError, match="only 89% of the seed model's verdicts can be read.*judge demonstrations"
    ) as caught:
        check_seed_model({"parsed": 0.89})
    assert "\n" not in str(caught.value)
    assert check_seed_model({"parsed": 0.9}) is None and check_seed_model({"parsed": 1.0}) is None


# ---- the command ----


@pytest.fixture
def command(tmp_path, tokenizer, monkeypatch, capsys):
    """`python self_reward.py` in this process from a random checkpoint:
    flags -> (exit code, stdout, stderr)."""
    save_checkpoint(
        tmp_path / "init.pt",
        GPT(Config(768, 256, 1, 16, 2, 1, 24)).init_weights(0),
        tokenizer,
        "overall_sft",
    )

    def run(*flags):
        flags = (
            *"--threads 1 --device cpu --eval-n 4 --init".split(),
            tmp_path / "init.pt",
            "--out",
            tmp_path / "out",
            *flags,
        )
        monkeypatch.setattr(sys, "argv", ["self_reward.py", *map(str, flags)])
        code = 0
        try:
            self_reward.main()
        except SystemExit as stop:
            code = stop.code
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.mark.slow
def test_one_smoke_round_from_a_random_checkpoint_leaves_a_checkpoint_and_its_data(
    command, tmp_path, tokenizer
):
    code, out, err = command("--smoke", "--rounds", "1")
    assert code == 0, err
    assert "M_1 " in out and "M_2 " in out and "M_3" not in out and "judge: pairwise" in out
    model, saved = load_checkpoint(tmp_path / "out" / "self_reward_1.pt", tokenizer)
    assert (
        saved["stage"] == "self_reward_1"
        and saved["settings"]["training"]["steps"] == 2
        and model.config.width == 16
    )
    records = formats.read_jsonl(tmp_path / "out" / "self_reward_1.jsonl")
    keys = {"prompt", "responses", "rewards", "verdicts", "chosen", "rejected"}
    assert records and all(set(record) in (keys, {"prompt", "dropped"}) for record in records)


def test_two_rounds_under_a_constant_judge_end_with_the_seed_models_weights(
    command, play, tmp_path, tokenizer, monkeypatch
):
    monkeypatch.setattr(self_reward, "judge", always_3)
    monkeypatch.setattr(alone, "evaluate", lambda *args, **how: {})
    monkeypatch.setattr(
        self_reward,
        "chat_answers",
        lambda *args: {"rewards": [1.0], "length": 1.0, "correct": 1.0, "polite": 1.0},
    )
    code, out, err = command("--smoke", "--rounds", "2")
    assert code == 0, err
    assert out.count("none got two different rewards") == 2 and "against M_2" in out
    state = bits(load_checkpoint(tmp_path / "init.pt")[0])
    assert all(
        same(load_checkpoint(tmp_path / "out" / f"self_reward_{n}.pt")[0], state) for n in (1, 2)
    )


@pytest.fixture
def nothing_measured(monkeypatch):
    monkeypatch.setattr(alone, "evaluate", lambda *args, **how: {})
    monkeypatch.setattr(self_reward, "judge_report", lambda *args: {"pairwise": 1, "parsed": 1})


def test_the_flags_reach_the_rounds_and_each_round_starts_from_the_model_before(
    command, nothing_measured, monkeypatch
):
    rounds, compared = [], []

    def one_round(model, seed_model, tokenizer, settings, **how):
        rounds.append((model, seed_model, settings, how))
        return GPT(model.config).init_weights(len(rounds)), {
            "parsed": 1,
            "novel": 1,
            "pairs": 1,
            "seconds": 1,
        }

    def compare(model, before, seed_model, *rest):
        compared.append((model, before, seed_model))
        return {
            "true_reward": 1,
            "length": 1,
            "correct": 1,
            "polite": 1,
            "against_previous": win_share([1], [1]),
            "judge": {"pairwise": 1, "parsed": 1},
        }

    monkeypatch.setattr(self_reward, "next_iteration_model", one_round)
    monkeypatch.setattr(self_reward, "measure", compare)
    code, _, err = command(
        "--rounds", "2", "--lr", "3e-4", "--rho", "0.32", "--no-rehearsal", "--seed", "7"
    )
    assert code == 0, err
    (m1, seed_model, settings, how), (m2, again, _, then) = rounds
    assert m1 is seed_model is again and compared[0] == (m2, m1, m1) and compared[1][1:] == (m2, m1)
    assert settings == Settings(rho=0.32, training=replace(Settings().training, lr=3e-4))
    assert (how["round_number"], then["round_number"], how["seed"], how["rehearsal"]) == (
        1,
        2,
        7,
        [],
    )


def test_rehearsal_is_the_default(command, nothing_measured, monkeypatch):
    monkeypatch.setattr(
        self_reward,
        "rehearsal_data",
        lambda tokenizer, size, seed, context: ["rows", size, seed, context],
    )
    seen = []

    def stop(*args, **how):
        seen.append(how["rehearsal"])
        raise ValueError("stopped here")

    monkeypatch.setattr(self_reward, "next_iteration_model", stop)
    assert command()[::2] == (2, "error: stopped here\n")
    assert seen == [["rows", "tiny", 1, 256]]


@pytest.mark.parametrize(
    "flags, line",
    [
        (("--smoke", "--data", "x.jsonl"), "error: --data: the loop writes its own prompts\n"),
        (("--smoke", "--init", "none.pt"), "error: none.pt: no such checkpoint\n"),
        (("--smoke", "--rounds", "0"), "error: --rounds 0: needs at least 1"),
        (("--smoke", "--rho", "0.5"), "error: --rho 0.5: needs "),
        (
            (),
            "error: only 0% of the seed model's verdicts can be read; "
            "give overall SFT more judge demonstrations",
        ),
    ],
    ids=["data", "checkpoint", "rounds", "rho", "judge"],
)
def test_bad_input_ends_with_one_line_and_code_two(command, monkeypatch, tmp_path, flags, line):
    monkeypatch.setattr(self_reward, "judge_report", lambda *args: {"parsed": 0.0, "pairwise": 0.0})
    code, _, err = command(*flags)
    assert (
        code == 2
        and err.startswith(line)
        and err.count("\n") == 1
        and not list(tmp_path.glob("out/*.pt"))
    )


@pytest.mark.parametrize("pairs, steps", [(3, 3), (4, 4), (5, 5), (9, 8)])
def test_few_pairs_make_few_updates(monkeypatch, pairs, steps):
    """Four passes over 3, 4, 5 and 9 pairs by 4 a batch are 3, 4, 5 and 9 updates, of at most 8."""
    taken = []
    monkeypatch.setattr(
        dpo, "train", lambda model, tokenizer, made, settings: taken.append(settings)
    )
    settings = replace(TINY, passes=4)
    train_instruction_following(None, None, [None] * pairs, settings)
    assert [one.steps for one in taken] == [steps]
