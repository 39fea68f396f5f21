"""Can the student copy a word from its prompt, and how soon? With smear and without, from the same
seed.

    python -m tests.experiments.copying --out runs/copying

A dialogue says "My name is Vera and I like chess." and asks for one of the two. The answer is a
word of the prompt, which no table of facts holds. "Rewrite this politely: buy me the bill" wants
the prompt's words in another sentence. The student's shape is pretrained as in the pipeline and
then learns all of overall SFT, of which these two families are one row in 27. Every `--every` steps
it answers held-out prompts of the two greedily. Counted is the share of answers that hold the words
that only this prompt has. Without smear two heads have to find one another first (Olsson et al.,
2209.11895), while everything else in the batch pulls at them.

With `--alone` nothing but the two families is learned, from random weights. Then both models can
copy after a few hundred steps. So smear saves no ability: it saves the wait among other things to
learn.
"""

import argparse
import random
from dataclasses import replace
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch

import sft
from data import world
from data.files import tokenizer as tokenizers
from data.files import writing
from data.runtime.command import guarded
from data.runtime.decoding import generate
from data.runtime.devices import seed_of
from data.runtime.rows import batches_of, dialogue_rows, repeated, supervised_count
from model import GPT, SIZES, Optimizers
from tests.experiments.ceiling import family_tasks

matplotlib.use("Agg")  # no window, wherever it runs

FAMILIES = ("memory", "rewrite")
CPU = torch.device("cpu")


def wanted(task: world.Task) -> str:
    """The words that a right answer takes from this prompt."""
    content = task.fields
    if task.family == "rewrite":
        return f"{content['verb']} {content['thing']}"
    return content["name"] if content["kind"] == "name" else content["like"]


@torch.no_grad()
def copied_share(model: GPT, tokenizer, tasks: list) -> float:
    prompts = [tokenizer.prompt(task.messages) for task in tasks]
    replies = [
        tokenizer.read_reply(ids).content.lower()
        for ids in generate(model, tokenizer, prompts, temperature=0.0, max_new=48).lists()
    ]
    return sum(wanted(task).lower() in reply for task, reply in zip(tasks, replies)) / len(tasks)


def alone_rows(tokenizer, context: int, rng: random.Random) -> list:
    """Demonstrations of the two families, one phrasing each."""
    tasks = [
        family.task(content, rng.choice(list(world.TRAINED)), rng)
        for family in map(world.BY_NAME.get, FAMILIES)
        for content in family.contents("train")
    ]
    records = [
        {"messages": [*task.messages, *world.reference(task)]}
        for task in tasks
        if world.part_of(task) == "train"
    ]
    return dialogue_rows(tokenizer, records, context)[0]


def mixture_rows(tokenizer, context: int, seed: int, steps: int) -> list:
    """The rows of the student's overall SFT, shuffled."""
    schedule = sft.SCHEDULES["tiny"]["student"]
    schedule = replace(schedule, overall=replace(schedule.overall, steps=steps, rows=12))
    return sft.overall_rows(tokenizer, schedule, seed, context, curriculum=False)[0]


def curve(smear: int, tokenizer, seed: int, steps: int, every: int, alone: bool) -> list[dict]:
    """[{"step", "copied"}, ...] of one model; steps count from where pretraining ended."""
    rng = random.Random(seed_of(seed, "copying"))
    config = replace(SIZES["tiny"]["student"], vocab_size=tokenizer.vocab_size, smear=smear)
    if alone:
        rows = alone_rows(tokenizer, config.context, rng)
    else:
        rows = mixture_rows(tokenizer, config.context, seed, steps)
    held_out = [task for name in FAMILIES for task in family_tasks(world.BY_NAME[name], "dev", 60)]
    model = GPT(config).init_weights(seed_of(seed, "student"))
    if not alone:
        sft.pretrain(model, tokenizer, sft.SCHEDULES["tiny"]["student"], seed=seed)
    optimizers = Optimizers(model, adam_lr=0.005, muon_lr=0.01)
    lines = []
    for step, batch in enumerate(batches_of(repeated(rows, steps * 12, rng), 12, rng)):
        if step % every == 0:
            lines.append({"step": step, "copied": copied_share(model, tokenizer, held_out)})
            model.train()
        loss = sft.batch_loss(model, tokenizer, batch, supervised_count(batch), CPU)
        loss.backward()
        optimizers.step(min(1.0, (step + 1) / 10))
    lines.append({"step": steps, "copied": copied_share(model, tokenizer, held_out)})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2400, help="updates of each model")
    parser.add_argument("--every", type=int, default=200, help="steps between looks")
    parser.add_argument("--alone", action="store_true", help="the two families and nothing else")
    parser.add_argument("--seeds", type=int, default=3, help="models a setting")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--out", default="runs/copying", help="folder for the numbers and the plot")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = tokenizers.tiny()
    out = Path(args.out)
    table = {}
    out.mkdir(parents=True, exist_ok=True)
    for seed in range(args.first, args.first + args.seeds):
        for smear in (0, 3, 1):
            lines = curve(smear, tokenizer, seed, args.steps, args.every, args.alone)
            table.setdefault(str(smear), {})[str(seed)] = lines
            first = next((line["step"] for line in lines if line["copied"] >= 0.9), None)
            print(
                f"seed {seed} smear {smear}: copied {lines[-1]['copied']:.2f} at the end, "
                f"0.9 first at step {first}",
                flush=True,
            )
            writing.write_json(out / "copying.json", table)
    plot(table, out / "copying.png")


def plot(table: dict, path: Path) -> None:
    """One line a seed; a colour a setting."""
    figure, axis = plt.subplots(figsize=(7, 4))
    names = {"0": "no smear", "1": "smear, 1 token", "3": "smear, 3 tokens"}
    colours = {"0": "tab:grey", "1": "tab:orange", "3": "tab:blue"}
    for smear, seeds in table.items():
        for place, lines in enumerate(seeds.values()):
            axis.plot(
                [line["step"] for line in lines],
                [line["copied"] for line in lines],
                color=colours[smear],
                label=names[smear] if place == 0 else None,
            )
    axis.set(
        xlabel="steps of 12 dialogues",
        ylabel="share copied right, held-out prompts",
        title="How soon can two layers copy a word from the prompt?",
        ylim=(0, 1.02),
    )
    axis.legend()
    figure.savefig(path, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    guarded(main)
