"""Options of training, the same for every model that is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from segue.errors import ConfigError
from segue.settings import Count, Penalty, Positive, Seed, Settings, ShareBelowOne, Size, Word


@dataclass(frozen=True)
class Training(Settings):
    """Options of `segue.fit`.

    Examples
    --------
    >>> segue.Training(epochs=20, batch_size=64).patience
    20
    """

    epochs: Count = 200
    """Largest number of passes over the training examples; early stopping usually ends sooner."""
    batch_size: Count | None = None
    """Average number of examples per step; for SASRec an example is a window of a history. When not given, steps of
    SASRec and SSE-PT have about 3·√n of the n targets, and those of other models 128 examples."""
    learning_rate: Positive = 1e-3
    """Step size after the warm-up."""
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop", "adagrad"] = "adam"
    """Adam, AdamW with decoupled weight decay, SGD, RMSprop (decay 0.9) or Adagrad. Only Adam defers row updates."""
    start_optimizer: Literal["new", "continued"] = "new"
    """State of the optimizer of a training with a start: new, or that of the last epoch of the run it starts from."""
    momentum: ShareBelowOne = 0.0
    """Momentum of sgd and rmsprop."""
    weight_decay: Penalty = 0.0
    """Weight decay of the optimizer."""
    beta2: ShareBelowOne = 0.98
    """Second-moment decay of Adam (0.98 as in SASRec)."""
    row_updates: Literal["auto", "always", "never"] = "auto"
    """Adam for large embedding tables: rows a step does not read are updated later, when next read. "auto": on the CPU,
    for large tables without weight decay. Results differ by rounding. "never" also makes dense gradients."""
    divide_tables: bool = False
    """Divide the rows of item and user tables, and their state in the optimizer, over the processes, for tables larger
    than the memory of one. The run needs a folder that all processes see."""
    warmup_steps: Size = 0
    """Steps over which the learning rate rises from zero."""
    schedule: Literal["constant", "linear"] = "constant"
    """Learning rate after the warm-up: constant, or falling linearly to zero over `epochs`."""
    clip_norm: Positive | None = None
    """Largest norm of the gradients of the mean loss of a step; larger ones are scaled down to it. PARSRec's program
    clips those of the loss summed over a session: divide its threshold by the mean length of the sessions."""
    averaging: ShareBelowOne | None = None
    """Decay of the mean of the weights over epochs, which is validated and kept: 0 keeps the newest weights, and 0.9
    averages about ten epochs. When not given, 0.9 for SASRec and SSE-PT, and 0 for other models."""
    metric: str | None = None
    """Validation metric that chooses the best epoch; ndcg@10 when not given, or rmse for ratings, or sess_prec@10 for
    parsrec. Next items: hr, ndcg, mrr, recall, precision, map. Whole baskets: also repeat_recall, repeat_own_recall,
    explore_recall, explore_own_recall, and the same with ndcg and hr. Sessions: sess_prec, step_hr, step_ndcg. Ratings:
    rmse, mae, log_loss, own_hr, own_ndcg."""
    validate_every: Count = 1
    """Epochs between validations."""
    validation_users: Count | None = 10_000
    """Number of users to validate on, drawn once from the seed; all when not given."""
    validation_candidates: Count | None = None
    """Number of sampled items to rank each target among; the whole catalogue when not given."""
    validation_exclude_seen: bool | None = None
    """Leave the items of a user's history out of the ranking in validation; when not given, true, but false for
    parsrec, and for baskets of people who repeat themselves. Metrics of sessions keep them."""
    watch_test: bool = False
    """Measure the test part too after each validation, only for the curves: it never chooses anything."""
    patience: Count | None = 20
    """Number of validations without a better metric after which training stops; it never stops early when not given."""
    save_every_steps: Count | None = None
    """Steps between saves of the state for resuming, within an epoch; none when not given."""
    save_every: Count = 1
    """Epochs between saves of the state and of the best weights; the last epoch and Ctrl-C always save."""
    keep_every: Count | None = None
    """Epochs between checkpoints to keep for later evaluation (`segue.load(run, epoch=10)`); none when not given."""
    precision: Literal["no", "bf16"] = "no"
    """Precision of the forward pass: "bf16" for bfloat16, if the device supports it."""
    cpu: bool = False
    """Stay on the CPU even if there is a GPU."""
    seed: Seed = 0
    """Seed of weights, batches, negatives and dropout."""
    trackers: tuple[str, ...] = ()
    """Experiment trackers to log to: tensorboard, wandb, mlflow, trackio, …; their packages must be installed."""
    tracker_project: Word = "segue"
    """Name of the project (wandb, trackio) or experiment (mlflow) in the trackers."""
    tracker_run: Word | None = None
    """Name of the run in the trackers; that of its folder when not given."""

    def check(self) -> None:
        """Raise a ConfigError if the optimizer lacks what another option asks for."""
        adam = self.optimizer in ("adam", "adamw")
        if self.row_updates == "always" and not adam:
            raise ConfigError(
                f"row_updates='always' is a way of Adam: expected optimizer='adam', not {self.optimizer}."
            )
        if self.momentum and self.optimizer not in ("sgd", "rmsprop"):
            raise ConfigError(f"momentum={self.momentum} goes with sgd and rmsprop, not with {self.optimizer}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain data."""
        return {**super().to_dict(), "trackers": list(self.trackers)}


MAY_CHANGE_ON_RESUME = frozenset(
    {
        "epochs",
        "patience",
        "trackers",
        "tracker_project",
        "tracker_run",
        "save_every_steps",
        "save_every",
        "keep_every",
        "cpu",
        "watch_test",
        "row_updates",
        "divide_tables",
    }
)
"""Options that may change when a run is resumed."""

FORMERLY: Mapping[str, Any] = {
    "averaging": 0.0,
    "momentum": 0.0,
    "divide_tables": False,
    "start_optimizer": "new",
}
"""Values to assume for options missing from older runs."""
