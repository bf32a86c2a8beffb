"""The policy `hlrp_smoke`."""

import torch
from lerobot.policies import PreTrainedPolicy
from lerobot.utils.constants import ACTION
from torch import Tensor, nn

from .configuration_hlrp_smoke import HLRPSmokeConfig


class HLRPSmokePolicy(PreTrainedPolicy):
    """Predicts one action `[B,A]` from the concatenated states `[B,N]`."""

    config_class = HLRPSmokeConfig
    name = "hlrp_smoke"

    def __init__(self, config: HLRPSmokeConfig, **_context):
        super().__init__(config)
        config.validate_features()
        self.net = nn.Sequential(
            nn.Linear(sum(config.state_features.values()), config.hidden_dim),
            nn.ReLU(),
            nn.Linear(config.hidden_dim, config.action_feature.shape[0]),
        )

    def get_optim_params(self):
        return self.parameters()

    def reset(self) -> None:
        """Nothing is remembered between steps."""

    def forward(self, batch: dict[str, Tensor], reduction: str = "mean") -> tuple[Tensor, dict[str, float]]:
        """Mean squared error of the next action: a scalar, or `[B]` with `reduction="none"`."""
        target = batch[ACTION][:, 0] if batch[ACTION].ndim == 3 else batch[ACTION]
        error_B = (self.net(self._states(batch)) - target).square().mean(dim=1)
        return error_B if reduction == "none" else error_B.mean(), {"action_loss": error_B.mean().item()}

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], **_options) -> Tensor:
        """Actions `float32 [B,1,A]`."""
        self.eval()
        return self.net(self._states(batch)).float().unsqueeze(1)

    def select_action(self, batch: dict[str, Tensor], **_options) -> Tensor:
        """The next action `float32 [B,A]`."""
        return self.predict_action_chunk(batch)[:, 0]

    def _states(self, batch: dict[str, Tensor]) -> Tensor:
        states = [batch[key] for key in self.config.state_features]
        return torch.cat([state[:, 0] if state.ndim == 3 else state for state in states], dim=1)
