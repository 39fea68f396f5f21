"""samples.md of a run: the same prompts, answered after every stage."""

from data import world
from data.files import formats, real, writing
from data.runtime.decoding import generate
from data.runtime.run import Run


def answer_samples(run: Run, stage: str, who: str) -> None:
    """Greedy answers to two held-out prompts a domain, kept as JSONL and laid out in samples.md.

    The answers of a stage that is redone replace its old ones.
    """
    tasks = tasks_of(run)
    samples = generate(
        run.models[who],
        run.tokenizer,
        [run.tokenizer.prompt(task.messages) for task in tasks],
        temperature=0.0,
        max_new=256 if run.data else 64,
        run_tool=world.run_tool,
    )
    path = run.out / "samples.jsonl"
    lines = formats.read_jsonl(path) if path.exists() else []
    lines = [line for line in lines if (line["stage"], line["model"]) != (stage, who)]
    for task, ids in zip(tasks, samples.lists()):
        line = {"stage": stage, "model": who, "domain": task.domain, "prompt": task.prompt}
        lines.append(line | {"reply": run.tokenizer.shown(ids)})
    writing.write_jsonl(path, lines)
    writing.write_text(run.out / "samples.md", laid_out(lines))


def tasks_of(run: Run) -> list:
    if run.data:
        test = run.data.tasks["test"]
        return [task for domain in real.DOMAINS for task in test[domain][:2]]
    asked = [world.evaluation_tasks(domain, 2) for domain in world.DOMAINS[:5]]  # all but judge
    return [task for tasks in asked for task in tasks]


def laid_out(lines: list[dict]) -> str:
    """A heading a prompt, and under it a line a stage."""
    text = ["# The same prompts, answered by every stage", "", "Greedy, unedited, with all marks."]
    text.append("")
    for prompt in dict.fromkeys(line["prompt"] for line in lines):
        text += [f"## {prompt}", ""]
        for line in lines:
            if line["prompt"] == prompt:
                text.append(f"- {line['stage']} ({line['model']}): `{line['reply']}`")
        text.append("")
    return "\n".join(text)
