"""Rankings of a prompt's outputs: by a simulated annotator, by a person, or of a file.

The outputs are called A, B, C, ... and a ranking is written best first: `D > C > A = B`, where A
and B are a tie. A ranking that can be learned from is a dict with at least "ranking", that text,
and "rows", the outputs as rows of tokens. At the end: how well scores agree with rankings.
"""

import json
import math
import random
import string
from pathlib import Path

from data import world
from data.files import formats
from data.files.checkpoints import tokenizer_of
from data.files.comparisons import parse_ranking
from data.files.writing import write_jsonl
from data.runtime.command import ask, out_folder
from data.runtime.decoding import generate
from data.runtime.devices import seed_of
from data.runtime.evaluation import sampled_rows
from data.runtime.measures import calibration, pair_accuracy, pairs_of, wilson, won
from data.runtime.room import fitting
from data.runtime.rows import Row, check_prompts, ranking_rows, split
from data.world import chat as world_chat

STOPPED = "stopped; rankings typed by hand are kept, and so is a training that was finished"

# ---- outputs of the SFT LLM, and their ranking ----


def sample_outputs(
    model, tokenizer, prompts: list[list[int]], outputs: int, seed: int
) -> list[list[Row]]:
    """K responses of the SFT LLM to each prompt."""
    if outputs < 2:
        raise ValueError(f"{outputs} outputs a prompt cannot be ranked; at least 2 are needed")
    rows = sampled_rows(prompts, generate(model, tokenizer, prompts, n=outputs, seed=seed))
    return [rows[i : i + outputs] for i in range(0, len(rows), outputs)]


def rank_outputs(likings: list[float], threshold: float = world_chat.TIE_THRESHOLD) -> str:
    """The ranking of outputs A, B, C, ... by how much they are liked: `D > C > A = B`.

    Neighbours that lie less than `threshold` apart are written `=`.
    """
    order = sorted(range(len(likings)), key=lambda k: -likings[k])
    text = string.ascii_uppercase[order[0]]
    for before, k in zip(order, order[1:]):
        tie = likings[before] - likings[k] < threshold
        text += " = " if tie else " > "
        text += string.ascii_uppercase[k]
    return text


def likings(replies: list, true: list[float], rng: random.Random) -> list[float]:
    """How much the simulated annotator likes each reply to one prompt.

    The same reply twice is liked alike, and so is a tie.
    """
    liked = {}
    for reply, score in zip(replies, true):
        key = (reply.content, reply.complete)
        if key not in liked:
            liked[key] = world_chat.annotate(score, rng, reply.complete)
    return [liked[reply.content, reply.complete] for reply in replies]


def annotated_rankings(
    model, tokenizer, *, prompts: int, outputs: int, seed: int, part: str = "train"
) -> list[dict]:
    """Chat prompts with K outputs of the model, ranked by the simulated annotator.

    Each is {"prompt", "responses", "ranking", "again", "true", "rows"}. "again" is the same
    annotator's ranking on another day, for its agreement with itself. "true" are the rubric's
    scores, 0 to 5.
    """
    rng = world.generator(seed, "reward_model", part)
    tasks = world.draw_tasks(rng, ("chat",), prompts, part)
    ids = [tokenizer.prompt(task.messages) for task in tasks]
    outputs_seed = seed_of(seed, "sample_outputs", part)
    rankings = []
    for task, rows in zip(tasks, sample_outputs(model, tokenizer, ids, outputs, outputs_seed)):
        replies = [tokenizer.read_reply(written(row)) for row in rows]
        true = [5 * score for score in world.score_replies([task] * outputs, replies)]
        ranking = {
            "prompt": task.prompt,
            "responses": [reply.content for reply in replies],
            "ranking": rank_outputs(likings(replies, true, rng)),
            "again": rank_outputs(likings(replies, true, rng)),
            "true": true,
            "rows": rows,
        }
        rankings.append(ranking)
    return rankings


def written(row: Row) -> list[int]:
    """The tokens of a row that are the model's own."""
    return [token for token, own in zip(*row) if own]


def demonstration_rows(tokenizer, seed: int, count: int = 200) -> list[Row]:
    """Good answers to chat prompts, as rows."""
    rng = world.generator(seed, "reward_model", "demonstrations")
    tasks = world.draw_tasks(rng, ("chat",), count)
    return [tokenizer.render(world.demonstration(task, rng)["messages"]) for task in tasks]


# ---- what is learned from, and what is held out ----


def rankings_of_part(
    policy, tokenizer, settings, seed: int, part: str, given: list[dict] | None = None
) -> list[dict]:
    """The rankings that are trained on ("train") or held out ("test").

    They are of the policy's own outputs; or nine tenths and a tenth of those given, whole prompts
    at a time. `settings`: reward_model.Settings.
    """
    if given is None:
        prompts = settings.held_out if part == "test" else settings.prompts
        how = {"prompts": prompts, "outputs": settings.outputs, "seed": seed, "part": part}
        return annotated_rankings(policy, tokenizer, **how)
    openings = [ranking["opening"] for ranking in given]
    trained_on, held_out = split("reward_model", given, openings, 10)
    return held_out if part == "test" else trained_on


def learned_from(
    policy, tokenizer, settings, seed: int, given: list[dict] | None, data: Path | None
) -> tuple[list[dict], list[Row]]:
    """(the rankings to train on, rows whose scores shall average 0).

    Those rows are demonstrations; or all responses, where rankings are given. Rankings that are
    made here are kept in the JSONL file `data`.
    """
    rankings = rankings_of_part(policy, tokenizer, settings, seed, "train", given)
    if given is not None:
        return rankings, [row for ranking in rankings for row in ranking["rows"]]
    rows = demonstration_rows(tokenizer, seed)
    if data is not None:
        told = [{key: ranking[key] for key in ranking if key != "rows"} for ranking in rankings]
        write_jsonl(data, told)
    return rankings, rows


# ---- a person as the annotator ----


def check_outputs(outputs: int) -> None:
    """Raises ValueError in one line for a number that cannot be ranked."""
    if not 2 <= outputs <= 26:
        raise ValueError(
            f"--outputs {outputs}: a ranking has the labels A to Z, so 2 to 26 outputs a prompt"
        )


def rank_by_hand(args, device, load) -> None:
    """A person ranks K outputs a prompt; every line typed is appended to a JSONL file at once.

    `args`: of the command; its `rank` is the checkpoint. load(path, tokenizer, device) gives
    (model, all else that was saved).
    """
    tokenizer = tokenizer_of(args.rank)
    model, _ = load(args.rank, tokenizer, device)
    path = out_folder(args.out or "runs/reward_model") / "rankings_by_hand.jsonl"
    size = path.stat().st_size if path.exists() else 0  # other prompts whenever one goes on
    rng = world.generator(args.seed, "rank by hand", size)
    print(
        "Type a ranking such as `D > C > A = B`, best first; an empty line skips, Ctrl-D ends. "
        f"Kept in {path}."
    )
    for task in world.draw_tasks(rng, ("chat",), 1000):
        prompt = tokenizer.prompt(task.messages)
        seed = seed_of(args.seed, task.prompt)
        (rows,) = sample_outputs(model, tokenizer, [prompt], args.outputs, seed)
        texts = [tokenizer.read_reply(ids[len(prompt) :]).content for ids, _ in rows]
        print(f"\n{task.prompt}")
        for label, text in zip(string.ascii_uppercase, texts):
            print(f"  {label}: {text}")
        try:
            line = typed_ranking(len(texts))
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line:
            record = {"prompt": task.messages, "responses": texts, "ranking": line}
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")


def typed_ranking(count: int) -> str:
    """A ranking of `count` outputs as it is typed, or "" for an empty line.

    What is wrong is told and asked again. Raises EOFError at the end of the input.
    """
    while True:
        line = ask("ranking> ").strip()
        if not line:
            return ""
        try:
            parse_ranking(line, count)
        except formats.DataError as error:
            print(f"  {error}")
        else:
            return line


# ---- your own file ----


def file_rankings(alone, context: int) -> list[dict] | None:
    """The rankings of --data, or None without it. Lines tell what is left out.

    `alone`: the command, an alone.Alone. Raises ValueError for fewer than two different prompts.
    """
    records, dropped = alone.records("ranking")
    if records is None:
        return None
    rankings = rankings_of(records, alone.tokenizer, alone.context(context), dropped)
    if dropped:
        print(formats.dropped_line(dropped))
    openings = [ranking["opening"] for ranking in rankings]
    check_prompts(alone.args.data, openings, dropped)
    trained_on, held_out = split("reward_model", rankings, openings, 10)
    trained_on = trained_on[: alone.args.records]
    print(f"{len(trained_on)} rankings to train on, {len(held_out)} held out", flush=True)
    return trained_on + held_out  # the same are held out again


def rankings_of(records: list[dict], tokenizer, context: int, dropped: dict) -> list[dict]:
    """Records of kind "ranking" with their rows and what their dialogue opens with.

    Those that are left out are counted in `dropped`.
    """
    kept, left_out = ranking_rows(tokenizer, records, context)
    dropped.update(left_out)
    rankings = []
    for record, rows in kept:
        opening = formats.opening(record["prompt"])
        rankings.append({"ranking": record["ranking"], "rows": rows, "opening": opening})
    return rankings


def check_rankings(stage: str, rankings: list[dict], ties: str) -> None:
    """Raises ValueError where nothing can be learned from the rankings under a rule for ties."""
    if not rankings:
        raise ValueError(f"{stage}: there is no ranking to train on")
    if ties == "drop" and not any(">" in ranking["ranking"] for ranking in rankings):
        raise ValueError(
            f"{stage}: all of the {len(rankings)} rankings to train on are ties, and the rule "
            "`drop` learns nothing from a tie; give rankings with > in them, or another rule, "
            "e.g. --ties davidson"
        )


def prompts_that_fit(model, rankings: list[dict], most: int) -> int:
    """How many prompts with all their outputs go into one forward, as in `room.fitting`."""
    rows = [row for ranking in rankings for row in ranking["rows"]]
    return fitting(model, rows, most, each=max(len(ranking["rows"]) for ranking in rankings))


# ---- how well scores agree with held-out rankings ----


def held_out_report(
    model, policy, tokenizer, settings, *, seed: int, rankings: list[dict] | None = None, score
) -> dict:
    """`report` on what `learned_from` leaves out."""
    held_out = rankings_of_part(policy, tokenizer, settings, seed, "test", rankings)
    return report(model, tokenizer, held_out, score, settings.ties)


def report(model, tokenizer, rankings: list[dict], score, ties: str = "drop") -> dict:
    """How well a reward model's scores agree with rankings.

    score(model, tokenizer, rows): scores (N,). What comes back:
    "accuracy"             the share of the strict pairs that are scored in the annotator's order
    "annotator_agreement"  the same of the annotator's ranking of another day
    "ceiling"              the same of the rubric, which knows the truth: hardly more can be reached
    "true_accuracy"        the share of the rubric's strict pairs that are scored in its order
    "accuracy_longer_won", "accuracy_same_length", "accuracy_shorter_won"
                           the accuracy where the winner is longer, by more than two tokens, ...
    "calibration"          of `measures.calibration`
    """
    scores = [score(model, tokenizer, ranking["rows"]).tolist() for ranking in rankings]
    tie_width = float(model.tie_width.detach())
    levels = [parse_ranking(ranking["ranking"], len(ranking["rows"])) for ranking in rankings]
    result = {"accuracy": pair_accuracy(scores, levels), "tie_width": tie_width}
    if "again" in rankings[0]:
        count = len(levels[0])
        again = [parse_ranking(ranking["again"], count) for ranking in rankings]
        again = [[-float(level) for level in one] for one in again]
        true = [ranking["true"] for ranking in rankings]
        true_levels = [[round(-score) + 5 for score in one] for one in true]
        result["annotator_agreement"] = pair_accuracy(again, levels)
        result["ceiling"] = pair_accuracy(true, levels)
        result["true_accuracy"] = pair_accuracy(scores, true_levels)
    gaps = []
    by_length = {"longer_won": [], "same_length": [], "shorter_won": []}
    for ranking, one, its_levels in zip(rankings, scores, levels):
        lengths = [sum(mask) for _, mask in ranking["rows"]]
        for gap, winner, loser in pairs_of(one, its_levels):
            gaps.append(gap)
            by_length[which_won(lengths[winner] - lengths[loser])].append(won(gap))
    for name, right in by_length.items():
        result[f"accuracy_{name}"] = sum(right) / len(right) if right else None
    result["calibration"] = calibration(gaps, tie_width if ties == "rao_kupper" else 0.0)
    return result


def which_won(more: int) -> str:
    """`more`: tokens of the winner minus tokens of the loser."""
    if more > 2:
        return "longer_won"
    return "shorter_won" if more < -2 else "same_length"


def result_lines(measured: dict, ties: str, out: Path) -> str:
    """What `python reward_model.py` tells at its end, a line a number that is there."""
    lines = []
    for name, value in measured.items():
        no_width = name == "tie_width" and ties in ("drop", "half")
        if value is None or value == [] or no_width:
            continue
        if name == "calibration":
            bins = []
            for row in value:
                rates = f"{row['predicted']:.2f} predicted {row['observed']:.2f} observed"
                bins.append(f"{rates} ({row['pairs']} pairs)")
            lines.append("calibration           " + ", ".join(bins))
        elif name == "accuracy" and math.isnan(value):
            lines.append("no strict pair is held out, so no accuracy")
        elif name == "accuracy" and measured.get("calibration"):
            pairs = sum(row["pairs"] for row in measured["calibration"])
            low, high = wilson(value * pairs, pairs)
            told = f"{value:.3f} (95%: {low:.3f} to {high:.3f}, {pairs} pairs)"
            lines.append(f"{name:22}{told}")
        else:
            told = f"{value:.3f}" if isinstance(value, float) else str(value)
            lines.append(f"{name:22}{told}")
    lines.append(f"checkpoint {out / 'reward_model.pt'}, log {out / 'reward_model.csv'}")
    return "\n".join(lines)
