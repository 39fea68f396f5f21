"""What can be learned of the tiny world at all? The teacher's shape with ample demonstrations and
time, by family.

    python -m tests.experiments.ceiling                     half an hour; on development prompts
    python -m tests.experiments.ceiling --part test         on test prompts, for a settled world
    python -m tests.experiments.ceiling --checkpoint FILE   the table of a model that is there

No post-training stage is involved: pretraining and the two SFT stages alone, with the
demonstrations shuffled. A family that this model does not learn is no measure of a post-training
stage. So the world is changed or made easier by this table, and by nothing else. Reads greedy
answers, in phrasings that were trained, and chat families by the rubric's criteria. What cannot be
worked out (facts, single steps) is counted apart.
"""

import argparse
import time
from pathlib import Path

import torch

import sft
from data import world
from data.files import tokenizer as tokenizers
from data.files import writing
from data.files.checkpoints import save_checkpoint
from data.runtime.command import guarded
from data.runtime.decoding import generate
from data.runtime.devices import pick_device, seed_of
from data.runtime.evaluation import evaluate, table_head, table_line
from data.runtime.lessons import FROM_SCRATCH
from data.runtime.measures import mean_of
from data.world import chat as world_chat
from data.world import judge as world_judge
from model import GPT, fresh_model, load_checkpoint, parameter_count
from tests.experiments.tables import head, row

# ample: more steps change little, and nothing is seen often enough to be learned by heart
AMPLE = sft.Schedule(
    pretrain=sft.Settings(4000, **FROM_SCRATCH),
    cold_start=sft.Settings(1500),
    overall=sft.Settings(14000),
    documents=40000,
    cold_start_demonstrations=12000,
    shares={
        "cold_start": 15,
        "reasoning": 31,
        "chat": 15,
        "agent": 12,
        "judge": 18,
        "new_prompt": 9,
    },
    demonstrations={
        "reasoning": 30000,
        "chat": 8000,
        "agent": 8000,
        "judge": 16000,
        "new_prompt": 2000,
    },
)


def ample_model(schedule: sft.Schedule, tokenizer, seed: int, device=torch.device("cpu")) -> GPT:
    """A model of the teacher's shape after pretraining and both SFT stages."""
    model = fresh_model("tiny", "teacher", tokenizer, seed).to(device)
    how = {"seed": seed, "device": device}
    sft.pretrain(model, tokenizer, schedule, **how)
    sft.cold_start_sft(model, tokenizer, schedule, **how)
    sft.overall_sft(model, tokenizer, schedule, curriculum=False, **how)
    return model


def family_tasks(family, part: str, count: int) -> list:
    """Up to `count` different prompts of a family, in phrasings that were trained."""
    rng = world.generator(world.WORLD_VERSION, "ceiling", family.name, part)
    tasks = {}
    for _ in range(4 * count):
        task = family.draw(rng, part, range(1, 6), world.TRAINED)
        tasks.setdefault(task.prompt, task)
    return list(tasks.values())[:count]


def by_family(model: GPT, tokenizer, part: str, count: int) -> dict[str, dict[str, float]]:
    """Greedy scores: {"sum": {"domain": "math", "n": 200, "score": 0.93}, ...}.

    Chat has its criteria too.
    """
    table = {}
    for family in world.FAMILIES:
        tasks = family_tasks(family, part, count)
        prompts = [tokenizer.prompt(task.messages) for task in tasks]
        how = {"temperature": 0.0, "run_tool": world.run_tool, "seed": seed_of("ceiling")}
        samples = generate(model, tokenizer, prompts, **how)
        replies = [tokenizer.read_reply(ids) for ids in samples.lists()]
        scores = world.score_replies(tasks, replies)
        found = [row for row in zip(tasks, replies, scores) if row[2] is not None]
        known = [score for task, _, score in found if world.is_fact(task)]
        row = {
            "domain": family.domain,
            "n": len(found),
            "score": mean_of([score for *_, score in found]),
            "facts": len(known),
            "facts_score": mean_of(known) if known else None,
        }
        if family.domain == "chat":
            met = [world_judge.criteria_met(task, reply.content) for task, reply, _ in found]
            for name in world_chat.CRITERIA:
                row[name] = mean_of([float(one[name]) for one in met])
        wrong = [
            f"{task.prompt} -> {reply.think} | {reply.content}"
            for task, reply, score in found
            if score < 1
        ]
        row["wrong"] = wrong[:5]
        table[family.name] = row
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--checkpoint", default=None, help="no training, the table of this model")
    parser.add_argument("--part", default="dev", choices=("dev", "test"), help="held-out prompts")
    parser.add_argument("--n", type=int, default=200, help="prompts a family")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda")
    parser.add_argument("--smoke", action="store_true", help="a few steps")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--out", default="runs/ceiling", help="folder of the checkpoint and table")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    out = Path(args.out)
    tokenizer = tokenizers.tiny()
    began = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    if args.checkpoint:
        model, _ = load_checkpoint(args.checkpoint, tokenizer, device)
    else:
        model = ample_model(sft.smoke(AMPLE) if args.smoke else AMPLE, tokenizer, args.seed, device)
        save_checkpoint(out / "ceiling.pt", model, tokenizer, "overall_sft")
    seconds = time.perf_counter() - began
    table = by_family(model, tokenizer, args.part, 4 if args.smoke else args.n)
    kept = {
        "world_version": world.WORLD_VERSION,
        "parameters": parameter_count(model),
        "seconds": seconds,
        "families": table,
    }
    writing.write_json(out / f"ceiling_{args.part}.json", kept)
    report(model, tokenizer, table, args)


def report(model: GPT, tokenizer, table: dict, args) -> None:
    """The table by family, then the line of domains that the pipeline prints too."""
    print(f"{parameter_count(model):,} parameters, {args.part} prompts, greedy\n")
    criteria = ("correct", "relevant", "complete", "polite", "concise")
    columns = ("family", "domain", "prompts", "score", "of these facts", "score", *criteria)
    print(head(*columns))
    for name, one in table.items():
        met = [f"{100 * one[key]:.0f}" if key in one else "" for key in criteria]
        facts = f"{one['facts']} | {100 * one['facts_score']:.0f}" if one["facts"] else "0 |"
        print(row(name, one["domain"], str(one["n"]), f"{100 * one['score']:.0f}", facts, *met))
    low = [name for name, one in table.items() if one.get("correct", one["score"]) < 0.9]
    print(f"\nbelow 90%: {', '.join(low) or 'none'}\n")
    print(table_head())
    scores = evaluate(model, tokenizer, 4 if args.smoke else 400, seed=args.seed, part=args.part)
    print(table_line("ceiling", scores))


if __name__ == "__main__":
    guarded(main)
