"""What the stages of SFT learn from: the tiny world's texts and dialogues as rows, in order."""

import random
from collections import Counter
from dataclasses import dataclass, replace

from data import world
from data.files import formats
from data.runtime.devices import seed_of
from data.runtime.rows import (
    Row,
    before_reply,
    check_prompts,
    dialogue_rows,
    document_rows,
    in_rows,
    interleave,
    repeated,
    split,
    tell_dropped,
    tokens_a_row,
)
from data.runtime.sizes import LARGER, SMOKE

ROW = 96  # tokens of a row of pretraining


@dataclass(frozen=True)
class Schedule:
    """How much of what each stage learns from.

    Numbers of demonstrations; the steps of a stage say how often they are seen.
    """

    pretrain: object  # sft.Settings, as the next two
    cold_start: object
    overall: object
    documents: int
    cold_start_demonstrations: int
    demonstrations: dict  # overall_sft: how many of each kind; those of a small family recur
    shares: dict  # overall_sft: percent of each kind among the rows that are seen
    cold_start_levels: tuple = (1, 2, 3)
    curriculum_levels: tuple = (2, 3, 4, 5)  # of overall_sft's reasoning, in this order


# What a batch of overall_sft holds, in percent. The published recipe (Nanbeige4-3B) has 40
# reasoning, 30 general, 20 agent and 10 code. Here code is a third of the reasoning and of the kept
# cold-start data. Judging and asking are added, because the self-rewarding loop needs both.
SHARES = {
    "cold_start": 15,  # kept from stage 1, or its levels are forgotten
    "reasoning": 34,
    "chat": 15,
    "agent": 13,
    "judge": 11,
    # with 4, nine in ten of the prompts that the self-rewarding loop writes are nonsense; with 12,
    # half
    "new_prompt": 12,
}
FROM_SCRATCH = {"rows": 8, "muon_lr": 0.02, "adam_lr": 0.02}  # rows of 96 tokens, all supervised
STUDENT = {"reasoning": 2000, "chat": 2000, "agent": 600, "judge": 1000, "new_prompt": 800}
TEACHER = {"reasoning": 8000, "chat": 2000, "agent": 2000, "judge": 1800, "new_prompt": 800}


def schedules(settings) -> dict:
    """{size: {"student": Schedule, "teacher": Schedule}}; `settings` is the class sft.Settings.

    The tiny student has few demonstrations and learns them until its held-out loss is lowest. The
    teacher is larger and has seen many more. What the student lacks is data, which a teacher can
    give; more updates it could take itself.
    """
    student = Schedule(
        pretrain=settings(800, **FROM_SCRATCH),
        cold_start=settings(400),
        overall=settings(2000),
        documents=10000,
        cold_start_demonstrations=2000,
        demonstrations=STUDENT,
        shares=SHARES,
    )
    teacher = replace(
        student,
        pretrain=settings(650, **FROM_SCRATCH),
        cold_start=settings(300),
        overall=settings(1000),
        cold_start_demonstrations=6000,
        demonstrations=TEACHER,
    )
    table = {"tiny": {"student": student, "teacher": teacher}}
    for size in LARGER:
        table[size] = {who: larger(size, who, settings) for who in ("student", "teacher")}
    return table


def larger(size: str, who: str, settings) -> Schedule:
    """The schedule of a larger size: harder levels, and more demonstrations."""
    given = LARGER[size]
    counts = given["demonstrations"][who]
    return Schedule(
        pretrain=settings(**given["pretrain"]),
        cold_start=settings(**given["cold_start_sft"]),
        overall=settings(**given["overall_sft"]),
        documents=given["documents"],
        cold_start_demonstrations=counts["reasoning"],
        demonstrations=counts,
        shares=SHARES,
        cold_start_levels=(1, 2, 3, 4),
        curriculum_levels=(3, 4, 5),
    )


def smoke(schedule: Schedule) -> Schedule:
    """The same stages in a few steps, to see that everything runs."""
    few = {"steps": SMOKE["sft"]["steps"], "rows": 16, "batch_tokens": 0}
    demonstrations = SMOKE["sft"]["demonstrations"]
    return replace(
        schedule,
        pretrain=replace(schedule.pretrain, **few),
        cold_start=replace(schedule.cold_start, **few),
        overall=replace(schedule.overall, **few),
        documents=200,
        cold_start_demonstrations=demonstrations,
        demonstrations=dict.fromkeys(schedule.demonstrations, demonstrations),
    )


def pretraining_rows(tokenizer, schedule: Schedule, seed: int) -> tuple[list[Row], list[Row]]:
    """(shuffled rows of documents, held-out rows).

    Held out are other documents of the same world. Their facts recur in what is trained on, as
    facts must.
    """
    rows = document_rows(tokenizer, world.documents(seed, schedule.documents), ROW)
    other = world.documents(seed_of(seed, "held out"), 200)
    random.Random(seed_of(seed, "pretrain")).shuffle(rows)
    return rows, document_rows(tokenizer, other, ROW)


def text_rows(tokenizer, text: str, length: int, context: int) -> tuple[list[Row], list[Row]]:
    """(rows of the first nine tenths of a text, rows of its last tenth, the validation text)."""
    cut = len(text) * 9 // 10
    rows = document_rows(tokenizer, [text[:cut]], min(length, context))
    held_out = document_rows(tokenizer, [text[cut:]], min(length, context))
    if not held_out:
        raise ValueError(
            f"pretrain: a text of {len(text)} characters is too short; "
            f"its last tenth must fill a row of {length} tokens"
        )
    return rows, held_out


def characters_of(tokenizer, rows: list[Row]) -> int:
    """The characters that rows of a text predict.

    A character may be several tokens, and lie in two rows: what is counted is every byte but those
    that continue a character in UTF-8.
    """
    told = b""
    for ids, _ in rows:
        text = [token for token in ids[1:] if token not in tokenizer.mark_ids]
        told += tokenizer.encoding.decode_bytes(text)
    return sum(byte & 0xC0 != 0x80 for byte in told)


def development_rows(tokenizer, context: int, domains, levels=(1, 2, 3, 4, 5)) -> list[Row]:
    """Demonstrations of development contents: what the held-out loss is measured on."""
    rng = world.generator(world.WORLD_VERSION, "development rows", *domains)
    tasks = world.draw_tasks(rng, domains, 240, part="dev", levels=levels)
    records = [world.demonstration(task, rng) for task in tasks]
    return told_rows("held-out rows", tokenizer, records, context)


def cold_start_rows(tokenizer, schedule: Schedule, seed: int, context: int) -> list[Row]:
    """Math, code and STEM of the lower levels."""
    return told_rows("cold_start_sft", tokenizer, cold_start_records(schedule, seed), context)


def cold_start_records(schedule: Schedule, seed: int) -> list[dict]:
    count = schedule.cold_start_demonstrations
    return world.cold_start_demonstrations(seed, count, schedule.cold_start_levels)


def told_rows(stage: str, tokenizer, records: list[dict], context: int) -> list[Row]:
    """The dialogues that fit; a line tells what is left out."""
    rows, dropped = dialogue_rows(tokenizer, records, context)
    tell_dropped(stage, dropped)
    return rows


def in_passes(rows: list[Row], settings, seed: int, stage: str) -> tuple[list[Row], object]:
    """(rows of all steps in whole shuffled passes, settings in rows)."""
    settings = in_rows(settings, rows)
    rng = random.Random(seed_of(seed, stage))
    return repeated(rows, settings.steps * settings.rows, rng), settings


def overall_rows(
    tokenizer, schedule: Schedule, seed: int, context: int, curriculum: bool = True
) -> tuple[list[Row], object]:
    """The rows of overall SFT in their order, and its settings in rows.

    Reasoning rises level by level, the other kinds are spread evenly over the whole. With
    curriculum=False the same rows come in random order.
    """
    rng = random.Random(seed_of(seed, "overall_sft", "order"))
    counts = schedule.demonstrations
    records = world.overall_demonstrations(seed, counts, schedule.curriculum_levels)
    records["cold_start"] = cold_start_records(schedule, seed)
    kinds = {}  # kind -> its rows, level by level where they rise
    for kind in schedule.shares:
        kinds[kind], left_out = [], Counter()
        for level in records[kind] if kind == "reasoning" else [records[kind]]:
            rows, dropped = dialogue_rows(tokenizer, level, context)
            kinds[kind].append(rows)
            left_out += Counter(dropped)
        tell_dropped(f"overall_sft, {kind}", left_out)
    everything = {kind: [row for rows in kinds[kind] for row in rows] for kind in kinds}
    mean = 0  # tokens of a row, as the shares mix them
    for kind, percent in schedule.shares.items():
        mean += percent * tokens_a_row(everything[kind])
    settings = in_rows(schedule.overall, sum(everything.values(), []), mean / 100)
    taken = []
    for kind, percent in schedule.shares.items():
        count = settings.steps * settings.rows * percent // 100 + 1
        each = -(-count // len(kinds[kind]))  # of a level, rounded up
        taken.append([row for rows in kinds[kind] for row in repeated(rows, each, rng)])
    rows = interleave(taken, rng)
    if not curriculum:
        rng.shuffle(rows)
    return rows, settings


def rehearsal_rows(tokenizer, schedule: Schedule, seed: int, context: int) -> list[Row]:
    """All demonstrations of the schedule but those of chat."""
    kinds = world.overall_demonstrations(seed, schedule.demonstrations, schedule.curriculum_levels)
    records = cold_start_records(schedule, seed) + sum(kinds["reasoning"], [])
    records += kinds["agent"] + kinds["judge"] + kinds["new_prompt"]
    return told_rows("rehearsal", tokenizer, records, context)


def one_turn_prompts(schedule: Schedule, seed: int) -> list[str]:
    """The different one-turn chat prompts of the demonstrations."""
    records = world.overall_demonstrations(seed, schedule.demonstrations)["chat"]
    single = [record["messages"] for record in records if len(record["messages"]) == 2]
    return list(dict.fromkeys(messages[0]["content"] for messages in single))


# ---- somebody's own data ----


def held_out_rows(name: str, rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """(trained on, held out): a twentieth of the rows, but no more than 100, by their prompts."""
    return split(name, rows, [before_reply(row) for row in rows], 20, most=100)


def file_rows(name: str, records: list[dict], dropped: dict, tokenizer, context: int) -> list[Row]:
    """The dialogues of a file as rows; a line tells what is left out, in the reader or here."""
    rows, left_out = dialogue_rows(tokenizer, records, context)
    dropped = dropped | left_out
    if dropped:
        print(formats.dropped_line(dropped))
    check_prompts(name, [before_reply(row) for row in rows], dropped)
    return rows


def examples(args, records: list[dict] | None, dropped: dict, schedule: Schedule) -> list[dict]:
    """Dialogues to look at: three of the file's, or of the world's one of every kind."""
    if records == []:
        because = formats.because(dropped)
        raise ValueError(f"{args.data}: no record is left to show{because}")
    if records:
        if len(records) > 3:
            print(f"3 of {len(records)} records")
        return records[:3]
    few = dict.fromkeys(schedule.demonstrations, 4)
    kinds = world.overall_demonstrations(args.seed, few)
    first_level = kinds.pop("reasoning")[0]
    return [first_level[0]] + [demonstrations[0] for demonstrations in kinds.values()]
