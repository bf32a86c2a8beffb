"""Configuration of `hlrp_smolvla_shared`.

A configuration is complete only when it is *resolved*: sizes that were left out come from the artifact, from the `smolvla`
checkpoint or from SmolVLA's defaults, and sizes that were given must agree with them. LeRobot asks for the optimizer and for the
frames of a sample before anything is loaded, so invalid settings are found there, before the training starts. What is saved beside a
checkpoint is resolved and holds the model's description: nothing else is read when it is loaded.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig, CosineDecayWithWarmupSchedulerConfig
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from .origin import describe
from .sizes import SMOLVLA, read_sizes
from .teacher import frame_offset

INIT_MODES = ("artifact", "scratch", "smolvla")
TRAINING_MODES = ("action", "latent", "multitask")
LAQ_WEIGHTS = ("trained", "random")
DTYPES = ("float32", "bfloat16")
PADDINGS = ("longest", "max_length")
LABEL_VECTORS = ("code", "continuous")


@PreTrainedConfig.register_subclass("hlrp_smolvla_shared")
@dataclass
class HLRPSmolVLASharedConfig(PreTrainedConfig):
    """Fields named as in SmolVLA mean what they mean there. `None` means: as the starting point has it."""

    # Where the first weights come from: `artifact` (a folder of stage 2), `scratch` (a backbone with a fresh expert) or `smolvla`
    # (a checkpoint of LeRobot's policy of that name).
    init_mode: str = "artifact"
    stage2_artifact: Path | None = None
    smolvla_checkpoint: Path | None = None
    # A folder, or the name of a model in the Hugging Face cache; for `scratch` and `smolvla`.
    vlm_model_name: str = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
    load_vlm_weights: bool = True

    # What is learned, and from whom.
    stage3_training_mode: str = "action"
    action_loss_weight: float = 1.0
    latent_loss_weight: float = 0.1
    # Episodes whose actions are supervised; all when null.
    labelled_episodes: list[int] | None = None
    # The latent action model that labels frame pairs: a run directory or checkpoint of stage 1.
    laq_checkpoint_path: Path | None = None
    # `random` keeps the architecture and draws fresh weights from `laq_seed`: the control of an experiment.
    laq_weights: str = "trained"
    laq_seed: int = 0
    # The camera role that it looks at; the first one when null.
    laq_camera: str | None = None
    # Instead of a latent action model: labels that `hlrp label` wrote into the dataset, the beginning of their keys (latent_labels).
    latent_label_prefix: str | None = None
    # Which vectors of them: code or continuous (before the quantizer); those of the codes where there are codes when null.
    latent_label_vectors: str | None = None
    # Frames per second of the dataset; needed when the teacher states its pairs in seconds.
    dataset_fps: float | None = None

    # Inputs. `camera_map` says which key of the dataset is which camera of the model (role: key).
    camera_map: dict[str, str] = field(default_factory=dict)
    empty_cameras: int | None = None
    resize_imgs_with_padding: tuple[int, int] | None = None
    add_image_special_tokens: bool | None = None
    prefix_length: int | None = None
    max_state_dim: int | None = None
    system_prompt: str | None = None
    # The instruction where an environment or dataset gives none; by itself the dataset's, if it has only one.
    default_task: str | None = None
    tokenizer_max_length: int | None = None
    pad_language_to: str | None = None

    # Outputs.
    chunk_size: int | None = None
    n_action_steps: int | None = None
    max_action_dim: int | None = None
    num_steps: int | None = None
    min_period: float | None = None
    max_period: float | None = None
    # How latent actions are predicted: vector_flow, vector_mse, code_cross_entropy or joint_flow (one flow with the actions, which see them).
    latent_head: str | None = None
    # joint_flow: fraction of samples whose actions are trained without the latents.
    latent_dropout: float | None = None
    # joint_flow: whether predicted actions see the latent plan; they do so only where they were trained with it (trained_mode).
    latent_plan: bool = True
    # Control of an evaluation: the mean action of the statistics, whatever is seen.
    blind: bool = False

    # Whether a GPU records action chunks once for each batch size and replays them, those of real-time chunking too.
    cuda_graph: bool = False

    # Real-time chunking: set by lerobot-rollout --inference.type=rtc; none when null.
    rtc_config: RTCConfig | None = None

    # Sizes of the network.
    num_vlm_layers: int | None = None
    num_expert_layers: int | None = None
    self_attn_every_n_layers: int | None = None
    expert_width_multiplier: float | None = None

    # What is trained, and in which precision the network computes. With bfloat16, linear maps that are not trained are held in it.
    train_expert_only: bool = True
    freeze_vision_encoder: bool = True
    train_state_proj: bool = True
    dtype: str = "float32"

    # Empty: as the artifact scales, else mean and std; images are never scaled here.
    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=dict)

    optimizer_lr: float = 1e-4
    optimizer_betas: tuple[float, float] = (0.9, 0.95)
    optimizer_eps: float = 1e-8
    optimizer_weight_decay: float = 1e-10
    optimizer_grad_clip_norm: float = 10.0
    scheduler_warmup_steps: int = 1_000
    scheduler_decay_steps: int = 30_000
    scheduler_decay_lr: float = 2.5e-6

    push_to_hub: bool = False

    # The description of the model; written by `resolve` and by the policy, not by hand.
    model: dict[str, Any] | None = None
    processor: dict[str, Any] | None = None
    teacher: dict[str, Any] | None = None
    latent_frame_offset: int | None = None
    # The stage3_training_mode in which the weights were trained last, in stage 2 or here; null for fresh weights.
    trained_mode: str | None = None
    # Training passes done: the noise of the next one follows from their number.
    num_training_passes: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._is_resolved = False
        # An artifact that was opened for its sizes and not yet for its weights.
        self.artifact = None

    @property
    def with_actions(self) -> bool:
        """Whether actions are learned."""
        return self.stage3_training_mode != "latent"

    @property
    def with_latents(self) -> bool:
        """Whether latent actions are learned."""
        return self.stage3_training_mode != "action"

    @property
    def with_plan(self) -> bool:
        """Whether the actions of a joint flow are predicted with the latent plan."""
        return self.latent_plan and (self.trained_mode or self.stage3_training_mode) == "multitask"

    @property
    def with_labels(self) -> bool:
        """Whether latent actions come with the dataset."""
        return self.latent_label_prefix is not None

    def resolve(self) -> None:
        """Completes the configuration and refuses what contradicts itself. Does nothing the second time."""
        if self._is_resolved:
            return
        self._check_choices()
        self._check_training_mode()
        if self.model is None:
            describe(self)
        else:
            import hlrp_rs

            self.model, self.processor = hlrp_rs.policy_description(self.model, self.processor)
            self.adopt(read_sizes(self.model, self.processor), "the checkpoint", may_differ={"num_steps"})
        if self.n_action_steps is None:
            self.n_action_steps = self.chunk_size
        if not 1 <= self.n_action_steps <= self.chunk_size:
            raise ValueError(
                f"n_action_steps = {self.n_action_steps} is not between 1 and chunk_size = {self.chunk_size}\n"
                "hint: an action chunk has chunk_size steps, of which n_action_steps are executed before the next is predicted"
            )
        modes = {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}
        for feature in ("state", "action"):
            if self.processor and self.processor[feature] is not None:
                modes[feature.upper()] = self.processor[feature]["mode"].upper()
        self.normalization_mapping = {
            name: NormalizationMode[mode] for name, mode in modes.items()
        } | self.normalization_mapping
        if self.normalization_mapping["VISUAL"] is not NormalizationMode.IDENTITY:
            raise ValueError(
                f"normalization_mapping.VISUAL is {self.normalization_mapping['VISUAL'].name}: the model scales its images itself\n"
                "hint: leave it at IDENTITY"
            )
        if self.blind and self.normalization_mapping["ACTION"] is not NormalizationMode.MEAN_STD:
            raise ValueError(
                f"blind gives the mean action, but actions are scaled by {self.normalization_mapping['ACTION'].name}\n"
                "hint: leave it out; it needs actions that are scaled by mean and std"
            )
        self._is_resolved = True

    def adopt(self, sizes: dict[str, Any], source: str, may_differ: set[str] = frozenset()) -> None:
        """Takes over the sizes that were left out, and compares the others with those of `source`."""
        conflicts = []
        for name, value in sizes.items():
            given = getattr(self, name)
            if given is None:
                setattr(self, name, value)
            elif name == "num_expert_layers" and given <= 0:
                continue
            elif (tuple(given) if isinstance(value, tuple) else given) != value and name not in may_differ:
                conflicts.append(f"{name} = {given} (there: {value})")
        if conflicts:
            raise ValueError(
                f"these settings contradict {source}: {', '.join(conflicts)}\n"
                "hint: leave them out, sizes come with the weights"
            )
        for name, value in SMOLVLA.items():
            if getattr(self, name) is None:
                setattr(self, name, value)

    def _check_choices(self) -> None:
        choices = {
            "init_mode": INIT_MODES,
            "stage3_training_mode": TRAINING_MODES,
            "laq_weights": LAQ_WEIGHTS,
            "dtype": DTYPES,
        }
        for name, known in {"pad_language_to": PADDINGS, "latent_label_vectors": LABEL_VECTORS}.items():
            if getattr(self, name) is not None:
                choices[name] = known
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} = {getattr(self, name)} is unknown\nhint: choose one of {', '.join(known)}")
        if self.n_obs_steps != 1:
            raise ValueError(f"n_obs_steps = {self.n_obs_steps}: this policy sees one frame\nhint: leave it at 1")
        if self.use_peft:
            raise ValueError(
                "use_peft is set: adapters replace the forward pass of Python modules, and this one runs in Rust\n"
                "hint: train the expert (train_expert_only) or everything"
            )
        self._check_origin()

    def _check_origin(self) -> None:
        """Each starting point has its own setting, and takes no other's."""
        settings = {"artifact": "stage2_artifact", "smolvla": "smolvla_checkpoint"}
        for mode, name in settings.items():
            is_given = getattr(self, name) is not None
            if mode == self.init_mode and not is_given and self.model is None:
                raise ValueError(
                    f"init_mode = {mode} needs {name}\n"
                    f"hint: --policy.{name}=<folder>, or --policy.init_mode=scratch for a fresh expert"
                )
            if mode != self.init_mode and is_given:
                raise ValueError(
                    f"{name} is given, but init_mode = {self.init_mode} does not read it\n"
                    f"hint: --policy.init_mode={mode}, or leave {name} out"
                )

    def _check_training_mode(self) -> None:
        if self.latent_label_prefix is not None and self.laq_checkpoint_path is not None:
            raise ValueError(
                "latent_label_prefix and laq_checkpoint_path are both given\n"
                "hint: leave laq_checkpoint_path out to learn the labels of the dataset"
            )
        if self.with_latents and not self.with_labels and self.latent_frame_offset is None:
            self.latent_frame_offset = frame_offset(
                self.laq_checkpoint_path, self.stage3_training_mode, self.dataset_fps
            )
        if self.with_actions and self.labelled_episodes == []:
            raise ValueError(
                f"labelled_episodes is empty: stage3_training_mode = {self.stage3_training_mode} would learn from no action\n"
                "hint: name some episodes, or use stage3_training_mode = latent"
            )

    def validate_features(self) -> None:
        """Refuses data that lacks what the policy sees or learns."""
        found = list(self.input_features or {})
        if not self.image_features:
            raise ValueError(f"the policy needs a camera, and there is none among {found}\nhint: use data with images")
        if self.action_feature is None:
            raise ValueError(
                f"the policy predicts actions, and the data has none, only {found}\nhint: use data with the key action"
            )

    @property
    def state_dim(self) -> int | None:
        """Dimensions of the robot's state; none when the data has no state."""
        return self.robot_state_feature.shape[0] if self.robot_state_feature is not None else None

    def get_optimizer_preset(self) -> AdamWConfig:
        self.resolve()
        return AdamWConfig(
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig:
        return CosineDecayWithWarmupSchedulerConfig(
            peak_lr=self.optimizer_lr,
            decay_lr=self.scheduler_decay_lr,
            num_warmup_steps=self.scheduler_warmup_steps,
            num_decay_steps=self.scheduler_decay_steps,
        )

    @property
    def observation_delta_indices(self) -> list[int]:
        """Frame t, and for the teacher frame t+k. LeRobot 0.6.1 asks for images and states together."""
        self.resolve()
        return [0, self.latent_frame_offset] if self.with_latents and not self.with_labels else [0]

    @property
    def image_observation_delta_indices(self) -> list[int]:
        """Images of a sample, where LeRobot asks for them separately."""
        return self.observation_delta_indices

    @property
    def state_observation_delta_indices(self) -> list[int]:
        """States of a sample, where LeRobot asks for them separately."""
        return [0]

    @property
    def action_delta_indices(self) -> list[int]:
        self.resolve()
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        return None
