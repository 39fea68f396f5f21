"""The tiny world: split by content, prompts that parse back,
answers that are right, checkers that cannot be talked round."""

import ast
import json
import math
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from data import world
from data.files import tokenizer as tokenizers
from data.files.tokenizer import Reply
from data.world import agent as world_agent
from data.world import chat as world_chat
from data.world import code as world_code
from data.world import judge as world_judge
from data.world import math as world_math
from data.world import stem as world_stem
from data.world.calculator import calculate
from data.world.family import TRAINED, UNSEEN, Task, single_step
from tests.experiments import cheating

SHARES = {"reasoning": 800, "chat": 300, "agent": 300, "judge": 200, "new_prompt": 100}


@pytest.fixture(scope="module")
def cold_start():
    return world.cold_start_demonstrations(5, 900)


@pytest.fixture(scope="module")
def overall():
    return world.overall_demonstrations(5, SHARES)


def prompt_of(record):
    """The prompt of a demonstration as the world writes it:
    user and assistant turns before the last user's, joined."""
    messages = record["messages"]
    last_user = max(i for i, message in enumerate(messages) if message["role"] == "user")
    return " || ".join(message["content"] for message in messages[: last_user + 1])


def reply_of(task):
    """The reference response as a Reply, its tools run."""
    *turns, last = world.reference(task)
    calls = [
        (turn["tool_call"], result["content"]) for turn, result in zip(turns[::2], turns[1::2])
    ]
    return Reply(last["content"], last.get("think", ""), calls)


def score(prompt, content, **how):
    """The truth about one reply to one prompt of the world."""
    task = world.parse(prompt)
    assert task is not None, prompt
    return world.score_replies([task], [Reply(content, **how)])[0]


def some_tasks(per_kind, phrasing=None):
    """Tasks of every kind of every family, in all phrasings or in one."""
    rng = random.Random(0)
    for family in world.FAMILIES:
        kinds = {}
        for content in family.levels:
            kinds.setdefault(dict(content).get("kind"), []).append(content)
        for contents in kinds.values():
            for content in rng.sample(contents, min(per_kind, len(contents))):
                for i in (
                    range(len(family.templates(dict(content)))) if phrasing is None else [phrasing]
                ):
                    yield family.task(content, i, rng)


# ---- what exists ----


def test_every_domain_has_its_families_and_each_family_four_phrasings_and_one():
    for domain, least in {"math": 6, "code": 12, "stem": 8, "chat": 8, "agent": 3}.items():
        assert len(world.families_of(domain)) >= least
    for family in world.FAMILIES:
        for content in family.levels:
            templates = family.templates(dict(content))
            assert len(set(templates)) == len(templates) >= 5
    assert len(world.BY_NAME) == len(world.FAMILIES)


def test_levels_are_one_to_five_and_every_reasoning_domain_has_all():
    for family in world.FAMILIES:
        assert set(family.levels.values()) <= {1, 2, 3, 4, 5}
    for domain in world.REASONING:
        assert {
            level for family in world.families_of(domain) for level in family.by_level("train")
        } == {1, 2, 3, 4, 5}


def test_no_text_prints_the_tables_of_the_agents_tools():
    """A right answer without a call is then luck."""
    assert not re.search(r"\b(price|stock|coins|age|height)\b", " ".join(world.documents(5, 2000)))


# ---- the split ----


def test_a_tenth_of_all_contents_is_held_out():
    """Of what is no fact; facts are held out by phrasing, below."""
    counts = {"train": 0, "dev": 0, "test": 0}
    for family in world.FAMILIES:
        parts = {
            part: {
                content for content in family.contents(part) if not family.is_fact(dict(content))
            }
            for part in counts
        }
        assert all(parts.values())
        assert sum(map(len, parts.values())) == len(set.union(*parts.values()))
        assert set.union(*parts.values()) == {
            content for content in family.levels if not family.is_fact(dict(content))
        }
        counts = {part: counts[part] + len(contents) for part, contents in parts.items()}
    total = sum(counts.values())
    assert 0.08 < counts["test"] / total < 0.12 and 0.04 < counts["dev"] / total < 0.06


def facts():
    return [
        (family, dict(content))
        for family in world.FAMILIES
        for content in family.levels
        if family.is_fact(dict(content))
    ]


def is_step(family, content):
    return single_step(family.bare(content))


@pytest.mark.parametrize(
    "step, single",
    [
        ("1+1", True),
        ("9+9", True),
        ("10+1", False),
        ("1+10", False),
        ("0+3", True),
        ("3+0", False),
        ("2-1", True),
        ("18-9", True),
        ("19-9", True),
        ("20-1", False),
        ("19-10", False),
        ("9*9", True),
        ("10*9", False),
        ("7*11", False),
        ("81/9", True),
        ("18/2", True),
        ("20/2", False),
        ("7/2", False),
        ("56/14", False),
        ("3+4-5", False),
        ("3+4*5", False),
        ("(3+4)*5", False),
        ("7%2", False),
        ("14//7", False),
        ("0.7 0.65", False),
        ("", False),
    ],
)
def test_what_a_single_step_is(step, single):
    assert single_step(step) == single


def test_the_facts_are_these():
    """Named: 16 capitals, 12 sounds, 12 colours, 40 opposites, 20 descriptions, 3 facts of 15
    elements, 8 + 8 + 7 of planets, 23 letters.

    Single steps: 9 * 9 sums; 36 differences of digits and 9 for each of 10 to 18; 8 * 8 products
    and as many quotients; as word problems 64 sums, 28 + 80 differences (3 to 9, 10 to 19, less 2
    to 9), 64 products, 64 quotients; the three formulas of each of four quantities; 9 * 8 printed
    sums; and compared two by two, one odd and one even, 9 + 9 + 8 + 8 + 7 + 7 + 6 + 6 + 5 in either
    order, and 28 of three.
    """
    named = Counter(family.name for family, content in facts() if not is_step(family, content))
    assert named == {
        "fact": 16 + 12 + 12,
        "opposite": 40,
        "description": 20,
        "element": 3 * 15,
        "planet": 8 + 8 + 7,
        "code_count": 23,
    }
    steps = Counter(family.name for family, content in facts() if is_step(family, content))
    formulas = dict.fromkeys(("force", "distance", "density", "ohm"), 3 * 64)
    assert steps == formulas | {
        "sum": 81,
        "difference": 36 + 81,
        "product": 64,
        "quotient": 64,
        "word_problem": 64 + 28 + 80 + 64 + 64,
        "code_print": 72,
        "comparison": 2 * 65 + 28,
    }


def test_of_a_fact_one_trained_phrasing_and_the_unseen_one_are_held_out_in_the_same_part():
    parts = [
        [family.part(content, phrasing) for phrasing in (*TRAINED, UNSEEN)]
        for family, content in facts()
    ]
    for *trained, unseen in parts:
        assert unseen in ("test", "dev")
        assert sorted(trained) == sorted(["train", "train", "train", unseen])
    held_out = [unseen for *_, unseen in parts]
    assert 0.4 < held_out.count("test") / len(held_out) < 0.6
    assert {trained.index(unseen) for *trained, unseen in parts} == set(TRAINED)


def test_every_fact_is_demonstrated_and_never_in_a_phrasing_in_which_it_is_asked(
    cold_start, overall
):
    records = [*cold_start, *sum(overall["reasoning"], []), *overall["chat"]]
    tasks = [task for record in records if world.is_fact(task := world.parse(prompt_of(record)))]
    assert {world.part_of(task) for task in tasks} == {"train"}
    told = {told_fact(task) for task in tasks}
    assert told >= {
        (family.name, tuple(sorted(content.items())))
        for family, content in facts()
        if not is_step(family, content)
    }
    asked = [
        task
        for domain in (*world.DOMAINS[:5], "phrasing")
        for task in world.evaluation_tasks(domain, 500)
        if world.is_fact(task)
    ]
    assert Counter(task.domain for task in asked).keys() == {"math", "code", "stem", "chat"}
    assert len(asked) > 500 and {told_fact(task) for task in asked} <= told
    assert not {task.prompt for task in asked} & {task.prompt for task in tasks}


def told_fact(task):
    """What a task of a fact tells: a single step is the same in every family and decoration."""
    step = world.BY_NAME[task.family].bare(task.fields)
    return step if single_step(step) else (task.family, task.content)


def test_where_there_is_room_every_fact_is_demonstrated_in_every_family_that_asks_it():
    tasks = world.demonstrated(random.Random(3), world.DOMAINS[:5], 2 * len(facts()))
    told = [
        (
            task.family,
            *(
                (key, value)
                for key, value in task.content
                if key not in world.BY_NAME[task.family].dressing
            ),
        )
        for task in tasks
        if world.is_fact(task)
    ]
    assert set(told) == {(family.name, *sorted(content.items())) for family, content in facts()}
    assert {world.part_of(task) for task in tasks} == {"train"}


def test_where_there_is_none_the_named_facts_come_first_then_every_step_once():
    """Levels 1 to 3 of REASONING: 36 of elements, 23 of planets, 23 letters, single steps."""
    steps = {
        family.bare(content)
        for family, content in facts()
        if is_step(family, content) and family.levels[tuple(sorted(content.items()))] < 4
    }
    for room, least in ((82, 0), (82 + len(steps), len(steps))):
        tasks = world.demonstrated(random.Random(3), world.REASONING, 2 * room, (1, 2, 3))
        told = {told_fact(task) for task in tasks if world.is_fact(task)}
        assert len({fact for fact in told if isinstance(fact, tuple)}) == 36 + 23 + 23
        assert len(told & steps) >= least


def test_what_is_no_fact_is_drawn_from_all_families_equally_often():
    """Agent has no fact: 500 of each of its four families, within four standard errors of 19; of
    chat 100 of 4,100 are facts, and each of eight families has 500 of the rest, within four of 21.
    """
    tasks = world.demonstrated(random.Random(3), ("agent",), 2000)
    counts = Counter(task.family for task in tasks)
    assert len(counts) == 4 and all(abs(count - 500) < 77 for count in counts.values())
    assert len({task.prompt for task in tasks}) < len(tasks)  # those of a small family recur
    counts = Counter(task.family for task in world.demonstrated(random.Random(3), ("chat",), 4100))
    counts -= Counter({"fact": 16 + 12 + 12, "opposite": 40, "description": 20})
    assert len(counts) == 8 and all(abs(count - 500) < 84 for count in counts.values())


@pytest.mark.parametrize(
    "name, keys",
    [
        ("fact", ("topic", "other")),
        ("list", ("group", "other_group")),
        ("description", ("topic", "other")),
        ("opposite", ("topic", "other")),
        ("advice", ("topic",)),
        ("rewrite", ("verb", "thing")),
        ("element", ("element", "other", "symbol")),
        ("planet", ("planet", "other", "ordinal")),
        ("unit_conversion", ("unit", "target")),
        ("agent_total", ("item",)),
        ("greeting", ("greeting", "name")),
    ],
)
def test_what_a_held_out_combination_is_made_of_is_told_in_training(name, keys):
    """Nobody is asked for a capital, an advice
    or a planet that no question and answer ever told."""
    family = world.BY_NAME[name]

    def named(part):
        return {
            str(value) for content in family.contents(part) for key, value in content if key in keys
        }

    assert named("test") | named("dev") <= named("train")


def test_what_single_digits_make_is_told_in_a_worked_step_of_training():
    """7 * 8 is asked in one phrasing and told in the others, and 18 * 7 has the step 8*7=56."""
    steps = set()
    for family in world.families_of("math"):
        for content in family.contents("train"):
            steps.update(family.solution(dict(content)).think.split())
    for a in range(2, 10):
        for b in range(2, 10):
            assert {f"{a}*{b}={a * b}", f"{b}*{a}={a * b}"} & steps and f"{a * b}//{b}={a}" in steps
            assert {f"{a}+{b}={a + b}", f"{b}+{a}={a + b}"} & steps and f"{a + b}-{b}={a}" in steps


def test_the_order_of_operands_does_not_count():
    """In any two phrasings; of a fact, in the same one."""
    family = world.BY_NAME["sum"]
    assert family.part({"first": 38, "second": 47}, 0) == family.part(
        {"first": 47, "second": 38}, 3
    )
    pairs = [
        ({"first": a, "second": b}, {"first": b, "second": a})
        for a in range(1, 100)
        for b in range(1, a)
    ]
    phrasings = (*TRAINED, UNSEEN)
    parts = [
        [[family.part(content, phrasing) for phrasing in phrasings] for content in pair]
        for pair in pairs
    ]
    assert all(first == second for first, second in parts)
    worked_out = [
        set(first) for (content, _), (first, _) in zip(pairs, parts) if not family.is_fact(content)
    ]
    assert len(worked_out) == len(pairs) - 36 and all(len(found) == 1 for found in worked_out)
    assert set.union(*worked_out) == {"train", "dev", "test"}


def test_decoration_does_not_count_for_the_split():
    family = world.BY_NAME["word_problem"]
    content = {"kind": "more", "first": 12, "second": 7}
    assert {
        family.part(content | {"name": name, "thing": "pen"}, 0) for name in ("Tom", "Anna", "Ben")
    } == {family.part(content, 0)}


def test_no_held_out_content_and_no_last_phrasing_is_in_a_demonstration(cold_start, overall):
    plain = [*cold_start, *sum(overall["reasoning"], []), *overall["chat"], *overall["agent"]]
    tasks = [world.parse(prompt_of(record)) for record in plain]
    for record in overall["judge"]:
        judged = world.parse(prompt_of(record))
        assert judged.domain == "judge" and judged.phrasing < 4
        tasks.append(world.parse(judged.fields["question"]))
    for record in overall["new_prompt"]:
        frame, *examples = prompt_of(record).split("\n- ")
        assert frame in world_judge.NEW_PROMPT_FRAMES[:4] and 2 <= len(examples) <= 4
        tasks += [world.parse(text) for text in (*examples, record["messages"][-1]["content"])]
    assert None not in tasks and len(tasks) > 2500
    assert {world.part_of(task) for task in tasks} == {"train"}
    assert {task.phrasing for task in tasks} == {0, 1, 2, 3}


@pytest.mark.parametrize("module", [world_math, world_stem, world_code])
def test_no_held_out_content_is_in_a_notebook_of_the_pretraining_text(module):
    """A note (`47+38: ... so 85.`) begins with its problem in short; a fact is told."""
    parts = {}  # the problem in short -> the parts of the contents that it restates
    for family in module.FAMILIES:
        if family.restate:
            for content in family.levels:
                part = "fact" if family.is_fact(dict(content)) else family.part(dict(content), 0)
                parts.setdefault(family.restate(dict(content)), set()).add(part)
    texts = module.documents(random.Random(5), 3000)
    told = [
        short
        for text in texts
        if not text.startswith("#")
        for short in re.findall(r"(?:^|\. )([^:]+?): ", text)
    ]
    assert len(told) > 300 and set(told) <= set(parts)
    assert all(parts[short] in ({"train"}, {"fact"}) for short in told)
    assert sum(parts[short] == {"train"} for short in told) > 200


def test_the_same_arithmetic_is_in_the_same_part_in_every_family():
    """What can be worked out is in one part in all families and phrasings; a fact is always one."""
    parts = {}
    for family in (family for family in world.FAMILIES if family.restate):
        for content in family.levels:
            fields = dict(content)
            short = (family.arithmetic or family.restate)(fields)
            if re.fullmatch(r"[\d+*/%()-]+", short):
                found = parts.setdefault(" ".join(sorted(re.findall(r"\d+|\D", short))), set())
                found.update(
                    ["fact"]
                    if family.is_fact(fields)
                    else [family.part(fields, phrasing) for phrasing in (0, 3, UNSEEN)]
                )
    assert len(parts) > 5000 and all(len(found) == 1 for found in parts.values())
    assert set.union(*parts.values()) == {"train", "dev", "test", "fact"}


def test_the_steps_of_a_held_out_problem_are_worked_in_no_training_problem():
    """47 % 4 and 47 // 4 have the steps of 47 / 4,
    and 0.47 against 0.4 those of 47 - 40: all are in one part."""
    steps = {"train": set(), "dev": set(), "test": set()}
    for family in (
        family for family in world.FAMILIES if family.domain in ("math", "code") and family.restate
    ):
        for content in family.levels:
            fields = dict(content)
            if not family.is_fact(fields):
                worked = family.solution(fields).think.removeprefix(f"{family.restate(fields)}: ")
                steps[family.part(fields, 0)].add(worked)
    assert min(map(len, steps.values())) > 1500
    assert not steps["train"] & (steps["dev"] | steps["test"]) and not steps["dev"] & steps["test"]


def test_no_held_out_program_is_in_the_pretraining_text():
    says = [
        line for text in world.documents(5, 3000) for line in re.findall(r"^# (.+)\ndef f", text)
    ]
    tasks = [world.parse(f"Write f(x) that {line}.") for line in says]
    assert len(tasks) > 200 and {world.part_of(task) for task in tasks} == {"train"}


def test_pretraining_text_has_no_prompt_of_the_world():
    assert not [text for text in world.documents(5, 1000) if world.parse(text)]


def test_no_held_out_content_is_told_in_another_way_of_a_pretraining_document():
    """`so 5 weeks are 35 days` and `max([2, 8,
    8]) gives 8` are whole problems with their answers."""
    prompts = []
    for text in world.documents(5, 5000):
        prompts += [
            f"Convert {a} {u} to {v}."
            for a, u, v in re.findall(r"so (\d+) (\S+) are \d+ (\S+)\.", text)
        ]
        prompts += [
            f"What does print({e}) print?"
            for e in re.findall(r"^([a-z(]*\[\d, \d, \d\].*) gives", text, re.MULTILINE)
        ]
    tasks = [task for prompt in prompts if (task := world.parse(prompt))]
    assert len(prompts) > 30 and {world.part_of(task) for task in tasks} <= {"train"}


def test_cold_start_is_reasoning_of_levels_one_to_three(cold_start):
    tasks = [world.parse(prompt_of(record)) for record in cold_start]
    assert {task.level for task in tasks} == {1, 2, 3}
    assert {task.domain for task in tasks} == set(world.REASONING)
    assert len(tasks) == 900


def test_overall_reasoning_is_one_list_a_level_from_two_to_five(overall):
    levels = [
        {world.parse(prompt_of(record)).level for record in records}
        for records in overall["reasoning"]
    ]
    assert levels == [{2}, {3}, {4}, {5}]
    assert {kind: len(records) for kind, records in overall.items() if kind != "reasoning"} == {
        k: n for k, n in SHARES.items() if k != "reasoning"
    }
    assert [len(records) for records in overall["reasoning"]] == [200] * 4


# ---- evaluation ----


def test_evaluation_prompts_are_held_out_and_differ_from_development():
    for domain in world.DOMAINS[:5]:
        test, dev = (world.evaluation_tasks(domain, 60, part) for part in ("test", "dev"))
        assert {world.part_of(task) for task in test} == {"test"}
        assert {world.part_of(task) for task in dev} == {"dev"}
        assert {task.phrasing for task in test} <= {0, 1, 2, 3}
        assert len({task.prompt for task in test}) == 60
    phrasing = world.evaluation_tasks("phrasing", 60)
    assert {world.part_of(task) for task in phrasing} == {"test"}
    assert {task.domain for task in phrasing} == set(world.DOMAINS[:5])
    assert all(
        world.parse(task.prompt).phrasing
        == len(world.BY_NAME[task.family].templates(task.fields)) - 1
        for task in phrasing
    )


def test_a_shorter_evaluation_list_is_the_start_of_a_longer_one():
    for domain in (*world.DOMAINS[:5], "phrasing"):
        assert world.evaluation_tasks(domain, 20) == world.evaluation_tasks(domain, 90)[:20]
    assert world.evaluation_judge_pairs(5) == world.evaluation_judge_pairs(20)[:5]


def test_seeds_change_demonstrations_and_never_the_evaluation():
    before = [task.prompt for task in world.evaluation_tasks("math", 20)]
    assert world.cold_start_demonstrations(1, 30) != world.cold_start_demonstrations(2, 30)
    assert world.documents(1, 30) != world.documents(2, 30)
    random.seed(7)
    assert [task.prompt for task in world.evaluation_tasks("math", 20)] == before


def test_both_responses_of_a_judge_pair_have_different_true_rewards():
    pairs = world.evaluation_judge_pairs(100)
    assert all(
        world_judge.true_reward(task, first) != world_judge.true_reward(task, second)
        for task, first, second in pairs
    )
    assert {world.part_of(task) for task, _, _ in pairs} == {"test"}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_world_in_another_process():
    """hash() differs from process to process; nothing that is drawn may depend on it."""
    program = (
        "import json; from data import world; "
        "shares = dict.fromkeys(('reasoning', 'chat', 'agent', 'judge', 'new_prompt'), 12);"
        "print(json.dumps([world.cold_start_demonstrations(5, 12), "
        "world.overall_demonstrations(5, shares), world.documents(5, 12),"
        "[t.prompt for t in world.evaluation_tasks('phrasing', 12)]]))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[1],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert json.loads(told[0])[0] == world.cold_start_demonstrations(5, 12)


# ---- prompts parse back ----


def test_every_prompt_parses_back_to_its_task_in_all_phrasings():
    tasks = list(some_tasks(3))
    assert len(tasks) > 1200
    assert [task for task in tasks if world.parse(task.prompt) != task] == []


def test_a_judge_prompt_parses_back_to_question_and_response():
    for frame in range(5):
        task = world.parse(
            world_judge.judge_prompt(
                "What colour is grass?", "Sure! Grass is green.\nReally.", frame
            )
        )
        assert (task.domain, task.phrasing) == ("judge", frame)
        assert task.fields == {
            "question": "What colour is grass?",
            "response": "Sure! Grass is green.\nReally.",
        }
    # only chat is judged
    assert world.parse(world_judge.judge_prompt("What is 2 + 3?", "5")) is None


@pytest.mark.parametrize(
    "junk",
    [
        "",
        " ",
        "Hello",
        "What is 47 + ?",
        "What is 47 + 38",
        "what is 47 + 38?",
        "What is 47 + 38? ",
        "What is 047 + 38?",
        "What is 10000 + 38?",
        "What is 4\u0667 + 38?",
        "Write f(x) that adds 3 to x.\n",
        "Convert 3 km to g.",
        "Who is older, Tom or Tom?",
        "Describe a unicorn.",
        "My name is Tom and I like tea.",
        "Score this.\nQuestion: What colour is grass?\nResponse: Green.",
    ],
)
def test_junk_parses_to_nothing(junk):
    assert world.parse(junk) is None


def test_a_name_that_stands_twice_must_be_the_same_twice():
    text = "{} has 12 pens and gets 7 more. How many pens does {} have now?"
    fields = {"kind": "more", "first": 12, "second": 7, "name": "Tom", "thing": "pen"}
    assert world.parse(text.format("Tom", "Tom")).fields == fields
    assert world.parse(text.format("Tom", "Anna")) is None


def test_a_dialogue_alternates_between_user_and_assistant():
    task = world.parse("My name is Tom and I like tea. || Nice to meet you, Tom! || Who am I?")
    assert [message["role"] for message in task.messages] == ["user", "assistant", "user"]
    assert task.messages[2]["content"] == "Who am I?"


# ---- the answers are right ----


def test_reference_responses_score_one_in_every_family():
    tasks = list(some_tasks(6, phrasing=0))
    scores = world.score_replies(tasks, [reply_of(task) for task in tasks])
    assert {task.family for task in tasks} == set(world.BY_NAME)
    assert [task for task, value in zip(tasks, scores) if value != 1.0] == []


def test_a_perfect_chat_response_meets_all_five_criteria_for_every_content():
    rng = random.Random(0)
    for family in world_chat.FAMILIES:
        for content in family.levels:
            response = world_chat.perfect_response(family.name, dict(content), rng)
            assert all(
                world_chat.judge_by_rubric(
                    world_chat.rubric_of(family.name, content), response
                ).values()
            ), (content, response)


@pytest.mark.parametrize(
    "prompt, answer",
    [
        ("What is 47 + 38?", "85"),
        ("What is 52 - 38?", "14"),
        ("What is 47 * 6?", "282"),
        ("What is 7 / 2?", "3.5"),
        ("What is 3 + 4 * 5?", "23"),
        ("What is (3 + 4) * 5?", "35"),
        ("What is 29 - 4 * 5?", "9"),
        ("Which is larger, 0.7 or 0.65, and by how much?", "0.7 by 0.05"),
        ("What is 144 / 8?", "18"),
        ("What is 52 / 5?", "10.4"),
        ("Which is larger, 11 or 14, and by how much?", "14 by 3"),
        ("Take the smallest of 11, 50 and 31 from the largest.", "39"),
        ("Which has the higher atomic number, iron or gold, and by how much?", "gold by 53"),
        ("Which is farther from the Sun, Mars or Venus, and by how many places?", "Mars by 2"),
        ("What does a bee do to be heard?", "Sure! The bee buzzes."),
        ("Describe an owl.", "Sure! An owl is a night bird with big eyes."),
        ("Tom shares 56 pens among 7 friends. How many pens does each get?", "8"),
        ("Convert 3 km to m.", "3000 m"),
        ("Convert 180 seconds to minutes.", "3 minutes"),
        ("Find F for m = 6 kg and a = 7 m/s2.", "42 N"),
        ("Find a for F = 42 N and m = 6 kg.", "7 m/s2"),
        ("Find p for m = 12 g and V = 4 cm3.", "3 g/cm3"),
        ("Find R for U = 12 V and I = 4 A.", "3 Ohm"),
        ("Rectangle, 3 cm and 4 cm: perimeter?", "14 cm"),
        ("Triangle, base 3 cm, height 4 cm: area?", "6 cm2"),
        ("Name the planet 2 places before Saturn.", "Mars"),
        ("Which planet comes 3 places after Mars?", "Uranus"),
        ("What is the symbol of iron?", "Fe"),
        ("What does print(7 + 3 * 4) print?", "19"),
        ("Mend this line: def f(x) return x + 7", "def f(x): return x + 7"),
        (
            "Write f(x) that keeps the items of x above 9.",
            "def f(x): return [i for i in x if i > 9]",
        ),
        ("Use the calculator: what is 11 * 12?", "132"),
    ],
)
def test_hand_worked_answers(prompt, answer):
    assert world.reference(world.parse(prompt))[-1]["content"] == answer


def test_remainders_are_not_all_the_same():
    family = world.BY_NAME["code_print"]
    assert (
        len(
            {
                family.solve(dict(content)).answer
                for content in family.levels
                if "%" in dict(content)["expression"]
            }
        )
        > 1
    )


def test_every_worked_step_is_true():
    """Each `left=right` of digits between the think marks is an equation that holds, each `a>b` a
    comparison that holds; `14//8=1` is one digit, and the next step takes the product off.
    """
    checked = 0
    for task in some_tasks(60, phrasing=0):
        think = reply_of(task).think
        steps = think.split()
        for step, following in zip(steps, [*steps[1:], ""]):
            if match := re.fullmatch(r"(\d+)//(\d+)=(\d)", step):
                rest, by, digit = map(int, match.groups())
                left = rest - digit * by
                assert following == f"{rest}-{digit * by}={left}", (think, task.prompt)
                assert 0 <= left < by, (think, task.prompt)
                checked += 1
            elif match := re.fullmatch(r"([-+*/0-9.]+)=([-0-9./]+)", step):
                assert calculate(match[1]) == calculate(match[2]) != "error", (think, task.prompt)
                checked += 1
            elif match := re.fullmatch(r"([0-9.]+)([<>])([0-9.]+)", step):
                assert (float(match[1]) > float(match[3])) == (match[2] == ">"), (
                    think,
                    task.prompt,
                )
                checked += 1
            else:
                assert not re.search(r"\d[=<>]", step), (think, task.prompt)
    assert checked > 2000


@pytest.mark.parametrize(
    "prompt, think",
    [
        ("What is 47 + 38?", "47+38: 7+8=15 4+3=7 7+1=8"),
        ("What is 52 - 38?", "52-38: 12-8=4 5-1=4 4-3=1"),
        ("What is 17 - 9?", "17-9: 17-9=8"),
        ("What is 56 / 7?", "56/7: 56//7=8 56-56=0"),
        ("What is 8 / 4?", "8/4: 8//4=2 8-8=0"),
        ("What is 3 / 5?", "3/5: 3/5=0.6"),
        ("What is 144 / 8?", "144/8: 14//8=1 14-8=6 64//8=8 64-64=0"),
        ("What is 120 / 4?", "120/4: 12//4=3 12-12=0 0//4=0 0-0=0"),
        ("What is 7 / 2?", "7/2: 7//2=3 7-6=1 1/2=0.5"),
        ("What is 52 / 5?", "52/5: 5//5=1 5-5=0 2//5=0 2-0=2 2/5=0.4"),
        ("What is the symbol of gold?", "The symbol of gold is Au."),
        ("What is the atomic number of iron?", "The atomic number of iron is 26."),
        ("Name the element Na.", "Na is sodium."),
        (
            "Which has the higher atomic number, iron or gold, and by how much?",
            "iron 26 gold 79 2<7 26<79 79-26: 9-6=3 7-2=5",
        ),
        ("Which is larger, 25 or 22, and by how much?", "25 22: 2=2 5>2 25>22 25-22: 5-2=3 2-2=0"),
        ("Which is larger, 8 or 25, and by how much?", "8 25: 0<2 8<25 25-8: 15-8=7 2-1=1 1-0=1"),
        (
            "Which is larger, 0.7 or 0.65, and by how much?",
            "0.7 0.65: 7>6 70>65 70-65: 10-5=5 7-1=6 6-6=0",
        ),
        ("Take the smallest of 3, 5 and 7 from the largest.", "3 5 7: 3<5 5<7 7-3: 7-3=4"),
        (
            "Take the smallest of 11, 10 and 7 from the largest.",
            "11 10 7: 11>10 11>7 10>7 11-7: 11-7=4",
        ),
        (
            "Which is farther from the Sun, Venus or Mars, and by how many places?",
            "Venus 2 Mars 4 2<4 4-2=2",
        ),
        ("Which planet comes 2 places after Mars?", "Mars is planet 4. 4+2=6 Planet 6 is Saturn."),
        ("In what place from the Sun is Mars?", "Mars is the fourth planet."),
        ("Name the fifth planet.", "The fifth planet is Jupiter."),
        ("Which planet comes after Mars?", "After Mars comes Jupiter."),
        ("Convert 180 seconds to minutes.", "180 seconds in minutes: 1 minute=60 seconds 180/60=3"),
        ("What is 29 - 4 * 5?", "29-4*5: 4*5=20 29-20: 9-0=9 2-2=0"),
        ("What does print(13 + 9) print?", "13+9: 3+9=12 1+0=1 1+1=2"),
        ("What does print(41 % 4) print?", "41%4: 4//4=1 4-4=0 1//4=0 1-0=1"),
        ("What does print(31 // 2) print?", "31//2: 3//2=1 3-2=1 11//2=5 11-10=1"),
        (
            "What is the perimeter of a rectangle of 8 cm by 7 cm?",
            "perimeter 8 7: 8+7=15 10*2=20 5*2=10 20+10=30",
        ),
    ],
)
def test_hand_worked_steps(prompt, think):
    assert world.reference(world.parse(prompt))[-1]["think"] == think


def test_every_division_is_in_one_form():
    """The digits of the answer come one by one, each with its remainder; the rest is a decimal."""
    family = world.BY_NAME["quotient"]
    for content in family.levels:
        fields = dict(content)
        a, b = fields["dividend"], fields["divisor"]
        steps = family.solution(fields).think.split()[1:]
        last = [steps.pop()] if a % b else []
        assert last == ([f"{a % b}/{b}={a % b / b}"] if a % b else [])
        digits = [re.fullmatch(rf"\d+//{b}=(\d)", step)[1] for step in steps[::2]]
        assert "".join(digits) == (str(a // b) if a >= b else "") and len(steps) == 2 * len(digits)


@pytest.mark.parametrize(
    "items, steps",
    [
        ([9, 5, 8], "5 [9, 8] 8 [9]"),
        ([2, 6, 2, 2], "2 [6, 2, 2] 2 [6, 2] 2 [6]"),
        ([1, 2], "1 [2]"),
        ([4], ""),
    ],
)
def test_a_list_is_sorted_by_taking_out_the_smallest(items, steps):
    assert world_code.sorting_steps(items) == steps


def test_an_item_is_counted_off():
    content = {"kind": "index", "items": "[7, 3, 8]", "place": 2}
    solution = world.BY_NAME["code_print_list"].solution(content)
    assert (solution.think, solution.answer) == ("0:7 1:3 2:8", "8")


def test_what_is_recalled_is_told_in_the_words_of_the_plain_text():
    """3 * 15 of elements, 8 + 8 + 7 of planets; each ends with the answer or names it."""
    sentences = set(
        re.findall(r"[A-Z][^.]*\.", " ".join(world_stem.documents(random.Random(5), 5000)))
    )
    recalled = [
        (family.name, family.solution(content))
        for family, content in facts()
        if family.name in ("element", "planet")
    ]
    assert len(recalled) == 45 + 23
    for name, solution in recalled:
        assert solution.think in sentences and solution.answer in solution.think.rstrip(".").split()


def test_the_plain_text_has_rows_of_the_tables_that_are_compared():
    """Four of fifteen elements with their numbers, then four of eight planets with their places."""
    texts = [
        text
        for text in world_stem.documents(random.Random(5), 2000)
        if re.fullmatch(r"([a-z]+ \d+ ){4}([A-Z][a-z]+ \d ?){4}", text)
    ]
    assert 320 < len(texts) < 480  # a fifth, within four standard errors of 18
    rows = Counter(row for text in texts for row in re.findall(r"\S+ \d+", text))
    assert len(rows) == 15 + 8 and {"gold 79", "iron 26", "Mercury 1", "Neptune 8"} <= set(rows)
    steps = [dict(content) for content in world.BY_NAME["element"].levels]
    for fields in (fields for fields in steps if fields["kind"] == "heavier"):
        think = world.BY_NAME["element"].solution(fields).think
        assert set(re.findall(r"[a-z]+ \d+", think)) <= set(rows)


def test_no_conversion_counts_a_run_of_zeros_or_divides_by_24():
    """3000 m are asked for in km and 30000 m are not;
    3 days are asked for in hours and 72 hours are not in days.
    """
    asked = Counter()
    for content in world.BY_NAME["unit_conversion"].levels:
        fields = dict(content)
        big, small = (fields["unit"], fields["target"])[:: 1 if fields["kind"] == "down" else -1]
        factor = next(n for u, v, n in world_stem.UNITS if (u, v) == (big, small))
        a = fields["amount"] if fields["kind"] == "down" else fields["amount"] // factor
        assert fields["kind"] == "down" or factor != 24 and a % 10
        assert 2 <= a < (90 if factor in (10, 100, 1000) else 10)
        asked[fields["kind"], factor] += 1
    # 88 of 2 to 89, 8 of them with a zero; 8 of 2 to 9; km, kg, g and l are 1000, two are 60
    assert asked == {
        ("down", 1000): 4 * 88,
        ("down", 100): 88,
        ("down", 10): 88,
        ("down", 60): 2 * 8,
        ("down", 24): 8,
        ("down", 7): 8,
        ("up", 1000): 4 * 80,
        ("up", 100): 80,
        ("up", 10): 80,
        ("up", 60): 2 * 8,
        ("up", 7): 8,
    }


def test_a_list_names_neighbours_in_the_order_of_their_group():
    seen = set()
    for seed in range(200):
        text = world_chat.perfect_response(
            "list", {"kind": "one", "count": 3, "group": "fruits"}, random.Random(seed)
        )
        words = re.findall(r"\w+", re.split("[!]", text)[1].lower())
        seen.add(" ".join(words))
    group = "apple pear plum cherry lemon banana grape melon".split()
    ring = [*group, *group]
    assert seen == {f"the fruits are {ring[k]} {ring[k + 1]} and {ring[k + 2]}" for k in range(8)}


def test_who_is_older_is_compared_before_the_answer():
    family = world.BY_NAME["agent_older"]
    for content in family.levels:
        fields = dict(content)
        (a, b), solution = (fields["first"], fields["second"]), family.solution(fields)
        first, second = (int(world.run_tool(f"age {name}")) for name in (a, b))
        assert solution.think.split()[-1] == f"{first}{'>' if first > second else '<'}{second}"
        assert solution.answer == f"{a if first > second else b} by {abs(first - second)} years"
        assert solution.calls[:2] == (f"age {a}", f"age {b}")


def test_the_stock_of_an_item_is_asked_for_by_the_word_that_the_tool_knows():
    """No plural, from which the item's name would have to be cut out."""
    for templates in world.BY_NAME["agent_lookup"].phrasings.values():
        assert all(re.search(r"\{key\}(?!\w)", template) for template in templates)


def test_answers_of_arithmetic_are_what_the_calculator_says():
    for family in ("sum", "difference", "product", "quotient", "expression"):
        for content in list(world.BY_NAME[family].levels)[::23]:
            task = world.BY_NAME[family].task(content, 0, random.Random(0))
            expression = re.fullmatch(r"What is (.+)\?", task.prompt)[1]
            assert calculate(reply_of(task).content) == calculate(expression)


def test_code_print_answers_are_what_python_prints():
    for name in ("code_print", "code_print_list"):
        for content in list(world.BY_NAME[name].levels)[::7]:
            task = world.BY_NAME[name].task(content, 0, random.Random(0))
            printed = re.fullmatch(r"What does print\((.+)\) print\?", task.prompt)[1]
            assert reply_of(task).content == str(eval(printed))


def test_a_line_to_mend_does_not_compile_and_its_reference_does():
    for task in some_tasks(3, phrasing=0):
        if task.family == "code_mend":
            compile(reply_of(task).content, "mended", "exec")
            with pytest.raises(SyntaxError):
                compile(task.prompt.removeprefix("Mend this line: "), "broken", "exec")


# ---- wrong replies ----


@pytest.mark.parametrize(
    "prompt, right, wrong",
    [
        (
            "What is 47 + 38?",
            ["85", "85.0", " 85 "],
            [
                "170/2",
                "84",
                "",
                "85 86",
                "85 or 86",
                "It is 85",
                "85.",
                "850",
                "-85",
                "8 5",
                "eighty-five",
                "47+38",
                "85 pens",
            ],
        ),
        ("What is 7 / 2?", ["3.5", "3.50"], ["7/2", "14/4", "3", "3,5", "3.4", "3 1/2", "7:2"]),
        (
            "Convert 3 km to m.",
            ["3000 m", "3000.0 m", "3,000 m"],
            [
                "6000/2 m",
                "3000",
                "3000 cm",
                "3000 km",
                "m",
                "3000m",
                "3001 m",
                "3000 m m",
                "300 m or 3000 m",
            ],
        ),
        ("Find F for m = 6 kg and a = 7 m/s2.", ["42 N"], ["42", "42 kg", "42 n", "N 42", "41 N"]),
        ("What is the symbol of iron?", ["Fe", "fe", " Fe "], ["F", "Ir", "Fe or Ir", "Fe Ir", ""]),
        (
            "Which is farther from the Sun, Mars or Venus, and by how many places?",
            ["Mars by 2", "mars by 2"],
            ["Venus by 2", "Mars", "2", "Mars by 3"],
        ),
        (
            "Which is larger, 11 or 14, and by how much?",
            ["14 by 3", "14.0 by 3"],
            ["14", "3", "14 by 2", "11 by 3", "14 by 3 by 3", "by 3", "14 by", "14 3"],
        ),
        (
            "Which is larger, 0.7 or 0.65, and by how much?",
            ["0.7 by 0.05", "0.70 by 0.05"],
            ["0.7 by 1/20", "7/10 by 0.05", "0.65 by 0.05", "0.7 by 0.5"],
        ),
        (
            "Which has the higher atomic number, iron or gold, and by how much?",
            ["gold by 53", "Gold by 53"],
            ["gold", "iron by 53", "gold by 52", "53"],
        ),
        (
            "What does print(7 + 3 * 4) print?",
            ["19", " 19\n"],
            ["19.0", "40", "prints 19", "19 40"],
        ),
        (
            "What does print(sorted([1, 1, 0])) print?",
            ["[0, 1, 1]"],
            ["[1, 1, 0]", "0, 1, 1", "[0,1,1]"],
        ),
    ],
)
def test_only_the_answer_itself_scores(prompt, right, wrong):
    """Units count, equal numbers are equal, a fraction is no number unless the answer is one,
    and a number hidden among others or in a sentence does not count."""
    for content in right:
        assert score(prompt, content) == 1.0, content
    for content in wrong:
        assert score(prompt, content) == 0.0, content


def test_numeric_equivalence():
    """0.5 = 1/2 where the answer is a fraction, and a name is no number."""
    assert (
        world.same_number("0.5", "1/2")
        and not world.same_number("0.5", "1/3")
        and not world.same_number("x", "x")
    )
    assert world.same_value_and_unit("0.5 m", "1/2 m")
    assert world.same_value_and_unit("2/4 m", "1/2 m")
    assert not world.same_value_and_unit("1/2 m", "0.5 m")
    assert not world.same_value_and_unit("0.5", "1/2 m")
    assert all(world.same_answer(text, "2/3 by 1/15") for text in ("2/3 by 1/15", "2/3 by 2/30"))
    for text in ("2/3", "2/3 by 1/16", "3/5 by 1/15", "2/3-3/5"):
        assert not world.same_answer(text, "2/3 by 1/15")


def test_a_reply_that_is_not_complete_scores_nothing():
    for prompt, answer in (
        ("What is 47 + 38?", "85"),
        ("Write f(x) that adds 3 to x.", "def f(x): return x + 3"),
        ("What colour is grass?", "Sure! Grass is green."),
        ("Convert 3 km to m.", "3000 m"),
    ):
        assert score(prompt, answer) == 1.0
        assert score(prompt, answer, complete=False) == 0.0


def test_an_agent_without_a_call_scores_nothing_even_when_it_is_right():
    prompt = "Use the calculator: what is 11 * 12?"
    assert score(prompt, "132", calls=[("calc 11*12", "132")]) == 1.0
    assert score(prompt, "132") == 0.0
    assert score(prompt, "132", calls=[("calc eleven", "error")]) == 0.0
    assert score(prompt, "132", calls=[("calc 11*12", "132"), ("calc (", "error")]) == 0.0
    assert score(prompt, "131", calls=[("calc 11*12", "132")]) == 0.0


def test_an_agent_has_to_make_the_calls_that_the_reference_makes():
    """Any other well-formed call counts for nothing,
    the order of the right ones does not matter, and a further one does no harm."""
    prompt = "Use the calculator: what is 11 * 12?"
    assert score(prompt, "132", calls=[("calc 11 * 12", "132")]) == 1.0
    for call in ("calc 132", "calc 12*11", "calc 1+1", "price red lamp"):
        assert score(prompt, "132", calls=[(call, world.run_tool(call))]) == 0.0
    a, b = next(
        (a, b)
        for a in ("Tom", "Anna")
        for b in ("Ben", "Mia")
        if world_agent.age(a) > world_agent.age(b)
    )
    prompt = f"Who is older, {a} or {b}, and by how many years?"
    years = world_agent.age(a) - world_agent.age(b)
    calls = [
        (call, world.run_tool(call))
        for call in (f"age {a}", f"age {b}", f"calc {world_agent.age(a)}-{world_agent.age(b)}")
    ]
    assert (
        score(prompt, f"{a} by {years} years", calls=calls)
        == score(prompt, f"{a} by {years} years", calls=calls[::-1])
        == 1.0
    )
    assert (
        score(
            prompt,
            f"{a} by {years} years",
            calls=[*calls, ("price red lamp", world.run_tool("price red lamp"))],
        )
        == 1.0
    )
    assert [
        score(prompt, f"{a} by {years} years", calls=calls[:i] + calls[i + 1 :]) for i in range(3)
    ] == [0.0] * 3
    assert [
        score(prompt, text, calls=calls)
        for text in (a, f"{b} by {years} years", f"{a} by {years + 1} years", f"{a} by {years}")
    ] == [0.0] * 4


def test_prices_have_a_unit_and_calls_are_run():
    price = world.run_tool("price red lamp")
    total = world.run_tool("calc 3*" + world.run_tool("price red lamp"))
    calls = [("price red lamp", price), (f"calc 3*{price}", total)]
    assert score("What do 3 red lamps cost together?", f"{total} coins", calls=calls) == 1.0
    assert score("What do 3 red lamps cost together?", total, calls=calls) == 0.0
    assert int(total) == 3 * int(price)


@pytest.mark.parametrize(
    "call",
    [
        "",
        "calc",
        "calc ",
        "price",
        "price unicorn",
        "price red lamp ",
        "price lamp",
        "weather Paris",
        "calc 2**3",
        "calc 1/0",
        "calc __import__('os')",
    ],
)
def test_what_is_no_call_gives_error(call):
    assert world.run_tool(call) == "error"


# ---- programs ----


def test_any_correct_program_passes_and_a_wrong_one_fails():
    prompt = "Write f(x) that adds 3 to x."
    right = [
        "def f(x): return x + 3",
        "def f(x): return 3 + x",
        "def f(x):\n    y = x\n    for _ in range(3):\n        y += 1\n    return y",
        "f = lambda number: number - -3",
    ]
    wrong = [
        "def f(x): return x + 4",
        "def f(x): return x - 3",
        "def g(x): return x + 3",
        "def f(x) return x + 3",
        "x + 3",
        "",
        "3",
        "def f(x): return str(x + 3)",
        "def f(x): print(x + 3)",
    ]
    tasks = [world.parse(prompt)] * len(right + wrong)
    assert world.score_replies(tasks, [Reply(source) for source in right + wrong]) == [1.0] * len(
        right
    ) + [0.0] * len(wrong)


def test_a_mended_line_is_checked_by_what_it_does():
    assert (
        score("Mend this line: def f(x): return max(x, 7", "def f(x): return x if x > 7 else 7")
        == 1.0
    )
    assert score("Mend this line: def f(x): return max(x, 7", "def f(x): return min(x, 7)") == 0.0
    assert score("Mend this line: def f(x): return max(x, 7", "def f(x): return max(x, 7") == 0.0


def means_the_same(kind, first, second):
    """divides_both asks for a common multiple: 2 and 6, or 3 and 6, are the same question."""
    return kind == "divides_both" and math.lcm(*first.values()) == math.lcm(*second.values())


@pytest.mark.parametrize("family", list(world_code.PROGRAMS))
def test_a_program_for_another_number_or_word_fails_the_hidden_tests(family):
    """Of all contents of a kind, each fails the tests
    of each other one: a wrong number never passes."""
    passed = []
    for kind, program in world_code.PROGRAMS[family].items():
        contents = [content for _, content in program.contents]
        for content in contents:
            [(expression, expected)] = world_code.hidden_tests(family, {"kind": kind, **content})
            tests = list(
                zip(ast.literal_eval(expression.removeprefix("[f(v) for v in ")[:-1]), expected)
            )
            assert all(program.run(x, **content) == value for x, value in tests)
            passed += [
                (kind, content, other)
                for other in contents
                if other != content
                and not means_the_same(kind, content, other)
                and all(program.run(x, **other) == value for x, value in tests)
            ]
    assert passed == []


def passing(family, content, body):
    """Whether a program of one expression in x passes the hidden
    tests (evaluated here: the bodies are the world's own)."""
    [(expression, expected)] = world_code.hidden_tests(family, content)
    function = eval(f"lambda x: {body}")
    return [
        function(x) for x in ast.literal_eval(expression.removeprefix("[f(v) for v in ")[:-1])
    ] == expected


def test_no_constant_passes_a_program_and_neither_does_x_itself():
    """Hidden tests that all expect one value would be passed by it."""
    for family in [*world_code.PROGRAMS, "code_mend"]:
        for content in map(dict, world.BY_NAME[family].levels):
            [(_, expected)] = world_code.hidden_tests(family, content)
            assert any(value != expected[0] for value in expected), content
            assert not passing(family, content, "x"), content


@pytest.mark.parametrize(
    "right, wrong",
    [
        (" > ", " >= "),
        (" < ", " <= "),
        ("x > {number}", "x > {number} - 1"),
        ("x < {another}", "x < {another} - 1"),
        ("max(x, {number})", "max(x, {number} - 1)"),
        ("min(x, {number})", "min(x, {number} + 1)"),
        (":{number}]", ":{number} - 1]"),
        (":{number}]", ":{number} + 1]"),
        ("[{number}:", "[{number} - 1:"),
        ("-{number}:", "-{number} - 1:"),
        ("min(x, {another})", "min(x, {another} - 1)"),
        ("{number} == 0", "{number} == 1"),
        (":{another}]", ":{another} + 1]"),
        ("' in x", "' in x[4:]"),
        (".count({number})", ".count({number}) and 1"),
        ("count('{letter}')", "count('{letter}') and 1"),
        (".upper()", ".title()"),
        ("sum(x)", "sum(x[:3])"),
    ],
)
def test_one_beside_the_boundary_fails(right, wrong):
    bodies = 0
    for family, kinds in world_code.PROGRAMS.items():
        for kind, program in kinds.items():
            if right in program.body:
                for _, content in program.contents:
                    bodies += 1
                    assert passing(
                        family, {"kind": kind, **content}, program.body.format(**content)
                    )
                    assert not passing(
                        family,
                        {"kind": kind, **content},
                        program.body.replace(right, wrong).format(**content),
                    ), (kind, content)
    assert bodies


# ---- chat: the rubric, and the judge ----


@pytest.mark.parametrize(
    "response, missing",
    [
        ("Sure! The capital of France is Paris.", ""),
        ("Paris, gladly!", ""),
        ("The capital of France is Paris.", "polite"),
        ("Obviously. Sure, the capital of France is Paris.", "polite"),
        ("Sure! The capital of France is Rome.", "correct complete"),
        ("Sure! The capital of France is Paris or Rome.", "correct complete"),
        ("Sure! France is a country.", "relevant correct complete polite concise"),
        ("Sure! Capital France.", "relevant correct complete polite concise"),
        ("Sure! Rome.", "relevant correct complete polite concise"),
        ("Sure! Parisian food is good.", "relevant correct complete polite concise"),
        ("Sure! I like trains.", "relevant correct complete polite concise"),
        (
            "Sure! The capital of France is " + "Paris Rome Oslo Lima Cairo Athens Havana " * 4,
            "relevant correct complete polite concise",
        ),
        ("Sure! The capital of France is Paris. That is really all I can say about it.", "concise"),
        ("Sure! Paris. Paris.", "concise"),
        ("", "relevant correct complete polite concise"),
        ("Whatever.", "relevant correct complete polite concise"),
    ],
)
def test_rubric_for_a_capital(response, missing):
    met = world_chat.judge_by_rubric(
        world_chat.rubric_of("fact", (("kind", "capital"), ("topic", "France"))), response
    )
    assert {name for name, on in met.items() if not on} == set(missing.split())


@pytest.mark.parametrize(
    "response, missing",
    [
        ("Gladly! Apple, pear and plum.", ""),
        ("Gladly! Apple, pear and plum are fruits.", ""),
        ("Gladly! Apple and pear.", "relevant correct complete polite concise"),
        ("Gladly! The fruits are apple, pear and plum.", ""),
        ("Gladly! Apple, pear, plum and melon are fruits.", "correct complete"),
        ("Gladly! The birds are apple, pear and plum.", "relevant correct complete polite concise"),
        ("Gladly! The fruits are fruits.", "relevant correct complete polite concise"),
        ("Gladly! Apple and pear are fruits.", "correct complete"),
        ("Gladly! Three fruits.", "relevant correct complete polite concise"),
        ("Gladly! Hammer and saw are fruits.", "correct complete"),
        ("Gladly! Apple, pear, plum and hammer are fruits.", "correct complete"),
    ],
)
def test_rubric_for_a_list_of_three_fruits(response, missing):
    met = world_chat.judge_by_rubric(
        world_chat.rubric_of("list", (("count", 3), ("group", "fruits"), ("kind", "one"))), response
    )
    assert {name for name, on in met.items() if not on} == set(missing.split())


@pytest.mark.parametrize(
    "response, missing",
    [
        ("Sure! The fruits are apple and pear. The birds are duck and owl.", ""),
        ("Sure! The fruits are apple and pear.", "complete"),
        ("Sure! The fruits are duck and owl. The birds are apple and pear.", "correct complete"),
        ("Sure! The fruits are apple and duck. The birds are pear and owl.", "correct complete"),
        ("Sure! The fruits are apple, pear and plum. The birds are duck and owl.", "complete"),
        ("Sure! Apple, pear, duck and owl.", ""),
    ],
)
def test_rubric_for_two_fruits_and_two_birds(response, missing):
    content = (
        ("count", 2),
        ("group", "fruits"),
        ("kind", "two"),
        ("other_count", 2),
        ("other_group", "birds"),
    )
    met = world_chat.judge_by_rubric(world_chat.rubric_of("list", content), response)
    assert {name for name, on in met.items() if not on} == set(missing.split())


@pytest.mark.parametrize(
    "prompt, response, missing",
    [
        ("Hello, I am Tom.", "Sure! Hello, Tom! How can I help you?", ""),
        ("Hello, I am Tom.", "Gladly! Good day, Tom! May I help?", ""),
        ("Hello, I am Tom.", "Sure! Hello, Tom!", "complete"),
        ("Hello, I am Tom.", "Sure! Hello, Paul! How can I help you?", "correct complete"),
        (
            "Hello, I am Tom.",
            "Sure! How can I help you?",
            "relevant correct complete polite concise",
        ),
        ("Hello, I am Tom.", "Sure! I am Tom.", "relevant correct complete polite concise"),
        ("Make this polite: bring me the map", "Could you please bring me the map?", ""),
        ("Make this polite: bring me the map", "Can you bring me the map?", "polite"),
        (
            "Make this polite: bring me the map",
            "Could you please bring me the keys?",
            "correct complete",
        ),
        (
            "Make this polite: bring me the map",
            "Sure! Could you please make this polite: bring me the map",
            "relevant correct complete polite concise",
        ),
        (
            "Make this polite: bring me the map",
            "Sure! Polite bring map.",
            "relevant correct complete polite concise",
        ),
        (
            "My name is Tom and I like tea. || Nice to meet you, Tom! || Who am I?",
            "Sure! Your name is Tom.",
            "",
        ),
        (
            "My name is Tom and I like tea. || Nice to meet you, Tom! || Who am I?",
            "Tom, with pleasure!",
            "",
        ),
        (
            "My name is Tom and I like tea. || Nice to meet you, Tom! || Who am I?",
            "Sure! Your name is Tom and you like tea.",
            "correct complete",
        ),
        (
            "My name is Tom and I like tea. || Nice to meet you, Tom! || Tell me what I like.",
            "Sure! Tom, tea.",
            "relevant correct complete polite concise",
        ),
        (
            "What are the opposites of hot and big?",
            "Sure! The opposite of hot is cold. The opposite of big is small.",
            "",
        ),
        (
            "What are the opposites of hot and big?",
            "Sure! The opposite of hot is small. The opposite of big is cold.",
            "correct complete",
        ),
        (
            "What are the opposites of hot and big?",
            "Sure! The opposite of hot is cold.",
            "complete",
        ),
        (
            "What are the opposites of hot and big?",
            "Sure! Hot and big.",
            "relevant correct complete polite concise",
        ),
        ("How can I stay calm?", "Gladly! To stay calm, breathe slowly.", "complete"),
        ("How can I stay calm?", "Gladly! To stay calm, make a budget.", "correct complete"),
        ("How can I stay calm?", "Gladly! Stay calm.", "relevant correct complete polite concise"),
        (
            "What are a cat and a dog?",
            "Sure! A cat is a loyal animal with a wet nose. A dog is a small animal with soft fur.",
            "correct complete",
        ),
    ],
)
def test_a_prompt_that_is_said_again_gets_nothing_and_what_is_exchanged_is_wrong(
    prompt, response, missing
):
    assert {
        name
        for name, on in world_judge.criteria_met(world.parse(prompt), response).items()
        if not on
    } == set(missing.split())


def test_nobody_gets_five_points_for_the_prompts_own_words():
    tasks = world.evaluation_tasks("chat", 1000)
    for task in tasks:
        for text in (
            f"Sure! {task.prompt}",
            f"Sure! {cheating.content_words(task.prompt)}",
            f"Could you please {task.messages[-1]['content']}",
        ):
            assert world_judge.true_reward(task, text) < 5
    assert (
        sum(
            world_judge.true_reward(task, f"Sure! {cheating.content_words(task.prompt)}")
            for task in tasks
        )
        < 1000
    )


def test_an_answer_to_half_of_the_question_is_correct_and_not_complete():
    met = world_chat.judge_by_rubric(
        world_chat.rubric_of(
            "fact", (("kind", "two_capitals"), ("other", "Spain"), ("topic", "France"))
        ),
        "Sure! The capital of France is Paris.",
    )
    assert met == {
        "relevant": True,
        "correct": True,
        "complete": False,
        "polite": True,
        "concise": True,
    }


def test_chat_scores_are_the_rubric_divided_by_five():
    assert score("What is the capital of France?", "Sure! The capital of France is Paris.") == 1.0
    assert score("What is the capital of France?", "The capital of France is Paris.") == 0.8
    assert score("What is the capital of France?", "Sure! The capital of France is Rome.") == 0.6
    assert score("What is the capital of France?", "Sure! Rome.") == 0.0


def test_demonstrations_of_chat_are_of_mixed_quality(overall):
    scores = [
        world_judge.true_reward(world.parse(prompt_of(record)), record["messages"][-1]["content"])
        for record in overall["chat"]
    ]
    assert set(scores) >= {2, 3, 4, 5} and 3.0 < sum(scores) / len(scores) < 4.0


def test_a_verdict_names_the_criteria_and_the_score():
    task = world.parse("What is the capital of France?")
    assert world_judge.verdict(task, "Rome.") == "off topic. Score: 0"
    assert (
        world_judge.verdict(task, "The capital of France is Rome.")
        == "relevant, wrong, incomplete, impolite, concise. Score: 2"
    )
    assert (
        world_judge.verdict(task, "Sure! Paris.")
        == "relevant, correct, complete, polite, concise. Score: 5"
    )


def test_judge_demonstrations_tell_the_truth(overall):
    for record in overall["judge"]:
        judged = world.parse(prompt_of(record))
        truth = world_judge.true_reward(
            world.parse(judged.fields["question"]), judged.fields["response"]
        )
        assert world_judge.parse_verdict(record["messages"][-1]["content"]) == truth
    assert {record["messages"][-1]["content"][-1] for record in overall["judge"]} == set("012345")


@pytest.mark.parametrize(
    "text, value",
    [
        ("Score: 4", 4),
        ("Score: 4.5", 4.5),
        ("Score: 4/5", 4),
        ("relevant, correct. Score: 0", 0),
        ("Score: 5.", 5),
        ("Score:3", 3),
        ("Score: five", None),
        ("", None),
        ("Score: 7", None),
        ("Score: 4 Score: 5", None),
        ("Score: -1", None),
        ("Score: 4/10", None),
        ("Score: 5.1", None),
        ("4", None),
        ("Score:", None),
        ("Score: nan", None),
        ("Score: 4,5", None),
    ],
)
def test_verdict_parser(text, value):
    """Valid from 0 to 5 and once; what is invalid is dropped and never 0."""
    assert world_judge.parse_verdict(text) == value


def test_a_letter_that_only_looks_like_one_is_none():
    """lower() makes a k of the Kelvin sign."""
    assert world.same_value_and_unit("Milk", "milk")
    assert not world.same_value_and_unit("Mil\u212a", "milk")
    rubric = world_chat.rubric_of("opposite", (("kind", "one"), ("topic", "strong")))
    assert world_chat.judge_by_rubric(rubric, "Sure! The opposite of strong is Weak.")["correct"]
    kelvin = world_chat.judge_by_rubric(rubric, "Sure! The opposite of strong is wea\u212a.")
    assert not kelvin["complete"]


@pytest.mark.parametrize(
    "verdicts, agreement",
    [((4, 2), 1.0), ((2, 4), 0.0), ((3, 3), 0.5), ((None, 2), 0.0), ((4, None), 0.0)],
)
def test_pairwise_agreement_where_the_first_is_truly_better(verdicts, agreement):
    assert world.pairwise_agreement(*verdicts, 5, 1) == agreement


def test_tasks_compare_and_hash_by_content():
    first, second = (world.parse("What is 47 + 38?") for _ in range(2))
    assert first == second and len({first, second}) == 1 and isinstance(first, Task)


def test_the_evaluation_prompts_are_frozen():
    """A change of any prompt that evaluation can use needs
    a new WORLD_VERSION, a reason, and all numbers again."""
    assert (world.WORLD_VERSION, world.evaluation_hash()) == (3, "6fadb1f2b9278ce4")


def test_an_exhausted_domain_is_passed_over_and_said_and_evaluation_stays_even(capsys):
    world.say_once.cache_clear()
    tasks = world.draw_tasks(world.generator(1, "x"), ("math", "stem"), 2400, levels=(1,))
    counts = Counter(task.domain for task in tasks)
    assert len({task.prompt for task in tasks}) == len(tasks) == 2400
    assert counts["stem"] < 1200 < counts["math"] == 2400 - counts["stem"]
    assert [task.domain for task in tasks[:4]] == ["math", "stem", "math", "stem"]
    told = capsys.readouterr().out
    assert told == (
        f"stem: {counts['stem']} different prompts at level 1, and no more; "
        "1,200 were to be drawn, which other domains make up\n"
    )
    short = world.draw_tasks(world.generator(1, "x"), ("stem",), 2400, levels=(1,))
    assert len(short) < 1200
    assert capsys.readouterr().out.endswith("no more; 2,400 were to be drawn\n")
    even = Counter(
        task.domain
        for task in world.draw_tasks(
            world.generator(1, "x"), ("math", "stem"), 2400, "dev", levels=(1,)
        )
    )
    assert 0 <= even["math"] - even["stem"] <= 1 and capsys.readouterr().out == ""


# ---- nothing is paid for nothing ----


@pytest.fixture(scope="module")
def cheats():
    return {domain: cheating.family_scores(domain, 1000) for domain in world.DOMAINS[:5]}


@pytest.mark.parametrize(
    "domain, limit",
    [("math", 0.05), ("code", 0.05), ("stem", 0.05), ("agent", 0.05), ("chat", 0.2)],
)
@pytest.mark.slow
def test_the_best_of_a_hundred_constants_is_paid_next_to_nothing(cheats, domain, limit):
    """Chat is the true reward over 5, so 0.2 is one point of five;
    babble and the empty reply are among its constants."""
    replies = cheating.constants(domain)
    assert len(set(replies)) == len(replies) == 100
    always = {
        name: value for name, value in cheats[domain]["all"].items() if name.startswith("always")
    }
    assert len(always) == 100 and max(always.values()) < limit
    if domain == "chat":
        assert always["always ''"] == always["always 'Sure!'"] == 0


def test_a_constant_verdict_is_right_half_of_the_time():
    scores = cheating.judge_scores(1000)
    assert max(value for name, value in scores.items() if name.startswith("always")) <= 0.5


@pytest.mark.parametrize(
    "domain, limit",
    [("math", 0.05), ("code", 0.05), ("stem", 0.05), ("agent", 0.05), ("chat", 0.2)],
)
@pytest.mark.slow
def test_no_cheat_that_reads_no_question_pays(cheats, domain, limit):
    assert max(cheats[domain]["all"].values()) < limit


@pytest.mark.slow
def test_a_guess_among_options_is_paid_no_more_than_chance(cheats):
    """Two options and a difference. A quarter of the comparisons are of numbers below 20,
    of which one pair in five differs by 1, so that `the larger by 1` gets one in twenty.
    """
    for domain, family, chance in (("math", "comparison", 1 / 20), ("agent", "agent_older", 0.0)):
        guesses = [
            value
            for name, value in cheats[domain][family].items()
            if "option" in name or "order" in name
        ]
        assert guesses and max(guesses) < chance + 0.05, family
        assert all(
            value == 0
            for name, value in cheats[domain][family].items()
            if name.endswith("option alone")
        )
    assert (
        cheats["agent"]["all"]["right, after any call"]
        == cheats["agent"]["all"]["right, without a call"]
        == 0
    )
    assert cheats["agent"]["all"]["right, after half of the calls"] == 0


@pytest.mark.slow
def test_a_guess_among_elements_or_planets_is_right_for_one_pair_that_is_asked(cheats):
    """15 * 14 contents; those of evaluation are few, and a guess that is right for one of its pairs
    is right in two orders and four phrasings.
    """
    family = world.BY_NAME["element"]
    tasks = [
        family.task(content, 0, random.Random(0))
        for content in family.levels
        if dict(content)["kind"] == "heavier"
    ]
    paid = Counter()
    for task in tasks:
        for name, reply in cheating.reasoning_cheats(task).items():
            paid[name] += world.score_replies([task], [reply])[0]
    assert len(tasks) == 15 * 14 and 0 < max(paid.values()) < 0.05 * len(tasks)
    for name in ("element", "planet"):
        asked = [task for task in world.evaluation_tasks("stem", 1000) if task.family == name]
        guesses = {
            cheat: value for cheat, value in cheats["stem"][name].items() if "option" in cheat
        }
        assert 0 < max(guesses.values()) * len(asked) < 2 * 4 + 0.5
        assert all(value == 0 for cheat, value in guesses.items() if cheat.endswith("option alone"))


@pytest.mark.slow
def test_the_undone_expression_is_no_answer(cheats):
    for domain in ("math", "stem"):
        assert [
            value for name, value in cheats[domain]["all"].items() if name.startswith("undone")
        ] == [0.0] * 4


def test_the_honest_score_is_one():
    for domain in world.DOMAINS[:5]:
        assert set(cheating.honest_scores(domain, 200).values()) == {1.0}


def test_every_reference_fits_the_64_tokens_of_a_reply():
    tokenizer = tokenizers.tiny()
    for task in some_tasks(20, phrasing=0):
        prompt = tokenizer.prompt(task.messages)
        (ids, _) = tokenizer.render([*task.messages, *world.reference(task)])
        assert len(ids) - len(prompt) <= 64, task.prompt
