"""One config object per component; units and ranges stand beside each field.

Built on pydantic dataclasses: strict types, unknown keys refused, all problems reported at once. ``ConfigError`` is
raised at the file boundary (``neuroexapt.config.files``); constructing one of these in Python raises pydantic's own
``ValidationError``, a ``ValueError`` that names every field.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid", strict=True)

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]  # what every generator takes
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class DataConfig:
    """Which images, and how they are split."""

    source: str = "digits"  # "digits", or a Parquet file or folder, or a folder with one sub-folder per class
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15  # of what is not test; decides everything
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2  # only where the source brings no test split
    limit: PositiveInt | None = None  # use at most this many images for training and validation together


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class AugmentConfig:
    """How training images are varied; validation and test images never are."""

    flip: Literal["none", "random", "alternating"] = "none"  # left-right; alternating: every second time, surely
    crop_padding: NonNegativeInt = 0  # pixels by which an image is shifted at most, either way; edges are mirrored


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class ModelConfig:
    """The seed network."""

    source: str = (
        "resnet"  # "resnet", "convnet", "mlp", or "package.module:function" (called with in_channels, num_classes)
    )
    options: dict[str, Any] = Field(default_factory=dict)  # keyword arguments of the built-in or the function


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class TrainConfig:
    """How the weights are trained."""

    epochs: PositiveInt = 40
    epoch_samples: PositiveInt | None = None  # an epoch is so many images, fresh ones until all were seen; null: all
    batch_size: PositiveInt = 32  # samples per optimizer update
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: PositiveFloat = 3e-3  # peak, after warm-up
    weight_decay: NonNegativeFloat = 0.01  # not applied to biases and norm parameters
    momentum: Fraction = 0.9  # of SGD
    nesterov: bool = False  # Nesterov's momentum, of SGD
    warmup_epochs: NonNegativeFloat = 1.0
    schedule: Literal["cosine", "linear", "constant", "staged"] = "cosine"  # after warm-up; staged: see optimization
    final_fraction: Fraction = 0.01  # of the peak rate, where warm-up begins and where all but "constant" end
    clip_norm: PositiveFloat | None = 5.0  # largest gradient norm, or null for none
    label_smoothing: Fraction = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"  # of forward and backward; weights are float32 in both
    channels_last: bool = False  # images lie in memory pixel by pixel, which convolutions on CPU prefer
    checkpoint_every: PositiveInt = 1  # epochs; a checkpoint waits for a running trial to end
    max_bad_batches: PositiveInt = 3  # non-finite batches in a row before the run stops
    max_seconds: PositiveFloat | None = None  # wall time after which the run stops, saved, at the end of an epoch

    def __post_init__(self) -> None:
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"found warmup_epochs {self.warmup_epochs:g} with epochs {self.epochs}, needed at most as many"
            )


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class MorphogenesisConfig:
    """When, where and how much the network changes, what that may cost, and when a change stays.

    Epochs are counted in fractions: 0.5 is half way through the first one.
    """

    # what may change
    kinds: Annotated[tuple[str, ...], Field(min_length=1)] = ("Widen", "InsertLayer")  # mutation kinds that are on
    widen_ratio: Annotated[float, Field(gt=1.0, le=4.0)] = 1.5  # new width over old width, per edit
    edits_per_event: PositiveInt = 4  # at most so many edits are tried together, and kept or rolled back together
    # when
    triggers: Annotated[tuple[str, ...], Field(min_length=1)] = ("interval", "plateau")  # the first that fires counts
    first_epoch: NonNegativeFloat = 2.0  # no event before: the stage of base training
    last_epoch: PositiveFloat | None = None  # no event after: the stage of fine-tuning
    interval_epochs: PositiveFloat = 2.0  # trigger "interval": so long after the latest event, seen at epoch ends
    schedule_epochs: tuple[PositiveFloat, ...] = ()  # trigger "schedule": an event at each of these
    plateau_epochs: Annotated[int, Field(ge=3)] = 5  # trigger "plateau": epochs whose validation losses are looked at
    plateau_min_slope: NonNegativeFloat = 0.005  # a fall of less, as a fraction of the loss and per epoch, is none
    need_threshold: Fraction = 0.0  # least need of a layer, by percentile, for an edit there; "evidence" fires on it
    cooldown_epochs: NonNegativeFloat = 1.0  # no event for so long after one has ended, times the trigger's strictness
    adapt_rate: NonNegativeFloat = 0.3  # how fast a trigger's strictness follows its success; 0: it stays 1
    target_success: Fraction = 0.5  # share of events kept at which strictness stays as it is
    # where
    policy: str = "uniform"  # one of morphogenesis.POLICIES
    sequence: tuple[str, ...] = ()  # policy "scheduled": mutation kinds in turn
    experience: str | None = None  # policy "thompson": JSON file with what edits gained in earlier runs
    score: str = "residual"  # growth score of every candidate, one of analysis.scores.SCORES
    score_fraction: Fraction = 0.02  # FLOPs that scoring may take, of those of training since the last time
    score_bytes: PositiveInt = 16 << 20  # rows and workspace of one candidate's score
    evidence_samples: Annotated[int, Field(ge=16)] = 256  # training samples that a score or a need may read
    # whether it stays
    trial_epochs: NonNegativeFloat = 2.0  # longest trial, and control beside it; 0: exact edits are applied untried
    min_trial_steps: PositiveInt = 32  # an event waits until overhead_fraction pays for so many
    min_gain: Fraction = 0.0  # least fall of the validation loss, as a fraction, after cost and risk
    cost_weight: NonNegativeFloat = 0.005  # fraction of the loss that a network e times as large has to be worth
    risk_aversion: Annotated[float, Field(ge=-3.0, le=3.0)] = (
        1.0  # standard errors taken off a gain before it is judged
    )
    ban_epochs: NonNegativeFloat = 9.0  # a place whose edit was rolled back is left alone; doubles when it fails again
    # what it may cost
    overhead_fraction: Fraction | None = 0.05  # of the run's training FLOPs, for all that decides; null: no limit
    max_events: NonNegativeInt = 8  # events that end with an edit kept; 0 turns morphogenesis off
    max_parameter_ratio: Annotated[float, Field(ge=1.0)] = 8.0  # parameters at the end over those of the seed network
    max_flop_ratio: Annotated[float, Field(ge=1.0)] = 8.0  # forward FLOPs at the end over those of the seed network
    max_bytes: PositiveInt | None = None  # of one training step, everything together, as predicted before an edit
    max_seconds: PositiveFloat | None = None  # wall time of the run after which no event begins

    def __post_init__(self) -> None:
        if self.last_epoch is not None and self.last_epoch < self.first_epoch:
            raise ValueError(
                f"found last_epoch {self.last_epoch:g} before first_epoch {self.first_epoch:g}, needed it at or after "
                "(max_events 0 turns growth off)"
            )
        if "schedule" in self.triggers and not self.schedule_epochs:
            raise ValueError("found the trigger 'schedule' without schedule_epochs, needed positions such as [1, 2.5]")
        if self.policy == "scheduled" and not self.sequence:
            raise ValueError("found the policy 'scheduled' without sequence, needed kinds such as [Widen, InsertLayer]")


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class EvidenceConfig:
    """How much is read to see where a network is short of capacity, and what that may cost."""

    num_samples: Annotated[int, Field(ge=16)] = 256  # samples that every layer is read from, as far as bytes allow
    max_bytes_per_layer: PositiveInt = 16 << 20  # for the rows of one layer and the workspace of an estimator
    estimators: tuple[str, ...] | None = None  # which are run, or null for all


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class GrowConfig:
    """Everything that ``neuroexapt grow`` reads."""

    seed: Seed = 0
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", "mps"
    threads: PositiveInt | None = None  # torch's own on CPU, at most its cores; null: torch decides; set by the command
    data: DataConfig = Field(default_factory=DataConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    morphogenesis: MorphogenesisConfig = Field(default_factory=MorphogenesisConfig)
    evidence: EvidenceConfig = Field(default_factory=EvidenceConfig)

    def __post_init__(self) -> None:
        last = self.morphogenesis.last_epoch
        if self.train.schedule == "staged" and (last is None or last >= self.train.epochs):
            raise ValueError(
                f"found morphogenesis.last_epoch {last} with train.schedule staged, needed it before the last of "
                f"{self.train.epochs} epochs: there the rate begins to fall"
            )
