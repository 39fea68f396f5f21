"""The table of exercises, from easy to hard. The usual mistakes of each are in mistakes.py, which
no process that runs a student's code may read."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.classroom import draw_rl, draw_supervised, loops

LEVELS = {
    "easy": "Easy: a few lines",
    "medium": "Medium: one idea each",
    "hard": "Hard: several rules at once",
    "loop": "Loops: a whole training",
}


@dataclass(frozen=True)
class Exercise:
    name: str  # "chapter.function"
    level: str
    points: int
    minutes: int
    equation: str
    draw: Callable  # (random.Random) -> the fresh cases
    tests: tuple[str, ...]  # the visible ones, in tests/test_CHAPTER.py
    builds_on: tuple[str, ...] = ()
    compared: str = ""  # where that is not simply what is returned
    measured: str = "not measured"  # what happened where it was wrong

    @property
    def module(self) -> str:
        return self.name.split(".")[0]

    @property
    def function(self) -> str:
        return self.name.split(".")[1]


def easy(name, equation, draw, *tests, minutes=10, **more) -> Exercise:
    return Exercise(name, "easy", 5, minutes, equation, draw, tests, **more)


def medium(name, equation, draw, *tests, minutes=20, **more) -> Exercise:
    return Exercise(name, "medium", 10, minutes, equation, draw, tests, **more)


def hard(name, equation, draw, *tests, minutes=35, **more) -> Exercise:
    return Exercise(name, "hard", 15, minutes, equation, draw, tests, **more)


def loop(name, equation, draw, *tests, minutes=60, **more) -> Exercise:
    return Exercise(name, "loop", 25, minutes, equation, draw, tests, **more)


A_MODEL = ("model.rotate", "model.smeared")  # what every forward of a whole model needs

EXERCISES = (
    easy(
        "sft.supervised_positions",
        "logits at t predict token t + 1:  select[t] = mask[t + 1]",
        draw_supervised.supervised_positions,
        "test_a_position_predicts_the_next_token",
        "test_the_first_token_is_never_a_target_even_when_it_is_supervised",
    ),
    easy(
        "sft.masked_cross_entropy",
        "L = - sum_t log p(y_t) / count,  count of the whole optimizer batch",
        draw_supervised.masked_cross_entropy,
        "test_the_denominator_is_the_tokens_of_the_whole_batch",
    ),
    easy(
        "model.learning_rate_scale",
        "(t + 1) / (warmup + 1), then 1, then (T - t) / (T - t_fall)",
        draw_supervised.learning_rate_scale,
        "test_the_learning_rate_rises_stays_and_falls",
        "test_the_first_learning_rate_is_above_the_last",
        compared="the scale of every step",
    ),
    easy(
        "reward_model.repetition_penalty",
        "-(1 - distinct n-grams / n-grams)",
        draw_supervised.repetition_penalty,
        "test_repetition_vectors",
    ),
    easy(
        "reward_model.overlong_penalty",
        "0 up to L - m tokens,  (L - m - n) / m up to L,  then -1",
        draw_supervised.overlong_penalty,
        "test_overlong_vectors",
    ),
    easy(
        "ppo.kl_estimates",
        "k1 = log pi - log ref,  k2 = k1^2 / 2,  k3 = exp(-k1) - 1 + k1",
        draw_rl.kl_estimates,
        "test_kl_estimators_of_one_token",
        "test_kl_estimators_have_the_categorical_expectations",
    ),
    easy(
        "ppo.next_kl_coef",
        "beta (1 + clip(KL / target - 1, -0.2, 0.2) n / horizon)",
        draw_rl.next_kl_coef,
        "test_adaptive_controller_table",
    ),
    easy(
        "distill.preference_filter",
        "positive right and negative wrong; in chat: positive - negative >= margin",
        draw_rl.preference_filter,
        "test_a_positive_stands_only_against_what_is_clearly_worse",
    ),
    easy(
        "self_reward.mean_score",
        "r = mean of the verdicts that can be read; none: no reward, and not 0",
        draw_rl.mean_score,
        "test_what_cannot_be_read_is_left_out_of_the_mean",
    ),
    medium(
        "model.rotate",
        "(x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin),  x1 and x2 the halves of a head",
        draw_supervised.rotate,
        "test_rotary_turns_each_pair_by_its_angle",
        "test_rotary_scores_depend_on_the_distance_only",
    ),
    medium(
        "model.smeared",
        "y_t = x_t + sum_{j = 1 .. J} w_j * x_{t-j}",
        draw_supervised.smeared,
        "test_smear_adds_the_three_tokens_before_each_times_its_weight",
        "test_a_padded_position_is_smeared_as_zero_and_a_cache_remembers_the_last_three",
        measured="without smear a student copies 0.10 of the words it should after 2,000 steps, "
        "with it 0.25 (two seeds)",
    ),
    medium(
        "model.token_logprobs",
        "log p(x_t | x_<t) = z[x_t] / T - logsumexp(z / T),  z the logits at t - 1",
        draw_supervised.token_logprobs,
        "test_token_logprobs_vector",
        "test_token_logprobs_are_zero_outside_the_mask",
        "test_temperature_vector",
    ),
    medium(
        "sft.held_out_loss",
        "mean of -log p over all supervised tokens, whatever the batches",
        draw_supervised.held_out_loss,
        "test_held_out_loss_is_the_mean_over_tokens_whatever_the_batches",
        builds_on=("sft.masked_cross_entropy", "sft.supervised_positions", *A_MODEL),
    ),
    medium(
        "dpo.sequence_logprobs",
        "log pi(y | x) = sum_t log pi(y_t | x, y_<t),  end mark included",
        draw_supervised.sequence_logprobs,
        "test_a_response_costs_the_sum_over_its_tokens_and_not_their_mean",
        "test_the_end_mark_is_counted",
        "test_pads_change_no_log_probability",
        builds_on=("model.token_logprobs", "dpo.dpo_loss", *A_MODEL),
    ),
    medium(
        "dpo.dpo_loss",
        "-log sigmoid(beta h),  h = [log pi(y_w) - log ref(y_w)] - [log pi(y_l) - log ref(y_l)]",
        draw_supervised.dpo_loss,
        "test_loss_and_gradient_vectors",
        "test_the_rewards_are_beta_times_the_log_ratios_and_carry_no_gradient",
        "test_swapping_chosen_and_rejected_flips_h",
        "test_huge_differences_stay_finite",
    ),
    medium(
        "reward_model.score_rows",
        "r(x, y) is read at the last own token of the row, which is its end mark",
        draw_supervised.score_rows,
        "test_the_score_is_read_at_the_end_mark",
        "test_what_follows_the_end_mark_changes_no_score",
        "test_a_row_without_a_response_cannot_be_scored",
        builds_on=(*A_MODEL,),
    ),
    medium(
        "ppo.group_advantages",
        "A_i = r_i - mean(r);  / std(r);  or r_i - mean of the others",
        draw_rl.group_advantages,
        "test_advantages_of_right_and_wrong_in_a_group_of_eight",
        "test_advantages_of_graded_scores",
        "test_every_groups_advantages_sum_to_zero_whoever_is_masked_out",
        measured="a critic in the group's place: chat +0.2 +-1.9 points greedy and -0.9 +-0.7 "
        "sampled, and a stage takes half as long again (first version, five seeds)",
    ),
    medium(
        "ppo.token_rewards",
        "r_t = -kl_coef (log pi_old - log pi_ref)_t + [t is last] score",
        draw_rl.token_rewards,
        "test_token_rewards_are_minus_kl_with_the_score_at_the_last_token",
        "test_each_rows_score_lands_on_its_own_last_token_and_a_masked_row_gets_none",
        measured="without the KL term the true reward goes from 3.04 to 3.61 of 5 in 30 "
        "iterations and back to 3.42 in 60, while the reward model's score rises to 1.59; with "
        "kl_coef 0.1 it ends at 3.71 and 1.39 (seeds 1 to 3)",
    ),
    medium(
        "ppo.value_loss",
        "mean of max((V - R)^2, (clip(V, V_old - e, V_old + e) - R)^2) / 2",
        draw_rl.value_loss,
        "test_clipped_value_loss_and_gradient",
        "test_value_loss_is_the_mean_over_own_tokens_whatever_is_masked",
    ),
    medium(
        "distill.token_divergence",
        "KL(T || S) = sum_v T (log T - log S);  KL(S || T);  JSD;  times temperature^2",
        draw_rl.token_divergence,
        "test_divergence_and_gradient_vectors",
        "test_the_jsd_of_disjoint_distributions_is_ln_2_with_finite_gradients",
        "test_logits_need_no_normalisation",
        measured="KL(S || T) for KL(T || S): math +1.8 +-1.6 greedy and +7.2 +-6.3 sampled, agent "
        "-5.2 +-2.6 greedy (first version, seeds 1 to 3)",
    ),
    medium(
        "self_reward.select",
        "(argmax r, argmin r), or None;  rho: shortest of the top window, longest of the bottom",
        draw_rl.select,
        "test_the_highest_stands_against_the_lowest_the_first_of_equals_"
        "and_only_among_known_rewards",
        "test_a_window_of_rho_takes_the_shortest_of_the_good_and_the_longest_of_the_bad",
        "test_one_known_reward_or_equal_ones_make_no_pair_with_any_window",
        measured="pairs of a random judge: true reward +0.01 +-0.07 of 5 in two rounds, of its own "
        "judge +0.38 +-0.16 (from overall_sft, five seeds)",
    ),
    hard(
        "model.generate",
        "the first token whose summed probability exceeds a uniform number u * total",
        draw_supervised.generate,
        "test_the_plain_generate_and_the_fast_one_write_the_same",
        builds_on=(*A_MODEL,),
    ),
    hard(
        "reward_model.ranking_loss",
        "- mean over a prompt's pairs of log sigmoid(r_w - r_l), then over prompts; four tie rules",
        draw_supervised.ranking_loss,
        "test_three_ranked_outputs_loss_and_gradient_vector",
        "test_the_three_outcomes_have_the_tables_probabilities_and_sum_to_one",
        "test_a_ranking_with_a_tie_loss_and_gradient_of_every_rule",
        "test_missing_outputs_take_no_part",
        measured="the four rules for ties rank alike, 70 to 71%; calibration errors are "
        "7.3 (drop), 2.7 (half), 9.7 (rao_kupper), 10.0 points (davidson; three seeds)",
    ),
    hard(
        "reward_model.robust_reward",
        "R = v + 0.2 s, s in [-1, 1];  chat: tanh(r / 2) + 0.2 s;  no end: -1;  unchecked: None",
        draw_supervised.robust_reward,
        "test_a_truncated_response_is_masked_whatever_else_holds",
        "test_a_missing_end_replaces_the_score_by_minus_one",
        "test_a_clean_verified_response_gets_exactly_the_verdict",
        "test_wrong_never_beats_right_whatever_the_shaping",
        builds_on=("reward_model.repetition_penalty", "reward_model.overlong_penalty"),
    ),
    hard(
        "ppo.gae",
        "A_t = delta_t + gamma lambda A_{t+1},  delta_t = r_t + gamma V_{t+1} - V_t,  R = A + V",
        draw_rl.gae,
        "test_gae_vector",
        "test_gae_with_lambda_one_is_the_return_minus_the_value",
        "test_gae_with_a_discount",
        "test_tool_tokens_pads_and_prompts_are_stepped_over",
        builds_on=("ppo.token_rewards",),
    ),
    hard(
        "ppo.policy_loss",
        "mean of max(-A rho, -A clip(rho, 1 - e_low, 1 + e_high)),  rho = pi / pi_old",
        draw_rl.policy_loss,
        "test_clipped_loss_and_gradient_table",
        "test_length_normalisation_table",
        "test_a_wider_upper_clip_lets_a_rare_token_grow_further",
    ),
    hard(
        "distill.joint_loss",
        "a_dpo L_DPO + a_pos mean_t KL on positives + a_neg mean_t KL on negatives",
        draw_rl.joint_loss,
        "test_joint_loss_vector",
        "test_the_terms_are_weighted_apart_and_their_gradients_add_up",
        "test_micro_batches_with_the_whole_batchs_counts_add_up",
        builds_on=("distill.token_divergence", "dpo.dpo_loss", "sft.supervised_positions"),
        measured="all weights 1: -3.9 +-1.3 points greedy, -5.4 +-1.3 sampled; L_DPO alone: -17.1 "
        "+-1.8 greedy (seeds 1 to 4)",
    ),
    loop(
        "dpo.train",
        "the model as it enters is the reference; batch -> dpo_loss -> backward -> step",
        loops.dpo_train,
        "test_training_starts_at_ln_2_and_margin_0_and_the_margin_grows",
        "test_the_margin_is_exactly_0_before_the_first_step",
        "test_training_leaves_the_reference_alone",
        "test_accumulation_is_the_large_batch",
        "test_rehearsal_adds_its_coefficient_times_the_cross_entropy",
        builds_on=(
            "dpo.dpo_loss",
            "dpo.sequence_logprobs",
            "model.learning_rate_scale",
            "sft.masked_cross_entropy",
            "sft.supervised_positions",
        ),
        compared="loss, margin, accuracy, both log-probabilities and tokens of the last step, and "
        "what the trained model thinks of every response",
        measured="three times the learning rate without rehearsal, in the self-rewarding loop: "
        "true reward +0.27 +-0.14 where it gained +0.38 +-0.16, and its second round loses "
        "(from overall_sft, five seeds)",
    ),
    loop(
        "distill.train",
        "student and teacher on positives, negatives, rehearsal -> joint_loss + KL -> step",
        loops.distill_train,
        "test_a_step_of_two_models_has_the_toy_losses_and_gradients",
        "test_rehearsal_is_the_same_divergence_on_other_rows",
        "test_training_starts_at_ln_2_and_both_divergences_fall",
        "test_teacher_and_reference_are_unchanged_and_get_no_gradient",
        builds_on=("distill.joint_loss", "dpo.sequence_logprobs", "model.learning_rate_scale"),
        compared="loss, its terms, margin, tokens, and what the student thinks of every response",
        measured="without rehearsal: -2.6 +-0.6 points greedy, and the judge falls from 77 to 20 "
        "(seeds 1 to 4)",
    ),
    loop(
        "ppo.learn",
        "several passes over the rollouts: policy_loss, value_loss -> backward -> step",
        loops.ppo_learn,
        "test_two_rollouts_by_hand_through_gae",
        "test_two_rollouts_by_hand_through_the_group",
        "test_rehearsal_adds_its_share_of_the_supervised_gradient",
        "test_rollouts_without_an_advantage_change_nothing",
        builds_on=(
            "ppo.policy_loss",
            "ppo.value_loss",
            "ppo.gae",
            "ppo.group_advantages",
            "ppo.kl_estimates",
            "model.token_logprobs",
            "model.rotate",
            "sft.masked_cross_entropy",
            "sft.supervised_positions",
        ),
        compared="loss, clip_fraction, approx_kl, updates, first_log_ratio, value_loss, and what "
        "policy and critic say afterwards",
        measured="without rehearsal in rl_stem: math -7.0 +-1.2, code -4.7 +-4.3 points greedy "
        "(first version, seeds 1 to 3)",
    ),
)


def named(name: str) -> Exercise:
    """Raises ValueError in one line for a name that is not in the table."""
    for exercise in EXERCISES:
        if exercise.name == name:
            return exercise
    raise ValueError(f"{name}: no such exercise; there is {', '.join(e.name for e in EXERCISES)}")
