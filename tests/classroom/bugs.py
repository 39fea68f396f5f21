"""Twelve silent bugs: each is one line of a chapter, or of what it stands on; nothing crashes."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.classroom.blank import CHAPTERS, FILES, FOLDERS, LEFT_OUT, ROOT


@dataclass(frozen=True)
class Bug:
    name: str
    file: str
    right: str  # the line as it stands, which must be in the file once
    wrong: str
    symptom: str
    curve: str  # what to look at
    test: str  # the test of the project that catches it
    seen: str  # where public code had it


BUGS = (
    Bug(
        "the prompt is trained on too",
        "sft.py",
        "    ids, mask = pad_batch(rows, tokenizer.pad_id, device)  # (N, S) each",
        "    ids, mask = pad_batch("
        "[(i, [True] * len(i)) for i, _ in rows], tokenizer.pad_id, device)",
        "the model learns to write questions too, and its loss is of another task",
        "loss and held_out_loss start and stay a few times as high: they sum over all tokens and "
        "divide by the answers' own",
        "tests/test_sft.py::test_a_fully_masked_batch_costs_nothing_and_leaves_finite_gradients",
        "lucidrains/self-rewarding-lm-pytorch, get_cross_entropy_loss",
    ),
    Bug(
        "the end mark is left out of the loss",
        "data/files/tokenizer.py",
        "            add([self.end_id], learned)",
        "            add([self.end_id])",
        "the model never stops: every answer runs into the length limit",
        "length and truncated rise as it learns; in a healthy run truncated falls to 0",
        "tests/test_tokenizer.py::test_supervised_tokens_are_the_answer_and_its_end_mark",
        "TRL #1623, #3091, #6357",
    ),
    Bug(
        "a mean over the response where DPO has a sum",
        "dpo.py",
        "        return token_logprobs(model, ids, mask).sum(1)",
        "        return token_logprobs(model, ids, mask).sum(1) / mask.sum(1).clamp(min=1)",
        "a response weighs as one token of it, so the loss hardly moves",
        "loss stays at 0.693, margin near 0, and chosen_logprob is a fraction of what it should be",
        "tests/test_dpo.py::test_a_response_costs_the_sum_over_its_tokens_and_not_their_mean",
        "lucidrains/self-rewarding-lm-pytorch, dpo.py; rasbt/LLMs-from-scratch; asked in TRL #789",
    ),
    Bug(
        "the reward is read at the padding",
        "reward_model.py",
        "    ends = [len(mask) - 1 - mask[::-1].index(True) for _, mask in rows]",
        "    ends = [max(len(mask) for _, mask in rows) - 1 for _ in rows]",
        "a score depends on the longest row beside it",
        "mean_score and held_out_accuracy move with the number of rows that are scored at once",
        "tests/test_reward_model.py::test_what_follows_the_end_mark_changes_no_score",
        "EleutherAI/gpt-neox #1285; hiyouga/LlamaFactory #689 (a score moves with the padding)",
    ),
    Bug(
        "a tie counts as a win",
        "reward_model.py",
        "    tie = there & (levels[:, i] == levels[:, j])  # (B, pairs)",
        "    tie = torch.zeros_like(there)  # (B, pairs)",
        "of two equal outputs one is taught to be worse, by the order in which they are listed",
        "loss starts well above 0.693 and stays higher; accuracy leaves out ties and tells little",
        "tests/test_reward_model.py::"
        "test_the_three_outcomes_have_the_tables_probabilities_and_sum_to_one",
        "argilla-io/distilabel #264 (ties kept as pairs by default, questioned in its review)",
    ),
    Bug(
        "the reference learns along",
        "ppo.py",
        "    reference = reference or rollouts.frozen(policy)",
        "    reference = reference or policy",
        "nothing holds the policy, and the KL says that all is well",
        "kl is exactly 0 throughout, while everything else learns",
        "tests/test_ppo.py::test_the_reference_is_the_policy_as_it_enters_and_stays_so",
        "PKU-Alignment/align-anything #53; reported of a wrapper in TRL #1652",
    ),
    Bug(
        "the KL has the wrong sign",
        "ppo.py",
        "    reward = torch.where(mask, -kl_coef * (logprobs - reference_logprobs), 0.0)",
        "    reward = torch.where(mask, kl_coef * (logprobs - reference_logprobs), 0.0)",
        "leaving the reference is rewarded",
        "kl grows faster and faster (with estimator gae), and true_reward falls after it",
        "tests/test_ppo.py::test_k1_as_a_reward_punishes_a_policy_that_drifted",
        "natolambert/rlhf-book, code/policy_gradients/loss.py, approx_kl1",
    ),
    Bug(
        "advantages are not centred",
        "ppo.py",
        "    centred = torch.where(kept, scores - mean, 0.0)  # (B, G)",
        "    centred = torch.where(kept, scores, 0.0)  # (B, G)",
        "whatever was right once is pushed up, and what was wrong is not pushed down",
        "loss is far from 0, minus the mean reward, where a centred one is near 0 on a first pass",
        "tests/test_ppo.py::test_advantages_of_right_and_wrong_in_a_group_of_eight",
        "ServiceNow/PipelineRL #54; PrimeIntellect-ai/prime-rl #2040 (mean of other rewards)",
    ),
    Bug(
        "old log-probabilities at another temperature",
        "ppo.py",
        "    read = partial(token_logprobs, temperature=settings.temperature)",
        "    read = partial(token_logprobs, temperature=0.7 * settings.temperature)",
        "the ratio is not 1 where nothing has been learned yet",
        "first_log_ratio is a few nats in place of 1e-6, clip_fraction higher from the start",
        "tests/test_ppo.py::test_the_first_pass_sees_a_ratio_of_one",
        "TRL #3029 and #4159; OpenRLHF #853",
    ),
    Bug(
        "advantages run through what a tool wrote",
        "ppo.py",
        "        ahead = torch.where(mask[:, t], delta + gamma * gae_lambda * ahead, ahead)",
        "        ahead = delta + gamma * gae_lambda * ahead",
        "the padding and the tool's tokens take part in the advantage of the model's own",
        "value_loss is many times as high (with estimator gae), explained_variance does not rise",
        "tests/test_ppo.py::test_tool_tokens_pads_and_prompts_are_stepped_over",
        "verl #2337 and radixark/miles #1827 (tool tokens); alibaba/ROLL #447 (padding)",
    ),
    Bug(
        "the KL of distillation runs the other way",
        "distill.py",
        "        divergence = kl(teacher, student)",
        "        divergence = kl(student, teacher)",
        "the student avoids what its teacher would not say, and hardly learns what it does say",
        "kl_positive starts several times as high and stays so; positive_logprob hardly rises",
        "tests/test_distill.py::test_divergence_and_gradient_vectors",
        "paiml/aprender #2153",
    ),
    Bug(
        "a verdict that cannot be read counts as 0",
        "self_reward.py",
        "    scores = [score for score in scores if score is not None]",
        "    scores = [score or 0.0 for score in scores]",
        "what the judge stumbles over is taught to be bad",
        "mean_score falls as fewer verdicts are read, and agreement with the truth a little",
        "tests/test_self_reward.py::test_what_cannot_be_read_is_left_out_of_the_mean",
        "openai/evals #1712; UKGovernmentBEIS/inspect_ai #4048",
    ),
)


def numbered(number: int) -> Bug:
    if not 1 <= number <= len(BUGS):
        raise ValueError(f"bug {number}: there are 1 to {len(BUGS)}")
    return BUGS[number - 1]


def planted(bug: Bug) -> str:
    """The source of the bug's file with it. Raises ValueError where its line is not there once."""
    source = (ROOT / bug.file).read_text(encoding="utf-8")
    if source.count(f"{bug.right}\n") != 1:
        raise ValueError(f"{bug.file} does not hold this line once: {bug.right.strip()}")
    return source.replace(f"{bug.right}\n", f"{bug.wrong}\n")


def write_copy(bug: Bug, out: Path) -> None:
    """A copy of the project with the bug in the folder `out`, which must be new or empty."""
    source = planted(bug)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: exists and is not an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    for name in (*FILES, *(f"{chapter}.py" for chapter in CHAPTERS)):
        shutil.copyfile(ROOT / name, out / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, out / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (out / bug.file).write_text(source, encoding="utf-8")
