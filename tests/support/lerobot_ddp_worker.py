"""One optimizer step of a saved policy on a fixed batch of four, shared among the processes: python … POLICY OUTPUT."""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # started as a program, it finds conftest nowhere else

import torch  # noqa: E402
from lerobot_modules import fixed_draws, make_batch  # noqa: E402

BATCH = 4


def main(policy_folder: Path, output: Path) -> None:
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs
    from lerobot.utils.import_utils import register_third_party_plugins
    from safetensors.torch import save_file

    accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)], cpu=True)
    register_third_party_plugins()
    from lerobot_policy_hlrp.smolvla_shared.modeling_hlrp_smolvla_shared import HLRPSmolVLASharedPolicy

    policy = HLRPSmolVLASharedPolicy.from_pretrained(policy_folder).train()
    # Plain gradient descent: the step of Adam hides by how much a gradient is off.
    optimizer = torch.optim.SGD(policy.get_optim_params(), lr=0.1)
    policy, optimizer = accelerator.prepare(policy, optimizer)
    batch = make_batch()
    noise, time = (draws["action"] for draws in fixed_draws())
    mine = range(accelerator.process_index, BATCH, accelerator.num_processes)
    share = {
        key: [value[i] for i in mine] if isinstance(value, list) else value[list(mine)] for key, value in batch.items()
    }
    loss, _ = policy.forward(share, noise=noise[list(mine)], time=time[list(mine)])
    accelerator.backward(loss)
    accelerator.clip_grad_norm_(policy.parameters(), 10.0)
    optimizer.step()
    if accelerator.is_main_process:
        save_file(
            {name: tensor.clone() for name, tensor in accelerator.unwrap_model(policy).state_dict().items()}, output
        )
    accelerator.wait_for_everyone()
    assert accelerator.num_processes == int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes > 1:
        accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
