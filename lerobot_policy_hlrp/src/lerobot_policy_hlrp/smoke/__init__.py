"""`hlrp_smoke`: the smallest policy that LeRobot can train and evaluate."""
