//! Slurm's own commands, with a time limit on each.
