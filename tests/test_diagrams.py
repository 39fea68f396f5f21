"""Every label of the four diagrams has code that carries it out, and this says which."""

import pkgutil

import pytest

import pipeline

# A label as it stands in a diagram -> where it is in the code. A new stage adds its labels.
RLHF = {
    "Pretrained LLM": ["pipeline.pretrain", "sft.pretrain"],
    "Human-written Outputs": ["data.world.demonstration"],
    "Supervised Finetuning": ["sft.train"],
    "SFT LLM": ["pipeline.overall_sft"],
    "sample": ["data.runtime.annotator.sample_outputs"],
    "rank outputs, D > C > A = B": ["data.runtime.annotator.rank_outputs"],
    "Human-ranked Outputs": [
        "data.runtime.annotator.annotated_rankings",
        "data.files.comparisons.parse_ranking",
    ],
    "Reward Model": [
        "reward_model.RewardModel",
        "reward_model.ranking_loss",
        "reward_model.train",
        "pipeline.reward_model",
    ],
    "Predicted Reward": ["reward_model.predicted_reward"],
    "Update": ["ppo.train", "ppo.policy_loss"],
}
SELF_REWARDING = {
    "Self-Instruction creation": ["self_reward.create_self_instruction_data"],
    "Seed model (for t=1)": ["self_reward.check_seed_model"],
    "Generated new prompts {x_i}": ["self_reward.generate_prompts"],
    "Generate responses {y_i^1 .. y_i^N}": ["self_reward.generate_responses"],
    "Generate rewards {r_i^1 .. r_i^N}": ["self_reward.generate_rewards"],
    "Select": ["self_reward.select"],
    "Preference pairs {x_i, y_i^w, y_i^l}": ["dpo.Pair"],
    "Instruction following training": ["self_reward.train_instruction_following"],
    "DPO training": ["dpo.train", "dpo.dpo_loss"],
    "Next iteration model M_{t+1}": [
        "self_reward.next_iteration_model",
        "pipeline.self_reward_1",
        "pipeline.self_reward_2",
    ],
}
DUAL_LEVEL_DISTILLATION = {
    "Query": ["distill.queries"],
    "Teacher, positive": ["distill.sample_positive"],
    "SFT student (frozen), negative": ["distill.sample_negative"],
    "Pair-wise preference filter, positive >> negative": ["distill.preference_filter"],
    "Training data": ["distill.preference_data"],
    "Teacher logits, student logits": ["distill.both_logits"],
    "Positive score": ["distill.Joint.positive_score"],
    "Negative score": ["distill.Joint.negative_score"],
    "L_DPO": ["dpo.dpo_loss"],
    "L_pos, positive token-level distillation": [
        "distill.token_divergence",
        "distill.Joint.positive_kl",
    ],
    "L_neg, negative token-level distillation": [
        "distill.token_divergence",
        "distill.Joint.negative_kl",
    ],
    "Joint loss L_DPO + L_pos + L_neg": ["distill.joint_loss"],
    "Update": ["distill.train"],
}
FOUR_STAGES = {
    "Cold-start SFT": ["pipeline.cold_start_sft", "sft.cold_start_sft"],
    "Math, code, STEM": ["data.world.cold_start_demonstrations"],
    "Overall SFT": ["pipeline.overall_sft", "sft.overall_sft"],
    "General conversation, agent, reasoning curriculum": ["data.world.overall_demonstrations"],
    "Distillation (DPD, large to small)": [
        "pipeline.given_teacher",
        "pipeline.distill",
        "distill.distill",
    ],
    "Multi-stage RL": ["ppo.rl_stage"],
    "Robust reward system": ["reward_model.robust_reward"],
    "STEM": ["pipeline.rl_stem", "ppo.rl_stem"],
    "Code": ["pipeline.rl_code", "ppo.rl_code"],
    "Human-preference alignment": ["pipeline.rl_preference", "ppo.rl_preference"],
}
DIAGRAMS = {
    "RLHF": RLHF,
    "self-rewarding": SELF_REWARDING,
    "dual-level distillation": DUAL_LEVEL_DISTILLATION,
    "four stages": FOUR_STAGES,
}


@pytest.mark.parametrize(
    "diagram, label", [(diagram, label) for diagram, labels in DIAGRAMS.items() for label in labels]
)
def test_every_label_exists_in_the_code(diagram, label):
    for identifier in DIAGRAMS[diagram][label]:
        owner, name = identifier.rsplit(".", 1)
        found = pkgutil.resolve_name(identifier)  # raises where there is none
        # a tuple's field is a value, not something to call
        fields = getattr(pkgutil.resolve_name(owner), "_fields", ())
        assert name in fields or callable(found), f"{label}: {identifier} is {found!r}"


def test_every_stage_of_the_pipeline_stands_in_a_diagram():
    drawn = {
        identifier
        for labels in DIAGRAMS.values()
        for identifiers in labels.values()
        for identifier in identifiers
    }
    assert {f"pipeline.{function.__name__}" for function, _ in pipeline.STAGES} <= drawn
