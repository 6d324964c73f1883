"""What answers are worth: functions in processes of their own, classifiers, reward models, and their weighted sum."""

from groundup.rollout.rewards.load import check_rewards, load_rewards
from groundup.rollout.rewards.score import Failure, Rewards, Scores

__all__ = ["Failure", "Rewards", "Scores", "check_rewards", "load_rewards"]
