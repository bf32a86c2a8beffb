"""The policy `hlrp_smolvla_shared`.

Its parameters are ordinary `nn.Parameter`s under LeRobot's SmolVLA names; what they compute is computed in Rust. They are handed over
at every call and nothing of them is kept, so optimizers, data parallelism, averaged weights, `.to()` and `load_state_dict` work as
with any module.

Shapes: B samples, T steps of an action chunk, A dimensions of an action.
"""

import logging
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies import PreTrainedPolicy
from lerobot.utils.constants import ACTION
from torch import Tensor

from . import batch as batches
from .configuration_hlrp_smolvla_shared import HLRPSmolVLASharedConfig
from .launch import refuse_compile, refuse_unsupported_launch
from .origin import MODES, TOKENIZER_FILES, action_dim, start
from .parameters import collect, frozen_modules, register
from .randomness import of_step
from .sizes import leaves
from .teacher import LatentColumns, LatentTeacher, offset_of

logger = logging.getLogger(__name__)

PARTS = ("action", "latent")
# A normalised value beyond this is far outside its statistics, as in stage 2 (rust/vla/src/normalize.rs).
FAR = 100.0


class HLRPSmolVLASharedPolicy(PreTrainedPolicy):
    """A vision-language model with a flow-matching expert for actions and latent actions."""

    config_class = HLRPSmolVLASharedConfig
    name = "hlrp_smolvla_shared"

    def __init__(
        self,
        config: HLRPSmolVLASharedConfig,
        dataset_meta: Any = None,
        checkpoint: Path | None = None,
        **_context: Any,
    ):
        """A policy for the features of `config`.

        `dataset_meta` is the dataset of a training, none in an evaluation. `checkpoint` is the folder of a saved policy whose weights
        are loaded next; without it the first weights are those of `init_mode`.
        """
        refuse_unsupported_launch()
        super().__init__(config)
        config.resolve()
        config.validate_features()
        self._teacher = self._make_teacher(dataset_meta)
        if dataset_meta is not None:
            self._check_dataset(dataset_meta)
        start_of = start(config, self._teacher_latent(), checkpoint)
        self._network = start_of.network
        self._check_latent_head()
        if dataset_meta is not None and not config.with_latents and self._sampling_mode() == "multitask":
            logger.warning(
                "so far the policy's actions see its latent plan; stage3_training_mode = action trains and predicts them without it\n"
                "hint: stage3_training_mode = multitask with a teacher trains both"
            )
        config.camera_map = start_of.cameras
        folder = Path(self._network.tokenizer_folder)
        self._tokenizer_files = {name: (folder / name).read_bytes() for name in TOKENIZER_FILES}
        weights, frozen = start_of.weights(), self._frozen()
        self._is_trainable = dataset_meta is not None or config.dtype == "float32"
        for name in self._network.castable() if config.dtype == "bfloat16" else ():
            if name in frozen or not self._is_trainable:
                weights[name] = weights[name].bfloat16()
        # Always in the model's own order: an optimizer's state is saved by position.
        register(self, {name: weights[name] for name, *_ in self._network.parameter_specs()}, frozen)
        self._frozen_modules = frozen_modules(self)
        # Vectors whose far values were warned of.
        self._warned: set[str] = set()
        self.reset()

    # What LeRobot asks for.

    def get_optim_params(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def reset(self) -> None:
        self._queues = {ACTION: deque(maxlen=self.config.n_action_steps)}

    @torch.compiler.disable
    def forward(
        self,
        batch: dict[str, Any],
        noise: Tensor | dict[str, Tensor] | None = None,
        time: Tensor | dict[str, Tensor] | None = None,
        reduction: str = "mean",
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of a preprocessed batch, and its parts under names that are the same at every step.

        The loss is a scalar, or `[B]` with `reduction="none"`. `noise` and `time` fix what is otherwise drawn: a tensor for the actions,
        or one per head (`action`, `latent`).
        """
        is_step = self.training and torch.is_grad_enabled()
        if is_step and not self._is_trainable:
            raise RuntimeError(
                "this policy was built for evaluation: with dtype = bfloat16 and no dataset_meta its linear maps are bfloat16\n"
                "hint: give dataset_meta, as lerobot-train does, or dtype = float32"
            )
        observation, targets = self._observe(batch), self._targets(batch)
        if is_step:
            self.config.trained_mode = self.config.stage3_training_mode
        factors = process_factors(targets) if self.training and reduction == "mean" else {}
        objective = {
            "mode": MODES[self.config.stage3_training_mode],
            "latent_loss_weight": self.config.latent_loss_weight * factors.get("latent", 1.0),
            "action_loss_weight": self.config.action_loss_weight * factors.get("action", 1.0),
        }
        largest = self._largest_values(observation, targets)
        with self._autocast(), self._randomness():
            losses = self._network.loss(
                collect(self),
                observation,
                targets,
                objective,
                noise=by_head(noise),
                time=by_head(time),
                reduction=reduction,
            )
        numbers = as_floats(metrics(losses) | largest)
        self._warn_of_far_values({name: numbers.pop(name) for name in largest})
        return losses["loss"], numbers

    def supports_rtc(self) -> bool:
        """Whether `predict_action_chunk` takes what is left over of the chunk before (real-time chunking)."""
        return self.config.with_actions

    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: dict[str, Any],
        noise: Tensor | dict[str, Tensor] | None = None,
        inference_delay: int | None = None,
        prev_chunk_left_over: Tensor | None = None,
        execution_horizon: int | None = None,
        **_options: Any,
    ) -> Tensor:
        """Normalised actions `float32 [B,T,A]`, of a joint flow with the latent plan that they were trained with, unless `latent_plan` is
        false. `noise` fixes what is otherwise drawn: a tensor for the actions, or one per head (`action`, `latent`).

        With `rtc_config` they begin where `prev_chunk_left_over`, float `[B,T',A]` or `[T',A]`, goes on: its first `inference_delay` steps are
        executed while this chunk is computed. `execution_horizon` is that of `rtc_config` when null.
        """
        if not self.config.with_actions:
            raise RuntimeError(
                "this policy learns latent actions only: its action head is not trained\n"
                "hint: fine-tune it first with --policy.path=<checkpoint> --policy.stage3_training_mode=action"
            )
        self.eval()
        observation = self._observe(batch)
        if self.config.blind:
            # Scaled by mean and std, the mean is 0.
            size = len(observation["task"]), self.config.chunk_size, action_dim(self.config)
            return torch.zeros(size, device=self.config.device)
        guidance = self._guidance(inference_delay, prev_chunk_left_over, execution_horizon)
        with self._autocast():
            prediction = self._network.sample(
                collect(self),
                observation,
                self._sampling_mode(),
                noise=by_head(noise),
                guidance=guidance,
                cuda_graph=self.config.cuda_graph,
            )
        return prediction["actions"].float()

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **options: Any) -> Tensor:
        """The next normalised action `float32 [B,A]`; a new chunk is predicted when the last one is used up."""
        if self._with_rtc():
            raise RuntimeError(
                "real-time chunking needs whole chunks: select_action returns one action\n"
                "hint: use predict_action_chunk, as lerobot-rollout --inference.type=rtc does, or rtc_config = null"
            )
        queue = self._queues[ACTION]
        if not queue:
            queue.extend(self.predict_action_chunk(batch, **options).transpose(0, 1)[: self.config.n_action_steps])
        return queue.popleft()

    def train(self, mode: bool = True) -> "HLRPSmolVLASharedPolicy":
        """Frozen parts stay in evaluation mode."""
        super().train(mode)
        for name in self._frozen_modules if mode else ():
            self.get_submodule(name).eval()
        return self

    # Saving and loading.

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save_pretrained(save_directory, state_dict=state_dict)
        for name, content in self._tokenizer_files.items():
            (save_directory / name).write_bytes(content)

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path, *, config: PreTrainedConfig | None = None, **options: Any
    ) -> "HLRPSmolVLASharedPolicy":
        """Loads a saved policy: a folder or a repository. Weights must fit exactly, whatever `strict` says."""
        hub_options = {
            name: options[name] for name in ("revision", "cache_dir", "local_files_only", "token") if name in options
        }
        if config is None:
            config = PreTrainedConfig.from_pretrained(pretrained_name_or_path, **hub_options)
        if config.model is None:
            raise ValueError(
                f"{pretrained_name_or_path}: config.json does not describe a model\n"
                "hint: give the folder pretrained_model of a checkpoint of this policy"
            )
        folder = local_folder(pretrained_name_or_path, hub_options)
        return super().from_pretrained(pretrained_name_or_path, config=config, checkpoint=folder, **options)

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool = True, assign: bool = False) -> Any:
        """Always strict: LeRobot asks for less, and would leave a parameter that a file lacks at its first value."""
        return super().load_state_dict(state_dict, strict=True, assign=assign)

    # What cannot work.

    def wrap_with_peft(self, *_args: Any, **_options: Any) -> None:
        raise RuntimeError(
            "PEFT adapters replace the forward pass of Python modules, and this one runs in Rust\n"
            "hint: leave --peft out and train the expert (train_expert_only) or everything"
        )

    def compile(self, *_args: Any, **_options: Any) -> None:
        refuse_compile()

    # Parts of the constructor.

    def _make_teacher(self, dataset_meta: Any) -> LatentTeacher | LatentColumns | None:
        config = self.config
        if not config.with_latents:
            return None
        if config.with_labels:
            if dataset_meta is None:
                return None
            teacher = LatentColumns(dataset_meta.root, config.latent_label_prefix, config.latent_label_vectors)
        elif config.laq_checkpoint_path is not None:
            teacher = LatentTeacher(config.laq_checkpoint_path, config.laq_weights, config.laq_seed, config.device)
        else:
            return None
        if dataset_meta is not None:
            identity = teacher.identity
            if config.teacher is not None and config.teacher["sha256"] != identity["sha256"]:
                logger.warning("the %s is not the one whose codes the policy has learned so far", teacher)
            config.teacher = identity
        return teacher

    def _teacher_latent(self) -> dict[str, int] | None:
        if self._teacher is None:
            return None
        identity = self.config.teacher or self._teacher.identity
        return {name: identity[name] for name in ("code_seq_len", "code_dim", "codebook_size")}

    def _check_latent_head(self) -> None:
        latent, wanted = self._network.latent_shape, self._teacher_latent()
        if wanted is not None and latent != (wanted["code_seq_len"], wanted["code_dim"]):
            head = (
                "the policy has no latent head"
                if latent is None
                else f"the policy's latent head has the shape {latent}"
            )
            raise ValueError(
                f"{head}, the teacher's codes have the shape {(wanted['code_seq_len'], wanted['code_dim'])}\n"
                "hint: take the latent action model that the policy was trained with, or start again from an artifact"
            )
        roles = self._network.cameras
        if self.config.laq_camera is not None and self.config.laq_camera not in roles:
            raise ValueError(
                f"laq_camera = {self.config.laq_camera} is not a camera of the model\nhint: it has {roles}"
            )

    def _check_dataset(self, meta: Any) -> None:
        config = self.config
        if config.with_latents and not config.with_labels:
            if config.laq_checkpoint_path is None:
                raise ValueError(
                    f"stage3_training_mode = {config.stage3_training_mode} needs laq_checkpoint_path\n"
                    "hint: --policy.laq_checkpoint_path=<run directory of stage 1>, or --policy.latent_label_prefix for the labels of "
                    "`hlrp label`"
                )
            offset = offset_of(config.teacher["pair"], meta.fps)
            if offset != config.latent_frame_offset:
                raise ValueError(
                    f"the dataset has {meta.fps} frames per second, so the teacher's pairs are {offset} frames apart, "
                    f"not {config.latent_frame_offset}\nhint: --policy.latent_frame_offset={offset}"
                )
        absent = [episode for episode in config.labelled_episodes or [] if not 0 <= episode < meta.total_episodes]
        if absent:
            raise ValueError(
                f"labelled_episodes names {absent}, the dataset has the episodes 0 to {meta.total_episodes - 1}\n"
                "hint: name episodes of this dataset"
            )
        instructions = list(meta.tasks.index) if meta.tasks is not None else []
        if config.default_task is None and len(instructions) == 1:
            config.default_task = str(instructions[0])

    def _frozen(self) -> set[str]:
        return self._network.frozen() | self._network.unused_in(MODES[self.config.stage3_training_mode])

    # Parts of a step.

    def _sampling_mode(self) -> str:
        """The mode of stage 2 in which actions are predicted."""
        return "multitask" if self._has_plan() and self.config.with_plan else "actions"

    def _has_plan(self) -> bool:
        """Whether one flow predicts latents and actions."""
        head = dict(leaves(self._network.model)).get("latent_head")
        return head == "joint_flow" and self._network.latent_shape is not None

    def _with_rtc(self) -> bool:
        return self.config.rtc_config is not None and self.config.rtc_config.enabled

    def _guidance(
        self, inference_delay: int | None, left_over: Tensor | None, execution_horizon: int | None
    ) -> dict[str, Any] | None:
        """What draws the chunk towards the one before; none for the first chunk."""
        if not self._with_rtc() or left_over is None or left_over.numel() == 0:
            return None
        rtc = self.config.rtc_config
        return {
            "left_over": left_over,
            "inference_delay": inference_delay or 0,
            "execution_horizon": rtc.execution_horizon if execution_horizon is None else execution_horizon,
            "prefix_attention_schedule": rtc.prefix_attention_schedule.value,
            "max_guidance_weight": float(rtc.max_guidance_weight),
        }

    def _observe(self, batch: dict[str, Any]) -> dict[str, Any]:
        images = batches.images(batch, self.config.camera_map, self.config.empty_cameras)
        num_samples = len(next(iter(images.values())))
        return {
            "images": images,
            "task": batches.tasks(batch, num_samples, self.config.default_task),
            "state": batches.state(batch, self.config.state_dim),
        }

    def _targets(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        targets = {}
        if self.config.with_actions:
            # Held-out data is measured on all of its actions.
            labelled = self.config.labelled_episodes if self.training else None
            targets |= batches.action_targets(batch, labelled)
        if self.config.with_latents:
            if self._teacher is None:
                raise RuntimeError(
                    "there is no teacher: laq_checkpoint_path is not set, or labels are not those of a training's dataset\n"
                    "hint: --policy.laq_checkpoint_path=<run directory of stage 1>, or stage3_training_mode = action"
                )
            role = self.config.laq_camera or self._network.cameras[0]
            targets |= self._teacher.targets(batch, self.config.camera_map[role])
        return targets

    def _largest_values(self, observation: dict[str, Any], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Largest normalised magnitude in each vector that was not warned of yet; none outside training."""
        if not self.training:
            return {}
        vectors = {"state": observation["state"], "action": targets.get("actions")}
        watched = {name: vector for name, vector in vectors.items() if vector is not None and name not in self._warned}
        return {name: vector.abs().nan_to_num(0.0, 0.0).amax() for name, vector in watched.items()}

    def _warn_of_far_values(self, largest: dict[str, float]) -> None:
        """Warns once for each vector with a value far outside its statistics."""
        for name, value in largest.items():
            if value > FAR:
                self._warned.add(name)
                logger.warning(
                    "step %d: a normalised %s value is %.3g, far outside the statistics that normalise it\n"
                    "hint: check the dataset with `hlrp data check` and leave out the episodes with wrong values",
                    self.config.num_training_passes,
                    name,
                    value,
                )

    def _randomness(self) -> AbstractContextManager:
        """In training, what is drawn belongs to the step; in an evaluation it is the caller's."""
        if not (self.training and torch.is_grad_enabled()):
            return nullcontext()
        step = self.config.num_training_passes
        self.config.num_training_passes += 1
        return of_step(step, next(self.parameters()).device)

    def _autocast(self) -> AbstractContextManager:
        """The precision that `dtype` asks for; the caller's for float32."""
        if self.config.dtype == "float32":
            return nullcontext()
        return torch.autocast(next(self.parameters()).device.type, dtype=torch.bfloat16)


def metrics(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parts of a loss as scalars; samples that teach nothing do not lower a mean over samples."""
    scalars = {}
    for part in PARTS:
        count, value = losses[f"num_{part}_samples"], losses[f"{part}_loss"]
        scalars[f"{part}_loss"] = value if value.ndim == 0 else value.sum() / count.clamp_min(1)
        scalars[f"num_{part}_samples"] = count
    return scalars


def as_floats(scalars: dict[str, Tensor]) -> dict[str, float]:
    """Python floats, in one transfer for all of them."""
    first = next(iter(scalars.values()))
    return dict(zip(scalars, torch.stack([scalar.to(first) for scalar in scalars.values()]).tolist(), strict=True))


def process_factors(targets: dict[str, Tensor]) -> dict[str, float]:
    """The factor of each part of the loss in this process: its number of supervised values over the mean of these numbers.

    Data parallelism averages the gradients of the processes; with these factors that is the gradient of the mean over the supervised
    values of all of them. Empty in a single process.
    """
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return {}
    counts = {}
    if "action_is_pad" in targets:
        counts["action"] = (~targets["action_is_pad"]).sum()
    if "latent_is_valid" in targets:
        counts["latent"] = targets["latent_is_valid"].sum()
    own = torch.stack(list(counts.values())).double()
    total = own.clone()
    distributed.all_reduce(total)
    factors = own * distributed.get_world_size() / total.clamp_min(1)
    # Where nothing is supervised the loss is 0 whatever its factor, and with a factor of 0 there would be no objective.
    factors = torch.where(own > 0, factors, torch.ones_like(factors))
    return dict(zip(counts, factors.tolist(), strict=True))


def by_head(value: Tensor | dict[str, Tensor] | None) -> dict[str, Tensor] | None:
    """A single tensor is that of the actions."""
    return {"action": value} if isinstance(value, Tensor) else value


def local_folder(name_or_path: str | Path, hub_options: dict[str, Any]) -> Path:
    """The folder with the files next to a policy's weights: its own, or the snapshot of its repository."""
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    from huggingface_hub import hf_hub_download

    return Path([hf_hub_download(str(name_or_path), name, **hub_options) for name in TOKENIZER_FILES][0]).parent
