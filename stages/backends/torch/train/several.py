"""A trainer that may be one of several: its part of the weights in, whole checkpoints out.

A checkpoint of several processes has the files that one process writes, and in `process-<n>/` the
random state of each further one.
"""

import tempfile
from pathlib import Path
from typing import Any

from stages.backends.torch.load import Device
from stages.backends.torch.train import sharding
from stages.backends.torch.train.team import Team

RANDOM = "rng_state.pth"  # transformers' name


class Theirs:
    """What is called of transformers' trainer, which stands behind these classes."""

    model: Any
    args: Any
    state: Any
    accelerator: Any
    optimizer: Any
    train: Any
    compute_loss: Any
    create_optimizer: Any
    _metrics: Any
    _move_model_to_device: Any
    _save_checkpoint: Any
    _save: Any
    _save_rng_state: Any
    _load_rng_state: Any


class Several(Theirs):
    """What a trainer does otherwise where others train with it; alone it does as ever."""

    INSIDE = True  # whether its loss calls the model's inside, past its forward

    team: Team
    device: Device
    _summed: Any
    _whole: dict[str, Any] | None = None
    _states: list[bytes]

    def create_optimizer(self, *arguments: Any) -> Any:
        """The trainer's own; where weights are shared, they are so from here on."""
        if not self.team.sharded:
            return super().create_optimizer(*arguments)
        sharding.shard(self.model, self.device.kind, self.team.world)
        if self.INSIDE:
            self._summed = sharding.inside(self.model, self._summed)
        made = super().create_optimizer(*arguments)
        sharding.whole_optimizer(made, self.team.first)
        return made

    def _move_model_to_device(self, model: Any, device: Any) -> None:
        """Not where weights are shared: no device may have room for all of them."""
        if not self.team.sharded:
            super()._move_model_to_device(model, device)

    def autocast(self) -> Any:
        """The precision to compute in. Of shared weights no rounded copies are kept, unshared."""
        if not self.team.sharded:
            return self.accelerator.autocast()
        from accelerate.utils import AutocastKwargs

        return self.accelerator.autocast(AutocastKwargs(cache_enabled=False))

    def _save_checkpoint(self, *arguments: Any) -> None:
        """Write it, in the first process; the others hand it what is theirs."""
        if self.team.world == 1:
            super()._save_checkpoint(*arguments)
            return
        if self.team.sharded:
            self._whole = sharding.trained(self.model, self.team.first)
        self._states = self.team.all_say(self._random_state())
        if self.team.first:
            super()._save_checkpoint(*arguments)
        elif self.team.sharded:
            self.optimizer.state_dict()  # all must take part in making it whole
        self._whole = None

    def _save(self, output_dir: str, state_dict: Any = None) -> None:
        """The weights that are trained; where they are shared, made whole before."""
        super()._save(output_dir, state_dict if self._whole is None else self._whole)

    def _random_state(self) -> bytes:
        """What this process draws from."""
        with tempfile.TemporaryDirectory() as folder:
            super()._save_rng_state(folder)
            return (Path(folder) / RANDOM).read_bytes()

    def _save_rng_state(self, output_dir: str) -> None:
        """The random state of every process."""
        super()._save_rng_state(output_dir)
        for rank in range(1, self.team.world):
            own = Path(output_dir) / f"process-{rank}"
            own.mkdir(exist_ok=True)
            (own / RANDOM).write_bytes(self._states[rank])

    def _load_rng_state(self, checkpoint: str) -> None:
        """This process's own."""
        own = Path(checkpoint) / f"process-{self.team.rank}" if self.team.rank else checkpoint
        super()._load_rng_state(str(own))
