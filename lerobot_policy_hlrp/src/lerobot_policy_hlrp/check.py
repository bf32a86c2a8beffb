"""Says whether LeRobot finds the policies of this package, and if not, why.

LeRobot imports plugins at its start and only logs what goes wrong; afterwards it reports an unknown policy type. This program does the
same steps one by one and stops at the first that fails.
"""

import importlib
import importlib.metadata
import sys

PACKAGE = "lerobot_policy_hlrp"
POLICIES = ("hlrp_smoke", "hlrp_smolvla_shared")


def check_name() -> str:
    """The installed name is the literal one that LeRobot looks for."""
    names = {distribution.metadata["Name"] for distribution in importlib.metadata.distributions()}
    if PACKAGE not in names:
        near = sorted(name for name in names if name and name.lower().replace("-", "_") == PACKAGE)
        raise RuntimeError(
            f"no installed distribution is named {PACKAGE}{f'; {near} is, which LeRobot overlooks' if near else ''}\n"
            "hint: pip install the wheel of this package"
        )
    return f"distribution {PACKAGE} {importlib.metadata.version(PACKAGE)}"


def check_versions() -> str:
    """LeRobot and torch are there."""
    import lerobot
    import torch

    return f"lerobot {lerobot.__version__}, torch {torch.__version__}"


def check_bridge() -> str:
    """The Rust half loads into this torch."""
    import hlrp_rs

    return f"hlrp_rs {hlrp_rs.__version__} for libtorch {hlrp_rs.LIBTORCH_VERSION}"


def check_import() -> str:
    """The import that LeRobot does."""
    importlib.import_module(PACKAGE)
    return f"import {PACKAGE}"


def check_policies() -> str:
    """LeRobot's naming rules lead from each type to its policy and its processors."""
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class

    for policy_type in POLICIES:
        policy = get_policy_class(policy_type)
        module = PreTrainedConfig.get_choice_class(policy_type).__module__.replace("configuration_", "processor_")
        getattr(importlib.import_module(module), f"make_{policy_type}_pre_post_processors")
        if policy.name != policy_type:
            raise RuntimeError(f"{policy.__name__}.name is {policy.name}, not {policy_type}\nhint: report this")
    return f"policies {', '.join(POLICIES)}"


# Each step and what to do when it fails, unless its error says that itself.
CHECKS = (
    (check_name, "pip install the wheel of this package"),
    (check_versions, "pip install lerobot, which brings torch"),
    (check_bridge, "pip install the wheel of hlrp_rs and the torch that it was built for"),
    (check_import, "pip install the wheels of this package and of hlrp_rs of one version"),
    (check_policies, "pip install a LeRobot of the version that this package was made for"),
)


def main() -> int:
    """Prints one line per step; 0 when LeRobot will find everything, else 1."""
    for check, hint in CHECKS:
        try:
            print(f"ok      {check()}")
        except Exception as error:
            print(f"FAILED  {check.__doc__}")
            advice = "" if "hint:" in str(error) else f"\nhint: {hint}"
            print(f"error: {type(error).__name__}: {error}{advice}", file=sys.stderr)
            return 1
    print("LeRobot will find these policies.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
