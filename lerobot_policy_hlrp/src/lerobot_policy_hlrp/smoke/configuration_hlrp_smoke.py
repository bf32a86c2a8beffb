"""Configuration of `hlrp_smoke`."""

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamConfig


@PreTrainedConfig.register_subclass("hlrp_smoke")
@dataclass
class HLRPSmokeConfig(PreTrainedConfig):
    """Two linear layers from the robot's state to its next action."""

    hidden_dim: int = 128
    push_to_hub: bool = False
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.MEAN_STD,
            "STATE": NormalizationMode.MIN_MAX,
            "ENV": NormalizationMode.MIN_MAX,
            "ACTION": NormalizationMode.MIN_MAX,
        }
    )
    optimizer_lr: float = 1e-3

    @property
    def state_features(self) -> dict[str, int]:
        """Widths of the vectors that the policy sees, by key."""
        vectors = [self.robot_state_feature, self.env_state_feature]
        return {
            key: feature.shape[0]
            for key, feature in (self.input_features or {}).items()
            if any(feature is vector for vector in vectors)
        }

    def validate_features(self) -> None:
        """Refuses data without a vector to look at or without an action."""
        if not self.state_features:
            raise ValueError(
                f"hlrp_smoke sees states, and there is none among {list(self.input_features or {})}\n"
                "hint: use a dataset with observation.state or observation.environment_state"
            )
        if self.action_feature is None:
            raise ValueError(
                "hlrp_smoke predicts actions, and the data has none\nhint: use a dataset with the key action"
            )

    def get_optimizer_preset(self) -> AdamConfig:
        return AdamConfig(lr=self.optimizer_lr, weight_decay=0.0)

    def get_scheduler_preset(self) -> None:
        return None

    @property
    def observation_delta_indices(self) -> list[int]:
        return [0]

    @property
    def action_delta_indices(self) -> list[int]:
        return [0]

    @property
    def reward_delta_indices(self) -> None:
        return None
