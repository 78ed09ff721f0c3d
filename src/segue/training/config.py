"""How a model is fitted: one documented, frozen set of options for every trainable model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from segue.errors import ConfigError


@dataclass(frozen=True)
class Training:
    """Options of `segue.fit`.

    Examples
    --------
    >>> Training(epochs=20, batch_size=64).batch_size
    64
    """

    epochs: int = 200
    """Passes over the training examples at most; early stopping usually ends sooner."""
    batch_size: int | None = None
    """Average number of examples (windows of histories, for SASRec) per step; batches hold examples of like length and
    about the same number of targets. When not given, what suits the model's examples: for SASRec and SSE-PT as many
    as have 3·√n targets, with n targets in all; for other models 128."""
    learning_rate: float = 1e-3
    """Step size after the warm-up."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Adam, or AdamW with decoupled weight decay."""
    weight_decay: float = 0.0
    """Weight decay of the optimizer."""
    beta2: float = 0.98
    """Second-moment decay of Adam (0.98 as in SASRec)."""
    row_updates: Literal["auto", "always", "never"] = "auto"
    """Whether the optimizer moves only those rows of a table that a step reads, and makes up for the others when they
    are next read: "auto" on the CPU, where the table is large and nothing decays. The results differ by rounding, and a
    little where gradients are as small as Adam's eps. "never" makes a gradient of every whole table as well."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from zero."""
    schedule: Literal["constant", "linear"] = "constant"
    """What becomes of the learning rate after the warm-up: it stays, or falls to zero in a line over `epochs`."""
    clip_norm: float | None = None
    """Gradients are scaled down to this norm when they exceed it."""
    averaging: float | None = None
    """What is validated, kept and handed over is a mean of the weights over the latest epochs; this share of it stays
    when an epoch is added (0.9: some ten epochs; after n epochs at most n / (n + 9)). 0: the newest weights. When not
    given, 0.9 for SASRec and SSE-PT, and 0 for other models."""
    metric: str | None = None
    """Validation metric that chooses the best epoch. When not given ndcg@10; for parsrec on sessions sess_prec@10; for
    models of ratings rmse. Of the next items: hr, ndcg, mrr, recall, precision, map. Of whole sessions, with the
    split last-session-out: sess_prec, step_hr, step_ndcg. Of predicted ratings: rmse, mae and log_loss (lower is
    better), own_hr and own_ndcg."""
    validate_every: int = 1
    """Epochs between validations."""
    validation_users: int | None = 10_000
    """Validate on this many users, drawn once from the seed; all when not given."""
    validation_candidates: int | None = None
    """Rank each target among this many sampled items instead of the whole catalogue."""
    validation_exclude_seen: bool | None = None
    """Leave the items of a user's history out of the ranking in validation; set it to false if users take items again.
    When not given true, for parsrec false. Metrics of sessions never leave them out."""
    watch_test: bool = False
    """Measure the test part after each validation as well, for the curves alone: it never chooses anything."""
    patience: int | None = 20
    """Stop after this many validations without a better metric; never when not given."""
    save_every_steps: int | None = None
    """Save the state for resuming also inside an epoch, every so many steps."""
    save_every: int = 1
    """Epochs between saves of the state for resuming and of the best weights, for large models; the last epoch and
    Ctrl-C always save."""
    keep_every: int | None = None
    """Keep the weights of every so many epochs, to evaluate them later (`segue.load(run, epoch=10)`); none when not
    given."""
    precision: Literal["no", "bf16"] = "no"
    """"bf16" runs the forward pass in bfloat16 where the device likes it."""
    cpu: bool = False
    """Stay on the CPU even where there is a GPU."""
    seed: int = 0
    """Seed of weights, batches, negatives and dropout."""
    trackers: tuple[str, ...] = ()
    """Experiment trackers to log to: tensorboard, wandb, mlflow, trackio, …; their packages must be installed."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "validate_every", "save_every", "keep_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value}: expected 1 or more.")
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate={self.learning_rate}: expected a number above 0.")
        if self.averaging is not None and not 0 <= self.averaging < 1:
            raise ConfigError(f"averaging={self.averaging}: expected a share from 0 up to, not including, 1.")
        if self.row_updates not in ("auto", "always", "never"):
            raise ConfigError(f"row_updates={self.row_updates!r}: expected auto, always or never.")
        if self.schedule not in ("constant", "linear"):
            raise ConfigError(f"schedule={self.schedule!r}: expected constant or linear.")

    def to_dict(self) -> dict[str, Any]:
        """The options as plain data."""
        return {**asdict(self), "trackers": list(self.trackers)}


MAY_CHANGE_ON_RESUME = frozenset(
    {
        "epochs",
        "patience",
        "trackers",
        "save_every_steps",
        "save_every",
        "keep_every",
        "cpu",
        "watch_test",
        "row_updates",
    }
)
"""Options that a resumed run may set anew without becoming another run."""

FORMERLY: Mapping[str, Any] = {"averaging": 0.0}
"""What options were that older runs do not name."""
