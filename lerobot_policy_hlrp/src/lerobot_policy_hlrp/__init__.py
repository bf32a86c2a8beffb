"""Policies for LeRobot: importing this package registers them.

Registering needs neither weights nor `hlrp_rs`, so that a broken installation shows up as an error of the run that uses it and
not as an unknown policy type.
"""

try:
    import lerobot  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        "lerobot_policy_hlrp is a plugin of LeRobot, which is not installed\nhint: pip install lerobot"
    ) from error

from .smoke.configuration_hlrp_smoke import HLRPSmokeConfig
from .smolvla_shared.configuration_hlrp_smolvla_shared import HLRPSmolVLASharedConfig

__all__ = ["HLRPSmokeConfig", "HLRPSmolVLASharedConfig"]
