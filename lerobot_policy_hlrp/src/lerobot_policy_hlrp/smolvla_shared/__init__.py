"""`hlrp_smolvla_shared`: the policy of stage 2 inside LeRobot.

configuration_*  fields, and which description of a model they lead to
sizes            fields of the configuration, and the sizes in a description
cameras          which key of a dataset is which camera of the model
origin           the network and its first weights: from an artifact, from scratch, from a smolvla checkpoint, or from a checkpoint of this policy
parameters       the model's parameters as ordinary `nn.Parameter`s
batch            what a LeRobot batch shows and teaches
randomness       noise that a resumed run draws as an uninterrupted one
teacher          latent labels of frame pairs
launch           ways of running that a Rust model cannot support
modeling_*       the policy
processor_*      LeRobot's processors with the right statistics
"""
